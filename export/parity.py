"""What an engine computes against what it should, in the numbers a user cares about. Needs no torch."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

import numpy as np

from uflow_edge.runtime.command_line import progress
from uflow_edge.runtime.engines import Engine, Outputs
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.engines.openvino import OpenVinoEngine
from uflow_edge.runtime.latents import LatentStatistics
from uflow_edge.runtime.manifest import Manifest, Precision, Variant
from uflow_edge.runtime.numeric import FloatMap, Image
from uflow_edge.runtime.scoring import Scorer

PARITY = "parity.json"
ENERGY_BOUNDS: Mapping[Precision, float] = {"fp32": 1e-3, "fp16": 1e-2, "int8": 5e-2}
"""Relative error that a variant's energies may have. A twentieth is a quarter of the spread that they have by nature,
√(2/C), at 50 channels."""

Bounded: TypeAlias = Literal["worst", "most", "mean"]
BOUNDED: Mapping[Precision, Bounded] = {"fp32": "worst", "fp16": "most", "int8": "mean"}
"""Whether that bounds every pixel, all but one in a thousand, or the mean. Rounding is noise, and how large the largest
of its values is says how many pixels were looked at."""
_MOST = 0.999
_OUTLIERS = 10
"""Times the bound: further off no pixel may be where most are bounded."""


class Judged(Protocol):
    """A dataclass of measurements, and whether they are good enough."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def holds(self) -> bool:
        """Whether what was measured may be shipped."""


@dataclass(frozen=True, slots=True)
class Parity:
    """How far an engine is from its reference, worst case over the images.

    Attributes:
        engine: what ran the variant.
        reference: what it was held against.
        images: how many images were compared.
        energy_error: per scale, finest first, largest |difference| / |value| of any pixel's energy.
        most_energy_error: likewise, of all but one pixel in a thousand.
        mean_energy_error: likewise, the mean over pixels and images.
        exceedance_error: per scale, mean |difference| of the counts, as a fraction of the channels.
        score_change: largest change of an image's score, in decades of NFA.
        mask_iou: smallest intersection over union of the masks at the operating point; 1 where both are empty.
        bound: what energy errors may not exceed, at each scale.
        bounded: which of them.
        threshold: the operating point, on the score.
        calibrated: whether the score is by the bundle's null model, instead of its tree rule.
    """

    engine: str
    reference: str
    images: int
    energy_error: tuple[float, ...]
    most_energy_error: tuple[float, ...]
    mean_energy_error: tuple[float, ...]
    exceedance_error: tuple[float, ...]
    score_change: float
    mask_iou: float
    bound: float
    bounded: Bounded = "worst"
    threshold: float = 0.0
    calibrated: bool = False

    @property
    def holds(self) -> bool:
        """Whether the variant may be shipped."""
        outliers = self.bounded == "most" and max(self.energy_error) > _OUTLIERS * self.bound
        return not outliers and max(self.bounded_error, *self.exceedance_error) <= self.bound

    @property
    def bounded_error(self) -> float:
        """What the bound is on, at the scale where it is largest."""
        errors = {"worst": self.energy_error, "most": self.most_energy_error, "mean": self.mean_energy_error}
        return max(errors[self.bounded])

    def __str__(self) -> str:
        which = {"worst": "", "most": ", but for one pixel in a thousand,", "mean": " on average"}[self.bounded]
        return (
            f"{self.engine}: energies{which} within {self.bounded_error:.1e} of {self.reference} "
            f"(bound {self.bound:.0e}), score within {self.score_change:.2g}, mask IoU {self.mask_iou:.4f} "
            f"on {self.images} images"
        )


