"""model.json: what is known of a net beside its two NetDef files. Both engines read this and nothing else."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, Tuple

from worker.errors import ModelError

#: Version of model.json.
SCHEMA_VERSION = 1
PREDICT_NET, INIT_NET, MANIFEST = "predict_net.pb", "init_net.pb", "model.json"


@dataclass(frozen=True)
class InputSpec:
    """What the net is fed: ``(pixel - mean) * scale`` in `channel_order`, sides multiples of `stride`."""

    blob: str
    channel_order: str
    mean: Tuple[float, float, float]
    scale: float
    stride: int
    pad_value: int


@dataclass(frozen=True)
class OutputSpec:
    """Channels `start` to `stop` (exclusive) of one output blob.

    `offset` is how far right of and below the truth what they show lies, in pixels of the input: a trained net's own
    error, found by comparing its answers to images with those to the same images mirrored.
    """

    blob: str
    start: int
    stop: int
    offset: Tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        x, y = self.offset
        object.__setattr__(self, "offset", (float(x), float(y)))


@dataclass(frozen=True)
class Manifest:
    """One net: where it comes from, its files' checksums, its input and its two outputs."""

    name: str
    licence: str
    source: str
    predict_sha256: str
    sha256: str
    input: InputSpec
    heatmaps: OutputSpec
    pafs: OutputSpec
    skeleton: str
    directory: Path
    notes: str = ""

    @property
    def output_blobs(self) -> Tuple[str, ...]:
        """The blobs of heatmaps and of PAFs; one where they share it."""
        return tuple(dict.fromkeys((self.heatmaps.blob, self.pafs.blob)))

    def to_json(self) -> str:
        """The text of model.json."""
        document = asdict(self)
        del document["directory"]
        if not self.notes:
            del document["notes"]
        files = {PREDICT_NET: {"sha256": document.pop("predict_sha256")}, INIT_NET: {"sha256": document.pop("sha256")}}
        outputs = {"heatmaps": document.pop("heatmaps"), "pafs": document.pop("pafs")}
        return json.dumps({"schema": SCHEMA_VERSION, **document, "files": files, "outputs": outputs}, indent=2) + "\n"

    def verify(self) -> None:
        """Compare both files with their checksums.

        Raises:
            ModelError: a file is missing, or is not the one that the manifest describes.
        """
        for name, expected in ((PREDICT_NET, self.predict_sha256), (INIT_NET, self.sha256)):
            found = sha256_of(self.directory / name)
            if not found:
                raise ModelError(
                    f"There is no {name} in {self.directory}; fetch the net again with: "
                    f"python -m models.fetch {self.name}"
                )
            if found != expected:
                raise ModelError(
                    f"{self.directory / name} has SHA-256 {found}, but {MANIFEST} expects {expected}; "
                    f"fetch the net again with: python -m models.fetch {self.name}"
                )


def read_manifest(directory: Path) -> Manifest:
    """Read ``model.json`` in `directory`.

    Raises:
        ModelError: there is none, or it lacks a field or has one of the wrong type.
    """
    path = Path(directory) / MANIFEST
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError as exc:
        raise ModelError(
            f"There is no net in {directory} (no {MANIFEST}); fetch it with: python -m models.fetch {path.parent.name}"
        ) from exc
    except (OSError, ValueError) as exc:
        raise ModelError(f"{path} cannot be read ({exc}); fetch or convert the net again.") from exc
    try:
        return _parse(document, path.parent)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise ModelError(f"{path} is not a valid manifest ({exc!r}); fetch or convert the net again.") from exc


def _parse(document: Dict[str, Any], directory: Path) -> Manifest:
    if document["schema"] != SCHEMA_VERSION:
        raise ValueError(f"schema {document['schema']}, expected {SCHEMA_VERSION}")
    if document["skeleton"] != "COCO-18":
        raise ValueError(f"skeleton {document['skeleton']!r}, expected 'COCO-18'")
    return Manifest(
        name=str(document["name"]),
        licence=str(document["licence"]),
        source=str(document["source"]),
        predict_sha256=str(document["files"][PREDICT_NET]["sha256"]),
        sha256=str(document["files"][INIT_NET]["sha256"]),
        input=_input(document["input"]),
        heatmaps=_output(document["outputs"]["heatmaps"], 19),
        pafs=_output(document["outputs"]["pafs"], 38),
        skeleton=str(document["skeleton"]),
        directory=directory,
        notes=str(document.get("notes", "")),
    )


def _input(given: Dict[str, Any]) -> InputSpec:
    first, second, third = (float(value) for value in given["mean"])
    spec = InputSpec(
        blob=str(given["blob"]),
        channel_order=given["channel_order"],
        mean=(first, second, third),
        scale=float(given["scale"]),
        stride=int(given["stride"]),
        pad_value=int(given["pad_value"]),
    )
    if spec.channel_order not in ("BGR", "RGB"):
        raise ValueError(f"input: channel order {spec.channel_order!r}, expected BGR or RGB")
    if not all(math.isfinite(value) for value in (*spec.mean, spec.scale)) or spec.scale == 0:
        raise ValueError("input: mean and scale must be finite, and the scale not 0")
    if spec.stride < 1 or not 0 <= spec.pad_value <= 255:
        raise ValueError("input: expected a stride of at least 1 and a pad_value of 0 to 255")
    return spec


def _output(given: Dict[str, Any], channels: int) -> OutputSpec:
    spec = OutputSpec(
        str(given["blob"]), int(given["start"]), int(given["stop"]), tuple(given.get("offset", (0.0, 0.0)))
    )
    if spec.start < 0 or spec.stop - spec.start != channels:
        raise ValueError(f"output {spec.blob}: expected {channels} channels, got {spec.start} to {spec.stop}")
    return spec


def sha256_of(path: Path) -> str:
    """The SHA-256 of the file at `path`, in hex; "" where there is none."""
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    except FileNotFoundError:
        return ""
    return digest.hexdigest()
