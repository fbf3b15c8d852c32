"""Array types and tile positions that several parts share."""

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatMap: TypeAlias = NDArray[np.float32]
IndexMap: TypeAlias = NDArray[np.int32]
Image: TypeAlias = NDArray[np.uint8]
Frame: TypeAlias = NDArray[Any] | None
"""A frame as callers give it: ``cv2.imread`` is annotated no better. It is checked where it is used."""
Size: TypeAlias = tuple[int, int]
"""(height, width) in pixels."""


def even_starts(extent: int, side: int, stride: float) -> tuple[int, ...]:
    """Evenly spread starts of the fewest tiles of ``side`` pixels, at most ``stride`` apart, that cover ``extent``."""
    reach = extent - side
    if reach <= 0:
        return (0,)
    count = math.ceil(reach / max(stride, 1)) + 1
    return tuple(round(k * reach / (count - 1)) for k in range(count))
