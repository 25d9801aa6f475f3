"""Results of films as workers leave them: two people walk, one of whom is out of sight for a while."""

from __future__ import annotations

import gzip
import hashlib
import json
from typing import Any, Dict, Iterator, List, Optional

from worker.contract import Model, Overlay
from worker.pose.skeletons import COCO_18
from worker.storage.urls import key_of, open_store
from worker.video_contract import Track, Video, VideoResult

WIDTH, HEIGHT, FPS = 320, 240, 25.0


def lines(count: int = 50, *, first: int = 0, tracked: bool = True) -> List[Dict[str, Any]]:
    """The people of `count` frames, from frame `first` on; person 7 is missing in the second third of them."""
    return [
        {
            "frame": number,
            "time_s": round(number / FPS, 6),
            "people": list(_people(number, count // 3 <= number - first < 2 * count // 3, tracked)),
        }
        for number in range(first, first + count)
    ]


def _people(number: int, alone: bool, tracked: bool) -> Iterator[Dict[str, Any]]:
    for one, left in ((3, 40.0 + number), (7, 240.0 - number)):
        if one == 7 and alone:
            continue
        joints: List[Any] = [[round(left + 3 * joint, 2), 60.0 + 8 * joint, 0.9] for joint in range(18)]
        joints[4] = None
        yield {**({"id": one} if tracked else {}), "score": 0.8, "keypoints": joints}


def kept(found: List[Dict[str, Any]]) -> bytes:
    """Lines as they are stored."""
    return gzip.compress("".join(f"{json.dumps(line)}\n" for line in found).encode(), mtime=0)


def video_result(
    job_id: str, keypoints: Overlay, found: List[Dict[str, Any]], overlay: Optional[Overlay] = None, **more: Any
) -> VideoResult:
    """A film's result."""
    seen: Dict[int, List[Dict[str, Any]]] = {}
    for line in found:
        for person in line["people"]:
            if "id" in person:
                seen.setdefault(person["id"], []).append(line)
    tracks = [
        Track(
            id=one,
            first_frame=of[0]["frame"],
            last_frame=of[-1]["frame"],
            frames=len(of),
            spans_s=_spans([line["time_s"] for line in of]),
        )
        for one, of in sorted(seen.items())
    ]
    fields: Dict[str, Any] = {
        "job_id": job_id,
        "video": Video(
            path="/data/street.mp4",
            width=WIDTH,
            height=HEIGHT,
            format="mov,mp4",
            codec="h264",
            frames=len(found),
            duration_s=len(found) / FPS,
            fps=FPS,
        ),
        "model": Model(name="net", sha256="0"),
        "keypoint_names": COCO_18.keypoints,
        "limbs": COCO_18.drawn,
        "frames": len(found),
        "with_people": sum(bool(line["people"]) for line in found),
        "most_people": max((len(line["people"]) for line in found), default=0),
        "tracks": tracks,
        "segments": 2,
        "keypoints": keypoints,
        "overlay": overlay,
        "seconds": 1.5,
        "worker": "cpu0@here",
        "device": "cpu",
        "attempt": 1,
    }
    return VideoResult(**{**fields, **more})


def described(data: bytes, media_type: str, url: str = "redis:///x") -> Overlay:
    """What a result says of what is stored."""
    return Overlay(
        url=url,
        media_type=media_type,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        expires_at=None,
    )


def stored(broker: str, job_id: str, data: bytes, media_type: str) -> Overlay:
    """Store what a worker stores in Redis, and say where."""
    own = open_store(broker, "pose").put(key_of(job_id, media_type), data, media_type=media_type, ttl_s=60)
    return described(data, media_type, own.url)


def _spans(times: List[float], gap_s: float = 0.2) -> List[Any]:
    spans = [[times[0], times[0]]]
    for moment in times[1:]:
        if moment - spans[-1][1] > gap_s:
            spans.append([moment, moment])
        spans[-1][1] = moment
    return [tuple(span) for span in spans]
