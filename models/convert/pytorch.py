"""A PyTorch state dict → a net of a known architecture.

Keys are those of the architecture, or, of the CMU nets, ``conv1_1.weight`` with or without the name of a submodule
before them. The state dict may be an entry `state_dict` of a checkpoint. Only tensors are read
(``weights_only=True``): a file that wants to run code is refused.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, Container, Dict

import numpy as np

from models.catalog import Entry
from models.convert.weights import architecture_of, build_net
from models.netpair import NetPairBuilder
from worker.errors import ModelError

#: How keys begin that were saved from several GPUs at once.
_PARALLEL = "module."
#: What a batch norm has beside its weights: how many batches it has seen.
_COUNTER = ".num_batches_tracked"
_SUFFIXES = {"weight": "w", "bias": "b"}


def convert(path: Path, entry: Entry) -> NetPairBuilder:
    """Read the weights in the state dict at `path`; raises ModelError."""
    try:
        import torch
    except ImportError as exc:
        raise ModelError(f"{path} is PyTorch's, which is not installed here; pip install -r requirements.txt.") from exc

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
    state, expected = state.get("state_dict", state), architecture_of(entry).parameters
    weights: Dict[str, np.ndarray] = {}
    for key, tensor in state.items() if isinstance(state, dict) else ():
        if not isinstance(tensor, torch.Tensor):
            raise ModelError(f"{path} has an entry {key!r} that is no tensor; is it the right file?")
        if not str(key).endswith(_COUNTER):
            weights[_blob(str(key), expected)] = tensor.to(torch.float32).numpy()
    return build_net(entry, weights, str(path))


def _blob(key: str, expected: Container[str]) -> str:
    """The parameter blob that `key` means; the key itself if there is none."""
    key = key[len(_PARALLEL) :] if key.startswith(_PARALLEL) else key
    *_, layer, kind = ["", *key.split(".")]
    short = f"{layer}_{_SUFFIXES.get(kind, kind)}"
    return short if key not in expected and short in expected else key
