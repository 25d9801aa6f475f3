"""Labelled images through the deployed queue, or through a net in this process: the people found in each."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Mapping, Tuple, Union

from worker.cli.deployment import deployment
from worker.client import IN_FLIGHT, JobHandle, PoseClient, Result
from worker.contract import Options
from worker.errors import BrokerUnavailable, PoseError, SettingsError
from worker.people import to_estimate_options, to_people, to_skeleton
from worker.pose.estimator import Estimator
from worker.pose.people import People
from worker.pose.skeleton import Skeleton
from worker.pose.skeletons import skeleton_of
from worker.settings import Settings, read_settings


@dataclass(frozen=True)
class Answer:
    """The people in one image, what of them was found, and milliseconds by stage: load, preprocess, net, associate."""

    people: People
    skeleton: Skeleton
    stages_ms: Dict[str, float]


#: Of each image's id the file in, the answer or what went wrong out, in the order in which they end.
Run = Callable[[Mapping[int, Path]], Iterator[Tuple[int, Union[Answer, PoseError]]]]


@contextmanager
def through_queue(
    options: Dict[str, Any], variables: Mapping[str, str], *, local: bool, timeout_s: float
) -> Iterator[Run]:
    """Answers of the configured workers, or of one that is run for this.

    Args:
        options: the jobs' options, as :class:`worker.contract.Options`.
        variables, local: see :func:`worker.cli.deployment.deployment`.
        timeout_s: seconds without any answer after which BrokerUnavailable is raised.
    """
    with deployment(local, variables) as (client, check):
        yield lambda paths: _answers(client, paths, options, timeout=timeout_s, check=check)


def _answers(
    client: PoseClient, paths: Mapping[int, Path], options: Dict[str, Any], **waits: Any
) -> Iterator[Tuple[int, Union[Answer, PoseError]]]:
    numbers: Dict[str, int] = {}

    def submitted() -> Iterator[JobHandle]:
        for number, path in paths.items():
            job = client.submit(path.resolve(), **options)
            numbers[job.id] = number
            yield job

    try:
        for job, outcome in client.as_completed(submitted(), in_flight=IN_FLIGHT, **waits):
            client.discard(job.id, outcome if isinstance(outcome, Result) else None)
            if not isinstance(outcome, (Result, PoseError)):
                raise outcome
            yield numbers.pop(job.id), _answer(outcome) if isinstance(outcome, Result) else outcome
    except TimeoutError as exc:
        raise BrokerUnavailable(str(exc)) from exc


def _answer(result: Result) -> Answer:
    spent, skeleton = result.timings_ms, to_skeleton(result)
    return Answer(to_people(result.people, skeleton), skeleton, _stages(spent.get("decode", 0.0), spent))


def _stages(load_ms: float, timings_ms: Mapping[str, float]) -> Dict[str, float]:
    return {"load": load_ms, **{stage: timings_ms.get(stage, 0.0) for stage in ("preprocess", "net", "associate")}}


@contextmanager
def in_this_process(options: Dict[str, Any], variables: Mapping[str, str]) -> Iterator[Run]:
    """Answers of a net in this process, image by image, without queue and broker.

    Args:
        options: as of :func:`through_queue`.
        variables: POSE_* variables that choose the net, beside the environment.

    Raises:
        SettingsError: this CPU has no instructions for the precision.
    """
    from worker.device.pin import own_device, own_engine, own_precision
    from worker.engine import load
    from worker.pose.decoder import warm

    chosen = read_settings({**os.environ, **variables})
    device = own_device(chosen).torch_name
    precision = own_precision(chosen, device)
    net = load(
        chosen.models_dir / chosen.model,
        device=device,
        precision=precision,
        engine=own_engine(chosen, device),
        threads=chosen.threads or None,
    )
    try:
        if net.precision != precision:  # figures must not stand under another's name
            raise SettingsError(f"This CPU has no instructions for {precision}; measure where there are some.")
        manifest = net.manifest
        estimator = Estimator(
            net,
            stride=manifest.input.stride,
            pad_value=manifest.input.pad_value,
            offset=manifest.heatmaps.offset,
            skeleton=skeleton_of(manifest.name, manifest.skeleton, manifest.channels),
        )
        warm()
        yield lambda paths: _estimated(estimator, paths, Options.model_validate(options), chosen)
    finally:
        net.close()


def _estimated(
    estimator: Estimator, paths: Mapping[int, Path], options: Options, chosen: Settings
) -> Iterator[Tuple[int, Union[Answer, PoseError]]]:
    from worker.images.local import load_image
    from worker.images.policy import ImagePolicy

    policy = ImagePolicy(
        roots=("/",), max_bytes=chosen.max_bytes, max_pixels=chosen.max_pixels, max_aspect=chosen.max_aspect
    )
    for number, path in paths.items():
        start = time.perf_counter()
        try:
            picture = load_image(str(path.resolve()), policy)
            load_ms = (time.perf_counter() - start) * 1000
            (found,) = estimator.estimate([picture.pixels], to_estimate_options(options))
        except PoseError as exc:
            yield number, exc
            continue
        yield number, Answer(found.people, found.skeleton, _stages(load_ms, found.timings_ms))
