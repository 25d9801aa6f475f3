"""Signing keys: made by a command, checked at the start, and what one of them has signed and another has not."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from celery.exceptions import SecurityError

from tests.support import ROOT, clean_environ
from tests.support.documents import examples
from worker.cli.keygen import make_keys
from worker.errors import InvalidRequest, SettingsError
from worker.jobs.ledger import Ledger, Message
from worker.notify.pending import Outbox
from worker.process.preflight import wrong
from worker.signing import Signer, check


def test_the_documented_command_makes_a_folder_for_each(tmp_path: Path) -> None:
    [command] = examples("docs/signing.md", "sh")
    arguments = [sys.executable, *command.split()[1:]]
    environment = {**clean_environ(), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["keys/worker", "keys/shop"]
    for name in ("worker", "shop"):
        check(tmp_path / "keys" / name)
        assert stat.S_IMODE((tmp_path / "keys" / name / "key.pem").stat().st_mode) == 0o600
    for one, other in (("worker", "shop"), ("shop", "worker")):
        sealed = Signer(str(tmp_path / "keys" / one)).seal({"a": 1})
        assert Signer(str(tmp_path / "keys" / other)).unseal(sealed) == {"a": 1}


def test_a_name_that_is_added_is_trusted_and_the_others_keep_their_keys(tmp_path: Path) -> None:
    make_keys(tmp_path, ("worker",))
    before = (tmp_path / "worker/key.pem").read_bytes()
    assert make_keys(tmp_path, ("worker", "late")) == ("late",)
    assert (tmp_path / "worker/key.pem").read_bytes() == before
    assert {path.stem for path in (tmp_path / "worker/trusted").iterdir()} == {"worker", "late"}


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a b"])
def test_a_name_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="no name"):
        make_keys(tmp_path / "keys", (name,))


def test_a_stranger_and_a_signature_that_is_over_are_not_trusted(tmp_path: Path, signing: Path) -> None:
    make_keys(tmp_path, ("stranger",))
    with pytest.raises(SecurityError):
        Signer(str(signing / "worker")).unseal(Signer(str(tmp_path / "stranger")).seal("x"))
    for nonsense in ("", "AAAA", "%", json.dumps("x"), None, 7):
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the decoders say
            Signer(str(signing / "worker")).unseal(nonsense)


def test_what_is_missing_is_told_before_the_start(tmp_path: Path, signing: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    told = wrong({"POSE_BROKER_URL": "redis://x", "POSE_SIGNING": str(empty), "POSE_IMAGE_ROOTS": str(tmp_path)})
    assert any(
        "is no folder of a signing key" in sentence and "python -m worker keygen" in sentence for sentence in told
    )
    (empty / "key.pem").write_text("no key")
    (empty / "certificate.pem").write_bytes((signing / "worker/certificate.pem").read_bytes())
    with pytest.raises(SettingsError, match="Invalid private key"):
        check(str(empty))


def test_a_record_and_whom_to_tell_count_only_when_signed(redis_client: redis.Redis, signing: Path) -> None:
    signs = Signer(str(signing / "worker"))
    message = Message("pose", kwargs={"image": "/a.jpg"})
    ledger, stranger = Ledger(redis_client, "sign", signer=signs), Ledger(redis_client, "sign")
    ledger.record("ours", message)
    stranger.record("theirs", message)
    assert ledger.loads(ledger.show("ours")["message"]) == message
    with pytest.raises(InvalidRequest, match="not signed"):
        ledger.loads(ledger.show("theirs")["message"])

    outbox, another = Outbox(redis_client, "sign", signs), Outbox(redis_client, "sign")
    outbox.add("ours", None, {"task": "shop.posed", "queue": "shop"})
    another.add("theirs", None, {"task": "shop.posed", "queue": "shop"})
    for job_id in ("ours", "theirs"):
        outbox.ring(job_id)
    told = {call.job_id: call.callback for call in outbox.claim(9, 1)}
    assert told == {"ours": {"task": "shop.posed", "queue": "shop"}, "theirs": None}
