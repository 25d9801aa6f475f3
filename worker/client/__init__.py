"""For other services: submit an image, wait for its people, fetch the picture. See :mod:`worker.client.sync`."""

from worker.client.job import JobHandle, Outcome
from worker.client.result import Result
from worker.client.status import JobStatus
from worker.client.sync import IN_FLIGHT, PoseClient
from worker.errors import BrokerUnavailable, JobFailed

__all__ = ["IN_FLIGHT", "BrokerUnavailable", "JobFailed", "JobHandle", "JobStatus", "Outcome", "PoseClient", "Result"]
