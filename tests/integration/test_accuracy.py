"""The default net, the decoder and all between them on real photographs: who is found, and how accurately."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Optional

import cv2
import numpy as np
import pytest
import torch

from tests.support import ROOT
from tests.support.agreement import agreement
from tests.support.record_golden import GOLDEN, estimator_of, people_in
from tests.support.textures import noise, trees
from worker.cli.coco import LabelledImages
from worker.contract import Person
from worker.people import to_people
from worker.pose.decoder import decode
from worker.pose.estimator import EstimateOptions, Estimator
from worker.pose.formats import coco_results
from worker.pose.skeletons import COCO_18

COCO = ROOT.parent / "shared" / "data" / "coco-mini"
NAMES = ("astronaut.png", "bus.jpg", "zidane.jpg")


@pytest.fixture(scope="module")
def estimator(thin_net: Path) -> Estimator:
    """The default net, loaded once; one thread is not slowed by what else the machine does."""
    return estimator_of(thin_net, threads=1)


def _labelled(limit: Optional[int] = None) -> LabelledImages:
    """28 photographs of COCO with 86 labelled people, or the first `limit` of them."""
    if not COCO.is_dir():
        pytest.skip(f"no labelled photographs in {COCO}")
    return LabelledImages(COCO / "person_keypoints.json", COCO / "images", limit)


def _results(estimator: Estimator, labelled: LabelledImages, *, swapped: bool = False) -> List[Dict[str, Any]]:
    results: List[Dict[str, Any]] = []
    for number, path in labelled.paths.items():
        image = cv2.imread(str(path))
        image = np.ascontiguousarray(image[:, :, ::-1]) if swapped else image
        (estimate,) = estimator.estimate([image], EstimateOptions(min_score=0.0))
        results += coco_results(estimate.people, number)
    return results


@pytest.mark.long
def test_average_precision_and_what_the_order_of_channels_is_worth(estimator: Estimator) -> None:
    """At height 368 the AP is at least 0.245; a net trained on BGR loses a third if it is given RGB."""
    everything, some = _labelled(), _labelled(20)
    assert len(everything.paths) == 28
    results = _results(estimator, everything)
    assert everything.score(results)["AP"] >= 0.245
    of_some = [result for result in results if result["image_id"] in some.paths]
    assert some.score(_results(estimator, some, swapped=True))["AP"] < 0.8 * some.score(of_some)["AP"]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_people_as_were_recorded(name: str, estimator: Estimator, samples: Path) -> None:
    golden = json.loads((GOLDEN / f"{Path(name).stem}.json").read_text(encoding="utf-8"))
    expected = to_people([Person.model_validate(person) for person in golden])
    found = people_in(samples / name, estimator)
    assert len(found) == len(expected) > 0
    # Other processors add in another order: positions differ by hundredths of a pixel, confidences by less.
    assert found.keypoints[..., :2] == pytest.approx(expected.keypoints[..., :2], abs=0.5, nan_ok=True)
    assert found.keypoints[..., 2] == pytest.approx(expected.keypoints[..., 2], abs=0.01)
    assert found.scores == pytest.approx(expected.scores, abs=0.01)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 3), (2, 3)])
@pytest.mark.parametrize("side", [184, 512])
def test_a_crowd_has_as_many_people_as_it_has(
    rows: int, columns: int, side: int, estimator: Estimator, samples: Path
) -> None:
    """Copies of one portrait side by side: nobody is split, and nobody is joined to a neighbour."""
    portrait = cv2.resize(cv2.imread(str(samples / "astronaut.png")), (side, side), interpolation=cv2.INTER_AREA)
    (estimate,) = estimator.estimate([np.tile(portrait, (rows, columns, 1))], EstimateOptions())
    people = estimate.people
    assert len(people) == rows * columns
    tiles = {(int(y // side), int(x // side)) for x, y, _ in people.keypoints[:, COCO_18.keypoints.index("neck")]}
    assert len(tiles) == rows * columns
    for person in people.keypoints:  # the portrait ends at the chest: hips may be seen in the one below, not beside it
        assert len({int(x // side) for x, _, confidence in person if confidence > 0}) == 1


def test_nobody_is_in_noise_and_hardly_anybody_in_trees(estimator: Estimator) -> None:
    def people(images: List[np.ndarray]) -> int:
        return sum(len(estimate.people) for estimate in estimator.estimate(images, EstimateOptions()))

    assert people([noise(seed, slope) for seed in range(6) for slope in (1.0, 1.5)]) == 0
    assert people([trees(seed) for seed in range(12)]) <= 1


def _agree(one: Any, other: Any, height: int) -> None:
    """The same people, and of their joints nearly all: each within a hundredth of the image's height."""
    assert len(other) == len(one)
    both, near = agreement(one.keypoints, other.keypoints, 0.01 * height)
    most = max(int(one.found.sum()), int(other.found.sum()))
    assert both >= 0.97 * most
    assert near >= 0.99 * both


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_maps_of_half_precision_hold_the_same_people(
    name: str, dtype: torch.dtype, estimator: Estimator, samples: Path
) -> None:
    image = cv2.imread(str(samples / name))
    (estimate,) = estimator.estimate([image], EstimateOptions(keep_maps=True))
    maps = estimate.maps
    assert maps is not None
    rounded = [torch.from_numpy(kind).to(dtype).float().numpy() for kind in (maps.heatmaps, maps.pafs)]
    found, warnings = decode(rounded[0], rounded[1], maps.geometry)
    assert warnings == ()
    _agree(estimate.people, found, image.shape[0])


@pytest.mark.parametrize("name", NAMES)
def test_a_net_in_bfloat16_finds_the_same_people(
    name: str, estimator: Estimator, thin_net: Path, samples: Path
) -> None:
    """The same people, and all joints that the net is sure of.

    bf16 rounds to 8 bits after each of 119 convolutions: the maps are off by 0.6 % of their range on average, 10 % at
    most, and up to 24 % at single cells. That is less than what makes a joint of a confidence of 0.4, but enough for
    one of 0.2 to lose against another peak, and for a person scored 0.15 to be found or not. A CPU without such
    instructions computes in fp32.
    """
    image = cv2.imread(str(samples / name))
    exact = people_in(samples / name, estimator)
    found = people_in(samples / name, estimator_of(thin_net, precision="bf16", threads=1))
    near = 0.02 * image.shape[0]
    sure = np.where(exact.keypoints[..., 2:] >= 0.4, exact.keypoints, 0)
    assert agreement(sure, found.keypoints, near)[1] == (sure[..., 2] > 0).sum()
    assert len(found.scored(0.25)) == len(exact.scored(0.25)) > 0
