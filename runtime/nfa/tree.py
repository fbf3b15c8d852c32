"""Tree NFA: significance of the connected upper level sets of the energy maps (paper, section 4).

Under the null model a pixel's energy follows a χ² law with C degrees of freedom, and a region of n independent pixels,
all at least at ``x = E/C``, has the n-th power of the tail there. That tail is bounded by Chernoff's
``P ≤ exp(−C/2 · (x − 1 − ln x))``. The score map holds, in each pixel, −log10 of the probability times the number of
tests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uflow_edge.runtime.nfa.component_tree import region_map, select_regions
from uflow_edge.runtime.nfa.counts import log10_tests, log10_tests_by_size, pixels_of
from uflow_edge.runtime.nfa.maps import checked_maps, upsample_bilinear
from uflow_edge.runtime.numeric import FloatMap, Size

TreeRule: TypeAlias = Literal["upstream", "one_sided", "per_size"]
TREE_RULES: tuple[TreeRule, ...] = get_args(TreeRule)
DEFAULT_RULE: TreeRule = "one_sided"


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence of one scale's map: a region of n pixels, the lowest of which is q, has the value
    ``repeats[n] * log_tail[q] + log_tests[n]``.

    Attributes:
        levels: (H*W,) float32, finite, not negative, no -0.0: what the upper level sets are taken of.
        log_tail: (H*W,) float64, log10 of the probability that a pixel reaches its level by chance; falls with it.
        repeats: (H*W + 1,) float64, how many independent pixels a region of n pixels counts for.
        log_tests: (H*W + 1,) float64, log10 of the number of tests for regions of n pixels.
        outside: value of pixels in no region.
    """

    levels: FloatMap
    log_tail: NDArray[np.float64]
    repeats: NDArray[np.float64]
    log_tests: NDArray[np.float64]
    outside: float

    def value_map(self, shape: Size, *, unique_values: bool = False) -> FloatMap:
        """The value of the most significant region that each pixel lies in, (H, W) float32."""
        values = region_map(
            self.levels, self.log_tail, self.repeats, self.log_tests, shape[1], self.outside, unique_values
        )
        return values.reshape(shape)

    def region_values(self, width: int) -> NDArray[np.float64]:
        """The values of the regions that survive, (R,) float64, R ≥ 1, in no order."""
        region, value = select_regions(self.levels, self.log_tail, self.repeats, self.log_tests, width)
        return value[np.unique(region[region >= 0])]


def lowest_value(maps: Sequence[FloatMap], size: Size) -> FloatMap:
    """Per pixel the lowest of the scales' values, each resized to the target, (height, width) float32."""
    lowest: FloatMap = reduce(np.minimum, (upsample_bilinear(one, size) for one in maps))
    return lowest


def tree_score(
    energies: Sequence[ArrayLike], channels: Sequence[int], size: Size, *, rule: TreeRule = DEFAULT_RULE
) -> FloatMap:
    """Map of −log10 NFA of the most significant region that each pixel lies in, for latents that are N(0, 1) by chance.

    ``upstream`` agrees with the authors' code, habits included: the bound is applied below the mean too, where it
    does not hold, so latents calmer than the null model count as anomalous; and of regions with exactly equal
    probability only one is painted. ``one_sided`` sets P = 1 for E ≤ C. ``per_size`` also counts the tests size by
    size, so that the number of large regions does not count against small ones: sharp, and meant for latents that do
    follow the null model. `null_model.NullModel.score` is for those that do not.

    Args:
        energies: per scale, finest first, (H_i, W_i): sum of squared latents over channels. Finite, not negative;
            converted to float32, the precision in which engines deliver them.
        channels: per scale, C_i, the number of latent channels.
        size: (height, width) of the result.
        rule: how regions are compared with each other and with chance.

    Returns:
        (height, width) float32, higher is more anomalous; above 0, fewer than one detection expected by chance.

    Raises:
        ValueError: maps that cannot be energies (see `checked_maps`), or an unknown rule.

    Example:
        >>> import numpy as np
        >>> energy = np.full((16, 16), 20.0, np.float32)
        >>> energy[4:8, 4:8] = 2000.0
        >>> bool(tree_score([energy], [20], (16, 16))[5, 5] > 0)
        True
    """
    if rule not in TREE_RULES:
        raise ValueError(f"expected a rule among {', '.join(TREE_RULES)}; got {rule!r}")
    maps = checked_maps("energy", energies, channels, size)
    values = [
        _evidence(one, count, len(maps), rule).value_map(_shape(one), unique_values=rule == "upstream")
        for one, count in zip(maps, channels, strict=True)
    ]
    lowest = lowest_value(values, size)
    tests = 0.0 if rule == "per_size" else log10_tests(pixels_of(maps))
    return np.subtract(np.float32(-tests), lowest, out=lowest)


def _shape(one: FloatMap) -> Size:
    height, width = one.shape
    return height, width


def _evidence(energy: FloatMap, channels: int, scales: int, rule: TreeRule) -> Evidence:
    """One scale under the uncalibrated null model: values are log10 P, and log10 NFA under ``per_size``."""
    levels = np.abs(energy / np.float32(channels)).ravel()  # the sort by bit patterns needs -0.0 to be 0.0
    if rule == "per_size":
        log_tests = log10_tests_by_size(levels.size, scales)
        outside = float(log_tests[1])  # a single pixel that is certain to happen
    else:
        log_tests, outside = np.zeros(levels.size + 1), 0.0
    log_tail = chernoff_log10_tail(levels, channels, one_sided=rule != "upstream")
    return Evidence(levels, log_tail, _whole_sizes(levels.size), log_tests, outside)


@lru_cache(maxsize=64)
def _whole_sizes(pixels: int) -> NDArray[np.float64]:
    """Every pixel counts, 0 to S."""
    sizes = np.arange(pixels + 1, dtype=np.float64)
    sizes.flags.writeable = False
    return sizes


def chernoff_log10_tail(levels: FloatMap, channels: int, *, one_sided: bool) -> NDArray[np.float64]:
    """log10 of Chernoff's bound on P(χ²_C ≥ C·x): ``−C/2 · (x − 1 − ln x) / ln 10``.

    Args:
        levels: x = E/C, float32, any shape.
        channels: C, degrees of freedom.
        one_sided: P = 1 at and below the mean, where the bound does not hold. Upstream applies it there too.
    """
    smallest = np.finfo(np.float32).tiny  # an energy of exactly 0 would be infinitely improbable
    logarithm = np.log(np.maximum(levels, smallest))  # in float32, as upstream takes it
    log_tail: NDArray[np.float64] = (levels.astype(np.float64) - 1 - logarithm) * (-channels / 2 / np.log(10))
    if one_sided:
        log_tail[levels <= 1] = 0.0
    return log_tail
