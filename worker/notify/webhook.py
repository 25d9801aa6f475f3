"""What a webhook is sent when a job has ended, how it is signed, and how its receiver checks that.

The body is JSON: ``job_id``, ``state`` (SUCCESS, FAILURE or REVOKED), and ``result`` or ``error`` (``type``,
``message``). The header ``Pose-Signature`` is ``v1=`` and the hexadecimal HMAC-SHA256 of ``<Pose-Timestamp>.<body>``.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any, Dict, Mapping

from worker.contract import AnyJob, without_query
from worker.errors import InvalidRequest
from worker.public_http import exchange
from worker.settings import Settings

#: Bytes of an answer that are read; what it says does not matter.
_MOST_BYTES = 1 << 16
_ENDED = ("SUCCESS", "FAILURE", "REVOKED")


def check_wanted(job: AnyJob, settings: Settings) -> None:
    """Raises InvalidRequest if `job` wants a webhook or a callback that this deployment does not call."""
    if job.callback and job.callback.queue not in settings.callback_queues:
        raise InvalidRequest(
            f"The job for {without_query(job.path)!r} names a callback for the queue {job.callback.queue!r}, but this "
            f"worker sends to {', '.join(settings.callback_queues) or 'none'} only; list it in POSE_CALLBACK_QUEUES."
        )
    if job.webhook and not settings.webhook_secret:
        raise InvalidRequest(
            f"The job for {without_query(job.path)!r} names a webhook, but this worker calls none; "
            "set POSE_WEBHOOK_SECRET."
        )


def payload(job_id: str, meta: Mapping[str, Any]) -> Dict[str, Any]:
    """What a webhook is sent of a job that has ended.

    Args:
        meta: Celery's, as the result backend holds it.

    Raises:
        ValueError: the job has not ended.
    """
    state, stored = meta.get("status"), meta.get("result")
    if state not in _ENDED:
        raise ValueError(f"job {job_id} has not ended: {state}")
    if state == "SUCCESS":
        return {"job_id": job_id, "state": state, "result": stored}
    error = stored if isinstance(stored, dict) else {}
    said = error.get("exc_message")
    kind = "JobCancelled" if state == "REVOKED" else str(error.get("exc_type"))
    sentence = " ".join(map(str, said)) if isinstance(said, (list, tuple)) else str(said)
    return {"job_id": job_id, "state": state, "error": {"type": kind, "message": sentence}}


def call(url: str, ended: Mapping[str, Any], settings: Settings) -> None:
    """Send `ended` to `url`.

    Raises:
        PermissionError, ValueError: the URL must not be called; another try would not help.
        OSError: the receiver did not take it; worth another try.
    """
    body = json.dumps(ended).encode()
    moment = str(int(time.time()))
    headers = {
        "Content-Type": "application/json",
        "Pose-Job": str(ended["job_id"]),
        "Pose-Timestamp": moment,
        "Pose-Signature": f"v1={signature(settings.webhook_secret, moment, body)}",
    }
    answer = exchange(
        "POST",
        url,
        timeout_s=settings.url_timeout_s,
        max_bytes=_MOST_BYTES,
        private_hosts=settings.private_hosts,
        body=body,
        headers=headers,
    )
    if answer.status == 410:
        raise PermissionError("it answered 410 Gone")
    if not 200 <= answer.status < 300:
        raise ConnectionError(f"it answered {answer.status}")


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Hexadecimal HMAC-SHA256 of ``<timestamp>.<body>``."""
    return hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def verify(secret: str, headers: Mapping[str, str], body: bytes, *, tolerance_s: float = 300.0) -> Dict[str, Any]:
    """For receivers: what a call says, once it is certain who sent it.

    Args:
        secret: the workers' POSE_WEBHOOK_SECRET.
        headers: the request's, in any case.
        body: the request's, as it came.
        tolerance_s: how old a call may be, and how wrong a clock, in seconds.

    Raises:
        PermissionError: it was not signed with `secret`, was changed, or is too old.
    """
    found = {name.lower(): value for name, value in headers.items()}
    timestamp = found.get("pose-timestamp", "")
    if not timestamp.isdigit() or abs(time.time() - int(timestamp)) > tolerance_s:
        raise PermissionError("the call has no timestamp, or one too far from now; check the clocks")
    if not hmac.compare_digest(found.get("pose-signature", ""), f"v1={signature(secret, timestamp, body)}"):
        raise PermissionError("the call was not signed with this secret")
    ended: Dict[str, Any] = json.loads(body)
    return ended


__all__ = ["call", "check_wanted", "payload", "signature", "verify"]
