"""The fleet as a table: one line for each worker on each host."""

from __future__ import annotations

import time
from typing import Any, Dict, List, Mapping, Sequence

_COLUMNS = ("worker", "state", "net", "device", "memory", "slots", "jobs", "jobs/s", "frames/batch", "beat")


def table(reports: Sequence[Mapping[str, Any]]) -> str:
    """The heartbeats `reports` as text; columns are as wide as they need to be."""
    if not reports:
        return "No worker has a heartbeat in this Redis."
    rows: List[Sequence[str]] = [_COLUMNS, *map(_row, reports)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def _row(report: Mapping[str, Any]) -> Sequence[str]:
    net: Dict[str, Any] = report["net"]
    busy = sum(1 for slot in report["slots"] if slot["busy_s"])
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
    if report["leaving"]:
        return "leaving"
    if not report["net"]["ready"]:
        return "net restarting" if report["ready"] else "loading"
    return "ready" if report["ready"] else "starting"


def _gigabytes(used: Any, total: Any) -> str:
    if not total:
        return "-"
    return f"{used / 1e9:.1f} of {total / 1e9:.1f} GB"
