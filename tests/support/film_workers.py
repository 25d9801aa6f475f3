"""Workers that look at nothing: each job that is sent, an image's or a film's, ends at once, as a test wants it."""

from __future__ import annotations

import json
import threading
from typing import Any, Dict, List, Tuple

import redis

from tests.support.film_results import kept, lines, stored, video_result
from worker.client import PoseClient
from worker.contract import Image, Model, Result
from worker.jobs.ledger import Message
from worker.video_contract import VIDEO_TASK

#: What they draw.
FILM = b"a film" * 9


class Workers:
    """Ends each job that is sent, as `outcomes` has it by the end of its path; and notes what was asked for."""

    def __init__(self, broker: str) -> None:
        self._client, self._server = PoseClient(broker), redis.Redis.from_url(broker)
        self._broker, self._over = broker, threading.Event()
        self.outcomes: Dict[str, Exception] = {}
        self.asked: List[Tuple[str, Dict[str, Any]]] = []
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Workers:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self._thread.join()
        self._client.close()
        self._server.close()

    def _work(self) -> None:
        while not self._over.is_set():
            message = self._server.brpop(["pose"], 0.05)
            if message:
                self._end(json.loads(message[1])["headers"]["id"])

    def _end(self, job_id: str) -> None:
        record = Message.loads(self._client._ledger.show(job_id)["message"])
        film = record.task == VIDEO_TASK
        path = record.kwargs["video" if film else "image"]
        self.asked.append((record.task, record.kwargs))
        failure = next((exc for end, exc in self.outcomes.items() if path.endswith(end)), None)
        result: Any = failure or (self._film(job_id, record) if film else _image_result(job_id))
        state = "FAILURE" if failure else "SUCCESS"
        backend = self._client.app.backend
        self._client._ledger.finish(job_id, "failed" if failure else "done", backend.encoded(job_id, result, state))

    def _film(self, job_id: str, record: Message) -> Dict[str, Any]:
        found = lines(30)
        drawn = record.kwargs["options"].get("overlay", True)
        overlay = stored(self._broker, job_id, FILM, "video/mp4") if drawn else None
        return video_result(
            job_id, stored(self._broker, job_id, kept(found), "application/gzip"), found, overlay
        ).to_message()


def _image_result(job_id: str) -> Dict[str, Any]:
    return Result(
        job_id=job_id,
        image=Image(path="a.jpg", width=9, height=9, format="JPEG"),
        model=Model(name="net", sha256="0"),
        people=[{"score": 1.0, "keypoints": [(1.0, 2.0, 0.5)] * 18}],
        timings_ms={},
        worker="cpu0@here",
        device="cpu",
        attempt=1,
    ).to_message()
