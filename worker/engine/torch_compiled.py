"""A module made faster for the input shapes that come again, by CUDA graphs."""

from __future__ import annotations

from collections import Counter
from typing import Callable, Dict, Tuple

import torch

from worker.engine.net import is_short_of_memory
from worker.engine.shapes import Shape

#: What POSE_COMPILE can be.
MODES = ("off", "graph")
#: Most input shapes that have a CUDA graph at a time.
_MAX_GRAPHS = 64
#: Passes of one shape after which a graph is recorded for it.
PATIENCE = 3
#: Passes after which the counts of all shapes are halved, so that what came often once does not count for ever.
_MEMORY = 1024

Run = Callable[[torch.Tensor], Tuple[torch.Tensor, ...]]


class CudaGraphs:
    """One launch for each pass instead of one for each operator, for the shapes that come again.

    Where there are as many graphs as there may be, the least used one gives way to a shape that comes twice as often:
    recording takes as long as many passes, and shapes that come in turns would record each time.

    All graphs share one pool of memory, so the maps of a pass hold until the next.
    """

    def __init__(self, module: Run) -> None:
        self._module = module
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: Dict[Shape, Run] = {}
        self._seen: Counter[Shape] = Counter()
        self._passes = 0

    def __call__(self, batch: torch.Tensor) -> Tuple[torch.Tensor, ...]:
        """Run `batch` (N, C, H, W): by its shape's graph, which may be recorded now, or operator by operator."""
        shape = tuple(batch.shape)
        self._count(shape)
        if shape not in self._graphs:
            if not self._is_worth_recording(shape):
                return self._module(batch)
            try:
                self._graphs[shape] = self._record(batch)
            except RuntimeError as exc:
                if not is_short_of_memory(exc):
                    raise
                # A graph keeps its memory; without one the pass may fit. The count is forgotten after so many passes.
                self._seen[shape] = -_MEMORY
                return self._module(batch)
        return self._graphs[shape](batch)

    def _count(self, shape: Shape) -> None:
        self._passes += 1
        if self._passes % _MEMORY == 0:
            self._seen = Counter({one: count // 2 for one, count in self._seen.items() if count > 1})
        self._seen[shape] += 1

    def _is_worth_recording(self, shape: Shape) -> bool:
        """Whether it is; then there is room for it."""
        if self._seen[shape] < PATIENCE:
            return False
        if len(self._graphs) < _MAX_GRAPHS:
            return True
        least = min(self._graphs, key=lambda one: self._seen[one])
        if self._seen[shape] < 2 * self._seen[least]:
            return False
        del self._graphs[least]
        return True

    def _record(self, batch: torch.Tensor) -> Run:
        given = batch.clone(memory_format=torch.preserve_format)  # the graph reads this memory for ever
        # Libraries choose their kernels in a pass beforehand. It is made where other passes are, and takes the memory
        # that they have left; in a stream of its own it would take as much again.
        self._module(given)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            made = self._module(given)

        def replay(new: torch.Tensor) -> Tuple[torch.Tensor, ...]:
            given.copy_(new)
            graph.replay()
            return made

        return replay
