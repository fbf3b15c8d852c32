"""Parity: how much the results of an engine differ from those of its reference. Needs no torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from uflow_edge.runtime.bundle.manifest import Manifest, Precision, Variant
from uflow_edge.runtime.cli.command_line import progress
from uflow_edge.runtime.engines import Engine, Outputs
from uflow_edge.runtime.engines.deviation import Bounded, Deviation
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.engines.openvino import OpenVinoEngine
from uflow_edge.runtime.engines.reference import STORED_PICTURES, StoredReference
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.images.files import spread
from uflow_edge.runtime.inspection import LatentStatistics
from uflow_edge.runtime.numeric import FloatMap, Image
from uflow_edge.runtime.scoring import Scorer
from uflow_edge.runtime.storage.strict_json import decode, finite, read_json, to_json

PARITY = "parity.json"
ENERGY_BOUNDS: Mapping[Precision, float] = {"fp32": 1e-3, "fp16": 1e-2, "int8": 5e-2}
"""Largest relative error of a variant's energies. At 50 channels, 5e-2 is a quarter of their natural spread, √(2/C)."""


class AnyParity(Protocol):
    """A dataclass of measurements that says whether they are good enough."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def holds(self) -> bool:
        """Whether the measured graph may be shipped."""


@dataclass(frozen=True, slots=True)
class Parity(Deviation):
    """How far an engine is from its reference, worst case over the images.

    Attributes:
        reference: name of what it was compared with.
        images: number of images compared.
        score_change: largest change of an image's score, in decades of NFA.
        mask_iou: smallest intersection over union of the masks at the operating point; 1 where both are empty.
        bound: limit of the energies' errors at each scale.
        bounded: the errors that the limit is for.
        calibrated: whether the bundle's null model gave the scores, not its tree rule.
    """

    engine: str
    reference: str
    images: int
    score_change: float
    mask_iou: float
    bound: float
    bounded: Bounded = "worst"
    threshold: float = 0.0
    calibrated: bool = False

    @property
    def holds(self) -> bool:
        """Whether the error that is bounded lies within the bound."""
        return self.within(self.bound, self.bounded)

    @property
    def bounded_error(self) -> float:
        """The error that the bound is for, at the scale where it is largest."""
        return self.error(self.bounded)

    def __str__(self) -> str:
        which = {"worst": "", "most": ", but for one pixel in a thousand,", "mean": " on average"}[self.bounded]
        return (
            f"{self.engine}: energies{which} within {self.bounded_error:.1e} of {self.reference} "
            f"(bound {self.bound:.0e}), score within {self.score_change:.2g}, mask IoU {self.mask_iou:.4f} "
            f"on {self.images} images"
        )


@dataclass(frozen=True, slots=True)
class Reference:
    """The exact results of a network on some pictures, computed once for all engines.

    Attributes:
        images: (S, S, 3) uint8 RGB, at the model's input size.
        statistics: of each.
        scores: (S, S) float32 of each, −log10 NFA.
    """

    name: str
    images: tuple[Image, ...]
    statistics: tuple[LatentStatistics, ...]
    scores: tuple[FloatMap, ...]
    scorer: Scorer

    @classmethod
    def of(cls, name: str, run: Callable[[Image], Outputs], images: Sequence[Image], scorer: Scorer) -> "Reference":
        """Run a network, (N, S, S, 3) uint8 RGB to a graph's outputs, on pictures, (S, S, 3) uint8 RGB each."""
        statistics = tuple(_statistics(scorer, run(image[np.newaxis])) for image in progress(images, name))
        scores = tuple(next(scorer.scores(found)) for found in statistics)
        return cls(name, tuple(images), statistics, scores, scorer)

    def stored(self) -> StoredReference:
        """A few of the pictures, for the bundle."""
        chosen = spread(range(len(self.images)), STORED_PICTURES)
        return StoredReference(tuple(self.images[i] for i in chosen), tuple(self.statistics[i] for i in chosen))

    def compare(self, engine: Engine, bound: float, bounded: Bounded) -> Parity:
        """Run an engine on the same pictures; compare its outputs, and the scores and masks that follow from them.

        Args:
            bound: on the relative error of its energies.
            bounded: the errors that the bound is for; see `BOUNDED`.
        """
        threshold = self.scorer.manifest.operating_point.threshold
        found: list[LatentStatistics] = []
        score_change, mask_iou = 0.0, 1.0
        expectations = zip(self.images, self.scores, strict=True)
        for image, expected_score in progress(expectations, engine.name, len(self.images)):
            found.append(_statistics(self.scorer, engine.run(image[np.newaxis])))
            score = next(self.scorer.scores(found[-1]))
            score_change = max(score_change, abs(float(expected_score.max() - score.max())))
            mask_iou = min(mask_iou, _iou(expected_score > threshold, score > threshold))
        return Parity(
            **asdict(Deviation.between(self.statistics, found, self.scorer.manifest.channels)),
            engine=engine.name,
            reference=self.name,
            images=len(self.images),
            score_change=score_change,
            mask_iou=mask_iou,
            bound=bound,
            bounded=bounded,
            threshold=threshold,
            calibrated=self.scorer.null_model is not None,
        )


def engines_here(
    graph: Path, manifest: Manifest, variant: Variant, threads: int | None = None
) -> list[Callable[[], Engine]]:
    """Constructors of the engines that can run a graph here: onnxruntime, and OpenVINO if it is installed."""
    makers: list[Callable[[], Engine]] = [lambda: OnnxRuntimeEngine(graph, manifest, variant, threads)]
    if find_spec("openvino") is not None:
        makers.append(lambda: OpenVinoEngine(graph, manifest, variant, threads))
    return makers


def parity_json(parities: Mapping[str, Sequence[AnyParity]], earlier: Mapping[str, Any] | None = None) -> str:
    """``parity.json``: by file name, one entry an engine, after those that `read_parities` found there."""
    entries = {
        name: [{**asdict(parity), "holds": parity.holds} for parity in found] for name, found in parities.items()
    }
    return to_json(finite({**(earlier or {}), **entries}), indent=2) + "\n"


def read_parities(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Read ``parity.json``; empty if there is none.

    Raises:
        BadInput: it cannot be read, or has another content.
    """
    if not path.exists():
        return {}
    try:
        return decode(read_json(path), dict[str, list[dict[str, Any]]])
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); export the bundle again") from error


def _statistics(scorer: Scorer, outputs: Outputs) -> LatentStatistics:
    return LatentStatistics.of(outputs, len(scorer.manifest.scales))


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0
