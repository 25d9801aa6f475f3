"""A module made faster for the input shapes that come again: by CUDA graphs, or by PyTorch's compiler.

Each class here has a method ``get(shape, often)``, as :class:`worker.engine.torch_packed.PackedModules` has: it gives
what runs an input of `shape` (N, C, H, W), and is told in `often` whether that shape is known to come often.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Any, Callable, Tuple

import torch

from worker.engine.shapes import Shape
from worker.errors import ModelError

#: What POSE_COMPILE can be.
MODES = ("off", "graph", "inductor")
#: Most input shapes that have a CUDA graph at a time.
_MAX_GRAPHS = 64
#: Passes of one shape after which a graph is recorded for it.
_PATIENCE = 3
#: How many shapes are counted.
_COUNTED = 1024

Run = Callable[[torch.Tensor], Tuple[torch.Tensor, ...]]


class Plain:
    """The module as it is, whatever the shape."""

    def __init__(self, module: Run) -> None:
        self._module = module

    def get(self, shape: Shape, *, often: bool = False) -> Run:
        """The module."""
        return self._module


class Inductor:
    """``torch.compile`` for the shapes that are known to come often; all others run as without.

    Compiling takes about a minute for each shape, unless the cache on disk has it (TORCHINDUCTOR_CACHE_DIR), and on a
    CPU needs a C++ compiler.

    Args:
        others: gives what runs all other shapes.

    Raises:
        ModelError: this PyTorch has no compiler.
    """

    def __init__(self, module: Run, others: Any) -> None:
        if not hasattr(torch, "compile"):
            raise ModelError(f"PyTorch {torch.__version__} has no compiler; set POSE_COMPILE to off.")
        self._module, self._others = module, others
        self._compiled: OrderedDict[Shape, Run] = OrderedDict()

    def get(self, shape: Shape, *, often: bool = False) -> Run:
        """What runs `shape`."""
        if often and shape not in self._compiled:
            self._compiled[shape] = torch.compile(self._module, dynamic=False, options={"freezing": True})
        return self._compiled[shape] if shape in self._compiled else self._others.get(shape)


class CudaGraphs:
    """One launch for each pass instead of one for each operator, for the shapes that come again.

    All graphs share one pool of memory, so the outputs of a pass hold until the next.
    """

    def __init__(self, module: Run) -> None:
        self._module = module
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: OrderedDict[Shape, Run] = OrderedDict()
        self._seen: Counter[Shape] = Counter()

    def get(self, shape: Shape, *, often: bool = False) -> Run:
        """What runs `shape`: its graph, recorded in the next pass if need be, or the module."""
        if shape in self._graphs:
            self._graphs.move_to_end(shape)
            return self._graphs[shape]
        if len(self._seen) >= _COUNTED:
            self._seen.clear()
        self._seen[shape] += 1
        if not often and self._seen[shape] < _PATIENCE:
            return self._module
        return self._record

    def _record(self, batch: torch.Tensor) -> Tuple[torch.Tensor, ...]:
        given = batch.clone(memory_format=torch.preserve_format)  # the graph reads this memory for ever
        side = torch.cuda.Stream(batch.device)
        side.wait_stream(torch.cuda.current_stream(batch.device))
        with torch.cuda.stream(side):  # libraries choose their kernels and take their memory in a pass beforehand
            self._module(given)
        torch.cuda.current_stream(batch.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            made = self._module(given)

        def replay(new: torch.Tensor) -> Tuple[torch.Tensor, ...]:
            given.copy_(new)
            graph.replay()
            return made

        if len(self._graphs) >= _MAX_GRAPHS:
            self._graphs.popitem(last=False)
        self._graphs[tuple(batch.shape)] = replay
        return replay(batch)
