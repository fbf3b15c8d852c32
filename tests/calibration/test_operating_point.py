"""The promised bound holds as often as promised, whatever the scores' distribution; else the error says what can be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from uflow_edge.calibration.operating_point import (
    Promise,
    TooFewImages,
    clopper_pearson,
    exceedances_allowed,
    operating_point,
    threshold_band,
)
from uflow_edge.runtime.errors import UsageError
from uflow_edge.runtime.operating_point import conformal_operating_point

SPLITS = 2000

normal = stats.norm(-2, 1)
heavy = stats.t(1.5)
ties = stats.poisson(2)  # many images share a score


@pytest.mark.parametrize("law", [normal, heavy, ties], ids=["normal", "heavy tails", "ties"])
@pytest.mark.parametrize(
    ("images", "rate", "confidence"), [(299, 0.01, 0.95), (500, 0.05, 0.95), (60, 0.1, 0.9), (29, 0.1, 0.95)]
)
def test_the_bound_holds_as_often_as_promised(law, images: int, rate: float, confidence: float) -> None:
    random = np.random.default_rng(images)
    promise = Promise(rate, confidence)
    held = 0
    for scores in law.rvs((SPLITS, images), random_state=random):
        threshold = operating_point(scores.tolist(), promise).threshold
        held += law.sf(threshold) <= rate + 1e-12  # sf is P(S > t), exactly what a strict comparison flags
    # A rate of exactly `confidence` would give fewer than this once in a thousand test runs.
    assert held >= stats.binom(SPLITS, confidence).ppf(0.001)


def test_the_threshold_is_not_higher_than_it_must_be() -> None:
    """On continuous scores one rank lower breaks the promise, by the exact Beta law of what is above."""
    for images, rate, confidence in ((299, 0.01, 0.95), (500, 0.05, 0.95), (1000, 0.02, 0.9)):
        above = exceedances_allowed(images, rate, confidence)
        assert stats.beta(above + 1, images - above).cdf(rate) >= confidence
        assert stats.beta(above + 2, images - above - 1).cdf(rate) < confidence


@given(
    images=st.integers(1, 3000),
    rate=st.floats(0.001, 0.5),
    confidence=st.floats(0.5, 0.999),
)
def test_what_is_allowed_is_the_binomial_quantile(images: int, rate: float, confidence: float) -> None:
    allowed = exceedances_allowed(images, rate, confidence)
    law = stats.binom(images, rate)
    assert allowed == -1 or law.cdf(allowed) <= 1 - confidence + 1e-9
    assert law.cdf(allowed + 1) > 1 - confidence - 1e-9
    assert (allowed >= 0) == (images >= Promise(rate, confidence).images_needed)


def test_known_sample_sizes() -> None:
    assert Promise(0.05, 0.95).images_needed == 59  # Wilks
    assert Promise(0.01, 0.95).images_needed == 299
    assert Promise(0.01, 0.99).images_needed == 459
    assert Promise(0.01, None).images_needed == 99


@pytest.mark.parametrize("images", [10, 58, 120, 298])
def test_what_is_offered_instead_can_be_had(images: int) -> None:
    scores = np.random.default_rng(0).normal(size=images).tolist()
    with pytest.raises(TooFewImages, match="299 are needed") as refused:
        operating_point(scores, Promise(0.01, 0.95))
    offered = str(refused.value).split("(")[1:]
    assert len(offered) == 3
    for part in offered:
        words = part.split(")")[0].split()
        given_ = dict(zip(words[::2], words[1::2], strict=True))
        confidence = given_.get("--confidence", "0.95")
        promise = Promise(
            float(given_.get("--max-false-alarms", 0.01)), None if confidence == "average" else float(confidence)
        )
        assert operating_point(scores, promise).threshold == max(scores)


def test_without_a_confidence_it_is_split_conformal() -> None:
    scores = np.random.default_rng(0).normal(size=99).tolist()
    point = operating_point(scores, Promise(0.05, None))
    assert point == conformal_operating_point(scores, 0.05)
    assert "on average" in point.promise
    assert "95 % confidence" in operating_point(scores, Promise(0.05, 0.95)).promise


@given(images=st.integers(1, 400), data=st.data(), confidence=st.sampled_from([0.8, 0.95, 0.99]))
def test_clopper_pearson_is_scipys(images: int, data: st.DataObject, confidence: float) -> None:
    count = data.draw(st.integers(0, images))
    expected = stats.binomtest(count, images).proportion_ci(confidence, "exact")
    assert clopper_pearson(count, images, confidence) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_the_band_holds_the_true_quantile() -> None:
    random, outside_low, outside_high = np.random.default_rng(1), 0, 0
    true = normal.ppf(0.98)
    for scores in normal.rvs((SPLITS, 400), random_state=random):
        low, high = threshold_band(scores.tolist(), 0.02, 0.95)
        outside_low += low > true
        outside_high += high < true
    most = stats.binom(SPLITS, 0.05).ppf(0.999)
    assert 0 < outside_low <= most
    assert 0 < outside_high <= most


@pytest.mark.parametrize(("rate", "confidence"), [(0.0, 0.9), (1.0, 0.9), (0.1, 0.0), (0.1, 1.0), (-1, None)])
def test_refuses_what_is_no_promise(rate: float, confidence: float | None) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        Promise(rate, confidence)
