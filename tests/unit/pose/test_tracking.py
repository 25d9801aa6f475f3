import numpy as np
import pytest

from tests.support.crowd import Scene, score, walk
from tests.support.synthetic import STANDING
from worker.pose.skeletons import COCO_18
from worker.pose.tracking import Tracker, TrackOptions

SIGMAS = np.array(COCO_18.sigmas)


def body(x: float, y: float = 100.0, size: float = 200.0) -> np.ndarray:
    joints = STANDING * (size / 4) + (x, y)
    return np.concatenate([joints, np.full((18, 1), 0.9)], 1)


def follow(frames, gap_s=1.0, fps=25.0):
    """The ids of each frame; a frame is a list of bodies."""
    tracker = Tracker(SIGMAS, TrackOptions(gap_s=gap_s))
    return [tracker.update(np.reshape(frame, (-1, 18, 3)), index / fps).tolist() for index, frame in enumerate(frames)]


def test_people_keep_their_ids_in_whichever_order_they_are_found():
    frames = [[body(100 + 4 * i), body(600 - 4 * i)][:: 1 if i % 2 else -1] for i in range(20)]
    ids = follow(frames)
    assert ids[0] == [0, 1]
    assert all(given == ([1, 0] if i % 2 else [0, 1]) for i, given in enumerate(ids))


def test_two_who_cross_do_not_change_ids():
    frames = [[body(100 + 10 * i), body(700 - 10 * i, y=110)] for i in range(60)]
    assert all(given == [0, 1] for given in follow(frames))


def test_who_is_hidden_for_a_while_is_known_again():
    frames = [[body(100 + 8 * i)] if not 20 <= i < 40 else [] for i in range(60)]
    ids = follow(frames)
    assert all(given == [0] for given in ids if given)


def test_who_is_gone_for_longer_is_somebody_else():
    frames = [[body(100)] if not 20 <= i < 50 else [] for i in range(60)]
    assert follow(frames)[-1] == [1]
    assert follow(frames, gap_s=1.5)[-1] == [0]


def test_who_comes_later_gets_the_next_id():
    frames = [[body(100)], [body(100), body(700)], [body(700)], [body(700), body(400)]]
    assert follow(frames) == [[0], [0, 1], [1], [1, 2]]


def test_frames_may_be_dropped():
    every = [body(100 + 6 * i) for i in range(60)]
    assert all(given == [0] for given in follow([[one] for one in every[::5]], fps=5.0))


def test_joints_that_come_and_go_make_nobody_new():
    random = np.random.default_rng(5)
    frames = []
    for i in range(50):
        person = body(100 + 5 * i)
        person[random.random(18) < 0.5] = (np.nan, np.nan, 0)
        frames.append([person])
    assert all(given == [0] for given in follow(frames))


def test_people_without_joints_are_people_and_disturb_nobody():
    empty = np.full((18, 3), (np.nan, np.nan, 0.0))
    ids = follow([[body(100), empty], [empty, body(104)]])
    assert ids[0][0] == ids[1][1] == 0
    assert len({*ids[0], *ids[1]}) == 3


def test_no_people():
    assert follow([[], [], [body(5)]]) == [[], [], [0]]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("scene", [Scene(seconds=8), Scene(seconds=8, people=20, fps=10)], ids=["ten", "twenty"])
def test_a_crowd_is_followed(scene, seed):
    frames = walk(scene, seed)
    tracker = Tracker(SIGMAS)
    ids = [tracker.update(frame.keypoints, frame.time_s) for frame in frames]
    assert all(len(set(given.tolist())) == len(given) for given in ids)
    seen = score(frames, ids)
    assert seen.idf1 > 0.75
    assert seen.switches <= 0.1 * scene.people * scene.seconds
    again = Tracker(SIGMAS)
    assert all((again.update(frame.keypoints, frame.time_s) == given).all() for frame, given in zip(frames, ids))


def test_larger_pictures_make_no_difference():
    frames = walk(Scene(seconds=4), 3)
    near, far = Tracker(SIGMAS), Tracker(SIGMAS)
    for frame in frames:
        large = frame.keypoints * np.float32([4, 4, 1])
        assert (near.update(frame.keypoints, frame.time_s) == far.update(large, frame.time_s)).all()


@pytest.mark.parametrize(
    ("keypoints", "time_s", "sentence"),
    [
        (np.zeros((1, 17, 3)), 1.0, r"expected \(n, 18, 3\), got \(1, 17, 3\)"),
        (np.zeros((18, 3)), 1.0, r"got \(18, 3\)"),
        (np.zeros((0, 18, 3)), 0.0, "expected more than 0.0, got 0.0"),
        (np.zeros((0, 18, 3)), np.nan, "got nan"),
    ],
    ids=["another skeleton", "one person", "the same time", "no time"],
)
def test_what_does_not_fit(keypoints, time_s, sentence):
    tracker = Tracker(SIGMAS)
    tracker.update(np.zeros((0, 18, 3)), 0.0)
    with pytest.raises(ValueError, match=sentence):
        tracker.update(keypoints, time_s)
