"""Checks of the maps that scores are computed from, and resizing of maps to the size of the picture."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from uflow_edge.runtime.compiled import compiled
from uflow_edge.runtime.numeric import FloatMap, Size


def checked_maps(name: str, maps: Sequence[ArrayLike], channels: Sequence[int], size: Size) -> list[FloatMap]:
    """Check maps and return them as contiguous float32, so that wrong inputs never become wrong verdicts.

    Raises:
        ValueError: no map, not one channel count a map, not two-dimensional, empty, negative, NaN or infinite (in
            float32), or a target size that is not positive; the message says which map.
    """
    if len(maps) == 0 or len(maps) != len(channels):
        raise ValueError(
            f"expected as many {name} maps as channel counts, and at least one; got {len(maps)} and {len(channels)}"
        )
    if min(size) < 1:
        raise ValueError(f"expected a target size (height, width) of at least 1x1, got {tuple(size)}")
    checked = []
    for scale, (one, count) in enumerate(zip(maps, channels, strict=True)):
        if count < 1:
            raise ValueError(f"{name} map {scale}: expected at least 1 channel, got {count}")
        with np.errstate(over="ignore"):  # overflow in float32 is reported below, as infinity
            values = np.ascontiguousarray(one, dtype=np.float32)
        if values.ndim != 2 or values.size == 0:
            raise ValueError(f"{name} map {scale}: expected [H, W] with at least one pixel, got shape {values.shape}")
        if not values.min() >= 0 or not np.isfinite(values.max()):
            raise ValueError(f"{name} map {scale}: expected finite values of 0 or more, got {_worst(values)}")
        checked.append(values)
    return checked


def _worst(values: FloatMap) -> str:
    for label, bad in (("NaN", np.isnan(values)), ("infinity", np.isinf(values)), ("negative values", values < 0)):
        if bad.any():
            return f"{label} in {int(bad.sum())} of {values.size} pixels"
    raise AssertionError("called on a good map")


def averaged(values: FloatMap, window: int) -> FloatMap:
    """Means over window x window pixels around each pixel of an (H, W) map, which is mirrored at its border."""
    if window == 1:
        return values
    means = cv2.blur(values, (window, window), borderType=cv2.BORDER_REFLECT)
    return np.asarray(np.maximum(means, 0, out=means), np.float32)  # running sums may round below 0


def upsample_bilinear(values: FloatMap, size: Size) -> FloatMap:
    """Bilinear with half-pixel centres and no antialiasing, as ``torch.nn.functional.interpolate`` does by default.

    Args:
        values: (H, W) float32.
        size: target (height, width).
    """
    if values.shape == tuple(size):
        return values
    height, width = size
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


_CUBIC_A = -0.75


@compiled
def _cubic_taps(target: int, source: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    step = (source - 1) / (target - 1) if target > 1 else 0.0
    index, weight = np.empty((target, 4), np.int64), np.empty((target, 4))
    for i in range(target):
        base = int(np.floor(i * step))
        t = i * step - base
        for tap in range(4):
            d = abs(t + 1 - tap)
            if d <= 1:
                weight[i, tap] = ((_CUBIC_A + 2) * d - (_CUBIC_A + 3)) * d * d + 1
            else:
                weight[i, tap] = ((_CUBIC_A * d - 5 * _CUBIC_A) * d + 8 * _CUBIC_A) * d - 4 * _CUBIC_A
            index[i, tap] = min(max(base - 1 + tap, 0), source - 1)
    return index, weight


@compiled
def upsample_bicubic(values: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Bicubic (a = −0.75) with aligned corners, which OpenCV does not offer.

    Args:
        values: (H, W) float64.
        height, width: the target size.
    """
    rows, row_weight = _cubic_taps(height, values.shape[0])
    columns, column_weight = _cubic_taps(width, values.shape[1])
    wide = np.zeros((values.shape[0], width))
    for y in range(values.shape[0]):
        for x in range(width):
            for tap in range(4):
                wide[y, x] += column_weight[x, tap] * values[y, columns[x, tap]]
    out = np.zeros((height, width))
    for y in range(height):
        for tap in range(4):
            for x in range(width):
                out[y, x] += row_weight[y, tap] * wide[rows[y, tap], x]
    return out
