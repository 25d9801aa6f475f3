"""Celery's settings; the values that a deployment may choose come from worker.settings.

Each line that differs from Celery's default says why. Measured with Celery 5.7.0 on Redis.
"""

from worker.servers import DEFAULT_URL, Keys, celery_server, is_redis, queue
from worker.settings import settings

_s = settings()
_url = _s.broker_url or DEFAULT_URL
_broker, _results = celery_server(_url), celery_server(_s.results_url or _url)
_keys = Keys(_s.key_prefix)

broker_url = _broker.url
result_backend = _results.url
#: Ours stores an outcome in one step with the job's record.
override_backends = {
    "redis": "worker.broker.results:ResultBackend",
    "rediss": "worker.broker.results:ResultBackend",
    "sentinel": "worker.broker.results:SentinelResultBackend",
}
result_expires = _s.result_expires_s
#: Without it a finished job turns FAILURE when Redis is away while it is stored.
result_backend_always_retry = True
result_backend_max_sleep_between_retries_ms = 1000
#: Other languages' clients read plain JSON.
result_compression = None
result_serializer = task_serializer = "json"
accept_content = result_accept_content = ["json"]

include = ["worker.tasks.image", "worker.tasks.video"]
task_default_queue = _s.consumed[0]
task_queues = [queue(name, _url) for name in _s.consumed]
#: A message is acknowledged after its outcome is stored, so a dead worker's job is delivered again.
task_acks_late = True

worker_pool = "prefork"
#: Ours looks at each message first; Celery's own ends on some.
worker_consumer = "worker.broker.consumer:Consumer"
#: A worker holds only what it works on; what waits stays on the queue, where other workers find it.
worker_prefetch_multiplier = 1
worker_disable_prefetch = True
#: A child loads the net before it answers; the default of 4 s kills slow starters for ever.
worker_proc_alive_timeout = max(120.0, _s.start_timeout_s)
#: True loses jobs when broker and result backend are one Redis.
worker_cancel_long_running_tasks_on_connection_loss = False
worker_hijack_root_logger = True
worker_send_task_events = False
broker_connection_retry_on_startup = True
#: A key of a type that Celery does not expect, which a stranger may have written, does not end the worker.
broker_channel_error_retry = is_redis(_url)
#: A broker that is away for a weekend is waited for; the default gives up after 100 tries.
broker_connection_max_retries = None

#: A message unacknowledged for longer is delivered again: beyond any running attempt and the drain.
_visibility_s = int(_s.hard_time_limit_s + _s.grace_s)
broker_transport_options = {
    **_broker.options,
    **_keys.broker_options,
    "visibility_timeout": _visibility_s,
    # By default a dead worker's message is looked for every 100 s only.
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    # Celery's priorities 0 to 9; on Redis 0 goes first.
    "priority_steps": list(range(10)),
    "queue_order_strategy": "priority",
}
result_backend_transport_options = {**_results.options, **_keys.result_options, "visibility_timeout": _visibility_s}
visibility_timeout = _visibility_s
globals().update(_keys.celery_settings)
