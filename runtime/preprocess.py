"""From a frame of any size to the model's input picture: the resize that the weights were trained with.

Pillow's antialiased bilinear, uint8 in and out. Anything else, OpenCV's resizes included, changes the energies.
"""

import numpy as np
from PIL import Image as PillowImage

from uflow_edge.runtime.bundle import Fit
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.numeric import Image, Size

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""


def inspected_box(size: Size, fit: Fit) -> Box:
    """The part of a frame that the model sees: all of it (``squash``) or the central square (``crop``)."""
    height, width = size
    if fit == "squash":
        return 0, 0, width, height
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def resize(image: Image, side: int, fit: Fit = "squash") -> Image:
    """Resize to the model's square input.

    Args:
        image: (H, W, 3) uint8, any channel order, kept.
        side: S in pixels.
        fit: what to do when H and W differ.

    Returns:
        (S, S, 3) uint8.
    """
    # Cut first: Pillow's own box argument lets the filter reach beyond the box.
    left, top, right, bottom = inspected_box((image.shape[0], image.shape[1]), fit)
    picture = PillowImage.fromarray(np.ascontiguousarray(image[top:bottom, left:right]))
    return np.asarray(picture.resize((side, side), PillowImage.Resampling.BILINEAR))


def model_input(frame_bgr: Image, side: int, fit: Fit = "squash") -> Image:
    """A camera frame as the graph wants it: (H, W, 3) uint8 BGR to (S, S, 3) uint8 RGB.

    Raises:
        BadInput: not uint8, or not (H, W, 3) with at least one pixel.
    """
    if not isinstance(frame_bgr, np.ndarray) or frame_bgr.dtype != np.uint8:
        found = getattr(frame_bgr, "dtype", type(frame_bgr).__name__)
        raise BadInput(f"a frame must be a uint8 array [H, W, 3] in BGR order; got {found}")
    if frame_bgr.ndim != 3 or frame_bgr.shape[2] != 3 or frame_bgr.size == 0:
        raise BadInput(f"a frame must be a uint8 array [H, W, 3] in BGR order; got shape {frame_bgr.shape}")
    return np.ascontiguousarray(resize(frame_bgr, side, fit)[:, :, ::-1])
