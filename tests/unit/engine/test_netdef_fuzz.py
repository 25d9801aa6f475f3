"""The NetDef reader before files of any kind: each is read, or refused as ModelError, and takes little memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any, Iterable, List

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.nets import fills, netdef, pose_operators, pose_parameters
from worker.engine.fillers import FILLERS
from worker.engine.netdef import OPERATORS, check_pair, read_net
from worker.engine.passes import single_assignment
from worker.engine.proto import netdef_pb2
from worker.engine.torch_graph import build_graph
from worker.errors import ModelError

_FUZZ = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
_PREDICT = netdef(pose_operators()).SerializeToString(deterministic=True)
_INIT = fills(pose_parameters()).SerializeToString(deterministic=True)
#: Bytes that a net of a few thousand bytes may take while it is read.
_MEMORY = 64 << 20

_PIECES = st.lists(st.tuples(st.floats(0, 1), st.sampled_from("owi"), st.binary(min_size=1, max_size=12)), max_size=8)


def _damaged(data: bytes, pieces: Iterable[Any]) -> bytes:
    """`data` with pieces written over it, put into it, or cut out of it."""
    for share, kind, piece in pieces:
        at = int(share * len(data))
        kept = {"o": at + len(piece), "i": at, "w": at + 3 * len(piece)}[kind]
        data = data[:at] + (b"" if kind == "w" else piece) + data[kept:]
    return data


def _read(path: Path, predict: bytes, init: bytes) -> str:
    """What becomes of two files: ``built`` or ``refused``; any other error fails the test."""
    tracemalloc.start()
    try:
        nets = []
        for data in (predict, init):
            path.write_bytes(data)
            nets.append(read_net(path))
        pair = check_pair(nets[0], nets[1], "x", ("y",))
        build_graph(single_assignment(pair))
    except ModelError as exc:
        sentence, end = str(exc), "refused"
    else:
        sentence, end = "", "built"
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert most < _MEMORY
    assert len(sentence) < 3000
    return end


def test_the_whole_net_is_read(tmp_path: Path) -> None:
    """Else the tests below would show nothing."""
    assert _read(tmp_path / "net", _PREDICT, _INIT) == "built"


@_FUZZ
@given(data=st.one_of(st.binary(max_size=300), _PIECES.map(lambda pieces: _damaged(_PREDICT, pieces))))
def test_whatever_bytes_a_predict_net_has(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    _read(tmp_path_factory.getbasetemp() / "predict", data, _INIT)


@_FUZZ
@given(data=st.one_of(st.binary(max_size=300), _PIECES.map(lambda pieces: _damaged(_INIT, pieces))))
def test_whatever_bytes_an_init_net_has(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    _read(tmp_path_factory.getbasetemp() / "init", _PREDICT, data)


_NAMES = st.one_of(st.sampled_from(["x", "y", "w", "a", "b", ""]), st.text(max_size=5))
_NUMBERS = st.one_of(st.integers(-3, 8), st.sampled_from([2**31, 2**62, -(2**63), 2**63 - 1]))
_ARGUMENTS = sorted({name for allowed, _, _ in OPERATORS.values() for name in allowed} | {"shape", "values", "value"})


@st.composite
def _operator(draw: Any, kinds: List[str]) -> netdef_pb2.OperatorDef:
    operator = netdef_pb2.OperatorDef(type=draw(st.one_of(st.sampled_from(kinds), st.text(max_size=4))))
    operator.input.extend(draw(st.lists(_NAMES, max_size=3)))
    operator.output.extend(draw(st.lists(_NAMES, max_size=2)))
    for name in draw(st.lists(st.one_of(st.sampled_from(_ARGUMENTS), st.text(max_size=3)), max_size=4)):
        argument = operator.arg.add(name=name)
        field = draw(st.sampled_from(["i", "f", "s", "ints", "floats", "strings", "none"]))
        if field == "i":
            argument.i = draw(_NUMBERS)
        elif field == "f":
            argument.f = draw(st.floats(width=32))
        elif field == "s":
            argument.s = draw(st.binary(max_size=5))
        elif field == "ints":
            argument.ints.extend(draw(st.lists(_NUMBERS, max_size=5)))
        elif field == "floats":
            argument.floats.extend(draw(st.lists(st.floats(width=32), max_size=5)))
        elif field == "strings":
            argument.strings.extend(draw(st.lists(st.binary(max_size=4), max_size=3)))
    return operator


@_FUZZ
@given(
    operators=st.lists(_operator(sorted(OPERATORS)), min_size=1, max_size=4),
    fillers=st.lists(_operator(sorted(FILLERS)), min_size=1, max_size=3),
)
def test_whatever_a_well_formed_net_says(
    tmp_path_factory: pytest.TempPathFactory, operators: List[Any], fillers: List[Any]
) -> None:
    predict, init = netdef_pb2.NetDef(op=operators), netdef_pb2.NetDef(op=fillers)
    files = predict.SerializeToString(deterministic=True), init.SerializeToString(deterministic=True)
    _read(tmp_path_factory.getbasetemp() / "said", *files)


@pytest.mark.parametrize("kind", sorted(FILLERS))
def test_a_shape_of_any_size_does_not_fill_memory(tmp_path: Path, kind: str) -> None:
    for shape in ([2**40], [2**31, 2**31, 2**31], [-1], [0, 2**62], [2**62, 4]):
        net = netdef([(kind, (), ("w",), {"shape": shape, "values": [1.0]})])
        assert _read(tmp_path / "net", _PREDICT, net.SerializeToString()) == "refused"
