"""Convolution, bias and Relu as one kernel of cuDNN, on a GPU."""

from __future__ import annotations

import logging
from typing import Any, Dict, Optional, Set

import torch

from worker.engine.torch_operators import conv, padded
from worker.engine.window import Pads

logger = logging.getLogger(__name__)


class ConvRelu(torch.nn.Module):
    """A convolution with the Relu that alone reads its result; as two kernels, once cuDNN has refused to make it one.

    cuDNN decides at the first pass of each shape. That is never while a CUDA graph is recorded, for a pass of the same
    shape comes before.

    Args:
        blob: what it makes, for the log.
        constants: those of :func:`worker.engine.torch_operators.conv`.
        said: reasons that the log has already; shared by all convolutions of a net.
    """

    def __init__(self, blob: str, constants: Dict[str, Any], said: Set[str]) -> None:
        super().__init__()
        self._blob, self._constants, self._said = blob, constants, said
        self._fused = True

    def forward(self, x: torch.Tensor, weight: torch.Tensor, bias: Optional[torch.Tensor] = None) -> torch.Tensor:
        """The blob (N, C, h, w) of `x` (N, C', H, W)."""
        refusal = None
        if self._fused:
            try:
                return _in_one(x, weight, bias, **self._constants)
            except RuntimeError as exc:
                if "out of memory" in str(exc) or _records():
                    raise
                refusal = f"{exc}".strip().split("\n", maxsplit=1)[0]
        made = conv(x, weight, bias, relu=True, **self._constants)
        if refusal is not None:  # and the device works
            self._fused = False
            if refusal not in self._said:
                self._said.add(refusal)
                logger.info("cuDNN does not make blob %s and its Relu in one kernel (%s).", self._blob, refusal)
        return made


def _in_one(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: Optional[torch.Tensor],
    *,
    stride: Any,
    padding: Any,
    extra: Pads,
    dilation: Any,
    groups: int,
) -> torch.Tensor:
    """What the kernel makes is ``relu(conv(x) + 0 z + bias)``.

    PyTorch's own function without z gives it memory that nobody has written. A NaN there would stay one, so it is given
    numbers: the input itself, where that has the result's shape, else zeros.
    """
    if any(extra):
        x = padded(x, extra, 0.0)
    shape = [len(x), len(weight)]
    for axis in (0, 1):
        reach = dilation[axis] * (weight.shape[axis + 2] - 1) + 1
        shape.append((x.shape[axis + 2] + 2 * padding[axis] - reach) // stride[axis] + 1)
    if shape == list(x.shape):
        z = x
    else:
        z = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last).zero_()
    return torch.cudnn_convolution_add_relu(x, weight, z, 0.0, bias, stride, padding, dilation, groups)


def _records() -> bool:
    """Whether a CUDA graph is recorded now; PyTorch 1.10 does not say."""
    return bool(getattr(torch.cuda, "is_current_stream_capturing", bool)())
