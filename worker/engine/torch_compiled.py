"""A module made faster for input sizes that come again: by CUDA graphs, or by PyTorch's compiler."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Tuple

import torch

from worker.errors import ModelError

#: What POSE_COMPILE can be.
MODES = ("off", "graph", "inductor")
#: Most input shapes that have a CUDA graph at a time; each keeps the activations' memory of one pass.
_MAX_GRAPHS = 16
#: Passes before a graph is recorded, in which libraries choose their kernels and take their memory.
_WARM_PASSES = 2


def compiled(module: Any, mode: str, device: str) -> Any:
    """`module`, as it is or made faster, by `mode`:

    ``off``: as it is. ``graph``: on a GPU, one launch for each pass instead of one for each operator; on a CPU, which
    has no such thing, as it is. ``inductor``: by ``torch.compile``, which takes a minute for each new shape unless its
    cache on disk (TORCHINDUCTOR_CACHE_DIR) has it, and needs a C++ compiler on a CPU.

    Raises:
        ModelError: there is no such mode, or this PyTorch has no compiler.
    """
    if mode not in MODES:
        raise ModelError(f"There is no way {mode!r} to compile a net; set POSE_COMPILE to {', '.join(MODES)}.")
    if mode == "graph" and device.startswith("cuda"):
        return CudaGraphs(module)
    if mode == "inductor":
        if not hasattr(torch, "compile"):
            raise ModelError(f"PyTorch {torch.__version__} has no compiler; set POSE_COMPILE to off.")
        return torch.compile(module, dynamic=False)
    return module


class CudaGraphs:
    """Runs a module by a recorded CUDA graph for each input shape.

    The outputs belong to the graph and hold until the next call.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._graphs: OrderedDict[Tuple[int, ...], Tuple[Any, torch.Tensor, Any]] = OrderedDict()

    def __call__(self, batch: torch.Tensor) -> Any:
        shape = tuple(batch.shape)
        if shape not in self._graphs:
            if len(self._graphs) >= _MAX_GRAPHS:
                self._graphs.popitem(last=False)
            self._graphs[shape] = self._record(batch)
        self._graphs.move_to_end(shape)
        graph, given, made = self._graphs[shape]
        given.copy_(batch)
        graph.replay()
        return made

    def _record(self, batch: torch.Tensor) -> Tuple[Any, torch.Tensor, Any]:
        given = torch.empty_like(batch)  # the graph reads this memory for ever
        given.copy_(batch)
        current = torch.cuda.current_stream(batch.device)
        side = torch.cuda.Stream(batch.device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(_WARM_PASSES):
                self._module(given)
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            made = self._module(given)
        return graph, given, made
