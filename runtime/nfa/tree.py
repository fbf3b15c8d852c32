"""Tree NFA: significance of the connected upper level sets of the energy maps (paper, section 4).

Under the null model a pixel's energy follows a χ² law with C degrees of freedom. The tail at ``x = E/C`` is bounded
by Chernoff's ``P ≤ exp(−C/2 · (x − 1 − ln x))``; a region of n independent pixels, all at least at x, by its n-th
power. The score map holds, in each pixel, −log10 of that bound times the number of tests.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uflow_edge.runtime.nfa.component_tree import paint, select_regions
from uflow_edge.runtime.nfa.counts import log10_tests, log10_tests_by_size, pixels_of
from uflow_edge.runtime.nfa.maps import checked_maps, upsample_bilinear
from uflow_edge.runtime.numeric import FloatMap, Size

Rule: TypeAlias = Literal["upstream", "one_sided", "per_size"]
RULES: tuple[Rule, ...] = get_args(Rule)
DEFAULT_RULE: Rule = "one_sided"


def tree_score(
    energies: Sequence[ArrayLike], channels: Sequence[int], size: Size, *, rule: Rule = DEFAULT_RULE
) -> FloatMap:
    """Map of −log10 NFA of the most significant region that each pixel lies in.

    ``upstream`` agrees with the authors' code, habits included: the bound is applied below the mean too, where it
    does not hold, so latents calmer than the null model count as anomalous; and of regions with exactly equal
    probability only one is painted. ``one_sided`` sets P = 1 for E ≤ C. ``per_size`` also counts the tests size by
    size, so that a small region does not pay for the number of large ones: sharp, and meant for calibrated maps.

    Args:
        energies: per scale, finest first, (H_i, W_i): sum of squared latents over channels. Finite, not negative;
            converted to float32, the precision in which engines deliver them.
        channels: per scale, C_i, the number of latent channels.
        size: (height, width) of the result.
        rule: how regions are weighed against each other and against chance.

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
    if rule not in RULES:
        raise ValueError(f"expected a rule among {', '.join(RULES)}; got {rule!r}")
    maps = checked_maps("energy", energies, channels, size)
    lowest = np.full(size, np.inf, np.float32)
    for one, count in zip(maps, channels, strict=True):
        np.minimum(lowest, upsample_bilinear(_scale_map(one, count, len(maps), rule), size), out=lowest)
    tests = 0.0 if rule == "per_size" else log10_tests(pixels_of(maps))
    return np.subtract(np.float32(-tests), lowest, out=lowest)


def _scale_map(energy: FloatMap, channels: int, scales: int, rule: Rule) -> FloatMap:
    """One scale's log10 P (log10 NFA under ``per_size``) by pixel, with what "no region" means outside all of them."""
    height, width = energy.shape
    levels = np.abs(energy / np.float32(channels)).ravel()  # the sort by bit patterns needs -0.0 to be 0.0
    if rule == "per_size":
        log_tests = log10_tests_by_size(levels.size, scales)
        outside = float(log_tests[1])  # a single pixel that is certain to happen
    else:
        log_tests, outside = np.zeros(levels.size + 1), 0.0
    log_tail = chernoff_log10_tail(levels, channels, one_sided=rule != "upstream")
    region, value = select_regions(levels, log_tail, log_tests, width)
    return paint(region, value, outside, rule == "upstream").reshape(height, width)


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
