"""What one slot holds: a way to the net, the way in and the way out. Made once in the child, before the first job."""

from __future__ import annotations

import gc
import os
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import cv2
import numpy as np

from worker import logs
from worker.contract import AnyJob, Image, Job, Model, Overlay, OverlayOptions, Result, without_query
from worker.device.channel import RemoteNet
from worker.device.nets import Nets
from worker.device.pin import Device, own_batch
from worker.engine import Manifest, Maps, read_manifest
from worker.errors import DeviceLost, ImageTooLarge, InvalidRequest, JobTooLarge
from worker.files import printable
from worker.images.local import LoadedImage, decode_image, read_image
from worker.images.policy import ImagePolicy, check_root
from worker.images.uploads import checked_upload, is_upload
from worker.jobs.attempt import Attempt, AttemptEnd
from worker.observe.job_log import log_end
from worker.observe.tracing import Tracer
from worker.people import from_people, to_estimate_options, to_style
from worker.pose.estimator import Estimate, Estimator, InputsToMaps, anywhere
from worker.pose.formats import maps_archive
from worker.pose.overlay import draw_overlay
from worker.pose.parts import PartNet, find_parts
from worker.pose.skeletons import skeleton_of
from worker.process.life import Life, TimeUp
from worker.settings import Settings
from worker.storage.urls import key_of, open_store


class Served(NamedTuple):
    """One net that the slot reaches; `remote` is None where the slot holds it itself."""

    model: Model
    estimator: Estimator
    remote: Optional[RemoteNet]


