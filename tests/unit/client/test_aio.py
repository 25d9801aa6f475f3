"""The client for asyncio waits for many jobs at once; the worker is played by the test."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from worker.client import Result as Found
from worker.client.aio import AsyncPoseClient
from worker.contract import Image, Model, Result
from worker.errors import BrokerUnavailable, ImageNotFound, InvalidRequest, JobCancelled
from worker.jobs.ledger import Ledger, ResultKey

pytestmark = pytest.mark.queue


def _client(broker: str) -> AsyncPoseClient:
    return AsyncPoseClient(broker, queue=f"aio-{uuid.uuid4().hex[:8]}")


def _end(client: AsyncPoseClient, job_id: str, failure: Any = None) -> None:
    """End a job as a worker would."""
    backend = client.sync.app.backend
    result: Any = Result(
        job_id=job_id,
        image=Image(path="a.jpg", width=9, height=9, format="JPEG"),
        model=Model(name="net", sha256="0"),
        people=[],
        timings_ms={},
        worker="cpu0@here",
        device="cpu",
        attempt=1,
    ).to_message()
    stored, state = (backend.prepare_exception(failure), "FAILURE") if failure else (result, "SUCCESS")
    meta = {**backend._get_result_meta(stored, state, None, None), "task_id": job_id}
    key = ResultKey(backend.get_key_for_task(job_id).decode(), backend.encode(meta), 60)
    Ledger(backend.client, "pose").finish(job_id, "failed" if failure else "done", key)


def test_a_hundred_jobs_are_awaited_at_once(broker: str) -> None:
    async def run() -> None:
        async with _client(broker) as client:
            jobs = await client.submit_many([f"{n}.jpg" for n in range(100)])
            results = asyncio.gather(*(job.result(20) for job in jobs))
            for job in reversed(jobs):
                _end(client, job.id)
            assert [result.job_id for result in await results] == [job.id for job in jobs]
            assert client._waiting == {}

    asyncio.run(run())


def test_outcomes_come_as_they_end_and_a_failure_is_one(broker: str) -> None:
    async def run() -> None:
        async with _client(broker) as client:
            seen = []
            async for job, outcome in client.map(["a.jpg", "b.jpg", "c.jpg"], in_flight=1):
                seen.append((job.image.rsplit("/", 1)[1], type(outcome)))
            assert seen == [("a.jpg", Found), ("b.jpg", ImageNotFound), ("c.jpg", Found)]

    async def served() -> None:
        original = AsyncPoseClient.submit

        async def submit(self: AsyncPoseClient, path: Any, **arguments: Any) -> Any:
            job = await original(self, path, **arguments)
            _end(self, job.id, ImageNotFound("not there") if "b.jpg" in job.image else None)
            return job

        AsyncPoseClient.submit = submit  # type: ignore[method-assign]
        try:
            await run()
        finally:
            AsyncPoseClient.submit = original  # type: ignore[method-assign]

    asyncio.run(served())


def test_who_gives_up_leaves_the_others_waiting(broker: str) -> None:
    async def run() -> None:
        async with _client(broker) as client:
            job = await client.submit("a.jpg")
            patient = asyncio.ensure_future(job.result(20))
            with pytest.raises(
                TimeoutError, match=r"has not ended within 0.05 s: Job .* waits on queue .* No worker takes jobs"
            ):
                await job.result(0.05)
            assert not patient.done()
            _end(client, job.id, ImageNotFound("a.jpg is not there"))
            with pytest.raises(ImageNotFound):
                await patient
            with pytest.raises(TimeoutError):
                await (await client.submit("b.jpg")).result(0.05)
            assert client._waiting == {}

    asyncio.run(run())


def test_as_completed_cancel_and_state(broker: str) -> None:
    async def run() -> None:
        async with _client(broker) as client:
            first, second = await client.submit_many(["a.jpg", "b.jpg"])
            assert await first.state() == "PENDING"
            assert await second.cancel()
            _end(client, first.id)
            outcomes = {job.id: outcome async for job, outcome in client.as_completed([first, second])}
            assert isinstance(outcomes[first.id], Result)
            assert isinstance(outcomes[second.id], JobCancelled)
            assert await first.overlay(5) is None
            assert await first.maps(5) is None

    asyncio.run(run())


def test_a_job_is_found_again_by_its_id_and_forgotten(broker: str) -> None:
    async def run() -> None:
        async with _client(broker) as client:
            submitted = await client.submit("a.jpg")
            _end(client, submitted.id)
            found = client.job(submitted.id)
            assert (await found.result(5)).job_id == submitted.id
            await client.discard(found.id, await found.result(5))
            with pytest.raises(TimeoutError, match=f"^Job {found.id} has not ended"):
                await found.result(0.05)

    asyncio.run(run())


def test_silence_is_a_timeout(broker: str) -> None:
    async def run() -> None:
        async with _client(broker) as client:
            with pytest.raises(TimeoutError, match="None of 2 jobs"):
                await client.map(["a.jpg", "b.jpg"], timeout=0.1).__anext__()
            with pytest.raises(TimeoutError, match="None of 1 jobs"):
                await client.as_completed([client.job("nobody")], timeout=0.1).__anext__()
            await asyncio.sleep(0)
            assert client._waiting == {}

    asyncio.run(run())


def test_wrong_options_and_a_broker_that_is_away_are_told_as_by_the_other_client(broker: str) -> None:
    async def run() -> None:
        async with _client(broker) as client:
            with pytest.raises(InvalidRequest, match="sclaes"):
                await client.submit("a.jpg", sclaes=[1])
        async with AsyncPoseClient("redis://127.0.0.1:1/0") as away:
            with pytest.raises(BrokerUnavailable):
                await away.submit("a.jpg")
            with pytest.raises(BrokerUnavailable):
                await away.outcome("some-id")

    asyncio.run(run())
