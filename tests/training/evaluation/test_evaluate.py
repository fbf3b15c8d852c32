"""A bundle on labelled pictures: the numbers against scikit-learn on what the inspector itself says."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.images.files import read_image
from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.nfa import likelihood_map, regions_above
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.training.dataset import TestImage
from uflow_edge.training.evaluation.evaluate import Evaluation, evaluate
from uflow_edge.training.evaluation.ground_truth import labelled_images, read_truth
from uflow_edge.training.evaluation.metric_size import resized_inspection
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


@pytest.mark.parametrize("name", ["nfa", "evidence", "likelihood"])
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


def test_pixels_may_be_compared_at_one_size(
    evaluation: Evaluation, seen: Seen, inspector: Inspector, labelled_folder: Path
) -> None:
    """At 256 as at 96, but for the outlines: masks and maps are enlarged alike."""
    found = evaluate("gravel", labelled_images(labelled_folder), inspector, metric_size=256)
    assert found.as_json()["metric_size"] == 256 and evaluation.metric_size is None
    assert found.maps["nfa"].image_auroc == evaluation.maps["nfa"].image_auroc
    assert found.at_operating_point.good_flagged == evaluation.at_operating_point.good_flagged
    truths = [cv2.resize(truth.astype(np.float32), (256, 256)) > 0.5 for _, truth, _ in seen]
    maps = [likelihood_map(inspection.energies, inspector.manifest.channels, (256, 256)) for _, _, inspection in seen]
    expected = roc_auc_score(np.concatenate(truths, None), np.concatenate(maps, None))
    assert found.maps["likelihood"].pixels.auroc == pytest.approx(expected, abs=2e-4)
    overlaps = []
    for truth, (_, _, inspection) in zip(truths, seen, strict=True):
        mask = cv2.resize(inspection.score, (256, 256), interpolation=cv2.INTER_NEAREST_EXACT) > POINT.threshold
        overlaps.append((mask & truth).sum() / (mask | truth).sum() if (mask | truth).any() else 1.0)
    assert found.at_operating_point.mean_iou == pytest.approx(np.mean(overlaps), abs=2e-4)


def test_a_mask_that_vanishes_at_the_metric_size_is_named(
    inspector: Inspector, own_labelled_folder: Path, logged: list[str]
) -> None:
    mask = own_labelled_folder / "ground_truth" / "hole" / "006_mask.png"
    thin = np.zeros((96, 96), np.uint8)
    thin[:, 40] = 255  # less than half of any of 24 columns
    Image.fromarray(thin).save(mask)
    images = labelled_images(own_labelled_folder)
    evaluate("gravel", images, inspector, metric_size=96)
    assert not any("marks no pixel" in line for line in logged)
    evaluate("gravel", images, inspector, metric_size=24)
    assert f"warning: {mask}: marks no pixel at 24 x 24, so all of them count as good" in logged
    with pytest.raises(BadInput, match="gravel: no mask marks a pixel at 1 x 1; choose a larger --metric-size"):
        evaluate("gravel", images, inspector, metric_size=1)


def test_the_inspected_part_is_resized_with_its_frame(seen: Seen) -> None:
    _, _, inspection = seen[-1]
    cropped = replace(inspection, verdict=replace(inspection.verdict, size=(96, 192)), box=(48, 0, 144, 96))
    found = resized_inspection(cropped, POINT, 64)
    assert (found.verdict.size, found.box) == ((64, 64), (16, 0, 48, 64))
    assert found.verdict.mask.any() and not found.verdict.mask[:, :16].any()


def test_no_threshold_beats_the_oracle(evaluation: Evaluation) -> None:
    oracle = evaluation.maps["nfa"].pixels.oracle_iou
    assert oracle >= evaluation.at_log_nfa_0.mean_iou - 1e-9
    assert oracle >= evaluation.at_operating_point.mean_iou - 1e-3  # 40 is not an edge


def test_score_maps_thresholded_are_the_verdicts_mask(seen: Seen, inspector: Inspector) -> None:
    for _, _, inspection in seen:
        maps = score_maps(inspection, inspector.manifest.channels)
        assert np.array_equal(maps["nfa"] > POINT.threshold, inspection.verdict.mask)
        assert np.array_equal(maps["evidence"] > 1, inspection.verdict.mask)


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
