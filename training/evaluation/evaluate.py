"""Labelled test images in, every metric of one category out, one image at a time.

Memory: pixels go into histograms (`PixelScores`, 2 MB a map), whatever the number of images. Of each image its path,
two scores and a label stay, so image metrics are exact; and of the worst cases a few paths.
"""

import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from heapq import heappush, heappushpop
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.command_line import progress
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.images import read_image
from uflow_edge.runtime.in_frame import mask_in_frame
from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.manifest import Source
from uflow_edge.runtime.nfa import regions_above
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.operating_point import LOG_NFA_0
from uflow_edge.training.dataset import TestImage
from uflow_edge.training.evaluation.ground_truth import read_truth
from uflow_edge.training.evaluation.pixels import DecisionMetrics, Decisions, PixelMetrics, PixelScores
from uflow_edge.training.evaluation.ranking import Ranking, thinned
from uflow_edge.training.evaluation.score_maps import AXES, MapName, score_maps

WORST = 6


@dataclass(frozen=True, slots=True)
class MapMetrics:
    """What one score map is worth.

    Attributes:
        image_auroc, image_average_precision: of the map's maximum, exact.
        image_roc: [false-positive rate, true-positive rate] to draw.
        pixels: of the map itself; None without masks.
    """

    image_auroc: float
    image_average_precision: float
    image_roc: list[list[float]]
    pixels: PixelMetrics | None


