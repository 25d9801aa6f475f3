"""The client of worker.client.sync for asyncio.

>>> async with AsyncPoseClient("redis://127.0.0.1:6379/0") as client:
...     job = await client.submit("/data/street.jpg")
...     result = await job.result(timeout=30)
...     async for job, outcome in client.map(paths):
...         ...

Sending and fetching run in threads, for Celery knows no asyncio; all waiting is one look at Redis for all jobs at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import (
    Any,
    AsyncIterator,
    Callable,
    ClassVar,
    Dict,
    Generic,
    Iterable,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
    Type,
    TypeVar,
    Union,
)

from worker.client.film import Frame, frames_of
from worker.client.find import EXTENSIONS
from worker.client.handle import Handle
from worker.client.outcome import AnyOutcome, Found, Outcome, none_ended, not_ended, of_kind
from worker.client.result import Result
from worker.client.silence import SILENT_S, warn, why_not_ended
from worker.client.status import JobStatus
from worker.client.sync import IN_FLIGHT, PoseClient, check_many
from worker.client.waiting import Waiting, next_of
from worker.contract import Overlay
from worker.video_contract import Progress, VideoResult

Answer = TypeVar("Answer")


class AsyncHandle(Generic[Found]):
    """What the handles of images and of films have in common; as :class:`worker.client.handle.Handle`, awaited."""

    RESULT: ClassVar[Type[Any]]

    def __init__(self, client: AsyncPoseClient, handle: Handle[Any]) -> None:
        self._client = client
        self.id, self.path = handle.id, handle.path

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r}, {self.path!r})"

    async def state(self) -> str:
        """Celery's state: PENDING, STARTED, RETRY, SUCCESS, FAILURE or REVOKED."""
        return await _in_thread(self._client.sync.state, self.id)

    async def result(self, timeout: Optional[float] = None) -> Found:
        """Wait for the result; raises as :meth:`worker.client.handle.Handle.result`."""
        try:
            outcome = of_kind(self.id, await self._outcome(timeout), self.RESULT)
        except asyncio.TimeoutError:
            why = await _in_thread(why_not_ended, self._client.sync, self.id)
            raise TimeoutError(not_ended(self, timeout, why)) from None
        if isinstance(outcome, Exception):
            raise outcome
        found: Found = outcome
        return found

    async def _outcome(self, timeout: Optional[float]) -> AnyOutcome:
        if timeout is None or timeout > SILENT_S:
            with contextlib.suppress(asyncio.TimeoutError):
                return await asyncio.wait_for(self._client.outcome(self.id), SILENT_S)
            await _in_thread(warn, self._client.sync, self.id)
            timeout = None if timeout is None else timeout - SILENT_S
        return await asyncio.wait_for(self._client.outcome(self.id), timeout)

    async def status(self) -> JobStatus:
        """Where the job is; see :meth:`worker.client.sync.PoseClient.status`."""
        return await _in_thread(self._client.sync.status, self.id)

    async def retry(self) -> None:
        """Have it done again; see :meth:`worker.client.sync.PoseClient.retry`."""
        await _in_thread(self._client.sync.retry, self.id)

    async def overlay(self, timeout: Optional[float] = None) -> Optional[bytes]:
        """The picture, or the film, that was drawn, as encoded bytes; None if none was asked for."""
        return await self._fetched((await self.result(timeout)).overlay)

    async def cancel(self) -> bool:
        """Have the job not done; see :meth:`worker.client.sync.PoseClient.cancel`."""
        return await _in_thread(self._client.sync.cancel, self.id)

    async def _fetched(self, stored: Optional[Overlay]) -> Optional[bytes]:
        return None if stored is None else await self._client.fetch(stored, self.id)


class AsyncJob(AsyncHandle[Result]):
    """The job of one image; as :class:`worker.client.handle.JobHandle`, awaited."""

    RESULT = Result

    @property
    def image(self) -> str:
        """The image's path, unless only the job's id is known."""
        return self.path

    async def maps(self, timeout: Optional[float] = None) -> Optional[bytes]:
        """The net's maps as the bytes of a NumPy archive; None if they were not asked for."""
        return await self._fetched((await self.result(timeout)).maps)


class AsyncVideo(AsyncHandle[VideoResult]):
    """The job of one film; as :class:`worker.client.handle.VideoHandle`, awaited."""

    RESULT = VideoResult

    @property
    def video(self) -> str:
        """The film's path, unless only the job's id is known."""
        return self.path

    async def progress(self) -> Progress:
        """How far it is; see :meth:`worker.client.sync.PoseClient.progress`."""
        return await _in_thread(self._client.sync.progress, self.id)

    async def keypoints(self, timeout: Optional[float] = None) -> bytes:
        """What was found, as JSON Lines, a line a frame, in gzip."""
        return await self._client.fetch((await self.result(timeout)).keypoints, self.id)

    async def frames(self, timeout: Optional[float] = None) -> Iterator[Frame]:
        """The same, read: each frame with its people."""
        return frames_of(self.id, await self.keypoints(timeout))


AnyHandle = TypeVar("AnyHandle", bound=AsyncHandle[Any])


