"""How the decoder's loops are compiled."""

from __future__ import annotations

from typing import Any, Callable

import numba


def compiled(function: Callable[..., Any]) -> Any:
    """Compile with numba, releasing the GIL; kept on disk between processes where a folder for it can be written."""
    try:
        return numba.njit(function, cache=True, nogil=True)
    except RuntimeError:  # neither the source's folder nor the user's cache folder can be written
        return numba.njit(function, nogil=True)
