"""Finds image files, and reads them in the form of camera frames."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from PIL import Image as PillowImage

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.images.decode import IMAGE_SUFFIXES, decode_upright, eight_bits, opened
from uflow_edge.runtime.images.search import Found, search
from uflow_edge.runtime.numeric import Image

logger = logging.getLogger(__name__)

__all__ = ["IMAGE_SUFFIXES", "find_images", "read_image", "spread"]

T = TypeVar("T")

_STRIP: Final = 1 << 22
"""Pixels converted at a time, so that a large image is in memory only twice: as decoded and as the result."""


def read_image(path: Path) -> Image:
    """Read an image upright and in colour.

    Grey becomes three equal channels; of 16 bits, or of the bits in use (`decode.Reading`), the upper 8 are kept;
    transparency is dropped; palettes are resolved; the EXIF rotation is applied; of several pages the first is read.

    Args:
        path: a file in one of `decode.FORMATS`.

    Returns:
        (H, W, 3) uint8, BGR.

    Raises:
        BadInput: the file is missing, truncated, not an image, too large, or has 32-bit pixels, which have no defined
            range.
    """
    with opened(path) as picture:
        if picture.mode == "F":
            raise BadInput("floating-point pixels have no defined range; save it with 8 or 16 bits")
        shallow = eight_bits(picture, path)
        if shallow is None:
            decode_upright(picture, path)
            return _in_colour(picture)
        return np.ascontiguousarray(shallow[:, :, :3] if shallow.ndim == 3 else np.dstack([shallow] * 3))


def _in_colour(picture: PillowImage.Image) -> Image:
    if "transparency" in picture.info:
        picture = picture.convert("RGBA")  # Pillow needs this step for palettes with transparency
    width, height = picture.size
    frame, rows = np.empty((height, width, 3), np.uint8), max(_STRIP // width, 1)
    for top in range(0, height, rows):
        strip = picture if rows >= height else picture.crop((0, top, width, min(top + rows, height)))
        frame[top : top + rows] = np.asarray(strip.convert("RGB"))[:, :, ::-1]
    return frame


def find_images(paths: Iterable[Path]) -> Iterator[Path]:
    """Files as they are, folders searched to the bottom for image files, in alphabetical order.

    What looks like an image and cannot be had is among them, for `read_image` to refuse by name: links to nothing,
    folders that may not be read, pipes and devices. What is left out of a folder is logged.

    Args:
        paths: of files and folders. Links are followed.

    Raises:
        BadInput: a path that does not exist, a folder that may not be read, or one without a single image.
    """
    for path in paths:
        if path.is_dir():
            found = search(path)
            for line in found.notes():
                logger.info(line)
            _require_images(found)
            yield from found.images
        elif path.exists() or path.is_symlink():
            yield path
        else:
            raise BadInput(f"{path}: no such file or folder")


def _require_images(found: Found) -> None:
    if found.images == [found.folder]:
        raise BadInput(f"{found.folder}: permission denied")
    if not found.images:
        raise BadInput(f"{found.folder}: no images in this folder ({', '.join(sorted(IMAGE_SUFFIXES))})")


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most ``most`` of the items, evenly spaced from the first to the last."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)]
