"""Block score, resizing and regions against independent implementations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from uflow_edge.runtime.nfa import block_score, regions_above
from uflow_edge.runtime.nfa.block import _log10_binomial_tail, exceedance_threshold
from uflow_edge.runtime.nfa.maps import upsample_bicubic, upsample_bilinear


@pytest.mark.parametrize("probability", [0.5, 0.9, 0.999])
def test_threshold_is_the_chi_square_quantile(probability: float) -> None:
    assert exceedance_threshold(probability) == pytest.approx(stats.chi2.ppf(probability, 1), rel=1e-9)


@pytest.mark.parametrize("n", [9, 25, 121])
def test_binomial_tail(n: int) -> None:
    tail = _log10_binomial_tail(n, 0.1)
    np.testing.assert_allclose(tail[:n], stats.binom.logsf(np.arange(n), n, 0.1) / np.log(10), rtol=1e-9, atol=1e-12)
    assert tail[n] == pytest.approx(n * np.log10(0.1))


@settings(max_examples=30, deadline=None)
@given(
    source=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    target=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 1000),
)
def test_resizing_is_torchs(source: tuple[int, int], target: tuple[int, int], seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=source)
    tensor = torch.from_numpy(values)[None, None]
    cubic = torch.nn.functional.interpolate(tensor, target, mode="bicubic", align_corners=True)
    np.testing.assert_allclose(upsample_bicubic(values, *target), cubic[0, 0].numpy(), atol=1e-10)
    linear = torch.nn.functional.interpolate(tensor, target, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(upsample_bilinear(values.astype(np.float32), target), linear[0, 0].numpy(), atol=1e-5)


def test_block_score_rises_with_exceedances_and_is_finite_even_when_all_exceed() -> None:
    scores = [block_score([np.full((8, 8), k)], [10], (16, 16)).min() for k in range(0, 11)]
    assert (np.diff(scores) >= 0).all()
    assert scores[0] < 0 < scores[-1]
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (2, 2), (5, 9)])
def test_block_score_of_small_maps(shape: tuple[int, int]) -> None:
    score = block_score([np.ones(shape)], [10], (7, 5))
    assert score.shape == (7, 5)
    assert np.isfinite(score).all()


def test_block_score_raises_no_false_alarm_on_the_null_model() -> None:
    random, threshold = np.random.default_rng(0), exceedance_threshold()
    for _ in range(20):
        latents = [random.standard_normal((c, s, s)) for c, s in ((54, 32), (56, 16))]
        exceedances = [(z**2 >= threshold).sum(axis=0) for z in latents]
        assert block_score(exceedances, [54, 56], (64, 64)).max() < -1


def test_block_score_refuses_what_cannot_be_counts() -> None:
    with pytest.raises(ValueError, match="counts up to 11, but only 10 channels"):
        block_score([np.full((4, 4), 11)], [10], (4, 4))
    with pytest.raises(ValueError, match="window >= 1"):
        block_score([np.ones((4, 4))], [10], (4, 4), window=0)
    with pytest.raises(ValueError, match="NaN"):
        block_score([np.full((4, 4), np.nan)], [10], (4, 4))


def test_regions_have_box_area_and_the_best_log_nfa() -> None:
    score = np.full((10, 12), -5.0, np.float32)
    score[1:3, 2:6] = 3.0
    score[2, 3] = 8.0
    score[7:9, 9:11] = 20.0
    strongest, other = regions_above(score, 0.0)
    assert (strongest.x, strongest.y, strongest.width, strongest.height, strongest.area) == (9, 7, 2, 2, 4)
    assert (other.x, other.y, other.width, other.height, other.area) == (2, 1, 4, 2, 8)
    assert (strongest.log_nfa, other.log_nfa) == (-20.0, -8.0)
    assert [region.area for region in regions_above(score, 7.0)] == [4, 1]
    assert regions_above(score, 20.0) == ()
