"""What several tests of the engine share."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Callable

import pytest

from tests.support.cases import write_random


@pytest.fixture(scope="session")
def random_net(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a net of the catalogue by name, with random weights."""
    return functools.lru_cache(None)(lambda name: write_random(name, tmp_path_factory.mktemp("nets") / name))


@pytest.fixture(params=["torch", "openvino"])
def engine(request: pytest.FixtureRequest) -> str:
    """The name of each engine that is installed."""
    pytest.importorskip(request.param)
    return str(request.param)
