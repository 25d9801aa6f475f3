"""Detectron-style pickles of blobs, ``{'blobs': {name: array}}`` or the bare dict → a net of a known architecture.

A pickle can run any code when it is read. So this one is read by an unpickler that admits numpy arrays and builtin
containers only; Python 2 pickles are understood.
"""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any, Dict

import numpy as np

from models.catalog import Entry
from models.convert.weights import build_net, known_blobs
from models.netpair import NetPairBuilder
from worker.errors import ModelError

logger = logging.getLogger(__name__)


def convert(path: Path, entry: Entry) -> NetPairBuilder:
    """Read the weights in the pickle at `path`; blobs that the net does not have are reported and left out.

    Raises:
        ModelError: the pickle is damaged, refused, or lacks blobs.
    """
    blobs = read_blobs(path)
    known = set(known_blobs(entry))
    unknown = sorted(blob for blob in blobs if blob not in known)
    if unknown:
        logger.warning("%s has %d blobs that %s does not: %s", path, len(unknown), entry.name, ", ".join(unknown))
    return build_net(entry, {blob: blobs[blob] for blob in blobs if blob in known}, str(path))


def read_blobs(path: Path) -> Dict[str, np.ndarray]:
    """The float32 blobs in the pickle at `path`, without momentum.

    Raises:
        ModelError: the pickle is damaged, or names something that is not admitted.
    """
    try:
        with path.open("rb") as file:
            document = _BlobUnpickler(file, encoding="latin1").load()
    except _Refused as exc:
        raise ModelError(
            f"{path} wants to use {exc}, which a pickle of blobs has no need of; it was refused and nothing was run."
        ) from exc
    except Exception as exc:  # a damaged pickle fails in as many ways as pickle has operations
        raise ModelError(f"{path} is truncated or not a pickle ({exc!r}); fetch it again.") from exc
    blobs = document.get("blobs", document) if isinstance(document, dict) else None
    if not isinstance(blobs, dict):
        raise ModelError(f"{path} holds no dict of blobs; is it the right file?")
    found = {}
    for name, values in blobs.items():
        if str(name).endswith("_momentum"):
            continue
        if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
            logger.warning("%s: %s is no array of floats and is left out", path, name)
            continue
        found[str(name)] = np.ascontiguousarray(values, np.float32)
    return found


class _Refused(pickle.UnpicklingError):
    """The pickle names something that is not admitted."""


class _ArrayType:
    """Stands for numpy.ndarray, which pickles only ever name as the type to reconstruct."""


def _reconstruct(*_: Any) -> np.ndarray:
    """An empty array; its state follows in the pickle."""
    return np.ndarray((0,), np.uint8)


def _encode(text: str, encoding: str = "") -> bytes:
    """How Python 3 writes bytes into a pickle of protocol 2."""
    if encoding != "latin1":
        raise _Refused(f"the encoding {encoding!r}")
    return text.encode("latin1")


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    return np.frombuffer(data, dtype).reshape(shape, order=order).copy()


def _scalar(dtype: Any, data: Any = b"") -> Any:
    raw = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(raw, dtype)[0]


def _bytearray(data: Any = b"", encoding: str = "") -> bytearray:
    """How bytes that can be changed are pickled; never by their number alone, which could be any."""
    if isinstance(data, str):
        return bytearray(_encode(data, encoding.replace("latin-1", "latin1")))
    if not isinstance(data, (bytes, bytearray)):
        raise _Refused(f"a bytearray of {type(data).__name__}")
    return bytearray(data)


_NUMPY = {"_reconstruct": _reconstruct, "scalar": _scalar, "ndarray": _ArrayType, "dtype": np.dtype}
_ADMITTED: Dict[str, Dict[str, Any]] = {
    "numpy": _NUMPY,
    "numpy.core.multiarray": _NUMPY,
    "numpy._core.multiarray": _NUMPY,
    "numpy.core.numeric": {"_frombuffer": _from_buffer},
    "numpy._core.numeric": {"_frombuffer": _from_buffer},
    "collections": {"OrderedDict": dict},
    "_codecs": {"encode": _encode},
    "__builtin__": {"set": set, "frozenset": frozenset, "bytearray": _bytearray, "complex": complex},
    "builtins": {"set": set, "frozenset": frozenset, "bytearray": _bytearray, "complex": complex},
}


class _BlobUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module][name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("an object stored elsewhere")
