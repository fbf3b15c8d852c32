"""Pixel metrics from histograms against scikit-learn, torchmetrics, brute force, and cases counted by hand."""

from dataclasses import astuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label
from sklearn.metrics import roc_auc_score, roc_curve
from torchmetrics.classification import BinaryAUROC
from torchmetrics.functional.classification import binary_jaccard_index

from uflow_edge.training.evaluation.pixels import Decisions, PixelMetrics, PixelScores, intersection_over_union
from uflow_edge.training.evaluation.score_axis import BINS, EvenAxis, ScoreAxis, SignedLogAxis

AXES = pytest.mark.parametrize("axis", [EvenAxis(), SignedLogAxis()], ids=["even", "signed-log"])
Images = list[tuple[np.ndarray, np.ndarray]]


def images(random: np.random.Generator, axis: ScoreAxis, *, on_bins: bool, count: int = 4, smallest: int = 1) -> Images:
    """Noise with square defects that score higher, one image without a defect, each of another size."""
    made = []
    for i in range(count):
        size = tuple(random.integers(20, 40, 2))
        truth = np.zeros(size, bool)
        for _ in range(0 if i == 0 else random.integers(1, 4)):
            y, x, side = *random.integers(0, 15, 2), random.integers(smallest, 15)
            truth[y : y + side, x : x + side] = True
        scores = random.beta(2, 4, size) + truth * random.uniform(0, 0.4)
        scores = np.clip(scores, 0, 1) if isinstance(axis, EvenAxis) else np.sinh(12 * scores - 4)
        if on_bins:
            scores = np.vectorize(axis.lower_edge)(axis.bins(scores) // 500 * 500)
        made.append((scores, truth))
    return made


def measured(made: Images, axis: ScoreAxis) -> PixelMetrics:
    accumulator = PixelScores(axis)
    for scores, truth in made:
        accumulator.add(scores, truth)
    return accumulator.metrics()


def flat(made: Images) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([s.ravel() for s, _ in made]), np.concatenate([t.ravel() for _, t in made])


def auroc_of_torchmetrics(made: Images, axis: ScoreAxis) -> float:
    """Fed image by image, as a training would; bins instead of scores, which are all the same in single precision."""
    metric = BinaryAUROC()
    for scores, truth in made:
        metric.update(torch.from_numpy(axis.bins(scores) / BINS).ravel(), torch.from_numpy(truth.astype(int)).ravel())
    return float(metric.compute())


def share_from(ordered: np.ndarray, threshold: float) -> float:
    return 1 - np.searchsorted(ordered, threshold, side="left") / len(ordered)


def brute_force_aupro(made: Images, limit: float = 0.3) -> float:
    """Every distinct score as a threshold, every region by itself."""
    scores, truth = flat(made)
    labelled = [(s, label(t, connectivity=2)) for s, t in made]
    regions = [np.sort(s[labels == i]) for s, labels in labelled for i in range(1, labels.max() + 1)]
    good = np.sort(scores[~truth])
    rates, overlaps = [0.0], [0.0]
    for threshold in np.unique(scores)[::-1]:
        rates.append(share_from(good, threshold))
        overlaps.append(np.mean([share_from(region, threshold) for region in regions]))
    end = np.interp(limit, rates, overlaps)
    inside = np.array(rates) <= limit
    x, y = np.append(np.array(rates)[inside], limit), np.append(np.array(overlaps)[inside], end)
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum() / limit)


def brute_force_oracle(made: Images) -> float:
    thresholds = np.append(np.unique(flat(made)[0]), np.inf)
    return max(np.mean([intersection_over_union(s >= t, truth) for s, truth in made]) for t in thresholds)


@AXES
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=12, deadline=None)
def test_scores_on_the_bins_give_the_metrics_exactly(axis: ScoreAxis, seed: int) -> None:
    made = images(np.random.default_rng(seed), axis, on_bins=True)
    metrics = measured(made, axis)
    scores, truth = flat(made)
    assert metrics.auroc == pytest.approx(roc_auc_score(truth, scores), abs=1e-6)
    assert metrics.auroc == pytest.approx(auroc_of_torchmetrics(made, axis), abs=1e-6)
    assert metrics.aupro == pytest.approx(brute_force_aupro(made), abs=1e-6)
    assert metrics.oracle_iou == pytest.approx(brute_force_oracle(made), abs=1e-6)


@AXES
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_any_scores_give_the_auroc_within_its_bound(axis: ScoreAxis, seed: int) -> None:
    made = images(np.random.default_rng(seed), axis, on_bins=False)
    metrics = measured(made, axis)
    scores, truth = flat(made)
    assert abs(metrics.auroc - roc_auc_score(truth, scores)) <= metrics.auroc_uncertainty + 1e-12


@AXES
@pytest.mark.parametrize("seed", range(3))
def test_any_scores_of_more_than_a_few_pixels_give_the_metrics_to_a_ten_thousandth(axis: ScoreAxis, seed: int) -> None:
    made = images(np.random.default_rng(seed), axis, on_bins=False, count=8, smallest=8)
    metrics = measured(made, axis)
    scores, truth = flat(made)
    assert metrics.auroc == pytest.approx(roc_auc_score(truth, scores), abs=1e-4)
    assert metrics.aupro == pytest.approx(brute_force_aupro(made), abs=1e-4)


