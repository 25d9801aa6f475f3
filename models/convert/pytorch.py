"""A PyTorch state dict of the CMU net → a net of a known architecture.

Keys are ``conv1_1.weight``, with or without the name of a submodule before them. Only tensors are read
(``weights_only=True``): a file that wants to run code is refused.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, Dict

import numpy as np

from models.catalog import Entry
from models.convert.weights import build_net
from models.netpair import NetPairBuilder
from worker.errors import ModelError

_SUFFIXES = {"weight": "w", "bias": "b"}


def convert(path: Path, entry: Entry) -> NetPairBuilder:
    """Read the weights in the state dict at `path`; raises ModelError."""
    import torch

    if not hasattr(torch.serialization, "add_safe_globals"):
        raise ModelError(
            f"{path} cannot be read safely with torch {torch.__version__}; convert it with torch 2, on Python 3.10 or "
            "later, and copy the net's folder."
        )
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError, TypeError, AttributeError) as exc:
        reason = str(exc).strip().split("\n", maxsplit=1)[0]
        raise ModelError(
            f"{path} is not a PyTorch file of plain tensors ({reason}); nothing in it was run, fetch it again."
        ) from exc
    if not isinstance(state, dict):
        raise ModelError(f"{path} holds a {type(state).__name__}, not a state dict; save model.state_dict().")
    weights: Dict[str, np.ndarray] = {}
    for key, tensor in state.get("state_dict", state).items():
        parts = str(key).split(".")
        if len(parts) < 2 or parts[-1] not in _SUFFIXES or not isinstance(tensor, torch.Tensor):
            raise ModelError(
                f"{path} has an entry {key!r} that is no convolution's weight or bias; is it the right file?"
            )
        weights[f"{parts[-2]}_{_SUFFIXES[parts[-1]]}"] = tensor.to(torch.float32).numpy()
    return build_net(entry, weights, str(path))
