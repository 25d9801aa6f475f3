"""What several tests of the engine share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cases import write_random


@pytest.fixture(scope="session")
def cmu_net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the CMU net with random weights."""
    return write_random("cmu_coco", tmp_path_factory.mktemp("nets") / "cmu_coco")


@pytest.fixture(params=["torch", "openvino"])
def engine(request: pytest.FixtureRequest) -> str:
    """The name of each engine that is installed."""
    pytest.importorskip(request.param)
    return str(request.param)
