"""The client that a command uses: of the configured workers, or of a worker that the command runs itself."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, Mapping, Tuple

import click

from worker.settings import settings

if TYPE_CHECKING:
    from worker.client import PoseClient


@contextmanager
def deployment(local: bool, variables: Mapping[str, str] = {}) -> Iterator[Tuple[PoseClient, Callable[[], None]]]:
    """A client of the configured workers, and a check that raises once a worker of this command's own has ended.

    Args:
        local: whether a Redis and a worker of this command's own are run even if a broker is configured.
        variables: POSE_* variables for that worker, beside the environment.

    Raises:
        DeviceLost: by the check.
    """
    from worker.cli.local import local_fleet

    configured = settings()
    names: Dict[str, Any] = {"queue": configured.queue, "key_prefix": configured.key_prefix}
    for limit in ("max_bytes", "max_uploads_bytes", "max_message_bytes"):
        names[limit] = getattr(configured, limit)
    if configured.broker_url and not local:
        servers = {"result_backend": configured.results_url, "overlay_store": configured.overlays_url}
        with _client(configured.broker_url, **servers, **names) as client:
            from worker.client.silence import Silence

            yield client, Silence(client, lambda sentence: click.echo(f"\n{sentence}", err=True)).look
        return
    # The files are the user's own, read with the user's rights: all folders are allowed unless the user says which.
    environment = {"POSE_IMAGE_ROOTS": "/", **os.environ, **variables}
    with local_fleet(environment) as (broker_url, check), _client(broker_url, **names) as client:
        yield client, check


def _client(broker_url: str, **arguments: Any) -> PoseClient:
    """Loaded only here, while a local worker starts."""
    from worker.client import PoseClient

    return PoseClient(broker_url, **arguments)
