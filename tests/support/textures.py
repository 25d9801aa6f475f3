"""Drawn pictures without people: noise as rough as nature's, and trees. All are uint8 (368, 480, 3)."""

from __future__ import annotations

import cv2
import numpy as np

HEIGHT, WIDTH = 368, 480


def noise(seed: int, slope: float) -> np.ndarray:
    """Noise whose amplitude falls with the frequency to the power of `slope`: 1 as in photographs, 1.5 as in clouds."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(HEIGHT)[:, None], np.fft.fftfreq(WIDTH)[None])
    frequency[0, 0] = 1
    spectrum = np.fft.fft2(random.standard_normal((3, HEIGHT, WIDTH))) / frequency**slope
    pixels = np.fft.ifft2(spectrum).real.transpose(1, 2, 0)
    return np.clip(128 + 50 * (pixels - pixels.mean()) / pixels.std(), 0, 255).astype(np.uint8)


def trees(seed: int) -> np.ndarray:
    """Four trees on a meadow, under the sky."""
    random = np.random.default_rng(seed)
    picture = np.full((HEIGHT, WIDTH, 3), (235, 206, 170), np.uint8)
    picture[HEIGHT - 60 :] = (60, 120, 70)

    def grow(x: float, y: float, angle: float, length: float, thickness: float) -> None:
        if length < 6:
            green = [int(value) for value in (40, 110, 50) + random.integers(0, (30, 70, 30))]
            cv2.circle(picture, (int(x), int(y)), int(random.integers(2, 7)), green, -1, cv2.LINE_AA)
            return
        end_x, end_y = x + length * np.cos(angle), y + length * np.sin(angle)
        ends = (int(x), int(y)), (int(end_x), int(end_y))
        cv2.line(picture, *ends, (40, 60, 80), max(1, int(thickness)), cv2.LINE_AA)
        for _ in range(random.integers(2, 4)):
            grow(end_x, end_y, angle + random.normal(0, 0.5), length * random.uniform(0.6, 0.85), thickness * 0.65)

    for _ in range(4):
        x, y = random.uniform(40, WIDTH - 40), HEIGHT - random.uniform(10, 60)
        grow(x, y, -np.pi / 2 + random.normal(0, 0.1), random.uniform(40, 80), 12)
    return picture
