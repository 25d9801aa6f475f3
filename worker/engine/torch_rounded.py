"""What a net computes in half precision, on a CPU that has no instructions for it: for its accuracy, not for its speed.

Hardware keeps sums in fp32 and rounds what it writes. So does this: everything is computed in fp32, and each blob and
each parameter is rounded to the precision.
"""

from __future__ import annotations

import torch
from torch import fx


def rounded_module(module: fx.GraphModule, dtype: torch.dtype) -> fx.GraphModule:
    """A copy of an fp32 module of :func:`worker.engine.torch_graph.build_graph` that computes as one of `dtype` does.

    Its input and outputs are fp32.
    """
    root, graph = torch.nn.Module(), fx.Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    for name, values in module.named_buffers():
        root.register_buffer(name, rounded(values, dtype=dtype), persistent=False)
    for node in list(graph.nodes):
        if node.op in ("placeholder", "call_function"):
            with graph.inserting_after(node):
                made = graph.call_function(rounded, (node,), {"dtype": dtype})
            node.replace_all_uses_with(made)
            made.args = (node,)  # which was replaced as well
    return fx.GraphModule(root, graph).eval()


def rounded(values: torch.Tensor, *, dtype: torch.dtype) -> torch.Tensor:
    """What is left of `values` when they are stored as `dtype`; beyond its range they are infinite."""
    return values.to(dtype).to(values.dtype) if values.is_floating_point() else values
