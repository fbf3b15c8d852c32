"""The tables of an evaluation, for the terminal and the report: one row per category, and their mean below.

All rows of one score or threshold stand together, so that values to compare are in one column.
"""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np

from uflow_edge.runtime.operating_point import LOG_NFA_0
from uflow_edge.training.evaluation.accumulators import MapMetrics
from uflow_edge.training.evaluation.evaluate import Evaluation
from uflow_edge.training.evaluation.pixels import DecisionMetrics
from uflow_edge.training.evaluation.score_maps import AXES

Numbers: TypeAlias = dict[str, float | None]
"""None for a metric that needs masks, if there are none."""

RANKING_HEAD = ("category", "score", "image AUROC", "image AP", "pixel AUROC", "AUPRO", "oracle mIoU")
DECISION_HEAD = ("category", "threshold", "mIoU", "false alarms / good image", "good flagged", "defective found")
MEAN = "mean"


def ranking_numbers(metrics: MapMetrics) -> Numbers:
    """The metrics of one score map by name, in the order of `RANKING_HEAD`."""
    pixels = metrics.pixels
    return {
        "image_auroc": metrics.image_auroc,
        "image_average_precision": metrics.image_average_precision,
        "pixel_auroc": None if pixels is None else pixels.auroc,
        "aupro": None if pixels is None else pixels.aupro,
        "oracle_iou": None if pixels is None else pixels.oracle_iou,
    }


def decision_numbers(metrics: DecisionMetrics) -> Numbers:
    """The metrics of the decisions at one threshold by name, in the order of `DECISION_HEAD`."""
    return {
        "mean_iou": metrics.mean_iou,
        "false_alarms_per_good_image": metrics.false_alarms_per_good_image,
        "good_flagged": metrics.good_flagged,
        "defective_found": metrics.defective_found,
    }


def means(evaluations: Sequence[Evaluation]) -> dict[str, Numbers]:
    """The mean over categories of each number, by score map or threshold."""
    numbers = [_numbers(evaluation) for evaluation in evaluations]
    return {
        group: {name: _mean([one[group][name] for one in numbers]) for name in of_group}
        for group, of_group in numbers[0].items()
    }


def ranking_rows(evaluations: Sequence[Evaluation]) -> list[list[str]]:
    """Cells below `RANKING_HEAD`: all categories, once per score map."""
    return [
        [category, group, *(_cell(value, ".4f") for value in numbers[group].values())]
        for group in AXES
        for category, numbers in _with_mean(evaluations)
    ]


def decision_rows(evaluations: Sequence[Evaluation]) -> list[list[str]]:
    """Cells below `DECISION_HEAD`: all categories at log-NFA 0, and at their operating points if these differ."""
    points = [evaluation.at_operating_point.threshold for evaluation in evaluations]
    labels = {"at_log_nfa_0": ["log-NFA 0"] * (len(points) + 1)}
    if any(point != LOG_NFA_0.threshold for point in points):
        labels["at_operating_point"] = [*(f"operating point {point:.2f}" for point in points), "operating point"]
    return [
        [category, label, *_decision_cells(numbers[group])]
        for group, of_group in labels.items()
        for (category, numbers), label in zip(_with_mean(evaluations), of_group, strict=False)
    ]


def _decision_cells(numbers: Numbers) -> list[str]:
    forms = (".4f", ".3f", ".1%", ".1%")
    return [_cell(value, form) for value, form in zip(numbers.values(), forms, strict=True)]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _numbers(evaluation: Evaluation) -> dict[str, Numbers]:
    return {
        **{name: ranking_numbers(metrics) for name, metrics in evaluation.maps.items()},
        "at_log_nfa_0": decision_numbers(evaluation.at_log_nfa_0),
        "at_operating_point": decision_numbers(evaluation.at_operating_point),
    }


def _with_mean(evaluations: Sequence[Evaluation]) -> Iterator[tuple[str, dict[str, Numbers]]]:
    for evaluation in evaluations:
        yield evaluation.category, _numbers(evaluation)
    if len(evaluations) > 1:
        yield MEAN, means(evaluations)
