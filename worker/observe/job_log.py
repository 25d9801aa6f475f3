"""The line of the log about an attempt that has ended."""

from __future__ import annotations

import logging
from typing import Any, Dict, Optional

from worker.jobs.attempt import AttemptEnd

logger = logging.getLogger("worker.jobs")

_MARKS = {"succeeded": "✓", "retried": "○"}
_VERBS = {
    "succeeded": "succeeded in",
    "failed": "failed after",
    "dead": "was given up after",
    "retried": "is tried again in",
}


def log_end(end: AttemptEnd) -> None:
    """The line of an attempt that has ended."""
    if end.kind not in _VERBS:
        return
    seconds = (end.pause_s or 0.0) if end.kind == "retried" else end.seconds
    mark, verb = _MARKS.get(end.kind, "✗"), _VERBS[end.kind]
    sentence = f"{mark} {end.message.task}[{end.job_id}] {verb} {seconds:.3f} s"
    timings = end.result.get("timings_ms", {})
    if "frames" in end.result:
        sentence += f": {_shown(end.image)}, {end.result['frames']} frames"
    elif end.result:
        stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in timings.items() if stage != "total")
        sentence += f": {_shown(end.image)}, {len(end.result['people'])} people ({stages} ms)"
    else:
        sentence += f": {end.error_name}: {end.error}"
    sentence += f", attempt {end.attempt}" if end.attempt > 1 else ""
    bug: Optional[BaseException] = None if end.is_expected else end.error
    level = logging.INFO if end.is_expected and end.kind != "dead" else logging.ERROR
    logger.log(level, "%s", sentence, exc_info=bug, extra={"job": _fields(end)})


def _fields(end: AttemptEnd) -> Dict[str, Any]:
    fields: Dict[str, Any] = {
        "event": f"job.{end.kind}",
        "job_id": end.job_id,
        "image": _text(end.image),
        "attempt": end.attempt,
        "seconds": round(end.seconds, 6),
    }
    if end.pause_s is not None:
        fields["pause_s"] = round(end.pause_s, 3)
    if end.error is not None:
        fields.update(error=end.error_name, reason=str(end.error))
    if "people" in end.result:
        fields.update(people=len(end.result["people"]), timings_ms=dict(end.result["timings_ms"]))
    return fields


def _shown(path: str) -> str:
    return repr(path) if len(path) <= 200 else f"{path[:200]!r}…"


def _text(path: str) -> str:
    """`path` with what is not UTF-8 in it escaped."""
    return path.encode("utf-8", "backslashreplace").decode()
