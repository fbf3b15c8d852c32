"""A frame on its way through the inspector, and what comes of it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from uflow_edge.runtime.numeric import FloatMap, Image, Size
from uflow_edge.runtime.resize.cpu import Box
from uflow_edge.runtime.verdict import Verdict


@dataclass(frozen=True, slots=True)
class LatentStatistics:
    """Sufficient statistics of the latents, per scale, finest first.

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
        verdict: the decision.
        energies: per scale, finest first, (H_i, W_i) float32.
        exceedances: likewise; empty where the graph does not count them.
        score: (S, S) float32, −log10 NFA in the model's input; larger where several parts of the frame were inspected.
        box: the part of the frame that the maps cover.
    """

    verdict: Verdict
    energies: tuple[FloatMap, ...]
    exceedances: tuple[FloatMap, ...]
    score: FloatMap
    box: Box


@dataclass(frozen=True, slots=True)
class Prepared:
    """A frame as the engine takes it.

    Attributes:
        frame_bgr: (H, W, 3) uint8.
        pictures: (N, S, S, 3) uint8 RGB, one for each part of the frame; None where the GPU resizes them.
        boxes: the parts.
        size: (height, width) of the frame.
        clock: started with the work on the frame.
        preprocessed: when this was done, seconds since the epoch.
    """

    frame_bgr: Image
    pictures: Image | None
    boxes: tuple[Box, ...]
    size: Size
    clock: "Clock"
    preprocessed: float


@dataclass(frozen=True, slots=True)
class Inferred:
    """A frame as it leaves the engine: its latent statistics, and when the engine began and ended."""

    prepared: Prepared
    statistics: LatentStatistics
    engine_started: float
    inferred: float


class Clock:
    """Wall-clock time that cannot jump between two stages of one frame."""

    def __init__(self) -> None:
        self.started = time.time()
        self._counter = time.perf_counter()

    def now(self) -> float:
        """Seconds since the epoch."""
        return self.started + (time.perf_counter() - self._counter)
