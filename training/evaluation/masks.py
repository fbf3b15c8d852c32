"""Reads a mask from an image file of any format and colour mode."""

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
    """Read a mask: (H, W) bool, True where the value is not 0, at any bit depth.

    Palettes are resolved to their colours. If parts of the mask are transparent, they are the background, and the other
    parts are the defect; the same transparency everywhere is ignored.

    Raises:
        BadInput: the mask is unreadable, empty, ambiguous, or has lossy compression.
    """
    with opened(path) as picture:
        if _is_lossy(picture, path):
            raise BadInput("has lossy compression (JPEG, WebP), which changes its values; save the mask as PNG")
        mask = _marked(picture, path)
        if not mask.any():
            raise BadInput("marks no pixel; mark the defect with values other than 0")
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
            raise BadInput(f"has colour mode {picture.mode}; expected grey, palette or RGB")
    if values.ndim == 2:
        return np.asarray(values != 0)
    drawn = np.asarray(values[:, :, :3].any(axis=2))
    if values.shape[2] < 4 or (values[:, :, 3] == values[0, 0, 3]).all():
        return drawn
    visible = np.asarray(values[:, :, 3] != 0)
    if visible.all():
        return drawn
    if drawn[visible].any() and not drawn[visible].all():
        raise BadInput(
            "has transparent, black and coloured parts, so its background is unclear; save it without transparency"
        )
    return visible
