"""These tests need the genuine Caffe2 runtime: ``make caffe2-test``."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest

from tests.support.caffe_nets import write_by_hand
from tests.support.cases import RANDOM, write_operators, write_random

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: List[pytest.Item]) -> None:
    """Skip all of them where there is no Caffe2."""
    if importlib.util.find_spec("caffe2") is None:
        skip = pytest.mark.skip(reason="no Caffe2 here; run: make caffe2-test")
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(skip)


@pytest.fixture(scope="session")
def net_dir(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """The directory of a net by name: the default one, one of random weights, or one of all operators."""
    made: Dict[str, Path] = {}
    makers: Dict[str, Any] = {
        "operators": write_operators,
        "by_hand": write_by_hand,
        **{name: functools.partial(write_random, name) for name in RANDOM},
    }

    def find(name: str) -> Path:
        if name not in makers:
            directory: Path = request.getfixturevalue("thin_net")
            return directory
        if name not in made:
            made[name] = makers[name](tmp_path_factory.mktemp("nets") / name)
        return made[name]

    return find
