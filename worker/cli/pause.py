"""``python -m worker pause`` and ``resume``: have workers take no jobs for a while."""

from __future__ import annotations

import click

from worker.client.app import broker_errors, client_app
from worker.errors import BrokerUnavailable
from worker.settings import deployed

#: Seconds within which workers answer.
_ANSWER_S = 3.0


@click.command()
@click.argument("name")
def pause(name: str) -> None:
    """Have the worker NAME, e.g. gpu0@host, or all of them take no more jobs; those in work go on."""
    _command("pause", name)


@click.command()
@click.argument("name")
def resume(name: str) -> None:
    """Have the worker NAME, e.g. gpu0@host, or all of them take jobs again."""
    _command("resume", name)


def _command(command: str, name: str) -> None:
    configured = deployed()
    app = client_app(configured.broker_url, configured.results_url, configured.key_prefix)
    chosen = {} if name == "all" else {"destination": [name], "limit": 1}
    with broker_errors(configured.broker_url):
        answers = app.control.broadcast(command, reply=True, timeout=_ANSWER_S, **chosen)
    for answer in answers:
        for worker, said in answer.items():
            click.echo(f"{worker}: {said.get('ok') or said.get('error')}")
    if not answers:
        raise BrokerUnavailable(f"No worker has answered to {name!r}; see: python -m worker status")
