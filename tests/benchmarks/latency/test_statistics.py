import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uflow_edge.benchmarks.latency.statistics import Percentiles, paired_ratio

_SAMPLES = st.lists(st.floats(0.01, 1e4), min_size=1, max_size=80)


@given(_SAMPLES, st.floats(0.1, 10))
@settings(max_examples=40, deadline=None)
def test_what_disturbs_both_samples_of_a_round_cancels(samples, factor):
    assert paired_ratio([factor * sample for sample in samples], samples) == pytest.approx(factor)


def test_a_ratio_is_the_median_over_rounds_and_one_outlier_changes_little():
    random = np.random.default_rng(0)
    disturbance = np.exp(random.normal(0, 1, 60))
    ours, theirs = (median * disturbance * np.exp(random.normal(0, 0.02, 60)) for median in (12, 10))
    ours[7] = 5000
    assert paired_ratio(list(ours), list(theirs)) == pytest.approx(1.2, rel=0.02)
    with pytest.raises(ValueError, match="zip"):
        paired_ratio([1.0, 2.0], [1.0])


def test_percentiles_of_a_hundred_and_one():
    assert Percentiles.of(list(range(101))) == Percentiles(50, 90, 99, 100)
