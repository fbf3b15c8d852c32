"""The accumulators of an evaluation, which can be merged, and saved to a file.

Two scores and a label are kept per image, so image metrics are exact; pixels go into histograms (`PixelScores`). Parts
that are merged in the order of their images give the result of one pass over all images, bit for bit.
"""

import logging
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heappush, heappushpop
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.images.files import read_image
from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.nfa import regions_above
from uflow_edge.runtime.operating_point import LOG_NFA_0
from uflow_edge.runtime.storage.files import replacing
from uflow_edge.runtime.storage.strict_json import parse_json, to_json
from uflow_edge.runtime.views import mask_in_frame
from uflow_edge.training.dataset import TestImage
from uflow_edge.training.evaluation.ground_truth import read_truth
from uflow_edge.training.evaluation.metric_size import resized_inspection, resized_truth
from uflow_edge.training.evaluation.pixels import Decisions, PixelMetrics, PixelScores
from uflow_edge.training.evaluation.ranking import Ranking, thinned
from uflow_edge.training.evaluation.score_maps import AXES, MapName, score_maps

logger = logging.getLogger(__name__)

WORST = 6


@dataclass(frozen=True, slots=True)
class MapMetrics:
    """The metrics of one score map.

    Attributes:
        image_auroc, image_average_precision: exact metrics of the maximum of the map.
        image_roc: points [false-positive rate, true-positive rate] of the curve.
        pixels: metrics of the map itself; None without masks.
    """

    image_auroc: float
    image_average_precision: float
    image_roc: list[list[float]]
    pixels: PixelMetrics | None


@dataclass(frozen=True, slots=True)
class Case:
    """An image that the report shows.

    Attributes:
        score: −log10 NFA.
    """

    image: TestImage
    score: float

    def as_json(self) -> dict[str, Any]:
        return {**self.image.as_json(), "score": self.score}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Case":
        return cls(TestImage.from_json(values), values["score"])


class _Extremes:
    """The few cases with the highest or the lowest scores among those added."""

    def __init__(self, *, highest: bool) -> None:
        self._sign = 1.0 if highest else -1.0
        self._heap: list[tuple[float, int, Case]] = []  # of equal scores, the first one counts
        self._added = 0

    def add(self, case: Case) -> None:
        self._added += 1
        entry = (self._sign * case.score, -self._added, case)
        if len(self._heap) < WORST:
            heappush(self._heap, entry)
        else:
            heappushpop(self._heap, entry)

    def arrived(self) -> list[Case]:
        """The cases in the order in which they were added."""
        return [case for _, _, case in sorted(self._heap, key=lambda entry: -entry[1])]

    def cases(self) -> tuple[Case, ...]:
        """The cases, the most extreme first."""
        return tuple(case for _, _, case in sorted(self._heap, reverse=True))


@dataclass(slots=True)
class Accumulators:
    """All measurements so far.

    Attributes:
        metric_size: side at which pixels are compared; None for the size of each image.
        at_log_nfa_0, at_operating_point: decisions on −log10 NFA.
        unreadable: errors of images that could not be read; these images are not counted elsewhere.
    """

    threshold: float
    metric_size: int | None = None
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

    def inspect(self, images: Iterable[TestImage], inspector: Inspector, *, masks: bool) -> None:
        """Read, inspect and add images.

        Args:
            masks: whether to compare pixels; then every defective image must have a mask.

        Raises:
            BadInput: a mask does not fit its image.
        """
        for image in images:
            try:
                frame = read_image(image.path)
            except BadInput as error:
                self.unreadable.append(str(error))
                logger.debug("unreadable: %(error)s", {"error": error})
                continue
            truth = read_truth(image, (frame.shape[0], frame.shape[1])) if masks else None
            inspection = inspector.examine(frame, source=str(image.path))
            if self.metric_size is not None:
                inspection = resized_inspection(inspection, inspector.operating_point, self.metric_size)
                truth = None if truth is None else self._resized(truth, self.metric_size, image)
            self.add(image, truth, inspection, inspector.manifest.channels)

    def _resized(self, truth: NDArray[np.bool_], side: int, image: TestImage) -> NDArray[np.bool_]:
        resized = resized_truth(truth, side)
        if truth.any() and not resized.any():
            logger.warning(f"warning: {image.mask}: marks no pixel at {side} x {side}, so all of them count as good")
        return resized

    def add(
        self, image: TestImage, truth: NDArray[np.bool_] | None, inspection: Inspection, channels: tuple[int, ...]
    ) -> None:
        """Add one image.

        Args:
            truth: (H, W) bool mask of its defects; None if masks are not compared.
            channels: channels of the latents, per scale.
        """
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

    def merge(self, later: "Accumulators") -> None:
        """Add the accumulators of the images that follow."""
        self.at_log_nfa_0.merge(later.at_log_nfa_0)
        self.at_operating_point.merge(later.at_operating_point)
        for name in AXES:
            self.pixels[name].merge(later.pixels[name])
            self.scores[name].extend(later.scores[name])
        self.is_defective.extend(later.is_defective)
        for mine, others in ((self.missed, later.missed), (self.false_alarms, later.false_alarms)):
            for case in others.arrived():
                mine.add(case)
        self.unreadable.extend(later.unreadable)
        self.has_masks |= later.has_masks

    def map_metrics(self, name: MapName) -> MapMetrics:
        """The metrics of a score map; there must be good and defective images."""
        ranking = Ranking.of(np.asarray(self.scores[name]), np.asarray(self.is_defective, np.bool_))
        return MapMetrics(
            image_auroc=ranking.auroc,
            image_average_precision=ranking.average_precision,
            image_roc=thinned(ranking.false_positive_rate, ranking.true_positive_rate),
            pixels=self.pixels[name].metrics() if self.has_masks else None,
        )

    def save(self, path: Path) -> None:
        texts = {
            "missed": [case.as_json() for case in self.missed.arrived()],
            "false_alarms": [case.as_json() for case in self.false_alarms.arrived()],
            "unreadable": self.unreadable,
            "has_masks": self.has_masks,
        }
        arrays: dict[str, Any] = {"texts": np.array(to_json(texts)), "is_defective": np.asarray(self.is_defective)}
        for name in AXES:
            arrays[f"{name}/scores"] = np.asarray(self.scores[name])
            arrays.update({f"{name}/{key}": values for key, values in self.pixels[name].arrays.items()})
        arrays["at_log_nfa_0"] = self.at_log_nfa_0.counts()
        arrays["at_operating_point"] = self.at_operating_point.counts()
        with replacing(path) as temporary:
            np.savez_compressed(temporary, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path, threshold: float, metric_size: int | None = None) -> "Accumulators":
        found = cls(threshold, metric_size)
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        texts = parse_json(str(arrays["texts"]))
        found.at_log_nfa_0 = Decisions.of_counts(LOG_NFA_0.threshold, arrays["at_log_nfa_0"])
        found.at_operating_point = Decisions.of_counts(threshold, arrays["at_operating_point"])
        for name, axis in AXES.items():
            own = {key.partition("/")[2]: values for key, values in arrays.items() if key.startswith(f"{name}/")}
            found.scores[name] = array("d", own.pop("scores").tolist())
            found.pixels[name] = PixelScores.of_arrays(axis, own)
        found.is_defective = array("b", arrays["is_defective"].tolist())
        for extremes, cases in ((found.missed, texts["missed"]), (found.false_alarms, texts["false_alarms"])):
            for case in cases:
                extremes.add(Case.from_json(case))
        found.unreadable, found.has_masks = texts["unreadable"], texts["has_masks"]
        return found
