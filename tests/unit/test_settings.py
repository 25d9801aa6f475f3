"""Settings: read once, each error naming the variable, secrets masked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.settings_table import document
from worker.errors import SettingsError
from worker.servers import masked
from worker.settings import Settings, faults, read_settings


def test_defaults_need_no_environment() -> None:
    settings = read_settings({"PATH": "/bin"})
    assert settings == Settings()
    assert settings.model == "mobilenet_thin"


def test_values_are_read_by_their_type() -> None:
    settings = read_settings(
        {
            "POSE_MAX_PIXELS": "1000",
            "POSE_IMAGE_ROOTS": "/a:/b",
            "POSE_WARM_SIZES": "368x496, 184x248",
            "POSE_QUEUE": "",  # an empty variable is an unset one
        }
    )
    assert settings.max_pixels == 1000
    assert settings.image_roots == ("/a", "/b")
    assert settings.warm_sizes == ((368, 496), (184, 248))
    assert settings.queue == "pose"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("POSE_MAX_PIXELS", "many"),  # not a number
        ("POSE_MAX_ATTEMPTS", "0"),  # below the least
        ("POSE_DEVICE", "gpu"),  # no such device
        ("POSE_ENGINE", "tensorflow"),  # not one of the choices
        ("POSE_WARM_SIZES", "368"),  # a height without a width
        ("POSE_HARD_TIME_LIMIT_S", "30"),  # below the soft limit
        ("POSE_QUEUE", "a b"),  # would not survive in a URL or a command line
        ("POSE_MAX_PIXEL", "1"),  # misspelt: silence would leave a limit unset
    ],
)
def test_a_wrong_value_names_its_variable_and_value(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings({variable: value})
    sentence = str(caught.value)
    assert sentence.startswith(variable)
    assert "\n" not in sentence
    assert variable == "POSE_MAX_PIXEL" or value in sentence


def test_what_was_removed_says_why_and_what_to_use_instead() -> None:
    with pytest.raises(SettingsError, match=r"^POSE_COMPILE=inductor was removed: no gain .*; set it to graph .*\.$"):
        read_settings({"POSE_COMPILE": "inductor"})
    assert len(faults({"POSE_COMPILE": "inductor"})) == 1
    assert read_settings({"POSE_COMPILE": "graph"}).compile == "graph"
    [sentence] = faults({"POSE_BROKER_URL": "redis://a", "POSE_SIGNING": "keys/worker"})
    assert re.match(r"POSE_SIGNING was removed: signed .*; unset it, and .*TLS.* Redis' ACL\.$", sentence)


def test_passwords_are_masked_in_repr() -> None:
    settings = read_settings(
        {"POSE_BROKER_URL": "redis://user:s3cret@host:6379/0", "POSE_OVERLAY_STORE": "redis://:s3cret@h"}
    )
    assert "s3cret" not in repr(settings)
    assert "redis://user:***@host:6379/0" in repr(settings)


def test_masking_leaves_urls_without_a_password_alone() -> None:
    assert masked("redis://host:6379/0") == "redis://host:6379/0"
    assert masked("file:///a@b") == "file:///a@b"


def test_results_and_overlays_fall_back_to_the_broker() -> None:
    settings = read_settings({"POSE_BROKER_URL": "redis://a"})
    assert (settings.results_url, settings.overlays_url) == ("redis://a", "redis://a")
    settings = read_settings({"POSE_BROKER_URL": "redis://a", "POSE_RESULT_BACKEND": "redis://b"})
    assert settings.overlays_url == "redis://b"


def test_the_document_shows_every_setting() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == document(), "run: python -m tests.support.settings_table > docs/settings.md"


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("redis://worker:s3cret@host/0\n")
    settings = read_settings({"POSE_BROKER_URL_FILE": str(tmp_path / "url")})
    assert settings.broker_url == "redis://worker:s3cret@host/0"
    with pytest.raises(SettingsError, match="POSE_BROKER_URL_FILE is '/none', which cannot be read: No such file"):
        read_settings({"POSE_BROKER_URL_FILE": "/none"})
    with pytest.raises(SettingsError, match="POSE_MAX_FILE is not a setting"):
        read_settings({"POSE_MAX_FILE": "/none"})
