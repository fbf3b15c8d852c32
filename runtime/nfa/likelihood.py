"""The anomaly map without a threshold of its own (paper, section 3.3)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from uflow_edge.runtime.nfa.maps import checked_maps, upsample_bilinear
from uflow_edge.runtime.numeric import FloatMap, Size


def likelihood_map(energies: Sequence[ArrayLike], channels: Sequence[int], size: Size) -> FloatMap:
    """One minus the mean over scales of ``exp(−E_i / (2 C_i))``, each resized to the target: 0 calm, 1 anomalous.

    Args:
        energies: per scale, finest first, (H_i, W_i), finite and not negative.
        channels: per scale, C_i.
        size: (height, width) of the result.

    Returns:
        (height, width) float32 in [0, 1].

    Raises:
        ValueError: maps that cannot be energies (see `checked_maps`).
    """
    maps = checked_maps("energy", energies, channels, size)
    likelihoods = [
        upsample_bilinear(np.exp(one * np.float32(-0.5 / count)), size)
        for one, count in zip(maps, channels, strict=True)
    ]
    return np.asarray(1 - sum(likelihoods) / np.float32(len(likelihoods)), np.float32)
