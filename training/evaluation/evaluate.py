"""Evaluates one category: computes all metrics on labelled test images.

Memory does not grow with the number of images: pixels go into histograms (2 MB per map); see `accumulators.py`.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.bundle.manifest import CheckpointSource
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.cli.command_line import progress
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.images.files import read_image
from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.numeric import Image
from uflow_edge.training.dataset import TestImage
from uflow_edge.training.evaluation.accumulators import Accumulators, Case, MapMetrics
from uflow_edge.training.evaluation.ground_truth import read_truth
from uflow_edge.training.evaluation.pixels import DecisionMetrics
from uflow_edge.training.evaluation.score_maps import AXES, MapName


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The metrics of one category.

    Attributes:
        metric_size: side of the square at which pixels are compared; None for the size of each image.
        scoring: the `Rule` that weighed regions, or ``calibrated`` for the null model of the bundle.
        good, defective: numbers of images.
        at_log_nfa_0, at_operating_point: decisions on −log10 NFA.
        missed: defective images with the lowest scores, the lowest first.
        false_alarms: good images with the highest scores, the highest first.
        unreadable: errors of images that could not be read; these images are excluded from all numbers.
        seconds: wall-clock time, including reading and metrics.
    """

    category: str
    checkpoint: CheckpointSource
    engine: str
    metric_size: int | None
    scoring: str
    good: int
    defective: int
    maps: dict[MapName, MapMetrics]
    at_log_nfa_0: DecisionMetrics
    at_operating_point: DecisionMetrics
    missed: tuple[Case, ...]
    false_alarms: tuple[Case, ...]
    unreadable: tuple[str, ...]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        def cases(chosen: Sequence[Case]) -> list[dict[str, Any]]:
            return [{"image": str(c.image.path), "kind": c.image.kind, "score": c.score} for c in chosen]

        return {
            "category": self.category,
            "checkpoint": asdict(self.checkpoint),
            "engine": self.engine,
            "metric_size": self.metric_size,
            "scoring": self.scoring,
            "good_images": self.good,
            "defective_images": self.defective,
            "maps": {name: asdict(metrics) for name, metrics in self.maps.items()},
            "at_log_nfa_0": asdict(self.at_log_nfa_0),
            "at_operating_point": asdict(self.at_operating_point),
            "missed": cases(self.missed),
            "false_alarms": cases(self.false_alarms),
            "unreadable": list(self.unreadable),
            "seconds": self.seconds,
        }


def evaluate(
    category: str, images: Sequence[TestImage], inspector: Inspector, metric_size: int | None = None
) -> Evaluation:
    """Inspect every image and compute the metrics.

    Args:
        images: see `ground_truth.labelled_images`; without masks there are no pixel metrics.
        metric_size: side of the square at which pixels are compared; None for the size of each image.

    Raises:
        BadInput: a mask does not fit its image, or no good or no defective image could be read.
    """
    started = time.perf_counter()
    measured = Accumulators(inspector.operating_point.threshold, metric_size)
    measured.inspect(progress(images, f"inspecting {category}"), inspector, masks=masks_are_known(images))
    return conclude(category, measured, inspector.manifest, inspector.engine.name, time.perf_counter() - started)


def masks_are_known(images: Sequence[TestImage]) -> bool:
    """Whether every defective image has a mask."""
    return all(image.is_good or image.mask is not None for image in images)


def conclude(category: str, measured: Accumulators, manifest: UFlowManifest, engine: str, seconds: float) -> Evaluation:
    """Compute the metrics.

    Raises:
        BadInput: no good or no defective image could be read, or no mask marks a pixel at the metric size.
    """
    good_count, defective_count = measured.is_defective.count(0), measured.is_defective.count(1)
    if not (good_count and defective_count):
        raise BadInput(
            f"{category}: {good_count} good and {defective_count} defective images could be read, and "
            f"{len(measured.unreadable)} could not; at least one of each is needed"
        )
    if measured.has_masks and not measured.pixels["nfa"].arrays["defective"].any():
        side = measured.metric_size
        raise BadInput(f"{category}: no mask marks a pixel at {side} x {side}; choose a larger --metric-size")
    return Evaluation(
        category=category,
        checkpoint=manifest.source,
        engine=engine,
        metric_size=measured.metric_size,
        scoring="calibrated" if manifest.null_model else manifest.rule,
        good=good_count,
        defective=defective_count,
        maps={name: measured.map_metrics(name) for name in AXES},
        at_log_nfa_0=measured.at_log_nfa_0.metrics(),
        at_operating_point=measured.at_operating_point.metrics(),
        missed=measured.missed.cases(),
        false_alarms=measured.false_alarms.cases(),
        unreadable=tuple(measured.unreadable),
        seconds=seconds,
    )


def examine_case(case: Case, inspector: Inspector) -> tuple[Image, NDArray[np.bool_], Inspection]:
    """Read and inspect a case again, to draw it: its frame, the (H, W) bool mask of its defects, the inspection."""
    frame = read_image(case.image.path)
    truth = read_truth(case.image, (frame.shape[0], frame.shape[1]))
    return frame, truth, inspector.examine(frame, source=str(case.image.path))
