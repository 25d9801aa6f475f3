"""Small NetDefs for tests, as Caffe2 would write them, and the way through our engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

import numpy as np
import torch

from worker.engine.manifest import InputSpec, Manifest, OutputSpec
from worker.engine.netdef import NetPair, check_pair, read_net
from worker.engine.onnx import to_onnx
from worker.engine.passes import single_assignment
from worker.engine.proto import netdef_pb2
from worker.engine.torch_graph import build_graph

#: An operator: type, inputs, outputs, arguments.
Op = Tuple[str, Sequence[str], Sequence[str], Mapping[str, Any]]

_FILLS = {
    np.dtype(np.float32): ("GivenTensorFill", "floats"),
    np.dtype(np.int32): ("GivenTensorIntFill", "ints"),
    np.dtype(np.int64): ("GivenTensorInt64Fill", "ints"),
}


def netdef(operators: Sequence[Op], name: str = "small") -> netdef_pb2.NetDef:
    """A NetDef of `operators`."""
    net = netdef_pb2.NetDef(name=name)
    for kind, inputs, outputs, args in operators:
        operator = net.op.add(type=kind, input=inputs, output=outputs)
        for key, value in args.items():
            set_argument(operator.arg.add(name=key), value)
    return net


def set_argument(argument: netdef_pb2.Argument, value: Any) -> None:
    """Give `argument` the field that Caffe2's own helper chooses for `value`."""
    if isinstance(value, (str, bytes)):
        argument.s = value.encode() if isinstance(value, str) else value
    elif isinstance(value, float):
        argument.f = value
    elif isinstance(value, int):
        argument.i = value
    elif any(isinstance(item, float) for item in value):
        argument.floats.extend(value)
    else:
        argument.ints.extend(value)


def fills(parameters: Mapping[str, np.ndarray], name: str = "small_init") -> netdef_pb2.NetDef:
    """An init net that makes `parameters`."""
    net = netdef_pb2.NetDef(name=name)
    for blob, values in parameters.items():
        kind, field = _FILLS[values.dtype]
        operator = net.op.add(type=kind, output=[blob])
        operator.arg.add(name="shape").ints.extend(values.shape)
        getattr(operator.arg.add(name="values"), field).extend(values.ravel().tolist())
    return net


def checked(
    operators: Sequence[Op], parameters: Optional[Mapping[str, np.ndarray]] = None, outputs: Sequence[str] = ("y",)
) -> NetPair:
    """The net that reads ``x`` and makes `outputs`, parsed and checked."""
    return check_pair(netdef(operators), fills(parameters or {}), "x", tuple(outputs))


def evaluate(
    operators: Sequence[Op],
    x: np.ndarray,
    parameters: Optional[Mapping[str, np.ndarray]] = None,
    outputs: Sequence[str] = ("y",),
) -> Dict[str, np.ndarray]:
    """Run the net on `x` and return its output blobs."""
    module = build_graph(single_assignment(checked(operators, parameters, outputs)))
    with torch.inference_mode():
        found = module(torch.from_numpy(x))
    return {blob: tensor.numpy() for blob, tensor in zip(outputs, found)}


def evaluate_onnx(
    operators: Sequence[Op],
    x: np.ndarray,
    parameters: Optional[Mapping[str, np.ndarray]] = None,
    outputs: Sequence[str] = ("y",),
) -> Dict[str, np.ndarray]:
    """The same of the net as an ONNX model, run by OpenVINO."""
    import openvino

    model = to_onnx(single_assignment(checked(operators, parameters, outputs)))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = x.shape[1]  # tests have more channels than images
    core = openvino.Core()
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    request = core.compile_model(core.read_model(model.SerializeToString()), "CPU", hints).create_infer_request()
    return {blob: np.array(values) for blob, values in zip(outputs, request.infer([x]).values())}


def pose_parameters(seed: int = 0) -> Dict[str, np.ndarray]:
    """Parameters of :func:`pose_operators`."""
    generator = np.random.default_rng(seed)
    return {
        "w": (generator.standard_normal((57, 3, 8, 8)) / 100).astype(np.float32),
        "b": generator.standard_normal(57).astype(np.float32),
    }


def pose_operators() -> Sequence[Op]:
    """The smallest net of the pose contract: one convolution of stride 8 makes 19 heatmaps and 38 PAFs."""
    return [("Conv", ["x", "w", "b"], ["y"], {"kernel": 8, "stride": 8})]


def write_pose_net(
    directory: Path,
    operators: Optional[Sequence[Op]] = None,
    parameters: Optional[Mapping[str, np.ndarray]] = None,
    **changes: Any,
) -> Path:
    """Write a pose net's three files; `changes` go into its InputSpec. Returns `directory`."""
    from worker.engine.manifest import sha256_of

    directory.mkdir(parents=True, exist_ok=True)
    predict = netdef(pose_operators() if operators is None else operators)
    init = fills(pose_parameters() if parameters is None else parameters)
    (directory / "predict_net.pb").write_bytes(predict.SerializeToString())
    (directory / "init_net.pb").write_bytes(init.SerializeToString())
    read_net(directory / "predict_net.pb")
    spec = {"channel_order": "BGR", "mean": (0.0, 0.0, 0.0), "scale": 1.0, "stride": 8, "pad_value": 0, **changes}
    manifest = Manifest(
        name="small",
        licence="none",
        source="a test",
        predict_sha256=sha256_of(directory / "predict_net.pb"),
        sha256=sha256_of(directory / "init_net.pb"),
        input=InputSpec(blob="x", **spec),
        heatmaps=OutputSpec(blob="y", start=0, stop=19),
        pafs=OutputSpec(blob="y", start=19, stop=57),
        skeleton="COCO-18",
        directory=directory,
    )
    (directory / "model.json").write_text(manifest.to_json())
    return directory
