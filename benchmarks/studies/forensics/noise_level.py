"""Whether a region has more or less noise than the rest of the image.

After Gardella, Musé, Morel, Colom, "Noisesniffer: A Fully Automatic Image Forgery Detector Based on Noise Analysis"
(IWBF 2021), simplified. Noise depends on brightness, so blocks are compared with blocks of like brightness. In each
group the flattest blocks are kept, for their high frequencies are noise rather than texture, and the least noisy of
those are marked. If noise is alike everywhere, so is the share of marked blocks; a window with too many or too few is
judged by its number of false alarms. Texture breaks that rule in real photographs: an NFA below 1 alone is no proof.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from uflow_edge.benchmarks.studies.forensics.chance import log10_binomial_tail
from uflow_edge.benchmarks.studies.forensics.dct import BLOCK, COSINES
from uflow_edge.benchmarks.studies.forensics.luminance import luminance
from uflow_edge.runtime.numeric import FloatMap, Image

WINDOWS = (6, 9, 12)
"""Sides of the windows, blocks."""
STRIDE = 2
_GROUPS = 3
_FLAT = 0.6  # of the blocks of a group
_MARKED = 0.3  # of the flat blocks
_HIGHEST = 11  # from this sum of the two frequencies on, a coefficient counts as noise
_FEWEST = 8  # flat blocks that a window must have to be judged


@dataclass(frozen=True, slots=True)
class NoiseDetection:
    """What the marks say.

    Attributes:
        scores: (rows, columns) of blocks, −log10 NFA of the most certain window that contains the block.
        levels: (rows, columns) of blocks, standard deviation of the highest frequencies, grey levels.
    """

    scores: NDArray[np.float64]
    levels: FloatMap

    @property
    def score(self) -> float:
        """−log10 NFA of the whole image."""
        return float(self.scores.max())


def detect_noise_difference(image_rgb: Image) -> NoiseDetection:
    """Look at every window.

    Args:
        image_rgb: (H, W, 3) uint8, at least 64 pixels a side.
    """
    roughness, levels, brightness = _block_statistics(luminance(image_rgb))
    flat, marked = _flat_and_marked(roughness, levels, brightness)
    windows = [
        np.s_[top : top + side, left : left + side]
        for side in WINDOWS
        for top in range(0, flat.shape[0] - side + 1, STRIDE)
        for left in range(0, flat.shape[1] - side + 1, STRIDE)
    ]
    log10_tests = math.log10(2 * len(windows))  # too many, and too few
    scores = np.full(flat.shape, -log10_tests)
    for window in windows:
        count, calm = int(flat[window].sum()), int(marked[window].sum())
        if count >= _FEWEST:
            more_noise = log10_binomial_tail(count - calm, count, 1 - _MARKED)
            less_noise = log10_binomial_tail(calm, count, _MARKED)
            scores[window] = np.maximum(scores[window], -min(more_noise, less_noise) - log10_tests)
    return NoiseDetection(scores, levels)


def _block_statistics(luma: FloatMap) -> tuple[FloatMap, FloatMap, FloatMap]:
    """Of each block: energy of the low frequencies beyond that of noise, deviation of the highest ones, mean."""
    blocks = sliding_window_view(luma, (BLOCK, BLOCK))[::BLOCK, ::BLOCK]
    coefficients = COSINES @ blocks @ COSINES.T
    order = np.add.outer(np.arange(BLOCK), np.arange(BLOCK))
    energy = coefficients**2
    lower, higher = (order > 0) & (order < _HIGHEST), order >= _HIGHEST
    noise = energy[:, :, higher].mean(axis=2)
    roughness = energy[:, :, lower].sum(axis=2) - noise * lower.sum()
    brightness = coefficients[:, :, 0, 0] / BLOCK
    return np.asarray(roughness, np.float32), np.sqrt(noise), np.asarray(brightness, np.float32)


def _flat_and_marked(
    roughness: FloatMap, levels: FloatMap, brightness: FloatMap
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    group = brightness.ravel().argsort(kind="stable").argsort(kind="stable").reshape(brightness.shape)
    group = group * _GROUPS // brightness.size
    flat, marked = np.zeros(group.shape, np.bool_), np.zeros(group.shape, np.bool_)
    for index in range(_GROUPS):
        chosen = group == index
        chosen &= roughness <= np.quantile(roughness[chosen], _FLAT)
        flat |= chosen
        marked |= chosen & (levels <= np.quantile(levels[chosen], _MARKED))
    return flat, marked
