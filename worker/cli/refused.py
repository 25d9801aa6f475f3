"""``python -m worker refused``: messages that no worker would take."""

from __future__ import annotations

import json
import time

import click

from worker.broker.refused import Refused
from worker.files import printable
from worker.settings import deployed


def _configured() -> Refused:
    return Refused.of(deployed())


@click.group()
def refused() -> None:
    """Messages that no worker would take: not JSON, too large, another task."""


@refused.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line, with what arrived.")
def list_(as_json: bool) -> None:
    """List them, the newest first."""
    entries = _configured().list()
    for entry in entries:
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry["time"]))
        line = f"{moment}  {entry['queue']}  {entry['job_id'] or '-'}  {entry['why']}"
        click.echo(json.dumps(entry) if as_json else printable(line))
    if not as_json:
        click.echo(f"{len(entries)} refused messages" if len(entries) != 1 else "1 refused message")


@refused.command()
def purge() -> None:
    """Remove them for good."""
    click.echo(f"{_configured().purge()} removed")
