"""A bundle on labelled pictures: the numbers against scikit-learn on what the inspector itself says."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from uflow_edge.runtime.images.files import read_image
from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.nfa import regions_above
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.training.dataset import TestImage
from uflow_edge.training.evaluation.evaluate import Evaluation, evaluate
from uflow_edge.training.evaluation.ground_truth import labelled_images, read_truth
from uflow_edge.training.evaluation.score_maps import score_maps

Seen = list[tuple[TestImage, np.ndarray, Inspection]]
POINT = OperatingPoint(40.0, "manual")


@pytest.fixture(scope="module")
def inspector(exported: Path) -> Inspector:
    inspector = Inspector.load(exported, threads=1)
    inspector.operating_point = POINT
    return inspector


@pytest.fixture(scope="module")
def evaluation(inspector: Inspector, labelled_folder: Path) -> Evaluation:
    return evaluate("gravel", labelled_images(labelled_folder), inspector)


@pytest.fixture(scope="module")
def seen(inspector: Inspector, labelled_folder: Path) -> Seen:
    return [
        (image, read_truth(image, (96, 96)), inspector.examine(read_image(image.path)))
        for image in labelled_images(labelled_folder)
    ]


@pytest.mark.parametrize("name", ["nfa", "likelihood"])
def test_ranking_of_images_and_pixels(name: str, evaluation: Evaluation, seen: Seen, inspector: Inspector) -> None:
    maps = [score_maps(inspection, inspector.manifest.channels)[name] for _, _, inspection in seen]
    labels, highest = [not image.is_good for image, _, _ in seen], [scores.max() for scores in maps]
    pixels, truth = np.concatenate(maps, None), np.concatenate([truth for _, truth, _ in seen], None)
    found = evaluation.maps[name]
    assert found.image_auroc == pytest.approx(roc_auc_score(labels, highest), abs=1e-9)
    assert found.image_average_precision == pytest.approx(average_precision_score(labels, highest), abs=1e-9)
    assert found.pixels.auroc == pytest.approx(roc_auc_score(truth, pixels), abs=1e-4)


def test_decisions_at_both_thresholds(evaluation: Evaluation, seen: Seen) -> None:
    for metrics, threshold in ((evaluation.at_log_nfa_0, 0.0), (evaluation.at_operating_point, POINT.threshold)):
        regions = [len(regions_above(inspection.score, threshold)) for _, _, inspection in seen]
        good = np.array([image.is_good for image, _, _ in seen])
        assert metrics.threshold == threshold
        assert metrics.false_alarms_per_good_image == pytest.approx(np.array(regions)[good].mean())
        assert metrics.good_flagged == pytest.approx((np.array(regions)[good] > 0).mean())
        assert metrics.defective_found == pytest.approx((np.array(regions)[~good] > 0).mean())
    overlaps = []
    for _, truth, inspection in seen:
        mask = inspection.verdict.mask
        union = (mask | truth).sum()
        overlaps.append((mask & truth).sum() / union if union else 1.0)
    assert evaluation.at_operating_point.mean_iou == pytest.approx(np.mean(overlaps), abs=1e-9)


def test_no_threshold_beats_the_oracle(evaluation: Evaluation) -> None:
    oracle = evaluation.maps["nfa"].pixels.oracle_iou
    assert oracle >= evaluation.at_log_nfa_0.mean_iou - 1e-9
    assert oracle >= evaluation.at_operating_point.mean_iou - 1e-3  # 40 is not an edge


def test_score_maps_thresholded_are_the_verdicts_mask(seen: Seen, inspector: Inspector) -> None:
    for _, _, inspection in seen:
        scores = score_maps(inspection, inspector.manifest.channels)["nfa"]
        assert np.array_equal(scores > POINT.threshold, inspection.verdict.mask)


def test_worst_cases_come_in_order(evaluation: Evaluation, seen: Seen) -> None:
    scores = {image.path: inspection.verdict.score for image, _, inspection in seen}
    good = sorted((scores[image.path] for image, _, _ in seen if image.is_good), reverse=True)
    defective = sorted(scores[image.path] for image, _, _ in seen if not image.is_good)
    assert [case.score for case in evaluation.false_alarms] == good
    assert [case.score for case in evaluation.missed] == defective


def test_memory_does_not_grow_with_the_images(inspector: Inspector, labelled_folder: Path) -> None:
    images = labelled_images(labelled_folder)

    def peak(times: int) -> int:
        tracemalloc.start()
        evaluate("gravel", images * times, inspector)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(1)  # what is loaded once
    # Fifty images more have 4 MB of scores and masks; keeping any of it would show.
    assert peak(6) - peak(1) < 100_000