def test_pixels_that_touch_at_a_corner_are_one_region() -> None:
    truth = np.array([[1, 0, 0, 0], [0, 1, 1, 1]], bool)
    scores = np.array([[0.9, 0.5, 0.5, 0.5], [0.1, 0.1, 0.1, 0.1]])
    good_image = np.full((2, 4), 0.5)
    # Until all good pixels are flagged, one pixel of four is found. Taken as two regions, it would be 1/2.
    expected = brute_force_aupro([(scores, truth), (good_image, np.zeros_like(truth))])
    found = measured([(scores, truth), (good_image, np.zeros_like(truth))], EvenAxis()).aupro
    assert found == pytest.approx(0.25) == pytest.approx(expected)


@AXES
def test_the_oracle_threshold_gives_the_oracle_overlap(axis: ScoreAxis) -> None:
    made = images(np.random.default_rng(5), axis, on_bins=False)
    metrics = measured(made, axis)
    at_it = np.mean([intersection_over_union(s >= metrics.oracle_threshold, truth) for s, truth in made])
    assert metrics.oracle_iou == pytest.approx(at_it, abs=1e-9)
    assert brute_force_oracle(made) - 2e-3 <= metrics.oracle_iou <= brute_force_oracle(made) + 1e-12


@AXES
def test_the_drawn_curve_is_scikit_learns(axis: ScoreAxis) -> None:
    made = images(np.random.default_rng(6), axis, on_bins=True)
    scores, truth = flat(made)
    expected = roc_curve(truth, scores, drop_intermediate=False)[:2]
    points = {(round(float(x), 6), round(float(y), 6)) for x, y in zip(*expected, strict=True)}
    assert {tuple(point) for point in measured(made, axis).roc} <= points


@AXES
def test_order_and_parting_of_the_images_do_not_change_a_bit(axis: ScoreAxis) -> None:
    made = images(np.random.default_rng(7), axis, on_bins=False, count=9)
    first, second = PixelScores(axis), PixelScores(axis)
    for i, (scores, truth) in enumerate(reversed(made)):
        (first if i % 3 else second).add(scores, truth)
    first.merge(second)
    assert first.metrics() == measured(made, axis)


def test_an_accumulator_does_not_grow() -> None:
    accumulator = PixelScores(EvenAxis())
    random = np.random.default_rng(0)

    def size() -> int:
        return sum(value.nbytes for value in vars(accumulator).values() if isinstance(value, np.ndarray))

    before = size()
    for _ in range(20):
        accumulator.add(random.random((50, 50)), random.random((50, 50)) < 0.1)
    assert size() == before <= 4 * 8 * (BINS + 1)


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        ([0, 0, 0, 0], [0, 0, 0, 0], 1),
        ([1, 0, 0, 0], [0, 0, 0, 0], 0),
        ([0, 0, 0, 0], [0, 1, 1, 0], 0),
        ([0, 1, 1, 0], [0, 1, 1, 0], 1),
        ([1, 1, 0, 0], [0, 1, 1, 0], 1 / 3),
        ([1, 1, 1, 1], [0, 0, 0, 1], 1 / 4),
    ],
)
def test_overlaps_counted_by_hand(predicted: list[int], truth: list[int], expected: float) -> None:
    found = intersection_over_union(np.array([predicted], bool), np.array([truth], bool))
    assert found == pytest.approx(expected, abs=1e-9)


def test_decisions_counted_by_hand() -> None:
    decisions = Decisions(2.5)
    empty, left, all_of_it = np.zeros((1, 4), bool), np.array([[1, 1, 0, 0]], bool), np.ones((1, 4), bool)
    decisions.add(empty, empty, 0, is_good=True)
    decisions.add(left, empty, 3, is_good=True)
    other = Decisions(2.5)
    other.add(all_of_it, left, 1, is_good=False)
    decisions.merge(other)
    assert astuple(decisions.metrics()) == pytest.approx((2.5, (1 + 0 + 0.5) / 3, 1.5, 0.5, 1.0))


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_overlap_is_torchmetrics_jaccard_index(seed: int) -> None:
    random = np.random.default_rng(seed)
    predicted, truth = random.random((2, 9, 12)) < random.uniform(0.05, 0.9, (2, 1, 1))
    truth[0, 0] = True  # torchmetrics calls the overlap of two empty masks 0, the paper 1
    theirs = binary_jaccard_index(torch.from_numpy(predicted.astype(int)), torch.from_numpy(truth.astype(int)))
    assert intersection_over_union(predicted, truth) == pytest.approx(float(theirs), abs=1e-6)


def test_log_nfa_0_is_an_edge_and_infinities_have_a_bin() -> None:
    axis = SignedLogAxis()
    assert axis.bins(0.0) == BINS // 2 and axis.lower_edge(BINS // 2) == 0
    assert axis.bins(np.nextafter(0, -1)) <= BINS // 2
    assert axis.bins([-np.inf, np.inf]).tolist() == [0, BINS - 1]


@AXES
@given(a=st.floats(-1e10, 1e10), b=st.floats(-1e10, 1e10))
@settings(deadline=None)
def test_bins_keep_the_order(axis: ScoreAxis, a: float, b: float) -> None:
    low, high = axis.bins(sorted([a, b]))
    assert low <= high


@AXES
@given(chosen=st.integers(1, BINS - 1))
@settings(deadline=None)
def test_edges_lie_between_their_bins(axis: ScoreAxis, chosen: int) -> None:
    inside, below = (
        axis.lower_edge(chosen) * (1 - part) + axis.lower_edge(chosen + side) * part
        for part, side in ((1e-3, 1), (1e-3, -1))
    )
    assert axis.bins([inside, below]).tolist() == [chosen, chosen - 1]
