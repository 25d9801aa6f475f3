"""A module made faster for the input shapes that come again, by CUDA graphs."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Callable, Tuple

import torch

from worker.engine.shapes import Shape

#: What POSE_COMPILE can be.
MODES = ("off", "graph")
#: Most input shapes that have a CUDA graph at a time.
_MAX_GRAPHS = 64
#: Passes of one shape after which a graph is recorded for it.
PATIENCE = 3
#: How many shapes are counted.
_COUNTED = 1024

Run = Callable[[torch.Tensor], Tuple[torch.Tensor, ...]]


class CudaGraphs:
    """One launch for each pass instead of one for each operator, for the shapes that come again.

    All graphs share one pool of memory, so the maps of a pass hold until the next.
    """

    def __init__(self, module: Run) -> None:
        self._module = module
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: OrderedDict[Shape, Run] = OrderedDict()
        self._seen: Counter[Shape] = Counter()

    def __call__(self, batch: torch.Tensor) -> Tuple[torch.Tensor, ...]:
        """Run `batch` (N, C, H, W): by its shape's graph, which may be recorded now, or operator by operator."""
        shape = tuple(batch.shape)
        if shape in self._graphs:
            self._graphs.move_to_end(shape)
            return self._graphs[shape](batch)
        if len(self._seen) >= _COUNTED:
            self._seen.clear()
        self._seen[shape] += 1
        return self._module(batch) if self._seen[shape] < PATIENCE else self._record(batch)

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
