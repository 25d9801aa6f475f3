"""Peaks and fields → people: exact recovery of drawn people, and agreement with the reference algorithm."""

from __future__ import annotations

from typing import List, Tuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import ROOT
from tests.support.agreement import agreement
from tests.support.synthetic import draw_maps, person, same_people
from worker.pose.decoder import decode
from worker.pose.geometry import Geometry

REFERENCES = ROOT.parent / "shared" / "reference" / "association"
#: The maps that crowds are drawn into, in cells.
HEIGHT, WIDTH = 75, 96
#: Joints by which nobody else hangs on to a person: what may be hidden without cutting the skeleton in two.
OUTER = (4, 7, 10, 13, 16, 17)

angles = st.lists(st.floats(-0.6, 0.6), min_size=8, max_size=8)
hidden = st.sets(st.sampled_from(OUTER))
member = st.tuples(st.floats(-1, 1), st.floats(0, 1), st.floats(10, 13), angles, hidden)


def _place(members: List[Tuple]) -> List[np.ndarray]:
    """Joints in cells: each person in a field of their own, six to a row."""
    people = []
    for number, (x, y, size, limp, unseen) in enumerate(members):
        row, column = divmod(number, 6)
        joints = person(8 + 16 * column + x, 0.5 + 14.8 * row + y, size, limp)
        joints[list(unseen)] = np.nan
        people.append(joints)
    return people


def _geometry(height: int, width: int) -> Geometry:
    return Geometry(source_height=8 * height, source_width=8 * width, scale=1.0, stride=8)


@settings(max_examples=60, deadline=None)
@given(st.lists(member, max_size=30), st.randoms(use_true_random=False))
def test_drawn_people_are_found_again(members: List[Tuple], random: np.random.Generator) -> None:
    """Nobody to thirty people, whole or in part, drawn in any order: exactly they are found, to half a cell."""
    people = _place(members)
    random.shuffle(people)
    at = _geometry(HEIGHT, WIDTH)
    found, warnings = decode(*draw_maps(people, HEIGHT, WIDTH), at)
    assert same_people(found, [at.to_source(joints) for joints in people], tolerance=4) == []
    assert warnings == ()


@settings(max_examples=25, deadline=None)
@given(st.lists(member, min_size=2, max_size=6), st.floats(-1.5, 1.5))
def test_people_side_by_side_are_not_mixed(members: List[Tuple], tilt: float) -> None:
    """Shoulder to shoulder: arms of neighbours come closer to each other than to their own hips."""
    people = []
    for number, (_, _, _, limp, _) in enumerate(members):
        people.append(person(10 + 13 * number, 5 + tilt * number % 3, 40, [0.15 * angle for angle in limp]))
    at = _geometry(50, 96)
    found, _ = decode(*draw_maps(people, 50, 96), at)
    assert same_people(found, [at.to_source(joints) for joints in people], tolerance=5) == []


@pytest.mark.parametrize("count", [11, 13])
@pytest.mark.parametrize("spacing", [13.0, 15.0, 18.0])
def test_a_group_in_two_rows(count: int, spacing: float) -> None:
    """Hands cross in the front row; of those behind, between their heads, only what is above the elbows is seen."""
    rng = np.random.default_rng(count)
    front = (count + 1) // 2
    people = []
    for number in range(count):
        behind = number >= front
        place = number - front + 0.5 if behind else number
        joints = person(12 + spacing * place, 3 if behind else 12, 40, rng.uniform(-0.2, 0.2, 8))
        if behind:
            joints[[3, 4, 6, 7, 8, 9, 10, 11, 12, 13]] = np.nan
        people.append(joints)
    width = int(24 + spacing * front)
    at = _geometry(56, width)
    found, warnings = decode(*draw_maps(people, 56, width), at)
    assert same_people(found, [at.to_source(joints) for joints in people], tolerance=5) == []
    assert warnings == ()


def test_crossed_forearms_stay_with_their_owners() -> None:
    """Two wrists that lie beyond each other: the field says whose is whose, where the distance misleads."""
    one, other = person(20.0, 5.0, 40), person(36.0, 5.0, 40)
    one[7], other[4] = (31.0, 26.0), (25.0, 27.0)
    at = _geometry(50, 60)
    found, _ = decode(*draw_maps([one, other], 50, 60), at)
    assert same_people(found, [at.to_source(joints) for joints in (one, other)], tolerance=5) == []


def test_a_stray_peak_is_nobody() -> None:
    people = [person(30.0, 5.0, 40)]
    heatmaps, pafs = draw_maps(people, 50, 60)
    heatmaps[:18, 20, 5] = 0.8  # of every kind, on one spot, with no limb between them
    at = _geometry(50, 60)
    found, _ = decode(heatmaps, pafs, at)
    assert same_people(found, [at.to_source(people[0])], tolerance=4) == []


def test_a_head_alone_is_a_person_and_an_arm_alone_is_not() -> None:
    head, arm = np.full((18, 2), np.nan), np.full((18, 2), np.nan)
    head[[0, 14, 15, 16, 17]] = person(15.0, 10.0, 60)[[0, 14, 15, 16, 17]]
    arm[[2, 3, 4]] = person(45.0, 10.0, 40)[[2, 3, 4]]
    at = _geometry(50, 60)
    found, _ = decode(*draw_maps([head, arm], 50, 60), at)
    assert same_people(found, [at.to_source(head)], tolerance=4) == []


def test_agrees_with_the_reference_algorithm() -> None:
    files = sorted(REFERENCES.glob("*.npz"))
    if not files:
        pytest.skip(f"no references of the association in {REFERENCES}")
    same_count = joints = agreeing = expected = 0
    for file in files:
        with np.load(file) as stored:
            height, width = int(stored["image_height"]), int(stored["image_width"])
            at = Geometry(height, width, 368 / height, 8)
            maps = stored["heatmaps"].astype(np.float32), stored["pafs"].astype(np.float32)
            reference = stored["people"]
        found, _ = decode(*maps, at)
        same_count += len(found) == len(reference)
        both, near = agreement(reference, found.keypoints, 0.02 * height)
        joints, agreeing = joints + both, agreeing + near
        expected += int((reference[..., 2] > 0).sum())
    assert len(files) == 14
    assert same_count >= 13
    assert agreeing >= 0.98 * joints
    assert joints >= 0.93 * expected  # people and joints that only the reference has
