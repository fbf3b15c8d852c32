"""Ranking metrics against scikit-learn, torchmetrics and overlaps counted region by region."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import average_precision_score, roc_auc_score
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from uflow_edge.training.evaluation.ranking import Ranking, aupro, thinned


@st.composite
def labelled_scores(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Many ties, or none."""
    count = draw(st.integers(2, 60))
    values = st.integers(-3, 3).map(float) if draw(st.booleans()) else st.floats(-1e6, 1e6)
    scores = draw(arrays.arrays(np.float64, count, elements=values))
    labels = draw(arrays.arrays(np.bool_, count))
    labels[0], labels[1] = True, False
    return scores, labels


@given(labelled_scores())
@settings(deadline=None)
def test_equal_to_scikit_learn(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = case
    ranking = Ranking.of(scores, labels)
    assert ranking.auroc == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
    assert ranking.average_precision == pytest.approx(average_precision_score(labels, scores), abs=1e-9)


@given(labelled_scores())
@settings(deadline=None)
def test_equal_to_torchmetrics(case: tuple[np.ndarray, np.ndarray]) -> None:
    """Given ranks, for torchmetrics computes in single precision, where scores may merge that are distinct here."""
    scores, labels = case
    ranks = np.unique(scores, return_inverse=True)[1]
    ranking, given_ranks = Ranking.of(scores, labels), torch.from_numpy(ranks / len(ranks))
    is_defective = torch.from_numpy(labels.astype(np.int64))
    assert ranking.auroc == pytest.approx(float(binary_auroc(given_ranks, is_defective)), abs=1e-6)
    found = float(binary_average_precision(given_ranks, is_defective))
    assert ranking.average_precision == pytest.approx(found, abs=1e-6)


@given(labelled_scores(), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_telling_ties_apart_moves_the_auroc_no_further_than_said(
    case: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    scores, labels = case
    ranking = Ranking.of(scores, labels)
    apart = np.argsort(np.lexsort((np.random.default_rng(seed).random(len(scores)), scores)))
    assert abs(roc_auc_score(labels, apart) - ranking.auroc) <= ranking.auroc_uncertainty + 1e-9


def test_telling_ties_apart_as_well_as_can_be_reaches_the_bound() -> None:
    scores, labels = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 0, 1], bool)
    ranking = Ranking.of(scores, labels)
    best = roc_auc_score(labels, scores + 0.5 * labels)
    assert best - ranking.auroc == pytest.approx(ranking.auroc_uncertainty) == pytest.approx(3 / 9 / 2)


def test_one_class_alone_cannot_be_ranked() -> None:
    with pytest.raises(ValueError, match="needs defective and good"):
        Ranking.of([1.0, 2.0], [True, True])


def test_aupro_of_curves_known_by_hand() -> None:
    assert aupro(np.array([0, 0, 1.0]), np.array([0, 1, 1.0])) == pytest.approx(1)
    assert aupro(np.array([0, 1.0]), np.array([0, 1.0])) == pytest.approx(0.15)  # the diagonal
    assert aupro(np.array([0, 1.0]), np.array([0, 1.0]), limit=1.0) == pytest.approx(0.5)
    assert aupro(np.array([0, 0.3, 1.0]), np.array([0, 0.6, 1.0])) == pytest.approx(0.3)
    assert aupro(np.array([0, 1.0, 1.0]), np.array([0, 0, 1.0])) == pytest.approx(0)


def test_thinned_curves_keep_their_ends_and_shape() -> None:
    x = np.linspace(0, 1, 10_001)
    points = np.array(thinned(x, np.sqrt(x)))
    assert len(points) <= 257
    assert points[0].tolist() == [0, 0] and points[-1].tolist() == [1, 1]
    assert np.abs(np.interp(x, *points.T) - np.sqrt(x)).max() < 0.01