@dataclass(frozen=True, slots=True)
class Case:
    """An image that the report shows.

    Attributes:
        image: the file and its mask.
        score: −log10 NFA.
    """

    image: TestImage
    score: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All that was measured on one category.

    Attributes:
        category: its name.
        checkpoint: what the model was made from.
        engine: what ran the images.
        scoring: what weighed regions: a `Rule`, or ``calibrated`` for the null model of the bundle.
        good, defective: how many images.
        maps: ranking, by score map.
        at_log_nfa_0, at_operating_point: decisions on −log10 NFA.
        missed: defective images with the lowest scores, the lowest first.
        false_alarms: good images with the highest scores, the highest first.
        unreadable: what could not be read, and why; left out of all numbers.
        seconds: wall-clock, reading and metrics included.
    """

    category: str
    checkpoint: Source
    engine: str
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
        """Every field in plain types."""

        def cases(chosen: Sequence[Case]) -> list[dict[str, Any]]:
            return [{"image": str(c.image.path), "kind": c.image.kind, "score": c.score} for c in chosen]

        return {
            "category": self.category,
            "checkpoint": asdict(self.checkpoint),
            "engine": self.engine,
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
    category: str,
    images: Sequence[TestImage],
    inspector: Inspector,
    report: Callable[[str], None] = lambda line: None,
) -> Evaluation:
    """Inspect every image and measure.

    Args:
        category: name of the data set, for people.
        images: see `ground_truth.labelled_images`; where defective ones have no masks, images alone are compared.
        inspector: with the operating point to judge.
        report: told of each image that cannot be read.

    Raises:
        BadInput: a mask does not fit its image, or too few images could be read to compare good with defective ones.
    """
    started = time.perf_counter()
    has_masks = all(image.is_good or image.mask is not None for image in images)
    measured = _Measured(inspector.operating_point.threshold)
    for image in progress(images, f"inspecting {category}"):
        try:
            frame = read_image(image.path)
        except BadInput as error:
            measured.unreadable.append(str(error))
            report(f"unreadable: {error}")
            continue
        truth = read_truth(image, (frame.shape[0], frame.shape[1])) if has_masks else None
        measured.add(image, truth, inspector.examine(frame, source=str(image.path)), inspector.manifest.channels)
    defective = np.asarray(measured.is_defective, np.bool_)
    good_count, defective_count = int((~defective).sum()), int(defective.sum())
    if not (good_count and defective_count):
        raise BadInput(
            f"{category}: {good_count} good and {defective_count} defective images could be read, and "
            f"{len(measured.unreadable)} could not; at least one of each is needed"
        )
    return Evaluation(
        category=category,
        checkpoint=inspector.manifest.source,
        engine=inspector.engine.name,
        scoring="calibrated" if inspector.manifest.null_model else inspector.manifest.rule,
        good=good_count,
        defective=defective_count,
        maps={name: measured.map_metrics(name, defective) for name in AXES},
        at_log_nfa_0=measured.at_log_nfa_0.metrics(),
        at_operating_point=measured.at_operating_point.metrics(),
        missed=measured.missed.cases(),
        false_alarms=measured.false_alarms.cases(),
        unreadable=tuple(measured.unreadable),
        seconds=time.perf_counter() - started,
    )


class _Extremes:
    """The few cases with the highest or lowest scores of all that are shown to it."""

    def __init__(self, *, highest: bool) -> None:
        self._sign = 1.0 if highest else -1.0
        self._heap: list[tuple[float, int, Case]] = []  # the order of arrival parts ties
        self._shown = 0

    def add(self, case: Case) -> None:
        self._shown += 1
        entry = (self._sign * case.score, -self._shown, case)
        if len(self._heap) < WORST:
            heappush(self._heap, entry)
        else:
            heappushpop(self._heap, entry)

    def cases(self) -> tuple[Case, ...]:
        """The most extreme first."""
        return tuple(case for _, _, case in sorted(self._heap, reverse=True))


@dataclass(slots=True)
class _Measured:
    """What has been measured so far."""

    threshold: float
    at_log_nfa_0: Decisions = field(init=False)
    at_operating_point: Decisions = field(init=False)
    pixels: dict[MapName, PixelScores] = field(init=False)
    scores: dict[MapName, "array[float]"] = field(default_factory=lambda: {name: array("d") for name in AXES})
    is_defective: "array[int]" = field(default_factory=lambda: array("b"))
    missed: _Extremes = field(default_factory=lambda: _Extremes(highest=False))
    false_alarms: _Extremes = field(default_factory=lambda: _Extremes(highest=True))
    unreadable: list[str] = field(default_factory=list)
    has_masks: bool = False

    def __post_init__(self) -> None:
        self.at_log_nfa_0 = Decisions(LOG_NFA_0.threshold)
        self.at_operating_point = Decisions(self.threshold)
        self.pixels = {name: PixelScores(axis) for name, axis in AXES.items()}

    def add(
        self, image: TestImage, truth: NDArray[np.bool_] | None, inspection: Inspection, channels: tuple[int, ...]
    ) -> None:
        verdict, score = inspection.verdict, inspection.score
        for name, scores in score_maps(inspection, channels).items():
            if truth is not None:
                self.pixels[name].add(scores, truth)
                self.has_masks = True
            self.scores[name].append(verdict.score if name == "nfa" else float(scores.max()))
        at_zero = mask_in_frame(score, LOG_NFA_0, verdict.size, inspection.box)
        regions = len(regions_above(score, LOG_NFA_0.threshold))
        self.at_log_nfa_0.add(at_zero, truth, regions, is_good=image.is_good)
        self.at_operating_point.add(verdict.mask, truth, len(verdict.regions), is_good=image.is_good)
        self.is_defective.append(not image.is_good)
        (self.false_alarms if image.is_good else self.missed).add(Case(image, verdict.score))

    def map_metrics(self, name: MapName, defective: NDArray[np.bool_]) -> MapMetrics:
        ranking = Ranking.of(np.asarray(self.scores[name]), defective)
        return MapMetrics(
            image_auroc=ranking.auroc,
            image_average_precision=ranking.average_precision,
            image_roc=thinned(ranking.false_positive_rate, ranking.true_positive_rate),
            pixels=self.pixels[name].metrics() if self.has_masks else None,
        )


def examine_case(case: Case, inspector: Inspector) -> tuple[Image, NDArray[np.bool_], Inspection]:
    """Read and inspect a case again, to draw it: the frame, (H, W) bool where its defects are, and what was found."""
    frame = read_image(case.image.path)
    truth = read_truth(case.image, (frame.shape[0], frame.shape[1]))
    return frame, truth, inspector.examine(frame, source=str(case.image.path))