class Slot:
    """One process's estimator, image gate and overlay store, and its signs of life.

    Args:
        device: the worker's.
        worker: its name, ``gpu3@host``.
        net_address: where the net process listens; None: the slot holds the net itself.
        tracer: where spans go, if anywhere.

    Raises:
        ModelError: the net's files are missing, corrupt or unsupported.
    """

    def __init__(
        self,
        settings: Settings,
        device: Device,
        worker: str,
        life: Life,
        net_address: Optional[bytes] = None,
        tracer: Optional[Tracer] = None,
    ) -> None:
        self.settings, self.life, self.tracer = settings, life, tracer
        #: Worker, device and process, for results and histories.
        self.where = {"worker": worker, "device": device.title, "pid": os.getpid()}
        cv2.setNumThreads(1)  # the net's threads, or the other slots, already fill the cores
        #: Most inputs in one pass of the net.
        self.batch = own_batch(settings, device)
        self._address = net_address
        self._nets = Nets(settings, device) if net_address is None else None
        self._untidy = False
        self._served: Dict[str, Served] = {}
        self._part_nets: Dict[str, PartNet] = {}
        #: What may be read.
        self.policy = ImagePolicy(
            roots=settings.image_roots,
            max_bytes=settings.max_bytes,
            max_pixels=settings.max_pixels,
            max_aspect=settings.max_aspect,
            url_timeout_s=settings.url_timeout_s,
            private_hosts=settings.private_hosts,
        )
        for root in settings.image_roots:
            check_root(root)
        #: Where overlays go, and what else is too large for a result.
        self.stored = open_store(settings.overlays_url, prefix=settings.key_prefix)

    def announce(self, end: AttemptEnd) -> None:
        """Let everybody who counts, logs or traces attempts hear of one's end."""
        self._untidy = end.error is not None
        self.life.end(end)
        log_end(end)
        if self.tracer is not None:
            self.tracer.trace(end)

    def warm(self) -> None:
        """Load what can be loaded before the first job, so that it is as fast as any."""
        self._serve(self.settings.model)
        if self._nets is not None:
            self._nets.get(self.settings.model)
        gc.freeze()  # what is there now stays: it need not be looked through

    @contextmanager
    def promise(self, job: AnyJob) -> Iterator[None]:
        """Within, the net process expects an input of `job`'s, and others' wait for it to share a pass."""
        remote = self.check(job).remote
        if remote is None:
            yield
            return
        remote.begin()
        try:
            yield
        finally:
            remote.end()

    def load_image(self, path: str, attempt: Attempt, enough: Optional[int] = None) -> LoadedImage:
        """Read the image at `path`, or the one sent with `attempt`'s job, reduced if its shorter side has more than
        `enough` pixels; raises ImageError, ImageNotReady or ImageUnreadable."""
        if self._untidy:  # an error holds what its frames held, such as an image, until Python looks for cycles
            gc.collect()
        policy = replace(self.policy, wait_for_missing=attempt.age_s < self.settings.file_grace_s)
        if is_upload(path):
            data = checked_upload(attempt.uploaded(policy.max_bytes), path, policy)
        else:
            data = read_image(path, policy)
        try:
            with self.life.decoding():
                return decode_image(data, path, self.policy, enough)
        except TimeUp as exc:  # another attempt would take as long
            raise ImageTooLarge(
                f"{printable(without_query(path))} was not decoded within {self.settings.soft_time_limit_s:g} s; "
                "send a smaller image, or raise POSE_SOFT_TIME_LIMIT_S."
            ) from exc

    def estimate(self, picture: LoadedImage, job: Job) -> Estimate:
        """Find the people in `picture`; raises JobTooLarge or ImageTooLarge if that asks for too much of the net."""
        return self.look([picture.pixels], job, picture.reduced)[0]

    def look(self, images: Sequence[np.ndarray], job: AnyJob, reduced: int = 1) -> List[Estimate]:
        """Find the people in each of `images`, uint8 (H, W, 3) BGR, of one size; see :meth:`estimate`.

        Args:
            reduced: how many times larger their sources are.
        """
        estimator, options = self.net_of(job).estimator, to_estimate_options(job.options)
        height, width = (side * reduced for side in images[0].shape[:2])
        pixels, most = estimator.net_pixels(height, width, options), self.settings.max_net_pixels
        if pixels > most:
            raise JobTooLarge(
                f"The job asks the net for {pixels} pixels of an image of {width}x{height}, more than "
                f"{most}; lower target_height, scales or max_width, or raise POSE_MAX_NET_PIXELS."
            )
        found = estimator.estimate(images, options, reduced, most - pixels)
        wanted = [part for part in job.options.parts if part != "body"]
        if wanted:
            found = [
                self._with_parts(one, image, wanted, most - pixels - one.crop_pixels)
                for one, image in zip(found, images)
            ]
        return found

    def _with_parts(self, found: Estimate, image: np.ndarray, wanted: Sequence[str], pixels: int) -> Estimate:
        """`found` with the people's hands or faces, for which the nets may be given so many `pixels`."""
        start = time.perf_counter()
        nets = {part: self._part_net(part) for part in wanted}
        most = pixels // max(net.side**2 for net in nets.values())
        people, warnings = find_parts(image, found.people, found.skeleton, nets, most)
        timings = {**found.timings_ms, "parts": (time.perf_counter() - start) * 1000}
        return replace(found, people=people, warnings=(*found.warnings, *warnings), timings_ms=timings)

    def draw(self, picture: LoadedImage, estimate: Estimate, style: Optional[OverlayOptions]) -> Optional[bytes]:
        """The encoded overlay, or None if the job wants none."""
        if style is None:
            return None
        drawn = draw_overlay(picture.pixels, estimate.people, skeleton=estimate.skeleton, **to_style(style))
        kind, flags = (".png", []) if drawn.shape[2] == 4 else (".jpg", [cv2.IMWRITE_JPEG_QUALITY, style.quality])
        return bytes(cv2.imencode(kind, drawn, flags)[1])

    def store(self, job_id: str, overlay: Optional[bytes]) -> Optional[Overlay]:
        """Keep the overlay until the result expires; the same job always gets the same key."""
        if overlay is None:
            return None
        return self.put(job_id, overlay, "image/png" if overlay.startswith(b"\x89PNG") else "image/jpeg")

    def store_maps(self, job_id: str, estimate: Estimate) -> Optional[Overlay]:
        """Keep the maps beside the overlay, if the job wants them."""
        maps = estimate.maps
        if maps is None:
            return None
        data = maps_archive(maps.heatmaps, maps.pafs, maps.geometry)
        return self.put(job_id, data, "application/zip")

    def put(self, job_id: str, data: bytes, media_type: str) -> Overlay:
        """Keep `data` of a type that jobs store, until the result expires; raises StorageUnavailable."""
        key = key_of(job_id, media_type)
        return self.stored.put(key, data, media_type=media_type, ttl_s=self.settings.result_expires_s)

    def result(
        self,
        job_id: str,
        attempt: Attempt,
        job: Job,
        picture: LoadedImage,
        estimate: Estimate,
        stored: Tuple[Optional[Overlay], Optional[Overlay]],
    ) -> Result:
        """Everything the sender gets; `stored` is the overlay and the maps."""
        skeleton = estimate.skeleton
        return Result(
            job_id=job_id,
            image=Image(
                path=picture.path.encode("utf-8", "backslashreplace").decode(),
                width=picture.width,
                height=picture.height,
                format=picture.format,
                frames=picture.frames,
            ),
            model=self.net_of(job).model,
            skeleton=skeleton.name,
            keypoint_names=skeleton.keypoints,
            limbs=skeleton.drawn,
            people=from_people(estimate.people),
            overlay=stored[0],
            maps=stored[1],
            warnings=[*picture.warnings, *estimate.warnings],
            timings_ms=attempt.stopwatch.total(),
            worker=str(self.where["worker"]),
            device=str(self.where["device"]),
            attempt=attempt.number,
        )

    def net_of(self, job: AnyJob) -> Served:
        """The net that `job` asks for; raises InvalidRequest if the worker has no such net."""
        wanted = job.options.model or self.settings.model
        if wanted not in self.settings.served:
            raise InvalidRequest(
                f"The job for {without_query(job.path)!r} asks for the net {wanted!r}, but this worker serves "
                f"{', '.join(map(repr, self.settings.served))}; name one of them, or another queue."
            )
        return self._serve(wanted)

    def check(self, job: AnyJob) -> Served:
        """The net that `job` asks for; raises InvalidRequest if the worker lacks that, or one of a part."""
        for part in job.options.parts:
            if part != "body" and part not in self.settings.part_nets:
                variable = {"hands": "POSE_HAND_NET", "face": "POSE_FACE_NET"}[part]
                raise InvalidRequest(
                    f"The job for {without_query(job.path)!r} asks for the part {part!r}, but this worker has no net "
                    f"of it; leave it out, name another queue, or set the worker's {variable}."
                )
        return self.net_of(job)

    def _part_net(self, part: str) -> PartNet:
        """The net of `part`, whose inputs nobody is told of before they are there."""
        if part not in self._part_nets:
            manifest = read_manifest(self.settings.models_dir / self.settings.part_nets[part])
            remote, run = self._reach(self.settings.part_nets[part], manifest)

            def look(inputs: np.ndarray) -> Maps:
                if remote is not None:
                    remote.begin()  # what the last pass has left is void
                return run(inputs)

            stated, offset = manifest.input, manifest.heatmaps.offset
            self._part_nets[part] = PartNet(look, stated.stride, stated.pad_value, offset, at_once=self.batch)
        return self._part_nets[part]

    def _reach(self, name: str, manifest: Manifest) -> Tuple[Optional[RemoteNet], InputsToMaps]:
        """A net in the net process, or in this one."""
        nets = self._nets
        if self._address is None:
            assert nets is not None

            def run(inputs: np.ndarray) -> Maps:
                try:
                    return nets.get(name)(inputs)
                except DeviceLost as exc:
                    # Only a new process can help. An ordinary end may wait for the device, and the job is tried again.
                    logs.last_words(str(exc), str(self.where["worker"]))
                    os._exit(1)

            return None, run
        # Longer than the time after which the net process counts as hanging, which ends the wait first.
        timeout_s, number = self.settings.net_timeout_s + 5, self.settings.nets.index(name)
        remote = RemoteNet(self._address, manifest, number=number, timeout_s=timeout_s, shares=self.batch > 1)
        return remote, remote

    def _serve(self, name: str) -> Served:
        if name not in self._served:
            manifest = read_manifest(self.settings.models_dir / name)
            remote, run = self._reach(name, manifest)
            self._served[name] = Served(
                Model(name=manifest.name, sha256=manifest.sha256),
                Estimator(
                    run,
                    stride=manifest.input.stride,
                    pad_value=manifest.input.pad_value,
                    offset=manifest.heatmaps.offset,
                    skeleton=skeleton_of(manifest.name, manifest.skeleton, manifest.channels),
                    room=remote.empty if remote else anywhere,
                    at_once=self.batch,
                ),
                remote,
            )
        return self._served[name]
