"""``python -m worker job ID``: where a job is, and once more."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from worker.files import printable
from worker.servers import no_worker
from worker.settings import deployed


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--retry", is_flag=True, help="First put it back on its queue, if it has ended without a result.")
def job(job_id: str, as_json: bool, retry: bool) -> None:
    """Say where a job is: how many are before it, which worker has it, why it failed. See docs/clients.md."""
    from worker.client import PoseClient

    configured = deployed()
    with PoseClient(
        configured.broker_url,
        result_backend=configured.results_url,
        queue=configured.queue,
        key_prefix=configured.key_prefix,
    ) as client:
        if retry:
            client.retry(job_id)
        found = client.status(job_id)
    click.echo(json.dumps(asdict(found)) if as_json else printable(str(found)))
    if not found.served:
        click.echo(no_worker(found.queue, configured.broker_url), err=True)
