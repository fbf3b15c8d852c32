"""What the page reports, as `GET /api/status`, `GET /api/anomalies` and the live socket send it."""

from dataclasses import dataclass
from typing import Any, Literal

from uflow_edge.runtime.line.capture import CameraStatus
from uflow_edge.runtime.page.history import StageLatency
from uflow_edge.runtime.tally import Tally
from uflow_edge.runtime.text import printable
from uflow_edge.runtime.verdict import Verdict


@dataclass(frozen=True, slots=True)
class VerdictReport:
    """A verdict in numbers.

    Attributes:
        frame: its number in the source.
        source: file, camera or stream.
        captured: seconds since the epoch.
        score, threshold: the frame is anomalous if the score exceeds the threshold.
    """

    frame: int
    source: str
    captured: float
    score: float
    threshold: float
    anomalous: bool
    regions: int

    @classmethod
    def from_verdict(cls, verdict: Verdict) -> "VerdictReport":
        return cls(
            frame=verdict.frame,
            source=printable(verdict.source),
            captured=verdict.timestamps.captured,
            score=verdict.score,
            threshold=verdict.operating_point.threshold,
            anomalous=verdict.anomalous,
            regions=len(verdict.regions),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AnomalyReport(VerdictReport):
    """A recent anomaly; its pictures are at ``/api/anomalies/{id}.jpg`` and ``/api/anomalies/{id}/small.jpg``."""

    id: int
    camera: str


@dataclass(frozen=True, slots=True)
class CameraReport:
    """The state of one camera.

    Attributes:
        status: its state; ``waiting`` before its first verdict.
        since: when the state began, in seconds since the epoch, if known.
        stale: the page shows old data: the camera is not running, or has been silent for longer than the limit.
        age_s: seconds since the last verdict, or None.
        anomaly_age_s: seconds since the last anomaly, or None.
        verdicts_per_second: over the last five seconds.
        drift: as in the JSON of a verdict (`uflow_edge.runtime.drift.DriftState.as_json`); None before the first
            verdict, or without a calibration.
        inspected, anomalous: verdicts of this camera since it appeared on the page.
    """

    name: str
    status: CameraStatus | Literal["waiting"]
    since: float | None
    detail: str
    stale: bool
    age_s: float | None
    anomaly_age_s: float | None
    last: VerdictReport | None
    verdicts_per_second: float
    stages: list[StageLatency]
    drift: dict[str, Any] | None = None
    inspected: int = 0
    anomalous: int = 0


@dataclass(frozen=True, slots=True)
class ThresholdReport:
    """The threshold in use."""

    value: float
    saved: float
    can_save: bool
    promise: str = ""


@dataclass(frozen=True, slots=True)
class GalleryReport:
    """How many recent anomalies are kept, the newest one's id (0: none), and how many got no picture."""

    kept: int
    newest: int
    skipped: int


@dataclass(frozen=True, slots=True)
class LineReport:
    """Bundle, digest of its manifest, and engine in use (see `Controls`); ``uptime_s`` in seconds."""

    bundle: str
    digest: str
    engine: str
    uptime_s: float


@dataclass(frozen=True, slots=True)
class Status:
    """Everything that the page shows except pictures and history.

    Attributes:
        now: seconds since the epoch, on the device's clock.
        step: the current time in steps of the score history.
        counts: what happened to the frames since the start.
    """

    now: float
    step: float
    cameras: list[CameraReport]
    threshold: ThresholdReport
    counts: Tally
    gallery: GalleryReport
    trigger: bool
    line: LineReport
