"""Draws defects into good images, so that a training can be judged by what it finds, without a defective part.

Each kind returns what the defect looks like, as a picture of the whole image, and how much of each pixel it covers.
`draw` blends both. Sizes and contrasts are drawn log-uniformly: the pale ones are hard to find, so that good detectors
differ too. Contrasts are in standard deviations of the image, so that they are as visible in a flat picture as in a
contrasty one. Sizes are large, because what is found of small defects says little about real ones (docs/training.md).
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.numeric import FloatMap, Image

Kind: TypeAlias = Callable[[Image, Image, np.random.Generator], tuple[NDArray[Any], FloatMap]]
"""(image, another good image, random) to appearance (H, W, 3), in grey levels, and cover (H, W), 0 … 1."""

SIZES = (0.2, 0.6)
"""Side of a defect over the image's shorter side."""
CONTRASTS = (0.3, 3.0)
"""Change of brightness over the standard deviation of the image's pixels."""


def scratch(image: Image, other: Image, random: np.random.Generator) -> tuple[FloatMap, FloatMap]:
    """A brighter or darker curved line (CutPaste's "scar" is a line too: Li et al. 2021, section 3.1)."""
    side = min(image.shape[:2])
    length = side * _log_uniform(random, 1.5 * SIZES[0], 1.5 * SIZES[1])
    angles = random.uniform(0, 2 * np.pi) + np.cumsum(random.normal(0, 0.35, 6))
    steps = length / 6 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = np.array(_place(image, random)) + np.cumsum(steps, axis=0) - steps.sum(axis=0) / 2
    width = max(round(side * _log_uniform(random, 0.004, 0.015)), 1)
    cover = np.zeros(image.shape[:2], np.float32)
    cv2.polylines(cover, [np.rint(16 * points).astype(np.int32)], False, 1.0, width, cv2.LINE_AA, shift=4)
    return _shifted(image, random), cover


def stain(image: Image, other: Image, random: np.random.Generator) -> tuple[FloatMap, FloatMap]:
    """The surface, brighter or darker, with a soft irregular outline."""
    return _shifted(image, random), _blob(image, random, soft=True)


def holes(image: Image, other: Image, random: np.random.Generator) -> tuple[FloatMap, FloatMap]:
    """Two to five discs of one grey level."""
    cover = np.zeros(image.shape[:2], np.float32)
    for _ in range(random.integers(2, 6)):
        radius = max(min(image.shape[:2]) * _log_uniform(random, SIZES[0] / 4, SIZES[1] / 4) / 2, 1.0)
        centre = tuple(round(16 * value) for value in _place(image, random))
        cv2.circle(cover, centre, round(16 * radius), 1.0, -1, cv2.LINE_AA, shift=4)
    return _one_grey(image, random), cover


def patch(image: Image, other: Image, random: np.random.Generator) -> tuple[FloatMap, FloatMap]:
    """A rectangle of another place of the image, its brightness changed a little (CutPaste, Li et al. 2021)."""
    moved = np.roll(image, [int(random.integers(side)) for side in image.shape[:2]], axis=(0, 1))
    return moved + random.normal(0, 0.3 * image.std()), _rectangle(image, random)


def texture(image: Image, other: Image, random: np.random.Generator) -> tuple[FloatMap, FloatMap]:
    """Another good image, turned, at an opacity, behind a mask of noise (DRAEM, Zavrtanik et al. 2021, section 3.3)."""
    turned = cv2.resize(np.rot90(other, int(random.integers(1, 4))).copy(), image.shape[1::-1])
    opacity = random.uniform(0.2, 1.0)
    return image * (1 - opacity) + turned * opacity, _blob(image, random)


def blur(image: Image, other: Image, random: np.random.Generator) -> tuple[FloatMap, FloatMap]:
    """The surface without its grain."""
    sigma = min(image.shape[:2]) * _log_uniform(random, 0.006, 0.04)
    return cv2.GaussianBlur(image, (0, 0), sigma).astype(np.float64), _blob(image, random, soft=True)


def missing(image: Image, other: Image, random: np.random.Generator) -> tuple[FloatMap, FloatMap]:
    """A piece broken off at the border: what lies behind is of one grey level."""
    return _one_grey(image, random), _blob(image, random, at_border=True)


KINDS: dict[str, Kind] = {kind.__name__: kind for kind in (scratch, stain, holes, patch, texture, blur, missing)}


def draw(kind: Kind, image: Image, other: Image, random: np.random.Generator) -> tuple[Image, NDArray[np.bool_]]:
    """Draw a defect.

    Args:
        image: (H, W, 3) uint8.
        other: another good image, of any size, from which textures are taken.

    Returns:
        The image with the defect, and the mask (H, W) of pixels that it covers by half or more.
    """
    appearance, cover = kind(image, other, random)
    share = cover[:, :, np.newaxis]
    drawn = image * (1 - share) + appearance * share
    return np.rint(drawn).clip(0, 255).astype(np.uint8), cover >= 0.5


def _log_uniform(random: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(random.uniform(np.log(low), np.log(high))))


def _place(image: Image, random: np.random.Generator) -> tuple[float, float]:
    """x and y, at least a tenth of a side away from the border."""
    height, width = image.shape[:2]
    return random.uniform(0.1, 0.9) * width, random.uniform(0.1, 0.9) * height


def _shifted(image: Image, random: np.random.Generator) -> FloatMap:
    shift = _log_uniform(random, *CONTRASTS) * image.std()
    return np.asarray(image + shift * random.choice([-1, 1]), np.float32)


def _one_grey(image: Image, random: np.random.Generator) -> FloatMap:
    shift = _log_uniform(random, *CONTRASTS) * image.std()
    return np.full(image.shape, image.mean() + shift * random.choice([-1, 1]), np.float32)


def _rectangle(image: Image, random: np.random.Generator) -> FloatMap:
    cover = np.zeros(image.shape[:2], np.float32)
    x, y = _place(image, random)
    size, ratio = min(image.shape[:2]) * _log_uniform(random, *SIZES) / 2, _log_uniform(random, 0.5, 2)
    left, right = (round(x + side * size * ratio) for side in (-1, 1))
    top, bottom = (round(y + side * size / ratio) for side in (-1, 1))
    cover[max(top, 0) : bottom + 1, max(left, 0) : right + 1] = 1
    return cover


def _blob(image: Image, random: np.random.Generator, soft: bool = False, at_border: bool = False) -> FloatMap:
    """A spot whose outline is a contour of smooth noise in three octaves, as of Perlin's."""
    height, width = image.shape[:2]
    x, y = _place(image, random)
    if at_border:
        x, y = [(0.0, y), (width - 1, y), (x, 0.0), (x, height - 1)][random.integers(4)]
    radius = min(height, width) * _log_uniform(random, *SIZES) / 2
    across, down = max(radius, 2.0), max(radius * _log_uniform(random, 0.5, 2), 2.0)
    rows, columns = np.ogrid[:height, :width]
    distance = np.hypot((columns - x) / across, (rows - y) / down)
    noise = sum(
        cv2.resize(random.normal(0, 0.25 / 2**octave, (side, side)), (width, height), interpolation=cv2.INTER_CUBIC)
        for octave, side in enumerate((4, 8, 16))
    )
    depth = 1.2 + np.clip(noise, -0.6, 0.6) - distance
    return np.asarray(np.clip(depth / 0.5 if soft else depth * across, 0, 1), np.float32)
