"""How workers are, by their heartbeats: read from this host's files or from Redis, judged, and shown.

Loads no more than it needs: the health check starts every few seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from worker.files import printable
from worker.servers import Keys, connect
from worker.settings import Settings

#: Seconds without a heartbeat after which a worker counts as dead.
STALE_S = 10.0
#: What makes a heartbeat one.
_FIELDS = {"worker", "written_at", "pid", "net", "slots", "ready", "leaving", "jobs_done", "jobs_failed"}
#: Seconds beyond the hard time limit within which a slot must have been killed.
_SLACK_S = 10.0
_COLUMNS = ("worker", "state", "net", "device", "memory", "slots", "jobs", "jobs/s", "frames/batch", "beat")


def heartbeat_path(folder: Path, name: str) -> Path:
    """The heartbeat file of the worker called `name`."""
    return folder / f"{name.replace(os.sep, '_')}.json"


def read_heartbeats(folder: Path) -> List[Dict[str, Any]]:
    """The heartbeats of this host's workers, by name."""
    found = []
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(OSError):
            found.append(_report(path.read_bytes()))
    return [report for report in found if report]


def all_workers(settings: Settings) -> List[Dict[str, Any]]:
    """The heartbeats of every worker on every host, from Redis, by name.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    with connect(settings.results_url, timeout_s=5) as client:
        keys = sorted(client.scan_iter(Keys(settings.key_prefix).worker("*"), count=1000))
        texts = client.mget(keys) if keys else []
    return [report for text in texts if (report := _report(text))]


def _report(text: Any) -> Optional[Dict[str, Any]]:
    """The heartbeat in `text`; None if it is none: anybody may have written the file or the key."""
    try:
        found = json.loads(text or b"")
    except ValueError:
        return None
    return found if isinstance(found, dict) and set(found) >= _FIELDS else None


def faults(report: Mapping[str, Any], settings: Settings, *, ready: bool) -> Iterator[str]:
    """What is wrong with a worker, by its heartbeat; nothing if it is well.

    A Redis that is away is no fault of the worker's: killing it would help nobody.

    Args:
        ready: whether it must also consume.
    """
    age = time.time() - report["written_at"]
    if age > STALE_S:
        yield f"its heartbeat is {age:.0f} s old"
    elif not _exists(report["pid"]):
        yield f"its process {report['pid']} is gone"
    if report.get("benched"):  # its fleet knows, and the other workers of the host are not to suffer for it
        if ready:
            yield f"it is benched: {report['last_error']}"
        return
    age = max(0.0, age)
    yield from _net_faults(report["net"], settings, age)
    for index, slot in enumerate(report["slots"]):
        if (slot["busy_s"] or 0) + age > settings.hard_time_limit_s + _SLACK_S:
            yield f"slot {index} has worked on one job for {slot['busy_s']:.0f} s"
        elif slot["pid"] and (slot["quiet_s"] or 0) + age > STALE_S:
            yield f"slot {index} (process {slot['pid']}) is frozen"
    if ready and not (report["ready"] and report["net"]["ready"] and not report["leaving"]):
        yield "it is not ready"


def _net_faults(net: Mapping[str, Any], settings: Settings, age: float) -> Iterator[str]:
    if not net["process"] or not net["ready"]:
        return
    if (net["batch_in_flight_s"] or 0) + age > settings.net_timeout_s:
        yield f"its net process has worked on one batch for {net['batch_in_flight_s']:.0f} s"
    elif net["batch_in_flight_s"] is None and (net["quiet_s"] or 0) + age > STALE_S:
        yield f"its net process has been frozen for {net['quiet_s']:.0f} s"


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def table(reports: Sequence[Mapping[str, Any]]) -> str:
    """The heartbeats `reports` as a table for people: one line for each worker."""
    if not reports:
        return "No worker has a heartbeat in this Redis."
    rows: List[Sequence[str]] = [_COLUMNS, *(tuple(map(printable, _row(report))) for report in reports)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def _row(report: Mapping[str, Any]) -> Sequence[str]:
    net: Dict[str, Any] = report["net"]
    busy = sum(1 for slot in report["slots"] if slot["busy_s"] is not None)
    return (
        report["worker"],
        _state(report),
        f"{net['model']} {net['precision']}",
        report["device"],
        _gigabytes(report["memory_used"], report["memory_total"]),
        f"{busy}/{len(report['slots'])}",
        f"{report['jobs_done']}" + (f" ({report['jobs_failed']} failed)" if report["jobs_failed"] else ""),
        f"{report['jobs_per_s']:.1f}",
        f"{net['frames'] / net['batches']:.1f}" if net["batches"] else "-",
        f"{max(0.0, time.time() - report['written_at']):.0f} s ago",
    )


def _state(report: Mapping[str, Any]) -> str:
    if report.get("benched"):
        return "benched"
    if report["leaving"]:
        return "leaving"
    if not report["net"]["ready"]:
        return "net restarting" if report["ready"] else "loading"
    if report.get("paused"):
        return "paused"
    return "ready" if report["ready"] else "starting"


def _gigabytes(used: Any, total: Any) -> str:
    if not total:
        return "-"
    return f"{used / 1e9:.1f} of {total / 1e9:.1f} GB"
