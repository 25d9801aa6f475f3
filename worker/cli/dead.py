"""``python -m worker dead``: the jobs that used up their attempts, with their history, until someone looks."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any, Dict, Iterator, List, Tuple

import click

from worker.errors import InvalidRequest
from worker.files import printable
from worker.jobs.ledger import Ledger
from worker.settings import deployed


def _ledger() -> Ledger:
    return Ledger.of(deployed())


@click.group()
def dead() -> None:
    """Dead letters: jobs whose every attempt failed in a way that might have passed."""


@dead.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def list_(as_json: bool) -> None:
    """List them, the oldest first."""
    rows = [_row(job_id, died) for job_id, died in _ledger().dead()]
    for row in rows:
        line = "{died}  {job_id}  {attempts:>3}  {image}  {last}".format(**row)
        click.echo(json.dumps(row) if as_json else printable(line))
    if not as_json:
        click.echo(f"{len(rows)} dead letters" if len(rows) != 1 else "1 dead letter")


@dead.command()
@click.argument("job_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(job_id: str, as_json: bool) -> None:
    """Show everything that is known of a job, dead or not: when, where and how each attempt ended."""
    record = _ledger().show(job_id)
    if not record:
        raise InvalidRequest(f"There is no record of job {job_id}; it may have expired.")
    history = list(_history(record))
    known = {name: value for name, value in record.items() if not name.startswith("attempt")}
    if as_json:
        click.echo(json.dumps({"job_id": job_id, **known, "history": history}))
        return
    click.echo(f"job        {job_id}")
    for name in ("state", "submitted", "sent", "ended", "resent", "list"):
        if name in known:
            value = _time(known[name]) if name in ("submitted", "sent", "ended") else printable(known[name])
            click.echo(f"{name:<11}{value}")
    if "message" in known:
        click.echo(f"message    {json.dumps(_ledger().loads(known['message']).kwargs)}")
    for number, attempt in enumerate(history, 1):
        where = "{worker} on {device} (process {pid})".format(**attempt)
        click.echo(printable(f"attempt {number}  {attempt['begun']}  {where}"))
        click.echo(printable(f"           {attempt['ended']}  {attempt['what']}"))


@dead.command()
@click.argument("job_ids", nargs=-1, metavar="ID…")
@click.option("--all", "all_", is_flag=True, help="All of them.")
def requeue(job_ids: Tuple[str, ...], all_: bool) -> None:
    """Put dead letters back on their queues, with all their attempts before them."""
    from worker.broker.send import send
    from worker.client.app import client_app
    from worker.notify.pending import Pending

    configured = deployed()
    app = client_app(configured.broker_url, configured.results_url, configured.key_prefix)
    chosen = _chosen(job_ids, all_)
    for job_id in chosen:
        message = _ledger().requeue(job_id)
        if message is None:
            raise InvalidRequest(f"Job {job_id} is no dead letter; see: python -m worker dead list")
        Pending.of(configured).reopen(job_id)
        send(app, configured.broker_url, job_id, message)
    click.echo(f"{len(chosen)} put back")


@dead.command()
@click.argument("job_ids", nargs=-1, metavar="ID…")
@click.option("--all", "all_", is_flag=True, help="All of them.")
def purge(job_ids: Tuple[str, ...], all_: bool) -> None:
    """Remove dead letters and their history for good."""
    removed = sum(_ledger().purge(job_id) for job_id in _chosen(job_ids, all_))
    click.echo(f"{removed} removed")
    if removed < len(job_ids):
        click.echo(f"{len(job_ids) - removed} were no dead letters", err=True)
        sys.exit(1)


def _chosen(job_ids: Tuple[str, ...], all_: bool) -> List[str]:
    if bool(job_ids) == all_:
        raise click.UsageError("Name the jobs, or say --all.")
    return [job_id for job_id, _ in _ledger().dead()] if all_ else list(job_ids)


def _row(job_id: str, died: float) -> Dict[str, Any]:
    record = _ledger().show(job_id)
    history = list(_history(record))
    try:
        image = _ledger().loads(record["message"]).kwargs.get("image") if "message" in record else None
    except InvalidRequest as exc:
        image = str(exc)
    return {
        "job_id": job_id,
        "died": _time(died),
        "attempts": len(history),
        "image": image,
        "last": history[-1]["what"] if history else "",
    }


def _history(record: Dict[str, str]) -> Iterator[Dict[str, Any]]:
    tries = record.get("tries", "")
    for number in range(1, min(int(tries) if tries.isdigit() else 0, len(record)) + 1):
        begun, _, where = record.get(f"attempt:{number}", "0 {}").partition(" ")
        ended, _, what = record.get(f"attempt:{number}:end", "").partition(" ")
        attempt = _object(where)
        yield {
            "begun": _time(begun),
            **{name: attempt.get(name, "?") for name in ("worker", "device", "pid")},
            "ended": _time(ended) if ended else "",
            "what": what or "still in work",
        }


def _object(text: str) -> Dict[str, Any]:
    """The JSON object in `text`; an empty one if there is none, for a record may be damaged."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _time(seconds: Any) -> str:
    try:
        moment = datetime.fromtimestamp(float(seconds))
    except (ValueError, OverflowError, OSError):
        return f"at {str(seconds)[:40]!r}"
    return moment.astimezone().isoformat(sep=" ", timespec="milliseconds")
