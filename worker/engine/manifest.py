"""model.json: what is known of a net beside its two NetDef files. Both engines read this and nothing else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Dict, Literal, Optional, Tuple, Union

from pydantic import BaseModel, ConfigDict, Field, model_validator

from worker.errors import ModelError, fault_in

#: Version of model.json.
SCHEMA_VERSION = 1
PREDICT_NET, INIT_NET, MANIFEST = "predict_net.pb", "init_net.pb", "model.json"


class Spec(BaseModel):
    """Knows all its fields, and does not change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class InputSpec(Spec):
    """What the net is fed: ``(pixel - mean) * scale`` in `channel_order`, sides multiples of `stride`."""

    blob: str
    channel_order: Literal["BGR", "RGB"]
    mean: Tuple[float, float, float]
    scale: float
    stride: int = Field(ge=1)
    pad_value: int = Field(ge=0, le=255)

    @model_validator(mode="after")
    def _scales(self) -> InputSpec:
        if self.scale == 0:
            raise ValueError("the scale must not be 0")
        return self


class OutputSpec(Spec):
    """Channels `start` to `stop` (exclusive) of one output blob.

    `offset` is how far right of and below the truth what they show lies, in pixels of the input: a trained net's own
    error, found by comparing its answers to images with those to the same images mirrored.
    """

    blob: str
    start: int = Field(ge=0)
    stop: int
    offset: Tuple[float, float] = (0.0, 0.0)

    @model_validator(mode="after")
    def _has_channels(self) -> OutputSpec:
        if self.stop <= self.start:
            raise ValueError(f"there are no channels from {self.start} to {self.stop}")
        return self

    @property
    def channels(self) -> int:
        """How many there are."""
        return self.stop - self.start


class PoseNet(Spec):
    """What is known of a net wherever its files are: its name and licence, its input and its outputs.

    `skeleton` is the name of one, or a whole one; :func:`worker.pose.skeletons.skeleton_of` reads it. A net of hands
    or faces has no PAFs.
    """

    name: str
    licence: str
    skeleton: Union[str, Dict[str, Any]] = "coco_18"
    notes: str = ""
    input: InputSpec
    heatmaps: OutputSpec
    pafs: Optional[OutputSpec] = None

    @property
    def outputs(self) -> Tuple[OutputSpec, ...]:
        """The heatmaps, and the PAFs if there are some."""
        return (self.heatmaps, self.pafs) if self.pafs else (self.heatmaps,)

    @property
    def output_blobs(self) -> Tuple[str, ...]:
        """The blobs of heatmaps and of PAFs; one where they share it."""
        return tuple(dict.fromkeys(spec.blob for spec in self.outputs))

    @property
    def channels(self) -> Tuple[int, int]:
        """How many channels of heatmaps there are, and of PAFs."""
        return self.heatmaps.channels, self.pafs.channels if self.pafs else 0


class Manifest(PoseNet):
    """One net in a directory: what it was made from, and its files' checksums."""

    model_config = ConfigDict(extra="ignore")

    source: str
    predict_sha256: str
    sha256: str
    directory: Path

    def to_json(self) -> str:
        """The text of model.json."""
        document = self.model_dump(exclude={"directory"})
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
        raise ModelError(f"{path} is not a valid manifest ({fault_in(exc)}); fetch or convert the net again.") from exc


def _parse(document: Dict[str, Any], directory: Path) -> Manifest:
    if document["schema"] != SCHEMA_VERSION:
        raise ValueError(f"schema {document['schema']}, expected {SCHEMA_VERSION}")
    checksums = {
        "predict_sha256": document["files"][PREDICT_NET]["sha256"],
        "sha256": document["files"][INIT_NET]["sha256"],
    }
    return Manifest.model_validate({**document, **document["outputs"], **checksums, "directory": directory})


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
