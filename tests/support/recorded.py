"""What the version before left in Redis for a job of every state; record_jobs.py has made it."""

from __future__ import annotations

import base64
import json
from typing import Any

import redis

from tests.support import ROOT

FOLDER = ROOT / "tests" / "support" / "recorded"
#: The image of all these jobs, and where it was.
IMAGE, BUCKET = "s3://recorded/image.jpg", "recorded"


def restore(client: redis.Redis, state: str) -> str:
    """Put there what was recorded of a job in `state`; returns the job's id."""
    recorded = json.loads((FOLDER / f"{state}.json").read_text(encoding="utf-8"))
    with client.pipeline() as pipe:
        for key, kept in recorded["keys"].items():
            value = kept["value"]
            if kept["type"] == "string":
                pipe.set(key, _bytes(value))
            elif kept["type"] == "hash":
                pipe.hset(key, mapping=value)
            elif kept["type"] == "list":
                pipe.rpush(key, *value)
            else:
                pipe.zadd(key, dict(value))
            if kept["ttl"] >= 0:
                pipe.expire(key, kept["ttl"])
        pipe.execute()
    return str(recorded["job_id"])


def _bytes(value: Any) -> bytes:
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else str(value).encode()
