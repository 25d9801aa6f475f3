"""A pair of NetDefs being built: predict_net computes, init_net holds the parameters."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any, Dict, Sequence

import numpy as np

from worker.engine.manifest import INIT_NET, MANIFEST, PREDICT_NET, Manifest
from worker.engine.net import check_outputs, probe_side
from worker.engine.netdef import check_pair
from worker.engine.proto import netdef_pb2
from worker.engine.shapes import check_shapes
from worker.files import replacing

#: Tag of Argument.floats (field 5) as one length-delimited run, which every parser takes for single floats too.
_PACKED_FLOATS = bytes([5 << 3 | 2])


class NetPairBuilder:
    """Adds operators and parameters in order, in Caffe2's own words."""

    def __init__(self, name: str, input_blob: str) -> None:
        self.predict = netdef_pb2.NetDef(name=name)
        self.init = netdef_pb2.NetDef(name=f"{name}_init")
        self.predict.external_input.append(input_blob)

    def add(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **args: Any) -> None:
        """Append an operator; an argument is an int, a float, a string or a sequence of ints."""
        operator = self.predict.op.add(type=kind, input=inputs, output=outputs)
        for name, value in args.items():
            _set(operator.arg.add(name=name), value)

    def parameter(self, blob: str, values: np.ndarray) -> str:
        """Append a float32 parameter blob and return its name."""
        operator = self.init.op.add(type="GivenTensorFill", output=[blob])
        operator.arg.add(name="shape").ints.extend(int(size) for size in values.shape)
        data = np.ascontiguousarray(values, "<f4").tobytes()
        argument = operator.arg.add()
        # In its encoded form, as one packed run: setting millions of floats one by one takes seconds.
        argument.ParseFromString(_PACKED_FLOATS + _varint(len(data)) + data)
        argument.name = "values"
        self.predict.external_input.append(blob)
        return blob

    def check(self, manifest: Manifest) -> None:
        """Check that the net can be executed, and makes the maps that `manifest` promises.

        Raises:
            ModelError: an operator is not supported, shapes do not fit together, or an output has others.
        """
        pair = check_pair(self.predict, self.init, manifest.input.blob, manifest.output_blobs)
        side = probe_side(manifest)
        shapes = check_shapes(pair, side, side)
        if shapes:  # none is said of a net that admits one input size only
            check_outputs(manifest, pair.name, shapes)

    def write(self, directory: Path, manifest: Manifest) -> Manifest:
        """Write both nets and model.json into `directory`, which appears whole or not at all.

        Args:
            manifest: what model.json says, except for the checksums, which are filled in.

        Raises:
            OSError: the disk is full, or something else than a directory is in the way.
        """
        directory = Path(directory)
        directory.parent.mkdir(parents=True, exist_ok=True)
        files: Dict[str, bytes] = {
            PREDICT_NET: self.predict.SerializeToString(deterministic=True),
            INIT_NET: self.init.SerializeToString(deterministic=True),
        }
        checksums = {
            "predict_sha256": hashlib.sha256(files[PREDICT_NET]).hexdigest(),
            "sha256": hashlib.sha256(files[INIT_NET]).hexdigest(),
        }
        manifest = manifest.model_copy(update={**checksums, "directory": directory})
        files[MANIFEST] = manifest.to_json().encode()
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}-") as folder:
            fresh = Path(folder) / "net"
            for name, data in files.items():
                with replacing(fresh / name, durable=True) as file:
                    file.write(data)
            # A directory cannot replace a full one in one step; an old net is moved aside first.
            if directory.exists():
                if not directory.is_dir():
                    raise NotADirectoryError(f"{directory} is no directory")
                shutil.move(directory, Path(folder) / "old")
            fresh.replace(directory)
        return manifest


def _set(argument: netdef_pb2.Argument, value: Any) -> None:
    if isinstance(value, str):
        argument.s = value.encode()
    elif isinstance(value, float):
        argument.f = value
    elif isinstance(value, int):
        argument.i = value
    else:
        argument.ints.extend(int(item) for item in value)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
