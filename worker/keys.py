"""What Celery's own keys in Redis are called: as everywhere, or, for a deployment beside others, with its prefix.

The default prefix leaves them as every Celery client expects them. Any other begins all of them but the queues, which
have names of their own (POSE_QUEUE): results, messages in work, and the channels of remote control and of events. So
neither the results of two deployments' equal job ids nor their workers' messages come into each other's way.

Imports nothing: settings, workers and clients use it.
"""

from __future__ import annotations

from typing import Any, Dict, NamedTuple

#: POSE_KEY_PREFIX, unless told otherwise.
DEFAULT_PREFIX = "pose"


class CeleryKeys(NamedTuple):
    """What Celery and kombu are told.

    Attributes:
        unacked: the hash of messages that consumers hold.
        broker_options: kombu's transport options.
        result_options: the result backend's transport options.
        settings: Celery's settings.
    """

    unacked: str
    broker_options: Dict[str, Any]
    result_options: Dict[str, Any]
    settings: Dict[str, Any]


def celery_keys(prefix: str) -> CeleryKeys:
    """Those of the deployment with this POSE_KEY_PREFIX."""
    if prefix == DEFAULT_PREFIX:
        return CeleryKeys("unacked", {}, {}, {})
    unacked = f"{prefix}:unacked"
    held = {"unacked_key": unacked, "unacked_index_key": f"{unacked}_index", "unacked_mutex_key": f"{unacked}_mutex"}
    exchanges = {"control_exchange": f"{prefix}.celery", "event_exchange": f"{prefix}.celeryev"}
    return CeleryKeys(unacked, held, {"global_keyprefix": f"{prefix}:"}, exchanges)
