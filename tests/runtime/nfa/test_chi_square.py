"""The exact χ² tail against SciPy, against mpmath where SciPy underflows, and against what must hold everywhere."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from uflow_edge.runtime.nfa.chi_square import chi_square_log10_tail
from uflow_edge.runtime.nfa.tree import chernoff_log10_tail

degrees_of_freedom = st.floats(0.3, 3000)
levels_above_0 = st.floats(1e-3, 100)


@pytest.mark.parametrize("degrees", [0.3, 1, 2, 2.5, 54, 84, 333.3, 816, 5000])
def test_tail_is_mpmaths_from_below_the_mean_to_where_nothing_else_reaches(degrees: float) -> None:
    def exact(energy: float) -> float:
        with mpmath.workdps(120):
            upper = mpmath.gammainc(mpmath.mpf(degrees) / 2, mpmath.mpf(energy) / 2, mpmath.inf, regularized=True)
            return float(mpmath.log10(upper))

    energies = [degrees * x for x in (0.5, 0.9, 1, 1 + 1.9 / degrees, 1 + 2.1 / degrees, 1.2, 2, 10, 100)]
    energies.append(2e5 * math.log(10))  # log10 P near −1e5
    expected = [exact(energy) for energy in energies]
    assert expected[-1] < -9e4
    np.testing.assert_allclose(chi_square_log10_tail(energies, degrees), expected, rtol=2e-11, atol=1e-14)


@settings(max_examples=200, deadline=None)
@given(degrees=degrees_of_freedom, level=levels_above_0)
def test_tail_is_scipys_where_that_does_not_underflow(degrees: float, level: float) -> None:
    expected = stats.chi2.logsf(level * degrees, degrees) / np.log(10)
    if expected > -300:
        assert chi_square_log10_tail(level * degrees, degrees) == pytest.approx(expected, rel=1e-9, abs=1e-14)


@pytest.mark.parametrize("degrees", [1, 84, 816])
def test_far_out_the_asymptotic_expansion_takes_over(degrees: float) -> None:
    """Γ(a, x) ~ xᵃ⁻¹ e⁻ˣ (1 + (a − 1)/x + (a − 1)(a − 2)/x² + …) (DLMF 8.11.2)."""
    a, x = degrees / 2, 1e7 * degrees
    series = 1 + (a - 1) / x + (a - 1) * (a - 2) / x**2
    expected = ((a - 1) * math.log(x) - x - math.lgamma(a) + math.log(series)) / math.log(10)
    assert chi_square_log10_tail(2 * x, degrees) == pytest.approx(expected, rel=1e-12)


@settings(max_examples=200, deadline=None)
@given(degrees=degrees_of_freedom, level=levels_above_0, step=st.floats(1e-6, 10))
def test_tail_falls_and_stays_below_chernoffs_bound(degrees: float, level: float, step: float) -> None:
    here, further = chi_square_log10_tail([level * degrees, (level + step) * degrees], degrees)
    assert further <= here <= 0
    if level >= 1:
        bound = -degrees / 2 * (level - 1 - math.log(level)) / math.log(10)
        assert here <= bound + 1e-12


@settings(max_examples=100, deadline=None)
@given(degrees=degrees_of_freedom)
def test_tail_has_no_step_where_the_method_changes(degrees: float) -> None:
    switch = degrees + 2
    before, after = chi_square_log10_tail([np.nextafter(switch, 0), switch], degrees)
    assert before == pytest.approx(after, rel=1e-11)


def test_the_bound_gives_away_more_than_a_decade_a_pixel() -> None:
    """At twice the mean of 84 channels, P is 17 times smaller than Chernoff says."""
    level = np.array([2.0], np.float32)
    bound = chernoff_log10_tail(level, 84, one_sided=True)[0]
    assert bound - chi_square_log10_tail(2.0 * 84, 84) == pytest.approx(math.log10(17), abs=0.01)
