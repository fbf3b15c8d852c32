"""How far the verdicts of a graph are from those of the FP32 graph, and how long it takes.

All against the FP32 graph in onnxruntime, on the same pictures: energies, scores, masks, and, where there are defective
pictures too, how well image scores tell them from good ones.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from uflow_edge.calibration.latency import interleaved_ms, seconds
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.cli.command_line import progress
from uflow_edge.runtime.engines import Outputs
from uflow_edge.runtime.inspection import LatentStatistics
from uflow_edge.runtime.numeric import FloatMap, Image
from uflow_edge.runtime.scoring import Scorer
from uflow_edge.training.evaluation.ranking import Ranking


@dataclass(frozen=True, slots=True)
class Quality:
    """How far some engine's verdicts are from the exact ones.

    Attributes:
        energy_error: mean relative error of the energies at the scale that suffers most.
        score_change: median change of an image's score, in decades of NFA.
        mask_iou: mean intersection over union of the masks at log-NFA 0, over images where one of the two has any;
            None where none has.
        auroc: of the image scores, defective against good; None without defective images.
    """

    energy_error: float
    score_change: float
    mask_iou: float | None
    auroc: float | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What an engine makes of some pictures.

    Attributes:
        energies: per scale, finest first, (N, H_i, W_i) float32.
        peaks: (N,) the image scores.
        masks: (N, S, S) bool, score above 0.
    """

    energies: tuple[FloatMap, ...]
    peaks: NDArray[np.float64]
    masks: NDArray[np.bool_]

    @classmethod
    def by(cls, run: Callable[[Image], Outputs], pictures: Sequence[Image], manifest: UFlowManifest) -> "Seen":
        """Run pictures, (S, S, 3) uint8 RGB, one by one, and judge them by the bundle's rule."""
        energies, peaks, masks = [], [], []
        for picture in progress(pictures, "judging"):
            statistics = LatentStatistics.of(run(picture[np.newaxis]), len(manifest.scales))
            maps = [energy[0] for energy in statistics.energies]
            score = Scorer(manifest).score(maps)
            energies.append(maps)
            peaks.append(float(score.max()))
            masks.append(score > 0)
        return cls(tuple(np.stack(scale) for scale in zip(*energies, strict=True)), np.array(peaks), np.stack(masks))

    def quality(self, exact: "Seen", defective: NDArray[np.bool_]) -> Quality:
        """Against what is exact, on the same pictures; ``defective`` (N,) says which show a defect."""
        floor = np.finfo(np.float32).tiny
        errors = [
            float(np.mean(np.abs(found - true) / np.maximum(true, floor)))
            for found, true in zip(self.energies, exact.energies, strict=True)
        ]
        union = (self.masks | exact.masks).sum(axis=(1, 2))
        both = (self.masks & exact.masks).sum(axis=(1, 2))
        shown = union > 0
        return Quality(
            energy_error=max(errors),
            score_change=float(np.median(np.abs(self.peaks - exact.peaks))),
            mask_iou=float(np.mean(both[shown] / union[shown])) if shown.any() else None,
            auroc=Ranking.of(self.peaks, defective).auroc if 0 < defective.sum() < len(defective) else None,
        )


def processor_medians(contenders: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Median milliseconds of processor time of each, all called in turn in every round after one to warm up."""
    timed = {i: partial(seconds, call, time.process_time) for i, call in enumerate(contenders)}
    return [statistics.median(times) for times in interleaved_ms(timed, rounds).values()]
