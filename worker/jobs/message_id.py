"""Which job a message is of, whatever client has written it, and also if it is to be refused."""

from __future__ import annotations

import base64
import json
from typing import Any, Mapping, Optional, Union

from worker.contract import id_fault


def job_id_in(headers: Any, body: Union[bytes, str, None] = None, properties: Any = None) -> Optional[str]:
    """The job's id in the parts of a message, if there is one that may be used.

    Protocol 2 has it in the headers, protocol 1 in the body; most clients repeat it as the property correlation_id.

    Args:
        body: JSON, whatever else may be there.
    """
    for fields, name in ((headers, "id"), (_object(body), "id"), (properties, "correlation_id")):
        job_id = fields.get(name) if isinstance(fields, dict) else None
        if id_fault(job_id) is None:
            return str(job_id)
    return None


def job_id_in_envelope(fields: Mapping[str, Any]) -> Optional[str]:
    """The same of what lies in a Redis list: the JSON that kombu puts around a message."""
    headers, body, properties = fields.get("headers"), fields.get("body"), fields.get("properties")
    named = job_id_in(headers)
    if named is not None or not isinstance(body, str):
        return named or job_id_in(None, None, properties)
    if isinstance(properties, dict) and properties.get("body_encoding") == "base64":
        try:
            return job_id_in(headers, base64.b64decode(body.encode()), properties)
        except ValueError:
            return job_id_in(headers, None, properties)
    return job_id_in(headers, body, properties)


def _object(text: Union[bytes, str, None]) -> Any:
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
