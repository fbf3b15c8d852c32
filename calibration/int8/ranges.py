"""How far activations reach, measured on the line's own pictures: what an INT8 scale is made from.

Two passes, one picture in memory at a time: the first finds the largest values, the second counts magnitudes up to
them. Four ways to choose a range (Wu et al., arXiv 2004.09602, section 4, and Migacz, 8-bit Inference with TensorRT,
GTC 2017):

* ``minmax``: nothing seen is clipped;
* ``percentile``: a ten-thousandth is;
* ``entropy``: what keeps most information, by the Kullback–Leibler divergence of the magnitudes;
* ``mse``: what rounding and clipping together cost least squared error.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from uflow_edge.calibration.int8.graph import LARGEST
from uflow_edge.export.graphs.probe import Probe
from uflow_edge.runtime.cli.command_line import progress
from uflow_edge.runtime.numeric import Image

RangeMethod: TypeAlias = Literal["minmax", "percentile", "entropy", "mse"]
RANGE_METHODS: tuple[RangeMethod, ...] = get_args(RangeMethod)

BINS = 2048
_LEVELS = LARGEST + 1  # magnitudes an INT8 number has
_STEP = 16
_CLIPPED = 1e-4
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class Magnitudes:
    """How large the numbers in an activation are.

    Attributes:
        by_channel: (C,) float64, the largest magnitude in each channel.
        counts: (BINS,) int64, how many magnitudes lie in each of as many equal parts from 0 to the largest.
    """

    by_channel: NDArray[np.float64]
    counts: NDArray[np.int64]

    @property
    def largest(self) -> float:
        """Of all."""
        return float(self.by_channel.max())

    def range(self, method: RangeMethod) -> float:
        """The largest magnitude worth representing."""
        if method == "minmax" or not self.largest > 0:
            return self.largest
        choose = {"percentile": _percentile, "entropy": _entropy, "mse": _least_squared_error}[method]
        return self.largest * choose(self.counts) / BINS


def measure(model: ir.Model, names: Sequence[str], pictures: Sequence[Image]) -> dict[str, Magnitudes]:
    """Run pictures, (S, S, 3) uint8 RGB each, and look at values, (C, …) each, by name."""
    probe = Probe(model, names)
    largest = _largest_by_channel(probe, progress(pictures, "largest activations"))
    counts = {name: np.zeros(BINS, np.int64) for name in names}
    for values in probe.each(progress(pictures, "magnitudes of activations")):
        for name, value in values.items():
            top = max(float(largest[name].max()), _TINY)
            bins = np.minimum((np.abs(value.ravel()) * (BINS / top)).astype(np.int32), BINS - 1)
            counts[name] += np.bincount(bins, minlength=BINS)
    return {name: Magnitudes(largest[name], counts[name]) for name in names}


def _largest_by_channel(probe: Probe, pictures: Iterable[Image]) -> dict[str, NDArray[np.float64]]:
    largest: dict[str, NDArray[np.float64]] = {}
    for values in probe.each(pictures):
        for name, value in values.items():
            found = np.abs(value).reshape(len(value), -1).max(axis=1).astype(np.float64)
            largest[name] = np.maximum(largest.get(name, found), found)
    return largest


def _percentile(counts: NDArray[np.int64]) -> int:
    """How many bins to keep, so that no more than a ten-thousandth is clipped."""
    below = np.cumsum(counts) / counts.sum()
    return int(np.searchsorted(below, 1 - _CLIPPED)) + 1


def _least_squared_error(counts: NDArray[np.int64]) -> int:
    kept = np.arange(_LEVELS, BINS + 1, _STEP)
    centres = np.arange(BINS) + 0.5
    step = kept / LARGEST
    rounding = np.cumsum(counts)[kept - 1] * step**2 / 12
    beyond = np.maximum(centres - kept[:, np.newaxis], 0) ** 2 @ counts
    return int(kept[np.argmin(rounding + beyond)])


def _entropy(counts: NDArray[np.int64]) -> int:
    """The range whose rounded magnitudes tell most of the clipped ones.

    Magnitude 0 is left out: a ReLU makes so many that they would decide alone, and zero is always represented.
    """
    weights = counts.astype(np.float64)
    weights[0] = 0
    candidates = range(_LEVELS, BINS + 1, _STEP)
    return min(candidates, key=lambda kept: _divergence(weights, kept)) if weights.any() else BINS


def _divergence(weights: NDArray[np.float64], kept: int) -> float:
    clipped = weights[:kept].copy()
    clipped[-1] += weights[kept:].sum()
    level = np.arange(kept) * _LEVELS // kept
    present = weights[:kept] > 0
    total = np.bincount(level, weights[:kept], _LEVELS)
    spread = np.bincount(level, present, _LEVELS)
    rounded = np.where(present, (total / np.maximum(spread, 1))[level], 0)
    if not rounded.any():
        return float("inf")
    p, q = clipped / clipped.sum(), rounded / rounded.sum()
    seen = p > 0
    return float((p[seen] * np.log(p[seen] / np.maximum(q[seen], 1e-12))).sum())
