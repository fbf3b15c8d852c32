"""How much purifying changed a picture: PSNR and structural similarity."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.diffusion.similarity import ssim_map
from uflow_edge.runtime.numeric import Image

_BAND = 512
"""Rows at a time, so that large pictures need no memory to speak of."""
_REACH = 5


def psnr(before: NDArray[Any], after: NDArray[Any], values: float = 255) -> float:
    """Peak signal-to-noise ratio of two arrays of pixels in decibels; infinite for equal ones.

    Args:
        before, after: of the same shape.
        values: the difference of the largest and the smallest possible value.
    """
    bands = range(0, len(before), _BAND)
    squares = sum(
        float(np.square(np.subtract(before[top : top + _BAND], after[top : top + _BAND], dtype=np.float64)).sum())
        for top in bands
    )
    return math.inf if squares == 0 else 10 * math.log10(values**2 * before.size / squares)


def structural_similarity(before: Image, after: Image) -> float:
    """Mean SSIM over the channels of two (H, W, C) uint8 pictures (Wang et al. 2004: Gaussian window, σ = 1.5).

    As usual, the 5 pixels along the border that the window reaches beyond are left out, unless nothing would remain.
    """
    height, width, _ = before.shape
    y, x = (_REACH if extent > 2 * _REACH else 0 for extent in (height, width))
    sums = count = 0.0
    for top in range(y, height - y, _BAND):
        bottom = min(top + _BAND, height - y)
        first, last = max(top - _REACH, 0), min(bottom + _REACH, height)
        for channel in range(before.shape[2]):
            one, other = (picture[first:last, :, channel].astype(np.float32) / 255 for picture in (before, after))
            inside = ssim_map(one, other)[top - first : bottom - first, x : width - x]
            sums += float(inside.sum(dtype=np.float64))
            count += inside.size
    return sums / count
