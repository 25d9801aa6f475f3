"""Large JPEGs are decoded at a fraction of their size, where that is enough."""

from __future__ import annotations

import io
from typing import Optional, Tuple

import cv2
import numpy as np
import pytest
from PIL import Image

from worker.contract import Options
from worker.images.local import decode_image
from worker.images.policy import ImagePolicy
from worker.people import side_enough
from worker.pose.geometry import plan
from worker.pose.preprocess import to_input

POLICY = ImagePolicy(roots=("/",))


def picture(width: int, height: int, kind: str = "JPEG", orientation: int = 1) -> bytes:
    """Smooth noise, so that a reduced picture shows the same."""
    noise = np.random.default_rng(0).integers(0, 256, (height // 32 + 1, width // 32 + 1, 3), np.uint8)
    exif, out = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    pixels = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(pixels).save(out, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))
    return out.getvalue()


@pytest.mark.parametrize(
    ("size", "enough", "reduced"),
    [
        ((640, 480), None, 1),
        ((640, 480), 241, 1),
        ((640, 480), 240, 2),
        ((480, 640), 120, 4),
        ((640, 480), 1, 8),
        ((636, 480), 1, 4),
        ((638, 480), 1, 2),
        ((639, 480), 1, 1),
        ((640, 479), 1, 1),
    ],
)
def test_as_far_as_it_may_be_and_divides_both_sides(size: Tuple[int, int], enough: Optional[int], reduced: int) -> None:
    image = decode_image(picture(*size), "a.jpg", POLICY, enough)
    assert image.reduced == reduced
    assert image.pixels.shape == (size[1] // reduced, size[0] // reduced, 3)
    assert (image.width, image.height) == size


def test_other_formats_are_not() -> None:
    for kind in ("PNG", "WEBP", "BMP"):
        assert decode_image(picture(640, 480, kind), "a", POLICY, 1).reduced == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_net_sees_the_same_whichever_way_it_is_turned(orientation: int) -> None:
    data = picture(1280, 960, orientation=orientation)
    whole, part = decode_image(data, "a.jpg", POLICY), decode_image(data, "a.jpg", POLICY, 240)
    assert part.reduced == 4
    assert (part.width, part.height) == (whole.width, whole.height)
    geometry = plan(whole.height, whole.width, target_height=184, stride=8)
    difference = np.abs(to_input(whole.pixels, geometry, 0).astype(float) - to_input(part.pixels, geometry, 0))
    # Half a pixel of the reduced picture aside, it would be 5 times as much.
    assert difference.mean() < 2


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_reduced_image_keeps_its_source_s_size_when_it_is_rotated(degrees: int) -> None:
    whole, part = (decode_image(picture(1280, 960), "a.jpg", POLICY, enough) for enough in (None, 240))
    turned = part.rotated(degrees)
    assert turned.reduced == part.reduced == 4
    assert (turned.width, turned.height) == (whole.rotated(degrees).width, whole.rotated(degrees).height)


def test_what_a_job_has_a_use_for() -> None:
    assert side_enough(Options(overlay=False)) == 4 * 368
    assert side_enough(Options(overlay=False, target_height=200, scales=(1.0, 1.5))) == 4 * 300
    assert side_enough(Options()) is None
    assert side_enough(Options(overlay=False, parts=("body", "hands"))) is None
