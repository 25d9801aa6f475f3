"""What lies in a Redis list, opened: the JSON that kombu puts around a message.

kombu makes a message of whatever is there and ends the worker on what is none. Here that becomes an envelope all the
same, of a content type of its own, which says why it is refused; :mod:`worker.broker.consumer` refuses it.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Dict, Mapping, Optional

from kombu.utils.json import loads

from worker.jobs.message_id import job_id_in_envelope

#: The content type of what is no message; its headers say ``why``, how many ``bytes`` it has, and its ``id`` if any.
NO_MESSAGE = "application/x-pose-no-message"
#: The header of a message that goes to the head of its queue; it does not go further than that.
FIRST = "pose_first"
#: Bytes of an item that is too large, within which its id is still looked for.
_READ_AT_MOST = 16 << 20
#: Where a message was sent to, as its delivery_info says.
_PLACE = ("exchange", "routing_key")
#: Bytes of what is no message that are kept for whoever looks at the refused ones.
_KEPT = 2000


def opened(item: bytes, max_bytes: int) -> Dict[str, Any]:
    """The envelope in `item`, or one of the content type NO_MESSAGE."""
    if len(item) > _READ_AT_MOST:
        return _no_message(item, _too_large(item, max_bytes))
    try:
        fields = loads(item)
    except Exception as exc:  # of whatever kind the constructors of kombu's types raise: dates, bytes and more
        return _no_message(item, f"it is not JSON ({in_words(exc)})", _job_id_within(item))
    fields = fields if isinstance(fields, dict) else {}
    fault = _too_large(item, max_bytes) if len(item) > max_bytes else _fault(fields)
    return _no_message(item, fault, job_id_in_envelope(fields)) if fault else fields


def _job_id_within(item: bytes) -> Optional[str]:
    """The job's id in what is JSON, but not kombu's."""
    try:
        fields = json.loads(item)
    except (ValueError, RecursionError):
        return None
    return job_id_in_envelope(fields) if isinstance(fields, dict) else None


def _too_large(item: bytes, max_bytes: int) -> str:
    return f"it has {len(item)} bytes, more than {max_bytes}"


def _no_message(item: bytes, why: str, job_id: Optional[str] = None) -> Dict[str, Any]:
    return {
        "body": base64.b64encode(item[:_KEPT]).decode(),
        "content-type": NO_MESSAGE,
        "content-encoding": "binary",
        "headers": {"why": why, "bytes": len(item), "id": job_id},
        "properties": {"body_encoding": "base64", "delivery_tag": "", "delivery_info": {}},
    }


def _fault(fields: Mapping[str, Any]) -> Optional[str]:
    """What is wrong with an envelope, as kombu takes it apart.

    It may lack where it was sent to, for which kombu looks; some clients leave that out, and the transport knows.
    """
    properties, headers, body = fields.get("properties"), fields.get("headers"), fields.get("body")
    if not isinstance(properties, dict) or not (headers is None or isinstance(headers, dict)):
        return "it is no Celery message: it has no properties, or no headers"
    if properties.get("delivery_info") is None:
        properties["delivery_info"] = {}
    delivery, priority = properties["delivery_info"], properties.get("priority")
    if not isinstance(delivery, dict) or not all(isinstance(delivery.get(n, ""), str) for n in _PLACE):
        return "its delivery_info names no exchange and no routing_key"
    if isinstance(priority, bool) or not (priority is None or isinstance(priority, int)):
        return "its priority is no number"
    if not (body is None or isinstance(body, str)):
        return "its body is no string"
    if properties.get("body_encoding"):
        if properties["body_encoding"] != "base64":
            return "its body's encoding is not base64"
        try:
            base64.b64decode(str(body or "").encode())
        except ValueError as exc:
            return f"its body is not base64 ({in_words(exc)})"
    return None


def in_words(exc: Optional[BaseException]) -> str:
    """What `exc` says, in a line that is not long."""
    text = " ".join(ascii(str(exc)).split())[1:-1]
    return text[:200] or type(exc).__name__
