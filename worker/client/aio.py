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
from typing import Any, AsyncIterator, Callable, Dict, Iterable, List, Optional, Sequence, Tuple, TypeVar

from worker.client.find import EXTENSIONS
from worker.client.job import JobHandle, Outcome, none_ended, not_ended
from worker.client.result import Result
from worker.client.silence import SILENT_S, warn, why_not_ended
from worker.client.status import JobStatus
from worker.client.sync import IN_FLIGHT, PoseClient, check_many
from worker.client.waiting import Waiting, next_of
from worker.contract import Overlay

Answer = TypeVar("Answer")


class AsyncJob:
    """One submitted job; as :class:`worker.client.sync.JobHandle`, awaited."""

    def __init__(self, client: AsyncPoseClient, handle: JobHandle) -> None:
        self._client = client
        self.id, self.image = handle.id, handle.image

    def __repr__(self) -> str:
        return f"AsyncJob({self.id!r}, {self.image!r})"

    async def state(self) -> str:
        """Celery's state: PENDING, STARTED, RETRY, SUCCESS, FAILURE or REVOKED."""
        return await _in_thread(self._client.sync.state, self.id)

    async def result(self, timeout: Optional[float] = None) -> Result:
        """Wait for the result; raises as :meth:`worker.client.sync.JobHandle.result`."""
        try:
            outcome = await self._outcome(timeout)
        except asyncio.TimeoutError:
            why = await _in_thread(why_not_ended, self._client.sync, self.id)
            raise TimeoutError(not_ended(self, timeout, why)) from None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _outcome(self, timeout: Optional[float]) -> Outcome:
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
        """The rendered picture as encoded bytes; None if none was asked for."""
        overlay = (await self.result(timeout)).overlay
        return None if overlay is None else await self._client.fetch(overlay, self.id)

    async def maps(self, timeout: Optional[float] = None) -> Optional[bytes]:
        """The net's maps as the bytes of a NumPy archive; None if they were not asked for."""
        maps = (await self.result(timeout)).maps
        return None if maps is None else await self._client.fetch(maps, self.id)

    async def cancel(self) -> bool:
        """Have the job not done; see :meth:`worker.client.sync.PoseClient.cancel`."""
        return await _in_thread(self._client.sync.cancel, self.id)


class AsyncPoseClient:
    """As :class:`worker.client.sync.PoseClient`, with the same arguments; `sync` is the one that it stands on."""

    def __init__(self, broker_url: str, **arguments: Any) -> None:
        self.sync = PoseClient(broker_url, **arguments)
        self._waiting: Dict[str, List[asyncio.Future[Outcome]]] = {}
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
        """A job that was submitted before, by this process or another; that it exists is not asked."""
        return AsyncJob(self, self.sync.job(job_id))

    async def discard(self, job_id: str, result: Optional[Result] = None) -> None:
        """Delete what is stored of a job that has ended; see :meth:`worker.client.sync.PoseClient.discard`."""
        await _in_thread(self.sync.discard, job_id, result)

    def as_completed(
        self, jobs: Iterable[AsyncJob], *, timeout: Optional[float] = None
    ) -> AsyncIterator[Tuple[AsyncJob, Outcome]]:
        """Give each of `jobs` with its outcome as it ends, an exception too; see :meth:`map`."""
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
    ) -> AsyncIterator[Tuple[AsyncJob, Outcome]]:
        """As :meth:`as_completed`; `jobs` are some, or calls of :meth:`submit` that are yet to be awaited."""
        left = iter(jobs)
        waiting: Dict[asyncio.Future[Outcome], AsyncJob] = {}
        try:
            while True:
                for given in next_of(left, len(waiting), in_flight):
                    job = given if isinstance(given, AsyncJob) else await given
                    waiting[asyncio.ensure_future(self.outcome(job.id))] = job
                if not waiting:
                    return
                ended, _ = await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                if not ended:
                    raise TimeoutError(none_ended(len(waiting), timeout))
                for future in ended:
                    yield waiting.pop(future), future.result()
        finally:
            for future in waiting:
                future.cancel()

    async def fetch(self, stored: Overlay, job_id: str) -> bytes:
        """The bytes of a job's overlay or maps; see :meth:`worker.client.sync.PoseClient.fetch`."""
        return await _in_thread(self.sync.fetch, stored, job_id)

    async def outcome(self, job_id: str) -> Outcome:
        """How a job has ended, once it has; the exception of one that failed is returned, not raised.

        Raises:
            BrokerUnavailable: the result backend does not answer.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
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


__all__ = ["AsyncJob", "AsyncPoseClient"]
