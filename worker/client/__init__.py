"""For other services: submit an image, wait for its people, fetch the picture. See :mod:`worker.client.sync`."""

from worker.client.film import Frame
from worker.client.handle import JobHandle, VideoHandle
from worker.client.outcome import Outcome
from worker.client.result import Result
from worker.client.status import JobStatus
from worker.client.sync import IN_FLIGHT, PoseClient
from worker.errors import BrokerUnavailable, JobFailed
from worker.video_contract import Progress, VideoResult

__all__ = [
    "IN_FLIGHT",
    "BrokerUnavailable",
    "Frame",
    "JobFailed",
    "JobHandle",
    "JobStatus",
    "Outcome",
    "PoseClient",
    "Progress",
    "Result",
    "VideoHandle",
    "VideoResult",
]
