"""Finds anomalous images among the good ones before anything is fitted, because a fitted model would hide them.

For each image, take the logarithm of the highest level that a region of medium size reaches. Over good images it is
close to normal, but slightly skewed to the right. So it is compared with the median in units of a robust deviation, the
distance of the upper quartile from the median divided by 0.6745 (Hampel, JASA 69, 1974).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from uflow_edge.calibration.null_model.gains import log_energies, pixel_gain
from uflow_edge.runtime.nfa.component_tree import opening_maxima
from uflow_edge.runtime.numeric import FloatMap

SUSPICIOUS = 4.0
_REGION_SHARE = 1 / 64  # of a map
_NORMAL_QUARTILE = 0.6745
_SMALLEST_DEVIATION = 0.01  # of ln level, because near-copies of each other are not suspicious


def deviations(stacks: Sequence[FloatMap]) -> NDArray[np.float64]:
    """How many robust standard deviations each image's hottest region lies above the median, (N,), the worst scale.

    Args:
        stacks: per scale, (N, H_i, W_i) energies.
    """
    return np.asarray(np.max([_deviations_at_scale(stack) for stack in stacks], axis=0), np.float64)


def ranked_worst(values: NDArray[np.float64], limit: float) -> list[int]:
    """Indices of values above a limit, the highest first."""
    return [i for i in np.argsort(-values, kind="stable").tolist() if values[i] > limit]


def _deviations_at_scale(energies: FloatMap) -> NDArray[np.float64]:
    gain = pixel_gain(log_energies(energies), trust=1.0)
    size_class = max(int(gain.size * _REGION_SHARE), 1).bit_length() - 1
    peaks = np.array([_log_peak(one / gain, size_class) for one in energies])
    median, quartile = np.quantile(peaks, [0.5, 0.75])
    return np.asarray((peaks - median) / max((quartile - median) / _NORMAL_QUARTILE, _SMALLEST_DEVIATION), np.float64)


def _log_peak(levels: FloatMap, size_class: int) -> float:
    """ln of the highest level that a region of 2^class pixels reaches."""
    peaks, classes = opening_maxima(levels.ravel(), levels.shape[1], size_class + 1)
    return float(np.log(max(float(peaks[classes == size_class].max()), float(np.finfo(np.float32).tiny))))