@dataclass(frozen=True, slots=True)
class Reference:
    """What a network makes of some pictures where nothing is lost, computed once for all engines.

    Attributes:
        name: what computed it.
        images: (S, S, 3) uint8 RGB, at the model's input size.
        statistics: of each.
        scores: (S, S) float32 of each, −log10 NFA.
        scorer: what decides in the bundle: its null model if it has one, and its operating point.
    """

    name: str
    images: tuple[Image, ...]
    statistics: tuple[LatentStatistics, ...]
    scores: tuple[FloatMap, ...]
    scorer: Scorer

    @classmethod
    def of(cls, name: str, run: Callable[[Image], Outputs], images: Sequence[Image], scorer: Scorer) -> "Reference":
        """Run what computes it, (N, S, S, 3) uint8 RGB to a graph's outputs, on pictures (S, S, 3) uint8 RGB."""
        statistics = tuple(LatentStatistics.of(run(image[np.newaxis])) for image in progress(images, name))
        scores = tuple(_score(scorer, found) for found in statistics)
        return cls(name, tuple(images), statistics, scores, scorer)

    def compare(self, engine: Engine, bound: float, bounded: Bounded) -> Parity:
        """Run an engine on the same pictures; compare all that leaves it, and what follows from it.

        Args:
            engine: to be compared.
            bound: on the relative error of its energies.
            bounded: of which; see `BOUNDED`.
        """
        channels, threshold = self.scorer.manifest.channels, self.scorer.manifest.operating_point.threshold
        scales = range(len(channels))
        energy_errors: list[list[FloatMap]] = [[] for _ in scales]
        exceedance_error = np.zeros(len(channels))
        score_change, mask_iou = 0.0, 1.0
        expectations = zip(self.images, self.statistics, self.scores, strict=True)
        for image, expected, expected_score in progress(expectations, engine.name, len(self.images)):
            found = LatentStatistics.of(engine.run(image[np.newaxis]))
            for i in scales:
                energy_errors[i].append(_relative(expected.energies[i], found.energies[i]))
                difference = np.abs(expected.exceedances[i] - found.exceedances[i]).mean() / channels[i]
                exceedance_error[i] = max(exceedance_error[i], float(difference))
            score = _score(self.scorer, found)
            score_change = max(score_change, abs(float(expected_score.max() - score.max())))
            mask_iou = min(mask_iou, _iou(expected_score > threshold, score > threshold))
        return Parity(
            engine.name,
            self.name,
            len(self.images),
            tuple(float(np.max(errors)) for errors in energy_errors),
            tuple(float(np.quantile(errors, _MOST)) for errors in energy_errors),
            tuple(float(np.mean(errors)) for errors in energy_errors),
            tuple(float(error) for error in exceedance_error),
            score_change,
            mask_iou,
            bound,
            bounded,
            threshold,
            self.scorer.null_model is not None,
        )


def engines_here(
    graph: Path, manifest: Manifest, variant: Variant, threads: int | None = None
) -> list[Callable[[], Engine]]:
    """Every way to run a graph on this machine, not yet loaded: onnxruntime, and OpenVINO where it is installed."""
    makers: list[Callable[[], Engine]] = [lambda: OnnxRuntimeEngine(graph, manifest, variant, threads)]
    if find_spec("openvino") is not None:
        makers.append(lambda: OpenVinoEngine(graph, manifest, variant, threads))
    return makers


def to_json(parities: Mapping[str, Sequence[Judged]]) -> str:
    """``parity.json``: by file name, one entry an engine."""
    entries = {
        name: [{**asdict(parity), "holds": parity.holds} for parity in found] for name, found in parities.items()
    }
    return json.dumps(entries, indent=2) + "\n"


def _score(scorer: Scorer, statistics: LatentStatistics) -> FloatMap:
    return scorer.score([energy[0] for energy in statistics.energies])


def _relative(expected: FloatMap, found: FloatMap) -> FloatMap:
    if not np.isfinite(found).all():
        return np.full_like(expected, np.inf)
    error: FloatMap = np.abs(found - expected) / np.maximum(np.abs(expected), np.finfo(np.float32).tiny)
    return error


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0
