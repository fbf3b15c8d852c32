"""What the live page's interface says, as `GET /api/status` and the live socket give it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from uflow_edge.runtime.line.capture import CameraStatus
from uflow_edge.runtime.page.track import StageLatency


@dataclass(frozen=True, slots=True)
class LastVerdict:
    """The newest verdict of a camera.

    Attributes:
        frame: its number in the source.
        source: file, camera or stream.
        captured: seconds since the epoch.
        score, threshold: anomalous where the first is above the second.
        anomalous: the decision.
        regions: how many were found.
    """

    frame: int
    source: str
    captured: float
    score: float
    threshold: float
    anomalous: bool
    regions: int


@dataclass(frozen=True, slots=True)
class DriftReport:
    """Where a camera's good frames are beside those of the calibration; see `uflow_edge.runtime.drift.DriftState`.

    Attributes:
        status: ``warning`` while they are elsewhere.
        statistic: the number that is farthest off: ``gain_0`` (finest scale), ``gain_1``, …, or ``score``.
        direction: than at calibration.
        shift, limit: in standard deviations of good images; signed, and where the warning is raised.
        since: when it was raised, seconds since the epoch, or None.
    """

    status: Literal["ok", "warning"]
    statistic: str
    direction: Literal["higher", "lower"]
    shift: float
    limit: float
    since: float | None


@dataclass(frozen=True, slots=True)
class CameraReport:
    """One camera.

    Attributes:
        name: of the camera.
        status: how it is; ``waiting`` before its first verdict.
        since: seconds since the epoch from when on, where known.
        detail: why, for people.
        stale: what is shown is old: the camera is not running, or silent for longer than the limit.
        age_s: seconds since the last verdict, or None.
        anomaly_age_s: seconds since the last anomaly, or None.
        last: the newest verdict, or None.
        verdicts_per_second: over the last five seconds.
        stages: latency of every stage over the last frames.
        drift: None before the first verdict, or without a calibration.
        inspected, anomalous: verdicts of this camera since it appeared on the page.
    """

    name: str
    status: CameraStatus | Literal["waiting"]
    since: float | None
    detail: str
    stale: bool
    age_s: float | None
    anomaly_age_s: float | None
    last: LastVerdict | None
    verdicts_per_second: float
    stages: list[StageLatency]
    drift: DriftReport | None = None
    inspected: int = 0
    anomalous: int = 0


@dataclass(frozen=True, slots=True)
class ThresholdReport:
    """The threshold that applies, the bundle's, whether the first can be written there, and what it promises."""

    value: float
    saved: float
    can_save: bool
    promise: str = ""


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of every frame since the start; see `uflow_edge.runtime.line.tally.Tally`."""

    captured: int
    inspected: int
    dropped: int
    anomalous: int
    unreadable: int
    reconnects: int
    undelivered: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class GalleryReport:
    """Recent anomalies that are kept: how many, the newest one's id (0: none), and how many were not pictured."""

    kept: int
    newest: int
    skipped: int


@dataclass(frozen=True, slots=True)
class LineReport:
    """What inspects, and for how long: see `uflow_edge.runtime.page.Controls`; ``uptime_s`` in seconds."""

    bundle: str
    digest: str
    engine: str
    uptime_s: float


@dataclass(frozen=True, slots=True)
class Status:
    """Everything the page shows but pictures and history.

    Attributes:
        now: seconds since the epoch, on the device's clock.
        step: position on the clock of the history's steps.
        cameras: each one's.
        threshold, counts, gallery: see there.
        trigger: whether a software trigger is offered.
        line: what inspects.
    """

    now: float
    step: float
    cameras: list[CameraReport]
    threshold: ThresholdReport
    counts: Counts
    gallery: GalleryReport
    trigger: bool
    line: LineReport


@dataclass(frozen=True, slots=True)
class AnomalyReport:
    """One recent anomaly; its pictures are at ``/api/anomalies/{id}.jpg`` and ``/api/anomalies/{id}/small.jpg``."""

    id: int
    camera: str
    frame: int
    source: str
    captured: float
    score: float
    threshold: float
    regions: int
