"""Whether what the settings name is there: the net, the folders, the device. Connects nowhere and starts nothing."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Callable, Iterator, List, Mapping
from urllib.parse import unquote

from worker.device.pin import own_device, own_engine
from worker.engine import read_manifest
from worker.errors import ModelError, PoseError
from worker.images.policy import check_root
from worker.observe.tracing import check as check_tracing
from worker.pose.skeletons import PARTS, skeleton_of
from worker.servers import masked
from worker.settings import NO_BROKER, Settings, faults, read_settings
from worker.storage import s3


def wrong(environment: Mapping[str, str]) -> List[str]:
    """A sentence for each thing that would keep a worker with this `environment` from starting, or from working."""
    sentences = faults(environment)
    return sentences or list(_missing(read_settings(environment)))


def _missing(settings: Settings) -> Iterator[str]:
    """What well-formed settings name in vain."""
    if not settings.broker_url:
        yield NO_BROKER
    for root in settings.image_roots:
        yield from _sentences(partial(check_root, root))
        path = unquote(root[len("file://") :]) if root.startswith("file://") else root
        # A path of undecodable bytes is one, too.
        if "://" not in path and not os.path.isdir(path):  # noqa: PTH112
            roots = masked(os.pathsep.join(settings.image_roots))
            yield f"POSE_IMAGE_ROOTS is {roots!r}: there is no folder {masked(path)!r}."
    if not settings.models_dir.is_dir():
        yield f"POSE_MODELS_DIR is {str(settings.models_dir)!r}: there is no such folder."
        return
    named = [("POSE_MODEL" if name == settings.model else "POSE_MODELS", name, "") for name in settings.served]
    variables = {"hands": "POSE_HAND_NET", "face": "POSE_FACE_NET"}
    named += [(variables[part], name, part) for part, name in settings.part_nets.items()]
    for variable, name, part in named:
        for sentence in _sentences(partial(_check_net, settings.models_dir / name, part)):
            yield f"{variable} is {name!r}: {sentence}"
    # Else it is the worker's name that says which. GPUs that have a worker already are none that are missing.
    shared = settings.model_copy(update={"share_device": True})
    yield from _sentences(lambda: settings.device == "auto" or own_engine(settings, own_device(shared).torch_name))
    yield from _sentences(lambda: check_tracing(settings))
    if settings.overlay_store.startswith("s3://"):
        yield from _sentences(s3.check)
    for variable, folder in _written(settings):
        if not _writable(folder):
            yield f"{variable} is {str(folder)!r}, which this user cannot write to; choose another folder."


def _check_net(directory: Path, part: str) -> None:
    """Raise ModelError if there is no net in `directory`, its skeleton does not fit it, or it is not one of `part`."""
    manifest = read_manifest(directory)
    skeleton = skeleton_of(manifest.name, manifest.skeleton, manifest.channels)
    if part and skeleton not in [of for kind, of in PARTS.values() if kind == part]:
        raise ModelError(f"The net {manifest.name!r} has the skeleton {skeleton.name}, so it finds no {part}.")
    if not part and not skeleton.paf_channels:
        raise ModelError(f"The net {manifest.name!r} has no PAFs, so it finds no people; it may be of hands or faces.")


def _sentences(check: Callable[[], object]) -> Iterator[str]:
    try:
        check()
    except PoseError as exc:
        yield str(exc)


def _written(settings: Settings) -> Iterator[tuple[str, Path]]:
    if str(settings.heartbeat_dir) != "none":
        yield "POSE_HEARTBEAT_DIR", settings.heartbeat_dir
    if settings.overlay_store.startswith("file://"):
        yield "POSE_OVERLAY_STORE", Path(unquote(settings.overlay_store[len("file://") :]))


def _writable(folder: Path) -> bool:
    """Whether files can be written there, or the folder be made."""
    try:
        there = next(one for one in (folder, *folder.parents) if one.exists())
    except OSError:  # no name that a file system takes
        return False
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
