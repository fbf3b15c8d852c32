import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uflow_edge.benchmarks.latency.statistics import Percentiles, change, drift, ratio_interval

_SAMPLES = st.lists(st.floats(0.01, 1e4), min_size=5, max_size=80)


def _rounds(seed: int, median: float, count: int = 60) -> list[float]:
    """Durations as they are: skewed, and neighbours alike."""
    random = np.random.default_rng(seed)
    noise = random.normal(0, 0.08, count + 2)
    return list(median * np.exp((noise[:-2] + noise[1:-1] + noise[2:]) / np.sqrt(3)))


@given(_SAMPLES)
@settings(max_examples=40, deadline=None)
def test_samples_do_not_differ_from_themselves(samples):
    found = change(samples, samples)
    assert found.verdict == "no difference that noise does not explain"
    assert found.ratio == 1
    assert found.low <= 1 <= found.high


@given(_SAMPLES, st.floats(0.1, 10))
@settings(max_examples=40, deadline=None)
def test_the_interval_moves_with_the_scale(samples, factor):
    low, high = ratio_interval(samples, samples)
    scaled = ratio_interval(samples, [factor * sample for sample in samples])
    np.testing.assert_allclose(scaled, (factor * low, factor * high), rtol=1e-9)


@given(st.integers(0, 10_000), st.floats(1.3, 4))
@settings(max_examples=40, deadline=None)
def test_what_became_slower_is_called_slower_and_the_other_way_round_faster(seed, factor):
    before, after = _rounds(seed, 10), _rounds(seed + 1, 10 * factor)
    assert change(before, after).verdict == "slower"
    assert change(after, before).verdict == "faster"


def test_the_interval_covers_the_true_ratio_as_often_as_it_says():
    covered = 0
    for seed in range(200):
        low, high = ratio_interval(_rounds(2 * seed, 10), _rounds(2 * seed + 1, 12), confidence=0.95)
        covered += low <= 1.2 <= high
    assert covered >= 0.9 * 200


def test_equal_programs_are_seldom_called_different():
    verdicts = [change(_rounds(2 * seed, 10), _rounds(2 * seed + 1, 10)).verdict for seed in range(200)]
    assert sum(verdict in ("faster", "slower") for verdict in verdicts) <= 4


def test_one_outlier_changes_nothing():
    before = _rounds(0, 10)
    assert change(before, [*before[:-1], 5000.0]).verdict == "no difference that noise does not explain"


@pytest.mark.parametrize("count", [1, 4])
def test_few_samples_are_not_judged(count):
    assert change([1.0] * count, [9.0] * 50).verdict == "too few samples"


def test_a_difference_too_small_to_be_told_from_luck_with_the_memory_is_not_called():
    assert change([100.0] * 50, [102.0] * 50).verdict == "no difference that noise does not explain"
    assert change([100.0] * 50, [102.0] * 50, least=0.01).verdict == "slower"


def test_what_drifts_within_a_run_is_not_called_between_runs():
    before = _rounds(0, 10, 90)
    drifting = [sample * (1 + 0.3 * i / 89) for i, sample in enumerate(_rounds(1, 10.3, 90))]
    assert change(before, [1.3 * sample for sample in before]).verdict == "slower"
    assert change(before, drifting).verdict == "no difference that noise does not explain"
    assert drift([1.0] * 10 + [1.2] * 10 + [1.1] * 10) == pytest.approx(0.2)


def test_percentiles_of_a_hundred_and_one():
    assert Percentiles.of(list(range(101))) == Percentiles(50, 90, 99, 100)
