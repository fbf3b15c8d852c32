"""Image files in, as the frames a camera would have delivered; and which files are images at all."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageOps

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.numeric import Image

T = TypeVar("T")

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
_SIXTEEN_BIT = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I"})


def read_image(path: Path) -> Image:
    """Read an image upright and in colour, whatever it is stored as.

    Grey becomes three equal channels; of 16 bits the upper 8 are kept, whatever the content; transparency is
    dropped; palettes are resolved; a camera's EXIF rotation is applied; of several pages the first is taken.

    Args:
        path: in any format that Pillow reads.

    Returns:
        (H, W, 3) uint8, BGR.

    Raises:
        BadInput: missing, truncated, not an image, or of a pixel type without a defined range (32-bit).
    """
    try:
        with PillowImage.open(path) as opened:
            picture = ImageOps.exif_transpose(opened)
            rgb = _eight_bit(picture)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise BadInput(f"{path}: no such file") from error
    except Exception as error:  # Pillow's decoders raise whatever their format makes them
        raise BadInput(f"{path}: cannot be read as an image ({error})") from error
    return np.ascontiguousarray(rgb[:, :, ::-1])


def _eight_bit(picture: PillowImage.Image) -> Image:
    if picture.mode in _SIXTEEN_BIT:
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise BadInput("32-bit pixels have no defined range; save it with 8 or 16 bits")
        return np.repeat((values >> 8).astype(np.uint8)[:, :, np.newaxis], 3, axis=2)
    if picture.mode == "F":
        raise BadInput("floating-point pixels have no defined range; save it with 8 or 16 bits")
    if "transparency" in picture.info:
        picture = picture.convert("RGBA")  # Pillow wants this stop on the way from a palette that has it
    return np.asarray(picture.convert("RGB"))


def find_images(paths: Iterable[Path]) -> Iterator[Path]:
    """Files as they are, folders searched to the bottom for image files, in alphabetical order, hidden ones left out.

    Raises:
        BadInput: a path that does not exist, or a folder without a single image.
    """
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and _is_visible(p, path))
            if not inside:
                raise BadInput(f"{path}: no images in this folder ({', '.join(sorted(IMAGE_SUFFIXES))})")
            yield from inside
        elif path.exists():
            yield path
        else:
            raise BadInput(f"{path}: no such file or folder")


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many of them, evenly from the first to the last."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)]


def _is_visible(path: Path, folder: Path) -> bool:
    return path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
