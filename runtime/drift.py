"""Drift: whether good frames still look as they did at calibration. A moved camera or an ageing light shows here first.

A few numbers are taken of every frame judged good: ln(mean E / C) per scale, and the image score. Each is standardised
with its mean and standard deviation over held-out good images of the calibration, clipped at ±4, and averaged with
weights that fade exponentially (the EWMA chart: Roberts, Technometrics 1, 1959; Lucas & Saccucci, Technometrics 32,
1990). If frames are exchangeable with the calibration's images, an average z has variance λ/(2 − λ), and the calibrated
mean that it is compared with has variance 1/N. So z leaves

    ± q · sqrt(λ/(2 − λ) + 1/N)

less than once in 100,000 frames, where q is the quantile of Student's t at N − 1 degrees of freedom whose tail
probability is that of five standard deviations of a normal law (docs/operating-point.md has the measured rates). A
warning is withdrawn when every average is within half of its limit.

Anomalous frames are left out, because they show defects; more than twenty in a row are a change, and count.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

MEMORY = 100
"""Frames of an average's memory: the last hundred have 86 % of the weight."""
MIN_IMAGES = 20
"""With fewer images the deviation is too uncertain: the limit would exceed the ±4 σ clip."""
_WEIGHT = 2 / (MEMORY + 1)  # λ
_FALSE_WARNING = 5.0  # standard deviations
_CLIP = 4.0
_CLEARED = 0.5
_RUN_OF_ANOMALIES = 20
_CAMERAS = 64
SCORE = "score"


@dataclass(frozen=True, slots=True)
class DriftRange:
    """The numbers of good images at calibration: ln(mean E / C) per scale, finest first, then the score.

    Attributes:
        mean: of each number.
        deviation: their standard deviations between images, > 0.
        images: N, the number of images.

    Raises:
        ValueError: on construction, for other numbers.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    images: Annotated[int, Meta(le=10**9)]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.deviation) or len(self.mean) < 2 or self.images < MIN_IMAGES:
            raise ValueError(f"drift: expected as many means as deviations, of {MIN_IMAGES} images or more: {self}")
        if not all(map(math.isfinite, (*self.mean, *self.deviation))) or min(self.deviation) <= 0:
            raise ValueError(f"drift: expected finite means and positive deviations: {self}")

    @classmethod
    def of(cls, numbers: NDArray[np.float64]) -> "DriftRange":
        """Learn it from (N, scales + 1) numbers of good images, one row per image (see `drift_numbers`)."""
        images, values = len(numbers), np.asarray(numbers, np.float64)
        if images < MIN_IMAGES:
            raise ValueError(f"drift: expected {MIN_IMAGES} images or more, got {images}")
        deviation = np.maximum(values.std(axis=0, ddof=1), 1e-6)  # the same image, N times
        return cls(tuple(values.mean(axis=0).tolist()), tuple(deviation.tolist()), images)

    @property
    def limit(self) -> float:
        """Largest distance of an average from the calibrated mean, in standard deviations of good images."""
        return _student(_FALSE_WARNING, self.images - 1) * math.sqrt(_WEIGHT / (2 - _WEIGHT) + 1 / self.images)


@dataclass(frozen=True, slots=True)
class DriftState:
    """How one camera's good frames compare with those of the calibration.

    Attributes:
        status: ``warning`` while they differ.
        statistic: the number that differs most: ``gain_0`` (finest scale), ``gain_1``, …, or ``score``.
        shift: its difference, in standard deviations of good images; positive is higher.
        since: when the warning was raised, seconds since the epoch; None without a warning.
    """

    status: Literal["ok", "warning"]
    camera: str
    statistic: str
    shift: float
    limit: float
    since: float | None = None

    @property
    def direction(self) -> Literal["higher", "lower"]:
        """The direction of the shift, compared with the calibration."""
        return "higher" if self.shift >= 0 else "lower"

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "direction": self.direction}


class DriftMonitor:
    """Watches each camera separately. For one thread; takes microseconds per frame."""

    def __init__(self, expected: DriftRange) -> None:
        self._expected = expected
        self._limit = expected.limit
        self._tracks: dict[str, _Track] = {}

    def update(self, camera: str, numbers: Sequence[float], *, anomalous: bool, captured: float) -> DriftState:
        """Take a frame into account.

        Args:
            captured: seconds since the epoch.
        """
        track = self._tracks.get(camera)
        if track is None:
            if len(self._tracks) >= _CAMERAS:
                del self._tracks[next(iter(self._tracks))]
            track = self._tracks[camera] = _Track(camera, len(self._expected.mean), self._limit)
        track.anomalies_in_a_row = track.anomalies_in_a_row + 1 if anomalous else 0
        if not anomalous or track.anomalies_in_a_row > _RUN_OF_ANOMALIES:
            track.add(self._expected, numbers, captured)
        return track.state


class _Track:
    __slots__ = ("anomalies_in_a_row", "averages", "state")

    def __init__(self, camera: str, numbers: int, limit: float) -> None:
        self.anomalies_in_a_row = 0
        self.averages = [0.0] * numbers
        self.state = DriftState("ok", camera, SCORE, 0.0, limit)

    def add(self, expected: DriftRange, numbers: Sequence[float], captured: float) -> None:
        averages = self.averages
        for i, (value, mean, deviation) in enumerate(zip(numbers, expected.mean, expected.deviation, strict=True)):
            standardised = min(max((value - mean) / deviation, -_CLIP), _CLIP)
            averages[i] += _WEIGHT * (standardised - averages[i])
        worst = max(range(len(averages)), key=lambda i: abs(averages[i]))
        shift, before = averages[worst], self.state
        warned = before.status == "warning"
        warns = abs(shift) > (before.limit * _CLEARED if warned else before.limit)
        self.state = replace(
            before,
            status="warning" if warns else "ok",
            statistic=SCORE if worst == len(averages) - 1 else f"gain_{worst}",
            shift=shift,
            since=(before.since if warned else captured) if warns else None,
        )


def drift_numbers(energies: Sequence[NDArray[np.float32]], channels: Sequence[int], score: float) -> tuple[float, ...]:
    """The numbers that are watched, of one frame.

    Args:
        energies: per scale, finest first, of any shape, all parts of the frame together.
        channels: C_i of every scale.
        score: of the frame, −log10 NFA.
    """
    return (*log_gains(energies, channels), score)


def log_gains(energies: Sequence[NDArray[np.float32]], channels: Sequence[int]) -> tuple[float, ...]:
    """ln(mean E / C) of every scale, finest first; the arguments are those of `drift_numbers`."""
    means = (float(energy.mean(dtype=np.float64)) / count for energy, count in zip(energies, channels, strict=True))
    return tuple(math.log(max(mean, 1e-12)) for mean in means)


def _student(normal: float, degrees: int) -> float:
    """Student-t quantile at the tail probability of a normal quantile (Abramowitz & Stegun 26.7.5)."""
    z, v = normal, degrees
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * v**4)
    )
