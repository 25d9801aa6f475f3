"""Detectron-style pickles of blobs, ``{'blobs': {name: array}}`` or the bare dict → a net of a known architecture.

A pickle can run any code when it is read. So this one is read by an unpickler that admits arrays of plain numbers and
builtin containers only. numpy's own types are not among them: with a state of their own, they crash Python. Python 2
pickles are understood.
"""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any, Callable, Dict, Optional

import numpy as np

from models.catalog import Entry
from models.convert.bounded import in_bounds
from models.convert.weights import architecture_of, build_net
from models.netpair import NetPairBuilder
from worker.errors import ModelError

logger = logging.getLogger(__name__)

#: numpy's names of plain numbers, as pickles have them.
_PLAIN = frozenset({"b1", "f2", "f4", "f8", "c8", "c16", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8))})


def convert(path: Path, entry: Entry) -> NetPairBuilder:
    """Read the weights in the pickle at `path`; blobs that the net does not have are reported and left out.

    Raises:
        ModelError: the pickle is damaged, refused, or lacks blobs.
    """
    blobs = read_blobs(path)
    known = architecture_of(entry).parameters
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
        document = in_bounds(_read, path)
    except _Refused as exc:
        raise ModelError(
            f"{path} wants to use {exc}, which a pickle of blobs has no need of; it was refused and nothing was run."
        ) from exc
    except Exception as exc:  # a damaged pickle fails in as many ways as pickle has operations
        raise ModelError(f"{path} is truncated or not a pickle ({exc!r}); fetch it again.") from exc
    if document is None:
        raise ModelError(f"{path} holds no dict of blobs; is it the right file?")
    found = {}
    for name, values in document.items():
        if values is None:
            logger.warning("%s: %s is no array of floats and is left out", path, name)
        else:
            found[name] = values
    return found


def _read(path: Path) -> Optional[Dict[str, Optional[np.ndarray]]]:
    """The blobs by name, without momentum; None for one that is no array of floats, and for what is no dict."""
    with path.open("rb") as file:
        document = _BlobUnpickler(file, encoding="latin1").load()
    blobs = document.get("blobs", document) if isinstance(document, dict) else None
    if not isinstance(blobs, dict):
        return None
    named = {name: blob for name, blob in blobs.items() if isinstance(name, str) and not name.endswith("_momentum")}
    return {name: blob.floats() if isinstance(blob, _Array) else None for name, blob in named.items()}


class _Refused(pickle.UnpicklingError):
    """The pickle names something that is not admitted."""


class _Dtype:
    """Stands for numpy.dtype, whose own state could be one that makes numpy read where nothing is."""

    def __init__(self, name: str, *_: Any) -> None:
        name = name.decode("latin1") if isinstance(name, bytes) else name
        if name not in _PLAIN:
            raise _Refused(f"the type {name!r:.40}")
        self.plain = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        """Take version, byte order, and what plain numbers do not have: base, names, fields. The rest follows."""
        _, order, *others = state[:5]
        if others != [None, None, None] or order not in ("<", ">", "|", "="):
            raise _Refused("a type that is not a plain number")
        self.plain = self.plain.newbyteorder(order)


class _Array:
    """Stands for numpy.ndarray; filled by what follows in the pickle."""

    def __init__(self, values: Optional[np.ndarray] = None) -> None:
        self._values = values

    def __setstate__(self, state: Any) -> None:
        """Take version, shape, type, whether in Fortran's order, bytes."""
        shape, dtype, fortran, data = state[-4:]
        self._values = _filled(data, dtype, shape, "F" if fortran else "C")

    def floats(self) -> Optional[np.ndarray]:
        """As float32; None if they are other numbers, or none came."""
        if self._values is None or self._values.dtype.kind != "f":
            return None
        return np.ascontiguousarray(self._values, np.float32)


def _filled(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """An array of a plain type; raises where bytes and shape do not fit."""
    if not isinstance(dtype, _Dtype):
        raise _Refused(f"the type {dtype!r:.40}")
    raw = data.encode("latin1") if isinstance(data, str) else data
    sizes = tuple(int(size) for size in shape)
    if not isinstance(raw, (bytes, bytearray)) or any(size < 0 for size in sizes):
        raise _Refused("an array that is not given by its bytes")
    return np.frombuffer(raw, dtype.plain).reshape(sizes, order=order).copy()


def _reconstruct(*_: Any) -> _Array:
    """An empty array; its state follows in the pickle."""
    return _Array()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    return _Array(_filled(data, dtype, shape, order))


def _scalar(dtype: Any, data: Any = b"") -> Any:
    return _filled(data, dtype, (1,), "C")[0]


def _type_only(*_: Any) -> Any:
    """numpy.ndarray, which pickles only ever name as the type to reconstruct."""
    raise _Refused("numpy.ndarray as a function")


def _encode(text: str, encoding: str = "") -> bytes:
    """How Python 3 writes bytes into a pickle of protocol 2."""
    if encoding != "latin1":
        raise _Refused(f"the encoding {encoding!r}")
    return text.encode("latin1")


def _bytearray(data: Any = b"", encoding: str = "") -> bytearray:
    """How bytes that can be changed are pickled; never by their number alone, which could be any."""
    if isinstance(data, str):
        return bytearray(_encode(data, encoding.replace("latin-1", "latin1")))
    if not isinstance(data, (bytes, bytearray)):
        raise _Refused(f"a bytearray of {type(data).__name__}")
    return bytearray(data)


class _Admitted:
    """A function that a pickle may call; not one that it may change."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, _: Any) -> None:
        raise _Refused("a function, to change it")


_NUMPY = {"_reconstruct": _reconstruct, "scalar": _scalar, "ndarray": _type_only, "dtype": _Dtype}
_BUILTINS: Dict[str, Callable[..., Any]] = {
    "set": set,
    "frozenset": frozenset,
    "bytearray": _bytearray,
    "complex": complex,
}
_ADMITTED: Dict[str, Dict[str, Callable[..., Any]]] = {
    "numpy": _NUMPY,
    "numpy.core.multiarray": _NUMPY,
    "numpy._core.multiarray": _NUMPY,
    "numpy.core.numeric": {"_frombuffer": _from_buffer},
    "numpy._core.numeric": {"_frombuffer": _from_buffer},
    "collections": {"OrderedDict": dict},
    "_codecs": {"encode": _encode},
    "__builtin__": _BUILTINS,
    "builtins": _BUILTINS,
}


class _BlobUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _Admitted(_ADMITTED[module][name])
        except KeyError:
            raise _Refused(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("an object stored elsewhere")
