"""Ranges of activations whose distribution is known."""

import numpy as np
import pytest

from uflow_edge.calibration.int8.ranges import BINS, RANGE_METHODS, Magnitudes

pytestmark = pytest.mark.long


def magnitudes(values: np.ndarray) -> Magnitudes:
    largest = np.abs(values).max()
    counts, _ = np.histogram(np.abs(values), BINS, (0, largest))
    return Magnitudes(np.array([largest]), counts)


def squared_error(values: np.ndarray, reach: float) -> float:
    step = reach / 127
    return float(np.mean((np.clip(np.rint(values / step), -127, 127) * step - values) ** 2))


def test_minmax_keeps_everything() -> None:
    assert magnitudes(np.array([-3.0, 1.0])).range("minmax") == 3.0


def test_a_ten_thousandth_is_clipped() -> None:
    values = np.abs(np.random.default_rng(0).standard_normal(400_000))
    reach = magnitudes(values).range("percentile")
    assert 0.5e-4 < (values > reach).mean() <= 1e-4


@pytest.mark.parametrize("tail", [2.0, 5.0])
def test_least_squared_error_is_the_least(tail: float) -> None:
    values = np.random.default_rng(0).standard_t(tail, 200_000)
    found = magnitudes(values)
    reach = found.range("mse")
    best = min(squared_error(values, found.largest * share) for share in np.linspace(0.02, 1, 200))
    if reach > found.largest * 128 / BINS:  # unless the smallest range on offer is still too large
        assert squared_error(values, reach) < 1.05 * best
    assert squared_error(values, reach) <= squared_error(values, found.largest)


def test_entropy_clips_a_lone_outlier_and_nothing_of_a_uniform() -> None:
    random = np.random.default_rng(0)
    assert magnitudes(np.append(random.standard_normal(100_000), 60.0)).range("entropy") < 20
    assert magnitudes(random.uniform(-1, 1, 100_000)).range("entropy") > 0.9


@pytest.mark.parametrize("method", RANGE_METHODS)
def test_all_zeros_have_a_range(method: str) -> None:
    assert Magnitudes(np.zeros(3), np.eye(1, BINS, dtype=np.int64)[0]).range(method) == 0
