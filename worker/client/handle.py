"""A job that was submitted, as its client has it: its id, where it is, and what it ends in."""

from __future__ import annotations

from typing import Any, ClassVar, Generic, Iterator, Optional, Protocol, Type

from worker.client.film import Frame, frames_of
from worker.client.outcome import AnyOutcome, Found, of_kind
from worker.client.result import Result
from worker.client.status import JobStatus
from worker.contract import Overlay
from worker.video_contract import Progress, VideoResult


class _Client(Protocol):
    """What a handle asks of its client, which is a :class:`worker.client.PoseClient`."""

    def state(self, job_id: str) -> str: ...
    def wait(self, job: Handle[Any], timeout: Optional[float] = None) -> AnyOutcome: ...
    def fetch(self, stored: Overlay, job_id: str) -> bytes: ...
    def cancel(self, job_id: str) -> bool: ...
    def status(self, job_id: str) -> JobStatus: ...
    def progress(self, job_id: str) -> Progress: ...
    def retry(self, job_id: str) -> None: ...


class Handle(Generic[Found]):
    """What the handles of images' and of films' jobs have in common.

    Attributes:
        id: the job's.
        path: of the image or film, unless only the id is known.
    """

    #: What such a job's result is.
    RESULT: ClassVar[Type[Any]]

    def __init__(self, client: _Client, job_id: str, path: str = "") -> None:
        self._client = client
        self.id = job_id
        self.path = path

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r}, {self.path!r})"

    @property
    def state(self) -> str:
        """Celery's state: PENDING, STARTED, RETRY, SUCCESS, FAILURE or REVOKED."""
        return self._client.state(self.id)

    def status(self) -> JobStatus:
        """Where the job is; see :meth:`worker.client.sync.PoseClient.status`."""
        return self._client.status(self.id)

    def retry(self) -> None:
        """Have it done again; see :meth:`worker.client.sync.PoseClient.retry`."""
        self._client.retry(self.id)

    def cancel(self) -> bool:
        """Have the job not done; see :meth:`worker.client.sync.PoseClient.cancel`."""
        return self._client.cancel(self.id)

    def result(self, timeout: Optional[float] = None) -> Found:
        """Wait for the result.

        Args:
            timeout: seconds to wait; None waits for ever.

        Raises:
            TimeoutError: the job has not ended within `timeout`; it goes on.
            PermanentError, DeadLetter: how the job failed, typed and in one sentence (see worker.errors).
            JobCancelled: it was cancelled, or no worker took it before its deadline.
            JobFailed: the job ended in an error of another kind, or is of another kind than this handle.
            BrokerUnavailable: the result backend does not answer.
        """
        outcome = of_kind(self.id, self._client.wait(self, timeout), self.RESULT)
        if isinstance(outcome, Exception):
            raise outcome
        found: Found = outcome
        return found

    def overlay(self, timeout: Optional[float] = None) -> Optional[bytes]:
        """The picture, or the film, that was drawn, as encoded bytes (see ``result().overlay.media_type``); None if
        none was asked for.

        Raises: as :meth:`result`, and

            StorageUnavailable: the overlay store does not answer, or the overlay has expired.
            SettingsError: the result names another store than the client's.
            JobFailed: what is stored is not what the result describes, by its size and SHA-256.
        """
        return self._fetched(self.result(timeout).overlay)

    def _fetched(self, stored: Optional[Overlay]) -> Optional[bytes]:
        return None if stored is None else self._client.fetch(stored, self.id)


class JobHandle(Handle[Result]):
    """The job of one image."""

    RESULT = Result

    @property
    def image(self) -> str:
        """The image's path, unless only the job's id is known."""
        return self.path

    def maps(self, timeout: Optional[float] = None) -> Optional[bytes]:
        """The net's maps as the bytes of a NumPy archive (see docs/message.md); None if they were not asked for.

        Raises: as :meth:`overlay`.
        """
        return self._fetched(self.result(timeout).maps)


class VideoHandle(Handle[VideoResult]):
    """The job of one film."""

    RESULT = VideoResult

    @property
    def video(self) -> str:
        """The film's path, unless only the job's id is known."""
        return self.path

    def progress(self) -> Progress:
        """How far it is; see :meth:`worker.client.sync.PoseClient.progress`."""
        return self._client.progress(self.id)

    def keypoints(self, timeout: Optional[float] = None) -> bytes:
        """What was found, as JSON Lines, a line a frame, in gzip; see docs/message.md.

        Raises: as :meth:`overlay`.
        """
        return self._client.fetch(self.result(timeout).keypoints, self.id)

    def frames(self, timeout: Optional[float] = None) -> Iterator[Frame]:
        """The same, read: each frame with its people.

        Raises: as :meth:`overlay`; JobFailed if they cannot be read.
        """
        return frames_of(self.id, self.keypoints(timeout))


__all__ = ["Handle", "JobHandle", "VideoHandle"]
