"""The records that a frame passes through in the inspector: prepared, inferred, inspected."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from uflow_edge.runtime.numeric import FloatMap, Image, Size
from uflow_edge.runtime.resize.cpu import Box
from uflow_edge.runtime.verdict import Timestamps, Verdict


@dataclass(frozen=True, slots=True)
class LatentStatistics:
    """Sufficient statistics of the latents: all that scores need. Per scale, finest first.

    Attributes:
        energies: (N, H_i, W_i) float32, sum of squared latents over channels.
        exceedances: (N, H_i, W_i) float32, how many latents exceed the quantile; empty where the graph does not count.
    """

    energies: tuple[FloatMap, ...]
    exceedances: tuple[FloatMap, ...]

    @classmethod
    def of(cls, outputs: Sequence[FloatMap], scales: int) -> "LatentStatistics":
        """From the outputs of a U-Flow graph with so many scales: energies, then exceedances, if it has any."""
        return cls(tuple(outputs[:scales]), tuple(outputs[scales:]))


@dataclass(frozen=True, slots=True)
class Inspection:
    """A verdict together with the maps it was made from.

    Attributes:
        energies: per scale, finest first, (H_i, W_i) float32.
        exceedances: likewise; empty where the graph does not count them.
        score: (S, S) float32, −log10 NFA in the model's input; larger where several parts of the frame were inspected.
        box: the part of the frame that the maps cover, in pixels.
        pixel_evidence: computes `Scorer.pixel_evidence`, as large as the score; 0 where nothing was inspected.
    """

    verdict: Verdict
    energies: tuple[FloatMap, ...]
    exceedances: tuple[FloatMap, ...]
    score: FloatMap
    box: Box
    pixel_evidence: Callable[[], FloatMap]

    def evidence(self) -> FloatMap:
        """The map that ranks pixels, as large as the score, float32; computed at each call, as few frames need it.

        From 0 to 1 outside of detected regions and from 2 inside, the higher the more unusual a pixel is by itself: for
        evidence e, 1 − exp(−e) and 2 + e. So a threshold of 1 gives the mask.
        """
        own = self.pixel_evidence()
        return np.where(self.score > self.verdict.operating_point.threshold, 2 + own, -np.expm1(-own))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A frame ready for the engine.

    Attributes:
        frame_bgr: (H, W, 3) uint8.
        pictures: (N, S, S, 3) uint8 RGB, one for each part of the frame; None where the GPU resizes them.
        size: (height, width) of the frame.
        clock: started when work on the frame began.
        preprocessed: when preparing ended, seconds since the epoch.
    """

    frame_bgr: Image
    pictures: Image | None
    boxes: tuple[Box, ...]
    size: Size
    clock: "Clock"
    preprocessed: float


@dataclass(frozen=True, slots=True)
class Inferred:
    """A frame with its latent statistics, and the times when the engine began and ended, seconds since the epoch."""

    prepared: Prepared
    statistics: LatentStatistics
    engine_started: float
    inferred: float

    def timestamps(self, captured: float, nfa_started: float) -> Timestamps:
        """Those of all stages, with the NFA done now."""
        return Timestamps(
            captured=captured,
            started=self.prepared.clock.started,
            preprocessed=self.prepared.preprocessed,
            inferred=self.inferred,
            thresholded=self.prepared.clock.now(),
            engine_started=self.engine_started,
            nfa_started=nfa_started,
        )


class Clock:
    """Wall-clock time that cannot jump between two stages of one frame, even if the system's clock is set."""

    def __init__(self) -> None:
        self.started = time.time()
        self._counter = time.perf_counter()

    def now(self) -> float:
        return self.started + (time.perf_counter() - self._counter)
