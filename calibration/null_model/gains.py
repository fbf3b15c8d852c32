"""Estimates gains: the usual energy of each place in good images, and how much whole images differ.

Everything is estimated on logarithms, where gains add and a few hot pixels carry little weight.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.nfa.null_model import ImageGain, NullScale
from uflow_edge.runtime.numeric import FloatMap

_GOOD_RANGE = (0.05, 0.95)
_FLOOR = 1e-6  # of the median energy, because a dead pixel has no logarithm


def log_energies(energies: FloatMap) -> NDArray[np.float64]:
    """Natural logarithm of (N, H, W) energies, in float64, with a floor far below any live pixel."""
    floor = max(float(np.median(energies)) * _FLOOR, float(np.finfo(np.float32).tiny))
    return np.log(np.maximum(energies, floor), dtype=np.float64)


def pixel_gain(logs: NDArray[np.float64], trust: float) -> FloatMap:
    """Typical energy of each place, (H, W), shrunk towards that of the whole scale.

    Args:
        logs: (N, H, W), see `log_energies`.
        trust: 0 gives every place the same gain, 1 gives each place its own mean.
    """
    typical = float(np.median(np.median(logs, axis=(1, 2))))
    return np.exp(typical + trust * _place_deviations(logs)).astype(np.float32)


def trust_in_places(logs: NDArray[np.float64], folds: Sequence[NDArray[np.intp]]) -> float:
    """How well deviations of places on some images predict those on others: a regression slope, 0 to 1.

    It is near 1 for aligned parts with many images, and near 0 for textures, where places have no meaning. It is the
    shrinkage that maximises the likelihood of held-out energies if their logarithms are normal.
    """
    product = square = 0.0
    for held_out in folds:
        seen = _place_deviations(np.delete(logs, held_out, axis=0))
        product += float((seen * _place_deviations(logs[held_out])).sum())
        square += float((seen * seen).sum())
    return min(max(product / square, 0.0), 1.0) if square > 0 else 0.0


def image_gain(energies: FloatMap, gain: FloatMap, exponent: float) -> ImageGain:
    """The range of gains of good images, from their 5 % to their 95 % quantile.

    Args:
        energies: (N, H, W).
        gain: (H, W), of places.
        exponent: how much of an image's gain is divided out.
    """
    gains = np.median(energies / gain, axis=(1, 2))
    lowest, highest = np.quantile(np.maximum(gains, _FLOOR), _GOOD_RANGE)
    return ImageGain(exponent, float(lowest), float(highest))


def levels_of(energies: FloatMap, gain: FloatMap, of_images: ImageGain) -> FloatMap:
    """Energies divided by both gains, as at runtime, (N, H*W) float32 (see `NullScale.levels`)."""
    return np.stack([NullScale.normalised(one, gain, of_images) for one in energies])


def _place_deviations(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    relative = logs - np.median(logs, axis=(1, 2), keepdims=True)
    places: NDArray[np.float64] = relative.mean(axis=0)
    return places - np.median(places)
