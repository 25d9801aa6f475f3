"""Labelled images through the deployed queue, or through a net in this process: the people found in each."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Mapping, Tuple, Union

from worker.client import PoseClient
from worker.contract import Options, Result
from worker.errors import BrokerUnavailable, PoseError, SettingsError
from worker.people import to_estimate_options, to_people
from worker.pose import Estimator
from worker.pose.people import People
from worker.settings import Settings, read_settings, settings

#: Jobs on the queue or being worked on at a time.
IN_FLIGHT = 64
#: Seconds between two looks at the results.
_POLL_S = 0.02


@dataclass(frozen=True)
class Answer:
    """The people in one image, and milliseconds by stage: load, preprocess, net, associate."""

    people: People
    stages_ms: Dict[str, float]


#: Of each image's id the file in, the answer or what went wrong out, in the order in which they end.
Run = Callable[[Mapping[int, Path]], Iterator[Tuple[int, Union[Answer, PoseError]]]]


@contextmanager
def through_queue(
    options: Dict[str, Any], timeout_s: float, local: Mapping[str, str], use_local: bool
) -> Iterator[Run]:
    """Answers of the configured broker's workers.

    Args:
        options: the jobs' options, as :class:`worker.contract.Options`.
        timeout_s: longest wait for any answer, in seconds.
        local: what a local worker is told, as POSE_* variables.
        use_local: whether a Redis and a worker of this command's own are run even if a broker is configured.
    """
    from worker.cli.local import local_fleet

    configured = settings()
    if configured.broker_url and not use_local:
        url, results = configured.broker_url, configured.results_url
        with PoseClient(url, result_backend=results, queue=configured.queue) as client:
            yield lambda paths: _await(client, paths, options, timeout_s, lambda: None)
        return
    environment = {"POSE_IMAGE_ROOTS": "/", **os.environ, **local}
    with local_fleet(environment) as here, PoseClient(here.broker_url, queue=configured.queue) as client:
        yield lambda paths: _await(client, paths, options, timeout_s, here.check)


def _await(
    client: PoseClient,
    paths: Mapping[int, Path],
    options: Dict[str, Any],
    timeout_s: float,
    check: Callable[[], None],
) -> Iterator[Tuple[int, Union[Answer, PoseError]]]:
    waiting = iter(paths.items())
    open_jobs: Dict[str, int] = {}
    last = time.monotonic()
    while True:
        while len(open_jobs) < IN_FLIGHT:
            number, path = next(waiting, (0, None))
            if path is None:
                break
            open_jobs[client.submit(path.resolve(), **options).id] = number
        if not open_jobs:
            return
        ended = list(client.ended(open_jobs))
        for job_id, outcome in ended:
            number = open_jobs.pop(job_id)
            client.discard(job_id, outcome if isinstance(outcome, Result) else None)
            if isinstance(outcome, Result):
                yield number, _answer(outcome)
            elif isinstance(outcome, PoseError):
                yield number, outcome
            else:
                raise outcome
        if ended:
            last = time.monotonic()
            continue
        check()
        if time.monotonic() - last > timeout_s:
            raise BrokerUnavailable(
                f"No answer within {timeout_s:g} s for {len(open_jobs)} images; is a worker running?"
            )
        time.sleep(_POLL_S)


def _answer(result: Result) -> Answer:
    spent = result.timings_ms
    return Answer(to_people(result.people), _stages(spent.get("decode", 0.0), spent))


def _stages(load_ms: float, timings_ms: Mapping[str, float]) -> Dict[str, float]:
    return {"load": load_ms, **{stage: timings_ms.get(stage, 0.0) for stage in ("preprocess", "net", "associate")}}


@contextmanager
def in_process(options: Dict[str, Any], told: Mapping[str, str]) -> Iterator[Run]:
    """Answers of a net in this process, image by image, without queue and broker.

    Args:
        options: as of :func:`through_queue`.
        told: what the net's settings are, as POSE_* variables, beside the environment.

    Raises:
        SettingsError: this CPU has no instructions for the precision.
    """
    from worker.device.pin import own_device, own_precision
    from worker.engine import load

    chosen = read_settings({**os.environ, **told})
    device = own_device(chosen).torch_name
    precision = own_precision(chosen, device)
    net = load(
        chosen.models_dir / chosen.model,
        device=device,
        precision=precision,
        engine=chosen.engine,
        threads=chosen.threads or None,
    )
    try:
        if net.precision != precision:  # figures must not stand under another's name
            raise SettingsError(f"This CPU has no instructions for {precision}; measure where there are some.")
        stated = net.manifest.input
        offset = net.manifest.heatmaps.offset
        estimator = Estimator(net, stride=stated.stride, pad_value=stated.pad_value, offset=offset)
        estimator.warm()
        yield lambda paths: _look(estimator, paths, Options.model_validate(options), chosen)
    finally:
        net.close()


def _look(
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
        yield number, Answer(found.people, _stages(load_ms, found.timings_ms))
