"""The tree NFA with the exact χ² tail of a pixel's energy in place of Chernoff's bound.

docs/calibration.md compares the two. P = 1 at and below the mean, as under the bound: otherwise large calm regions,
whose tail of about a half is raised to a high power, would outweigh small conspicuous ones.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from uflow_edge.runtime.nfa.chi_square import chi_square_log10_tail
from uflow_edge.runtime.nfa.counts import log10_tests, log10_tests_by_size, pixels_of
from uflow_edge.runtime.nfa.tree import Evidence, lowest_value
from uflow_edge.runtime.numeric import FloatMap, Size


def exact_tree_score(
    energies: Sequence[FloatMap], channels: Sequence[int], size: Size, *, rule: Literal["one_sided", "per_size"]
) -> FloatMap:
    """Like `tree_score`, with the exact tail; every pixel takes microseconds."""
    values = [
        _evidence(one, count, len(energies), per_size=rule == "per_size").value_map((one.shape[0], one.shape[1]))
        for one, count in zip(energies, channels, strict=True)
    ]
    tests = 0.0 if rule == "per_size" else log10_tests(pixels_of(energies))
    return np.asarray(-tests - lowest_value(values, size), np.float32)


def _evidence(energy: FloatMap, channels: int, scales: int, *, per_size: bool) -> Evidence:
    levels = (energy / np.float32(channels)).ravel()
    log_tail = chi_square_log10_tail(levels * np.float64(channels), channels)
    log_tail[levels <= 1] = 0.0
    log_tests = log10_tests_by_size(levels.size, scales) if per_size else np.zeros(levels.size + 1)
    outside = float(log_tests[1]) if per_size else 0.0
    return Evidence(levels, log_tail, np.arange(levels.size + 1.0), log_tests, outside)
