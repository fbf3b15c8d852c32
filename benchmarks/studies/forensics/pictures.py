"""Pictures of what a method did: before, after, the difference, and what a detector made of both."""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from uflow_edge.benchmarks.studies.forensics.jpeg_grid import NO_VOTE, ORIGINS, grid_votes
from uflow_edge.benchmarks.studies.forensics.luminance import luminance
from uflow_edge.benchmarks.studies.forensics.noise_level import detect_noise_difference
from uflow_edge.benchmarks.studies.forensics.resampling import prediction_errors
from uflow_edge.benchmarks.studies.forensics.traces import Planted
from uflow_edge.runtime.numeric import Image

AMPLIFICATION = 8
_BRIGHTEST = 8.0
_ZOOM, _GAP, _HEADER = 2, 8, 26
_PALETTE = np.array([[round(255 * c) for c in colorsys.hsv_to_rgb(i * 0.381966 % 1, 0.7, 0.9)] for i in range(ORIGINS)])


@dataclass(frozen=True, slots=True)
class View:
    """What a detector looks at, as a picture.

    Attributes:
        name: for people.
        draw: from an image to a picture of the same size, both (H, W, 3) uint8 RGB.
    """

    name: str
    draw: Callable[[Image], Image]


def comparison(planted: Planted, result: Image, method: str, view: View) -> Image:
    """A row of pictures, the spliced region outlined in the first: (H', W', 3) uint8 RGB.

    Args:
        planted: the image with the trace.
        result: what a method made of it, of the same size.
        method: its name.
        view: what the detector looks at.
    """
    before = planted.image.copy()
    outlines, _ = cv2.findContours(planted.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(before, outlines, -1, (255, 255, 255), 1)
    columns = {
        "before": before,
        method: result,
        f"difference x {AMPLIFICATION}": difference(planted.image, result),
        f"{view.name}, before": view.draw(planted.image),
        f"{view.name}, after": view.draw(result),
    }
    return np.concatenate([_captioned(picture, caption) for caption, picture in columns.items()], axis=1)


def difference(image: Image, other: Image) -> Image:
    """Amplified, around grey."""
    change = (other.astype(np.float32) - image) * AMPLIFICATION + 128
    return np.asarray(np.clip(change, 0, 255), np.uint8)


def vote_map(image: Image) -> Image:
    """A colour for each grid origin that a pixel votes for, black for none."""
    votes: NDArray[np.int16] = grid_votes(luminance(image))
    colours = np.concatenate([_PALETTE, [[0, 0, 0]]]).astype(np.uint8)
    return np.asarray(colours[np.where(votes == NO_VOTE, ORIGINS, votes)], np.uint8)


def noise_map(image: Image) -> Image:
    """Standard deviation of each block's highest frequencies: black for none, white for `_BRIGHTEST` grey levels."""
    levels = detect_noise_difference(image).levels * (255 / _BRIGHTEST)
    size = (image.shape[1], image.shape[0])
    grey = cv2.resize(np.clip(levels, 0, 255).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return np.repeat(grey[:, :, None], 3, axis=2)


def spectrum(image: Image) -> Image:
    """Of how well pixels are predicted; frequency 0 in the middle. Enlarging shows as bright points on the axes."""
    errors = prediction_errors(luminance(image))
    window = np.outer(np.hanning(errors.shape[0]), np.hanning(errors.shape[1]))
    power = np.fft.fftshift(np.log(np.abs(np.fft.fft2((errors - errors.mean()) * window)) + 1e-6))
    low, high = np.quantile(power, [0.5, 0.9999])
    grey = np.clip((power - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


VIEWS = {
    "JPEG history": View("grid votes", vote_map),
    "JPEG splice": View("grid votes", vote_map),
    "noise splice": View("noise", noise_map),
    "enlarged splice": View("spectrum", spectrum),
}
"""By case."""


def _captioned(picture: Image, caption: str) -> Image:
    large = cv2.resize(picture, None, fx=_ZOOM, fy=_ZOOM, interpolation=cv2.INTER_NEAREST)
    framed = cv2.copyMakeBorder(large, _HEADER, 0, 0, _GAP, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    cv2.putText(framed, caption, (2, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.asarray(framed, np.uint8)
