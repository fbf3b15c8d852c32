"""Raw camera frames: pixel formats, and checks of shapes and boxes."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.numeric import Image, Size
from uflow_edge.runtime.resize.cpu import Box

PixelFormat = Literal["bgr", "rgb", "gray", "yuyv", "nv12"]
PIXEL_FORMATS: Final[tuple[PixelFormat, ...]] = get_args(PixelFormat)
"""The order must match the numbers in gpu_resize.cu."""

_SHAPES: Final[dict[PixelFormat, str]] = {
    "bgr": "[H, W, 3]",
    "rgb": "[H, W, 3]",
    "gray": "[H, W]",
    "yuyv": "[H, W, 2] with W even",
    "nv12": "[3/2 H, W] with H and W even",
}


@dataclass(frozen=True, slots=True)
class RawFrame:
    """A raw frame in memory that the kernels can read.

    Attributes:
        pointer: address of its first byte.
        pitch: bytes from one row to the next; the chroma rows of NV12 follow its luma rows, at the same pitch.
        size: (height, width) of the picture, in pixels.
    """

    pointer: int
    pitch: int
    size: Size
    pixel_format: PixelFormat


def picture_size(frame: Image, pixel_format: PixelFormat) -> Size:
    """Height and width of the picture in a raw frame.

    Args:
        frame: uint8; BGR and RGB (H, W, 3), GRAY (H, W), YUYV (H, W, 2), NV12 (3/2 H, W). YUV is BT.601, limited range.

    Raises:
        BadInput: the frame has another shape or type.
    """
    expected = f"a {pixel_format.upper()} frame must be a uint8 array {_SHAPES[pixel_format]}"
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
        raise BadInput(f"{expected}; got {getattr(frame, 'dtype', type(frame).__name__)}")
    height, width, *channels = frame.shape if frame.ndim > 1 else (0, 0)
    match pixel_format:
        case "bgr" | "rgb":
            fits = channels == [3]
        case "gray":
            fits = channels == []
        case "yuyv":
            fits = channels == [2] and width % 2 == 0
        case "nv12":
            fits = channels == [] and width % 2 == 0 and height % 3 == 0
            height = height // 3 * 2
    if not fits or frame.size == 0:
        raise BadInput(f"{expected}; got shape {frame.shape}")
    return height, width


def check_box(box: Box, size: Size) -> None:
    """Raise BadInput for a box that is empty or reaches beyond a picture of ``size``: the kernels do not check."""
    left, top, right, bottom = box
    height, width = size
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise BadInput(
            f"region of interest {box} (left, top, right, bottom): it must hold at least one pixel "
            f"and lie inside the frame of {width} x {height} pixels"
        )
