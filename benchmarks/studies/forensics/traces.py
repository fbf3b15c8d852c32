"""Real traces, planted in photographs so that nothing but the trace tells the region from the rest.

After Bammey, Nikoukhah, Gardella, Grompone von Gioi, Colom, Morel, "Non-Semantic Evaluation of Image Forensics Tools:
Methodology and Database", WACV 2022: a region keeps its content and gets another history.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from uflow_edge.runtime.numeric import Image


@dataclass(frozen=True, slots=True)
class Planted:
    """An image with a trace.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool, where the history differs from that of the rest.
    """

    image: Image
    mask: NDArray[np.bool_]


ENLARGEMENTS = (1.2, 1.3, 1.4, 1.5)

Trace = Callable[[Image, np.random.Generator], Planted]


def jpeg(image: Image, quality: int) -> Image:
    """Through JPEG and back: baseline, colours at half resolution."""
    buffer = io.BytesIO()
    PillowImage.fromarray(image).save(buffer, "jpeg", quality=quality, subsampling=2)
    return np.asarray(PillowImage.open(buffer).convert("RGB"), np.uint8)


def jpeg_history(image: Image, random: np.random.Generator) -> Planted:
    """The whole image was a JPEG of quality 70 to 90, and somebody cropped it, so that the grid lies anywhere."""
    offset = _offset(random)
    return Planted(_shifted_jpeg(image, int(random.integers(70, 91)), offset), np.ones(image.shape[:2], np.bool_))


def jpeg_splice(image: Image, random: np.random.Generator) -> Planted:
    """A JPEG (quality 80 to 90) in which a region comes from another JPEG (70 to 80) with the grid elsewhere."""
    mask = region(image, random)
    background = _shifted_jpeg(image, int(random.integers(80, 91)), (0, 0))
    donor = _shifted_jpeg(image, int(random.integers(70, 81)), _offset(random))
    return Planted(np.where(mask[:, :, None], donor, background), mask)


def noise_splice(image: Image, random: np.random.Generator, sigma: float = 6.0) -> Planted:
    """A region has more noise than the rest: Gaussian, of this standard deviation in grey levels."""
    mask = region(image, random)
    noisy = image + random.normal(0.0, sigma, image.shape)
    return Planted(np.where(mask[:, :, None], np.clip(np.rint(noisy), 0, 255).astype(np.uint8), image), mask)


def resampled_splice(image: Image, random: np.random.Generator) -> Planted:
    """A region was enlarged by one of `ENLARGEMENTS`, by bilinear or bicubic interpolation."""
    mask = region(image, random)
    factor = float(random.choice(ENLARGEMENTS))
    interpolation = (cv2.INTER_LINEAR, cv2.INTER_CUBIC)[int(random.integers(2))]
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    side = len(rows)
    source = int(np.ceil(side / factor)) + 2
    inner = image[rows[0] : rows[0] + source, columns[0] : columns[0] + source]
    enlarged = cv2.resize(inner, None, fx=factor, fy=factor, interpolation=interpolation)
    spliced = image.copy()
    spliced[rows[0] : rows[0] + side, columns[0] : columns[0] + side] = enlarged[:side, :side]
    return Planted(spliced, mask)


def region(image: Image, random: np.random.Generator) -> NDArray[np.bool_]:
    """A square of 60 % of the shorter side, anywhere."""
    height, width = image.shape[:2]
    side = round(0.6 * min(height, width))
    top, left = int(random.integers(height - side + 1)), int(random.integers(width - side + 1))
    mask = np.zeros((height, width), np.bool_)
    mask[top : top + side, left : left + side] = True
    return mask


def _offset(random: np.random.Generator) -> tuple[int, int]:
    """Anywhere but on the grid itself."""
    index = int(random.integers(1, 64))
    return index // 8, index % 8


def _shifted_jpeg(image: Image, quality: int, offset: tuple[int, int]) -> Image:
    """JPEG whose grid starts ``offset`` (rows, columns) before the image."""
    top, left = offset
    padded = cv2.copyMakeBorder(image, top, 0, left, 0, cv2.BORDER_REFLECT_101)
    return jpeg(np.asarray(padded, np.uint8), quality)[top:, left:]
