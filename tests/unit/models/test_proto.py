"""The generated protobuf modules belong to the .proto files beside them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from models.proto import caffe_pb2, tensorflow_pb2
from tests.support import ROOT
from worker.engine.proto import netdef_pb2


@pytest.mark.parametrize("module", [caffe_pb2, tensorflow_pb2, netdef_pb2])
def test_a_module_is_made_from_the_file_beside_it(module: Any) -> None:
    described = module.DESCRIPTOR
    assert ROOT / described.name == Path(module.__file__.replace("_pb2.py", ".proto"))
    messages = re.findall(r"^message (\w+)", (ROOT / described.name).read_text(), re.M)
    assert sorted(described.message_types_by_name) == sorted(messages) != []
