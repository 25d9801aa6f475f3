"""The command line: ``python -m worker --help``."""

from __future__ import annotations

import importlib
import os
import sys
import time
from typing import List, Optional

import click

from worker.errors import PoseError
from worker.logs import last_words
from worker.servers import masked, no_worker
from worker.settings import deployed, settings


class Commands(click.Group):
    """The commands of this file, and others whose modules are imported only when they are asked for: every few seconds
    a health check starts, which needs none of them."""

    #: Each is in the module worker.cli.<name>, and resume beside pause.
    elsewhere = ("dead", "evaluate", "job", "pause", "refused", "resume", "submit")

    def list_commands(self, ctx: click.Context) -> List[str]:
        """All names."""
        return sorted((*super().list_commands(ctx), *self.elsewhere))

    def get_command(self, ctx: click.Context, cmd_name: str) -> Optional[click.Command]:
        """The command of that name."""
        if cmd_name not in self.elsewhere:
            return super().get_command(ctx, cmd_name)
        module = "pause" if cmd_name == "resume" else cmd_name
        found: click.Command = getattr(importlib.import_module(f"worker.cli.{module}"), cmd_name)
        return found


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Multi-person pose estimation as a queue worker."""


@main.command()
def fleet() -> None:
    """Run this machine's workers, one for each GPU, against the configured broker (POSE_BROKER_URL)."""
    from worker.process.fleet import run_fleet

    sys.exit(run_fleet(deployed()))


@main.command()
@click.option("--ready", is_flag=True, help="Also fail while a worker does not consume yet, or any more.")
@click.option("--config", is_flag=True, help="Instead, say what is wrong with the settings; starts nothing.")
@click.option("--name", default="", help="Only the worker of this name, e.g. gpu0; else all of this host.")
def check(ready: bool, config: bool, name: str) -> None:
    """Say whether this host's workers are well: exit status 0, or 1 and why not."""
    problems = _wrong_settings() if config else _ill_workers(name, ready)
    for sentence in problems:
        click.echo(sentence, err=True)
    if config and not problems:
        click.echo("Every setting is allowed, and what it names is there.")
    sys.exit(1 if problems else 0)


def _wrong_settings() -> List[str]:
    from worker.process.preflight import wrong

    return wrong(os.environ)


def _ill_workers(name: str, ready: bool) -> List[str]:
    from worker.observe.heartbeat import faults, read_heartbeats

    folder = settings().heartbeat_dir
    reports = [one for one in read_heartbeats(folder) if not name or one["worker"].partition("@")[0] == name]
    if not reports:
        return [f"No worker{name and ' ' + name} has a heartbeat in {folder}."]
    return [f"{one['worker']}: {fault}." for one in reports for fault in faults(one, settings(), ready=ready)]


@main.command()
@click.option("--watch", is_flag=True, help="Go on until interrupted.")
def status(watch: bool) -> None:
    """Show every worker on every host: its device, its memory, its slots, its pace; exit status 1 if there is none."""
    from worker.observe.heartbeat import all_workers, table

    while True:
        found = all_workers(deployed())
        if watch:
            click.clear()
        click.echo(table(found))
        if not watch:
            break
        time.sleep(1)
    if not found:
        click.echo(no_worker(settings().queue, deployed().broker_url), err=True)
        sys.exit(1)


def run() -> None:
    """Run the command line; expected errors end it with their sentence and status 2."""
    try:
        main()
    except PoseError as exc:
        last_words(str(exc))
    except Exception as exc:
        if "redis" not in sys.modules or not isinstance(exc, sys.modules["redis"].RedisError):
            raise
        url = masked(settings().results_url)
        last_words(f"The Redis {url} does not answer ({exc}); check POSE_BROKER_URL and the server.")
    sys.exit(2)


if __name__ == "__main__":
    run()
