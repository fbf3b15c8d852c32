"""Reads one mask from an image file, however it was stored."""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.images.decode import decode_upright, deep_values, opened

_LOSSY: Final = frozenset({"JPEG", "MPO"})
_LOSSY_TIFF: Final = frozenset({"jpeg", "tiff_jpeg", "webp"})
_COLOURS: Final = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX"})


def read_mask(path: Path) -> NDArray[np.bool_]:
    """(H, W) bool, true where the mask marks a defect: wherever a value is not 0, at any depth of bits.

    Palettes are resolved to their colours. Where parts of a mask are transparent, they are its background, and what is
    drawn on it is the defect; transparency that is the same everywhere is ignored.

    Raises:
        BadInput: it cannot be read, marks nothing, was stored with losses, or can be understood in two ways.
    """
    with opened(path) as picture:
        if _is_lossy(picture, path):
            raise BadInput("was stored with losses (JPEG, WebP), which leave no value as it was drawn; save it as PNG")
        mask = _marked(picture, path)
        if not mask.any():
            raise BadInput("marks no pixel; mark the defect")
        return mask


def _is_lossy(picture: PillowImage.Image, path: Path) -> bool:
    if picture.format == "WEBP":
        with path.open("rb") as file:
            return b"VP8L" not in file.read(1 << 12)  # the chunk of lossless pictures
    return picture.format in _LOSSY or picture.info.get("compression") in _LOSSY_TIFF


def _marked(picture: PillowImage.Image, path: Path) -> NDArray[np.bool_]:
    values = deep_values(picture, path)
    if values is None:
        decode_upright(picture, path)
        if picture.mode == "F":
            values = np.asarray(picture)
            if not np.isfinite(values).all():
                raise BadInput("has values that are not finite")
        elif picture.mode in _COLOURS:
            values = np.asarray(picture.convert("RGBA"))
        else:
            raise BadInput(f"is of colours {picture.mode}; a mask is grey, of a palette, or RGB")
    if values.ndim == 2:
        return np.asarray(values != 0)
    drawn = np.asarray(values[:, :, :3].any(axis=2))
    if values.shape[2] < 4 or (values[:, :, 3] == values[0, 0, 3]).all():
        return drawn
    visible = np.asarray(values[:, :, 3] != 0)
    if visible.all():
        return drawn
    if drawn[visible].any() and not drawn[visible].all():
        raise BadInput("has transparent parts, black parts and others, of which it is not clear what is the background")
    return visible
