import numpy as np
import pytest

from tests.support.synthetic import STANDING
from worker.pose.smoothing import Smoother

ID = np.array([7])


def standing(shift: float = 0.0) -> np.ndarray:
    return np.concatenate([STANDING * 50 + (300 + shift, 100), np.full((18, 1), 0.9)], 1)[None]


def test_who_stands_trembles_less():
    random = np.random.default_rng(1)
    smoother, found, smooth = Smoother(1.0), [], []
    for i in range(200):
        keypoints = standing()
        keypoints[..., :2] += random.normal(size=(1, 18, 2)) * 3
        found.append(keypoints)
        smooth.append(smoother.update(keypoints, ID, i / 25))
    before, after = (np.std(np.stack(frames)[50:, 0, :, 0], axis=0).mean() for frames in (found, smooth))
    assert after < 0.6 * before


def test_who_runs_is_followed():
    smoother = Smoother(1.0)
    for i in range(50):
        smooth = smoother.update(standing(12.0 * i), ID, i / 25)  # one and a half heights a second
    behind = 12.0 * 49 - (smooth[0, :, 0] - standing()[0, :, 0])
    assert (np.abs(behind) < 24).all()  # two frames


def test_a_higher_cutoff_follows_faster():
    behind = []
    for cutoff in (0.5, 5.0):
        smoother = Smoother(cutoff)
        smoother.update(standing(), ID, 0.0)
        smooth = smoother.update(standing(20.0), ID, 0.04)
        behind.append(20.0 - (smooth[0, 0, 0] - standing()[0, 0, 0]))
    assert behind[1] < 0.7 * behind[0]


def test_the_frame_itself_stays_and_so_do_confidences():
    smoother, keypoints = Smoother(1.0), standing()
    keypoints[0, 3] = (np.nan, np.nan, 0)
    before = keypoints.copy()
    for time in (0.0, 0.04, 0.08):
        smooth = smoother.update(keypoints, ID, time)
    np.testing.assert_array_equal(keypoints, before)
    np.testing.assert_array_equal(smooth[..., 2], before[..., 2].astype(np.float32))
    assert np.isnan(smooth[0, 3, :2]).all()
    assert np.isfinite(np.delete(smooth[0], 3, 0)).all()


def test_a_joint_out_of_sight_begins_anew():
    smoother = Smoother(1.0)
    smoother.update(standing(), ID, 0.0)
    smooth = smoother.update(standing(400.0), ID, 2.0)
    np.testing.assert_allclose(smooth[..., :2], standing(400.0)[..., :2], atol=1e-3)


def test_people_are_smoothed_apart():
    smoother = Smoother(1.0)
    smoother.update(np.concatenate([standing(), standing(500)]), np.array([1, 2]), 0.0)
    smooth = smoother.update(np.concatenate([standing(500), standing()]), np.array([2, 1]), 0.04)
    np.testing.assert_allclose(smooth[..., 0], [standing(500)[0, :, 0], standing()[0, :, 0]], atol=1e-3)


def test_nobody():
    assert Smoother(1.0).update(np.zeros((0, 18, 3)), np.zeros(0, int), 0.0).shape == (0, 18, 3)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, float("nan")])
def test_a_cutoff_that_is_none(cutoff):
    with pytest.raises(ValueError, match="expected more than 0 Hz"):
        Smoother(cutoff)
