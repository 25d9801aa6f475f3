"""A Caffe2 NetDef pair from anywhere: checked, and written in this project's order where the architecture is known."""

from __future__ import annotations

from pathlib import Path
from typing import Tuple

from models.catalog import Entry
from models.convert.weights import build_net
from models.netpair import NetPairBuilder
from worker.engine.manifest import INIT_NET, PREDICT_NET
from worker.engine.netdef import check_pair, read_net
from worker.errors import ModelError

#: Other names that the two files go by.
_NAMES: Tuple[Tuple[str, str], ...] = ((PREDICT_NET, INIT_NET), ("model.pb", "model_init.pb"), ("net.pb", "init.pb"))


def convert(path: Path, entry: Entry) -> NetPairBuilder:
    """Read the pair in the folder `path`, or of which `path` is the predict net; raises ModelError."""
    predict_path, init_path = _pair(path)
    predict, init = read_net(predict_path), read_net(init_path)
    checked = check_pair(predict, init, entry.input.blob, entry.output_blobs)
    if entry.architecture:
        return build_net(entry, checked.parameters, str(init_path))
    builder = NetPairBuilder(entry.name, entry.input.blob)
    builder.predict.CopyFrom(predict)
    builder.predict.name = entry.name
    builder.init.CopyFrom(init)
    return builder


def _pair(path: Path) -> Tuple[Path, Path]:
    for predict, init in _NAMES:
        if path.is_dir() and (path / predict).is_file() and (path / init).is_file():
            return path / predict, path / init
        if path.name == predict and (path.parent / init).is_file():
            return path, path.parent / init
    raise ModelError(f"{path} has no {PREDICT_NET} with an {INIT_NET} beside it; give the folder that holds both.")