class AsyncPoseClient:
    """As :class:`worker.client.sync.PoseClient`, with the same arguments; `sync` is the one that it stands on."""

    def __init__(self, broker_url: str, **arguments: Any) -> None:
        self.sync = PoseClient(broker_url, **arguments)
        self._waiting: Dict[str, List[asyncio.Future[AnyOutcome]]] = {}
        self._looker: Optional[asyncio.Task[None]] = None

    def __repr__(self) -> str:
        return f"Async{self.sync!r}"

    async def __aenter__(self) -> AsyncPoseClient:
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; what is still waited for is cancelled."""
        if self._looker is not None:
            self._looker.cancel()
            await asyncio.gather(self._looker, return_exceptions=True)
        for future in [one for futures in self._waiting.values() for one in futures]:
            future.cancel()
        await _in_thread(self.sync.close)

    async def submit(self, path: Any = None, **arguments: Any) -> AsyncJob:
        """Put one image on the queue; takes and raises what :meth:`worker.client.sync.PoseClient.submit` does."""
        return AsyncJob(self, await _in_thread(functools.partial(self.sync.submit, path, **arguments)))

    async def submit_video(self, path: Any, **arguments: Any) -> AsyncVideo:
        """Put one film on the queue; takes and raises what :meth:`worker.client.sync.PoseClient.submit_video` does."""
        return AsyncVideo(self, await _in_thread(functools.partial(self.sync.submit_video, path, **arguments)))

    async def submit_many(self, paths: Iterable[Any], **arguments: Any) -> List[AsyncJob]:
        """Put many images on the queue, with the same arguments."""
        handles = await _in_thread(functools.partial(self.sync.submit_many, paths, **arguments))
        return [AsyncJob(self, handle) for handle in handles]

    async def submit_directory(
        self, folder: Any, *, extensions: Sequence[str] = EXTENSIONS, **arguments: Any
    ) -> List[AsyncJob]:
        """Put the images of a folder and its subfolders on the queue."""
        submit = functools.partial(self.sync.submit_directory, folder, extensions=extensions, **arguments)
        return [AsyncJob(self, handle) for handle in await _in_thread(submit)]

    def job(self, job_id: str) -> AsyncJob:
        """An image's job that was submitted before, by this process or another; that it exists is not asked."""
        return AsyncJob(self, self.sync.job(job_id))

    def video(self, job_id: str) -> AsyncVideo:
        """The same of a film's job."""
        return AsyncVideo(self, self.sync.video(job_id))

    async def discard(self, job_id: str, result: Union[Result, VideoResult, None] = None) -> None:
        """Delete what is stored of a job that has ended; see :meth:`worker.client.sync.PoseClient.discard`."""
        await _in_thread(self.sync.discard, job_id, result)

    def as_completed(
        self, jobs: Iterable[AnyHandle], *, timeout: Optional[float] = None
    ) -> AsyncIterator[Tuple[AnyHandle, Any]]:
        """Give each of `jobs`, images' and films', with its outcome as it ends, an exception too; see :meth:`map`."""
        return self._collect(jobs, None, timeout)

    def map(
        self, paths: Iterable[Any], *, in_flight: int = IN_FLIGHT, timeout: Optional[float] = None, **arguments: Any
    ) -> AsyncIterator[Tuple[AsyncJob, Outcome]]:
        """Submit images, at most `in_flight` at a time, and give each job with its outcome as it ends.

        Args:
            timeout: seconds without any job ending after which TimeoutError is raised; None: never.
        """
        check_many(arguments)
        return self._collect((self.submit(path, **arguments) for path in paths), in_flight, timeout)

    async def _collect(
        self, jobs: Iterable[Any], in_flight: Optional[int], timeout: Optional[float]
    ) -> AsyncIterator[Tuple[Any, Any]]:
        """As :meth:`as_completed`; `jobs` are some, or calls of :meth:`submit` that are yet to be awaited."""
        left = iter(jobs)
        waiting: Dict[asyncio.Future[AnyOutcome], AsyncHandle[Any]] = {}
        try:
            while True:
                for given in next_of(left, len(waiting), in_flight):
                    job = given if isinstance(given, AsyncHandle) else await given
                    waiting[asyncio.ensure_future(self.outcome(job.id))] = job
                if not waiting:
                    return
                ended, _ = await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                if not ended:
                    raise TimeoutError(none_ended(len(waiting), timeout))
                for future in ended:
                    job = waiting.pop(future)
                    yield job, of_kind(job.id, future.result(), job.RESULT)
        finally:
            for future in waiting:
                future.cancel()

    async def fetch(self, stored: Overlay, job_id: str) -> bytes:
        """The bytes of what a job's result says is stored; see :meth:`worker.client.sync.PoseClient.fetch`."""
        return await _in_thread(self.sync.fetch, stored, job_id)

    async def outcome(self, job_id: str) -> AnyOutcome:
        """How a job has ended, once it has; the exception of one that failed is returned, not raised.

        Raises:
            BrokerUnavailable: the result backend does not answer.
        """
        future: asyncio.Future[AnyOutcome] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job_id, []).append(future)
        if self._looker is None or self._looker.done():
            self._looker = asyncio.ensure_future(self._look())
        try:
            return await future
        finally:
            left = [one for one in self._waiting.get(job_id, ()) if one is not future]
            if left:
                self._waiting[job_id] = left
            else:
                self._waiting.pop(job_id, None)

    async def _look(self) -> None:
        """Look for results as long as anybody waits for one."""
        looks = Waiting(self.sync.ended)
        while self._waiting:
            ids = list(self._waiting)
            try:
                ended = await _in_thread(looks.look, ids)
            except Exception as exc:
                for future in [one for job_id in ids for one in self._waiting.pop(job_id, ())]:
                    if not future.done():
                        future.set_exception(exc)
                continue
            for job_id, outcome in ended:
                for future in self._waiting.pop(job_id, ()):
                    if not future.done():
                        future.set_result(outcome)
            await asyncio.sleep(looks.pause_s)


async def _in_thread(call: Callable[..., Answer], *arguments: Any) -> Answer:
    return await asyncio.get_running_loop().run_in_executor(None, functools.partial(call, *arguments))


__all__ = ["AsyncJob", "AsyncPoseClient", "AsyncVideo"]
