"""People who walk through a picture, whose numbers are known: they cross, hide one another, come and go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List

import numpy as np

from tests.support.synthetic import STANDING
from worker.pose.skeletons import COCO_18

#: Joints of each swinging limb, and the sign of its swing.
_SWINGS = (((3, 4), 1.0), ((6, 7), -1.0), ((9, 10), -1.0), ((12, 13), 1.0))
_SIGMAS = np.array(COCO_18.sigmas)


@dataclass(frozen=True)
class Frame:
    """One frame.

    Attributes:
        time_s: when it is shown.
        truth: int (t,): who is in the picture and not hidden.
        keypoints: float32 (n, 18, 3): what an estimator finds.
        who: int (n,): whom each found person is; -1: nobody.
    """

    time_s: float
    truth: np.ndarray
    keypoints: np.ndarray
    who: np.ndarray


@dataclass(frozen=True)
class Scene:
    """How crowded, how fast, how well seen. Sizes in pixels, speeds in body heights a second."""

    people: int = 10
    seconds: float = 20.0
    fps: float = 25.0
    width: int = 1280
    height: int = 720
    speed: float = 0.8
    #: Share of joints that are not found; share of people found nowhere; false people a frame.
    missed_joints: float = 0.05
    missed_people: float = 0.02
    false_people: float = 0.03
    noise: float = 0.5


def walk(scene: Scene, seed: int) -> List[Frame]:
    """The frames of a scene."""
    random = np.random.default_rng(seed)
    size = random.uniform(120, 320, scene.people)
    direction = random.choice([-1.0, 1.0], scene.people)
    speed = direction * random.uniform(0.5, 1.3, scene.people) * scene.speed * size
    climb = random.uniform(-0.08, 0.08, scene.people) * size
    start = random.uniform(-0.3, 1.3, scene.people) * scene.width
    base = random.uniform(0.45, 0.95, scene.people) * scene.height
    phase = random.uniform(0, 2 * np.pi, scene.people)
    turn = np.where(random.random(scene.people) < 0.3, random.uniform(0.3, 0.7, scene.people), 2) * scene.seconds
    frames = []
    for index in range(int(scene.seconds * scene.fps)):
        time = index / scene.fps
        along = np.where(time < turn, time, 2 * turn - time)  # some turn back
        feet = np.stack([start + speed * along, base + climb * np.sin(0.5 * time + phase)], 1)
        joints = np.stack([_body(size[i], feet[i], 7 * time + phase[i]) for i in range(scene.people)])
        frames.append(_seen(scene, random, time, joints, size))
    return frames


def _body(size: float, feet: np.ndarray, angle: float) -> np.ndarray:
    body = STANDING.copy()
    for limb, sign in _SWINGS:
        body[list(limb), 0] += sign * 0.35 * np.sin(angle) * np.arange(1, len(limb) + 1)
    return body * (size / 4) + feet - (0, size)


def _seen(scene: Scene, random: np.random.Generator, time: float, joints: np.ndarray, size: np.ndarray) -> Frame:
    count, parts = joints.shape[:2]
    inside = ((joints >= 0) & (joints < (scene.width, scene.height))).all(-1)
    hidden = np.zeros((count, parts), bool)
    for near in range(count):  # the larger are nearer, and hide what is behind their trunk
        low, high = joints[near, [2, 5, 8, 11]].min(0), joints[near, [2, 5, 8, 11, 10, 13]].max(0)
        behind = (joints >= low) & (joints <= high)
        hidden |= behind.all(-1) & (size < size[near])[:, None]
    visible = inside & ~hidden
    there = visible.sum(1) >= 5
    drawn = random.random((count, parts)) >= scene.missed_joints
    found = there & (random.random(count) >= scene.missed_people)
    spread = scene.noise * 2 * _SIGMAS[None, :, None] * (0.5 * size)[:, None, None]
    placed = joints + random.normal(size=joints.shape) * spread
    keypoints = np.concatenate([placed, (visible & drawn)[..., None]], 2)[found]
    who = np.flatnonzero(found)
    false = int(random.random() < scene.false_people)
    ghosts = np.concatenate(
        [
            STANDING * random.uniform(15, 60) + random.uniform(0, (scene.width, scene.height)),
            random.random((parts, 1)) < 0.5,
        ],
        1,
    )[None][:false]
    keypoints, who = np.concatenate([keypoints, ghosts]), np.append(who, np.full(false, -1))
    order = random.permutation(len(who))
    keypoints[keypoints[..., 2] == 0, :2] = np.nan
    return Frame(time, np.flatnonzero(there), keypoints[order].astype(np.float32), who[order])


@dataclass(frozen=True)
class Score:
    """How well people were followed: 1 is best, but for counts: `switches`, and `ids` that people were given."""

    mota: float
    idf1: float
    association: float
    switches: int
    ids: int


def score(frames: List[Frame], ids: List[np.ndarray]) -> Score:
    """Identity switches, MOTA (Bernardin and Stiefelhagen, 2008), IDF1 (Ristani et al., 2016) and HOTA's association
    accuracy (Luiten et al., 2021); which found person is whom is known, so nothing is matched by distance."""
    last: dict = {}
    switches = false = missed = total = found_all = 0
    pairs: dict = {}
    of_truth: dict = {}
    of_id: dict = {}
    for frame, given in zip(frames, ids):
        total += len(frame.truth)
        found_all += len(given)
        false += int((frame.who < 0).sum())
        missed += len(frame.truth) - int((frame.who >= 0).sum())
        for person in frame.truth:
            of_truth[person] = of_truth.get(person, 0) + 1
        for person, number in zip(frame.who.tolist(), given.tolist()):
            of_id[number] = of_id.get(number, 0) + 1
            if person >= 0:
                switches += last.get(person, number) != number
                last[person] = number
                pairs[person, number] = pairs.get((person, number), 0) + 1
    matched = sum(pairs.values())
    association = sum(n * n / (of_truth[p] + of_id[i] - n) for (p, i), n in pairs.items()) / max(matched, 1)
    return Score(
        mota=1 - (false + missed + switches) / total,
        idf1=2 * _best(pairs) / (total + found_all),
        association=association,
        switches=switches,
        ids=len({number for _, number in pairs}),
    )


def _best(pairs: dict) -> int:
    """The frames in which people have the number that is best for them, each number given to one person."""
    import lap

    people, numbers = (sorted({pair[i] for pair in pairs}) for i in range(2))
    counts = np.zeros((len(people), len(numbers)))
    for (person, number), count in pairs.items():
        counts[people.index(person), numbers.index(number)] = count
    _, partner, _ = lap.lapjv(counts.max() - counts, extend_cost=True)
    return int(sum(counts[row, column] for row, column in enumerate(partner) if column >= 0))
