"""A net as an ONNX model, so that other runtimes can be measured with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List

from worker.engine.manifest import read_manifest
from worker.engine.netdef import NetPair, Operator, read_pair
from worker.engine.passes import single_assignment
from worker.engine.window import conv_window, pool_window

#: Version of ONNX's operators, which every runtime of the last years has.
_OPSET = 13


def to_onnx(net: NetPair) -> Any:
    """The ModelProto of `net`: input (n, 3, h, w) float32, outputs as the net's; raises KeyError on other operators."""
    from onnx import TensorProto, helper, numpy_helper

    net = single_assignment(net)
    nodes = [
        helper.make_node(operator.type, list(operator.inputs), [operator.outputs[0]], **_attributes(operator, net))
        for operator in net.operators
    ]
    sides = ["n", "c", "h", "w"]
    data = helper.make_tensor_value_info(net.input_blob, TensorProto.FLOAT, ["n", 3, "h", "w"])
    outputs = [helper.make_tensor_value_info(blob, TensorProto.FLOAT, sides) for blob in net.output_blobs]
    parameters = [numpy_helper.from_array(values, blob) for blob, values in net.parameters.items()]
    graph = helper.make_graph(nodes, net.name, [data], outputs, parameters)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)


def _attributes(operator: Operator, net: NetPair) -> Dict[str, Any]:
    args = operator.args
    if operator.type == "Conv":
        shape = net.parameters[operator.inputs[1]].shape
        window = conv_window(args, (shape[2], shape[3]))
        return {**_window(window), "dilations": list(window.dilation), "group": int(args.get("group", 1))}
    if operator.type == "MaxPool":
        return _window(pool_window(args))
    return {"Relu": {}, "Concat": {"axis": int(args.get("axis", 1))}}[operator.type]


def _window(window: Any) -> Dict[str, List[int]]:
    return {"kernel_shape": list(window.kernel), "strides": list(window.stride), "pads": list(window.pads)}


def main(directory: str, target: str) -> None:
    """Write the net in `directory` as ONNX to `target`."""
    import onnx

    onnx.save(to_onnx(read_pair(read_manifest(Path(directory)))), target)
