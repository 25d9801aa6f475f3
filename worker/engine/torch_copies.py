"""How inputs get onto a net's device, and maps back from it."""

from __future__ import annotations

import logging
from typing import Any, Iterable, List, Sequence, Tuple

import numpy as np
import torch

from worker.engine.net import Wait, waited

logger = logging.getLogger(__name__)

#: What is wanted of a pass: a tensor on the device, and the array that it is written into.
Wanted = Iterable[Tuple[torch.Tensor, np.ndarray]]


class Direct:
    """On a CPU: nothing is moved that need not be."""

    def upload(self, pieces: Sequence[np.ndarray]) -> torch.Tensor:
        """The pieces, uint8 (n, H, W, 3), as one tensor."""
        tensors = [_tensor(piece) for piece in pieces]
        return tensors[0] if len(tensors) == 1 else torch.cat(tensors)

    def download(self, wanted: Wanted) -> Wait:
        """Write what is wanted; it is written when this returns."""
        for made, target in wanted:
            torch.from_numpy(target).copy_(made)
        return waited


class Staged:
    """On a GPU: one copy there and one back for each pass, through pinned memory, which nobody waits for meanwhile.

    A GPU copies from and to memory that is pinned while the CPU goes on. PyTorch keeps such memory for the next pass,
    and gives it out again only when the copy is done. All passes follow each other in one stream of the device, so that
    what one has made may lie where the next one writes: it has been packed by then.

    Args:
        device: ``cuda:<i>``.
    """

    def __init__(self, device: str) -> None:
        self._device, self._pins = device, True

    def upload(self, pieces: Sequence[np.ndarray]) -> torch.Tensor:
        """The pieces, uint8 (n, H, W, 3), as one tensor on the device, or on its way there."""
        staged = self._empty((sum(map(len, pieces)), *pieces[0].shape[1:]), torch.uint8)
        np.concatenate(pieces, out=staged.numpy())
        return staged.to(self._device, non_blocking=True)

    def download(self, wanted: Wanted) -> Wait:
        """Begin to copy what is wanted; the function returned waits for it, and writes it."""
        pairs = list(wanted)
        ends: List[int] = np.cumsum([target.size for _, target in pairs]).tolist()
        dtype = torch.from_numpy(pairs[0][1]).dtype  # all maps of a pass have one
        packed = torch.empty(ends[-1], dtype=dtype, device=self._device)
        targets: List[Tuple[np.ndarray, slice]] = []
        for (made, target), end in zip(pairs, ends):
            where = slice(end - target.size, end)
            packed[where].view(target.shape).copy_(made)
            targets.append((target, where))
        staged = self._empty((ends[-1],), dtype)
        staged.copy_(packed, non_blocking=True)
        done: Any = torch.cuda.Event()
        done.record(torch.cuda.current_stream(self._device))
        values = staged.numpy()

        def wait() -> None:
            done.synchronize()
            for target, where in targets:
                target[...] = values[where].reshape(target.shape)

        return wait

    def _empty(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        if self._pins:
            try:
                return torch.empty(shape, dtype=dtype, pin_memory=True)
            except RuntimeError as exc:
                self._pins = False
                reason = f"{exc}".strip().split("\n", maxsplit=1)[0]
                logger.warning("No memory can be pinned (%s); copies to and from %s take longer.", reason, self._device)
        return torch.empty(shape, dtype=dtype)


def _tensor(pixels: np.ndarray) -> torch.Tensor:
    """A tensor on the array's own memory; of a read-only array PyTorch warns, and gets a copy."""
    return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())
