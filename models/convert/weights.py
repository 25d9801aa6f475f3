"""Named weights → a net of a known architecture. Everything is compared before anything is written."""

from __future__ import annotations

from typing import List, Mapping

import numpy as np

from models.architectures import ARCHITECTURES, Architecture
from models.catalog import Entry
from models.netpair import NetPairBuilder
from worker.errors import ModelError

#: How many blobs a message lists of each kind.
_LISTED = 6


def build_net(entry: Entry, weights: Mapping[str, np.ndarray], source: str) -> NetPairBuilder:
    """Fill the architecture of `entry` with `weights` by blob name; raises as :func:`fill`."""
    return fill(architecture_of(entry), entry, weights, source)


def fill(architecture: Architecture, entry: Entry, weights: Mapping[str, np.ndarray], source: str) -> NetPairBuilder:
    """Fill `architecture` with `weights` by blob name: the net of `entry`.

    Args:
        source: the file they come from, for messages.

    Raises:
        ModelError: blobs are missing, extra, misshapen or not finite; the message lists them.
    """
    expected = architecture.parameters
    if architecture.spare:
        weights = {
            blob: weights[blob] for blob in weights if blob in expected or not blob.startswith(architecture.spare)
        }
    shared = [blob for blob in expected if blob in weights]
    wrong = [blob for blob in shared if weights[blob].shape != expected[blob]]
    found = {
        "missing": [blob for blob in expected if blob not in weights],
        "extra": [blob for blob in weights if blob not in expected],
        "misshapen": [f"{blob} {weights[blob].shape} instead of {expected[blob]}" for blob in wrong],
        "not finite": [blob for blob in shared if not _is_finite(weights[blob])],
    }
    faults = [f"{len(blobs)} {title}: {_listed(blobs)}" for title, blobs in found.items() if blobs]
    if faults:
        raise ModelError(
            f"{source} does not hold the {len(expected)} blobs of {entry.name}: {'; '.join(faults)}; check the file."
        )
    return architecture.build(entry.name, weights, entry.output_blobs)


def architecture_of(entry: Entry) -> Architecture:
    """The architecture that the catalogue names; raises ModelError if it names none."""
    if entry.architecture not in ARCHITECTURES:
        raise ModelError(
            f"The net {entry.name!r} cannot be made from bare weights; give a TensorFlow graph, a NetDef pair, "
            "or a Caffe net's prototxt."
        )
    return ARCHITECTURES[entry.architecture]()


def _listed(blobs: List[str]) -> str:
    more = f" and {len(blobs) - _LISTED} more" if len(blobs) > _LISTED else ""
    return ", ".join(blobs[:_LISTED]) + more


def _is_finite(values: np.ndarray) -> bool:
    return values.dtype.kind == "f" and bool(np.isfinite(values).all())
