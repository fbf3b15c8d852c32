"""The live page's state: a sink that keeps what the page shows, within fixed bounds."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from threading import Lock

from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.line.capture import CameraState
from uflow_edge.runtime.page.history import STEP_S, CameraHistory, Step, latencies
from uflow_edge.runtime.page.pictures import AnomalyPictures
from uflow_edge.runtime.page.status import (
    AnomalyReport,
    CameraReport,
    GalleryReport,
    LineReport,
    Status,
    ThresholdReport,
    VerdictReport,
)
from uflow_edge.runtime.sources import Frame
from uflow_edge.runtime.tally import Tally
from uflow_edge.runtime.text import printable

GALLERY = 50
_MAX_PENDING = 8
_MAX_CAMERAS = 32


@dataclass(frozen=True, slots=True)
class Controls:
    """What the page reads from the pipeline and may change there; each function must be quick and thread-safe.

    Attributes:
        threshold: the threshold in use, on the image score.
        set_threshold: use another threshold from the next frame on. May raise `UflowEdgeError` to refuse it.
        save_threshold: write the threshold in use to the bundle; None if the page may not. May raise
            `UflowEdgeError` or OSError.
        fire_trigger: inspect the next frame; None without a software trigger.
        promise: what the threshold in use promises, for people; empty if unknown.
        exposition: the metrics in Prometheus' text format; None without metrics.
        bundle, digest: name of the bundle in use and SHA-256 of its manifest; empty without a bundle.
    """

    tally: Callable[[], Tally]
    threshold: Callable[[], float]
    saved_threshold: Callable[[], float]
    set_threshold: Callable[[float], None]
    save_threshold: Callable[[], None] | None = None
    fire_trigger: Callable[[], None] | None = None
    state: Callable[[], Mapping[str, CameraState]] = dict
    promise: Callable[[], str] = str
    exposition: Callable[[], bytes] | None = None
    bundle: str = ""
    digest: str = ""
    engine: str = ""


@dataclass(frozen=True, slots=True)
class CameraResult:
    """A frame of a camera with its inspection; ``number`` counts the camera's results from 1."""

    camera: str
    number: int
    frame: Frame
    inspection: Inspection


@dataclass(frozen=True, slots=True)
class Anomaly:
    """A recent anomaly: its numbers and its pictures."""

    report: AnomalyReport
    pictures: AnomalyPictures


class LivePage:
    """The sink behind the live page; thread-safe.

    `put` keeps references and draws nothing, so frames and maps must not be modified after delivery.

    Args:
        channels: channels of the latents, per scale.
        cameras: names of the sources in display order; others are added when their first frame arrives. If there is
            one name, all frames count as that camera's, even those of a folder, where each has a source of its own.
        silence_limit_s: after so many seconds without a verdict a camera's picture counts as stale and ``/healthz``
            answers 503; None if a trigger may pause.
        clock: monotonic clock, in seconds.
    """

    name = "live page"

    def __init__(
        self,
        channels: Sequence[int],
        controls: Controls,
        *,
        cameras: Sequence[str] = (),
        silence_limit_s: float | None = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.channels = tuple(channels)
        self.controls = controls
        self._cameras = tuple(map(printable, cameras))
        self._silence_limit_s = silence_limit_s
        self._clock = clock
        self._began = clock()
        self._lock = Lock()
        self._histories = {name: CameraHistory(clock()) for name in self._cameras}
        self._pending: deque[CameraResult] = deque(maxlen=_MAX_PENDING)
        self._gallery: deque[Anomaly] = deque(maxlen=GALLERY)
        self._anomalies = 0
        self._skipped = 0
        self._on_close: list[Callable[[], None]] = []

    def put(self, frame: Frame, inspection: Inspection) -> None:
        """Store a result; takes microseconds."""
        camera = self._cameras[0] if len(self._cameras) == 1 else printable(frame.source)
        now = self._clock()
        with self._lock:
            history = self._history(camera, now)
            history.add(frame, inspection, now)
            if inspection.verdict.anomalous:
                self._skipped += len(self._pending) == _MAX_PENDING
                self._pending.append(CameraResult(camera, history.results, frame, inspection))

    def close(self) -> None:
        while self._on_close:
            self._on_close.pop()()

    def on_close(self, action: Callable[[], None]) -> None:
        self._on_close.append(action)

    def newest(self, camera: str) -> CameraResult | None:
        """The last result of a camera, if there is one."""
        with self._lock:
            history = self._histories.get(camera)
            if history is None or history.last is None:
                return None
            return CameraResult(camera, history.results, *history.last)

    def steps(self, camera: str, first: int) -> list[Step]:
        """A camera's score history, starting at step number ``first``."""
        with self._lock:
            history = self._histories.get(camera)
            return history.steps_from(first) if history else []

    def next_pending(self) -> CameraResult | None:
        """Remove and return the oldest anomaly that still needs pictures, if there is one."""
        with self._lock:
            return self._pending.popleft() if self._pending else None

    def keep(self, result: CameraResult, pictures: AnomalyPictures) -> None:
        """Add an anomaly to the gallery; a full gallery drops its oldest one."""
        verdict = VerdictReport.from_verdict(result.inspection.verdict)
        with self._lock:
            self._anomalies += 1
            report = AnomalyReport(id=self._anomalies, camera=result.camera, **asdict(verdict))
            self._gallery.append(Anomaly(report, pictures))

    def anomalies(self) -> list[AnomalyReport]:
        with self._lock:
            return [anomaly.report for anomaly in reversed(self._gallery)]

    def anomaly(self, number: int) -> Anomaly | None:
        """The anomaly with this id, or None if the gallery does not hold it."""
        with self._lock:
            return next((anomaly for anomaly in self._gallery if anomaly.report.id == number), None)

    def silence(self) -> dict[str, float]:
        """Seconds since the last verdict, for each camera that exceeds the limit and has not ended."""
        if self._silence_limit_s is None:
            return {}
        states, now = self.controls.state(), self._clock()
        with self._lock:
            ages = {name: now - history.seen for name, history in self._histories.items()}
        return {
            name: age
            for name, age in ages.items()
            if age > self._silence_limit_s and not (name in states and states[name].status == "ended")
        }

    def threshold(self) -> ThresholdReport:
        """The threshold in use and what it promises."""
        controls = self.controls
        can_save = controls.save_threshold is not None
        return ThresholdReport(controls.threshold(), controls.saved_threshold(), can_save, controls.promise())

    def status(self) -> Status:
        controls = self.controls
        states, tally = controls.state(), controls.tally()
        now = self._clock()
        with self._lock:
            for name in states:
                self._history(name, now)
            seen = [
                (self._report(name, history, states.get(name), now), history.times())
                for name, history in self._histories.items()
            ]
            gallery = GalleryReport(len(self._gallery), self._anomalies if self._gallery else 0, self._skipped)
        return Status(
            now=time.time(),
            step=now / STEP_S,
            cameras=[replace(report, stages=latencies(times)) for report, times in seen],  # numpy, outside the lock
            threshold=self.threshold(),
            counts=tally,
            gallery=gallery,
            trigger=controls.fire_trigger is not None,
            line=LineReport(controls.bundle, controls.digest, controls.engine, now - self._began),
        )

    def _history(self, camera: str, now: float) -> CameraHistory:
        if camera not in self._histories:
            if len(self._histories) >= _MAX_CAMERAS:
                del self._histories[min(self._histories, key=lambda name: self._histories[name].seen)]
            self._histories[camera] = CameraHistory(now)
        return self._histories[camera]

    def _report(self, name: str, history: CameraHistory, state: CameraState | None, now: float) -> CameraReport:
        state = state or CameraState("running")
        age = now - history.seen
        silent = self._silence_limit_s is not None and age > self._silence_limit_s
        verdict = None if history.last is None else history.last[1].verdict
        drift = None if verdict is None else verdict.drift
        return CameraReport(
            name=name,
            status="waiting" if state.status == "running" and verdict is None else state.status,
            since=state.since,
            detail=state.detail,
            stale=state.status != "running" or silent,
            age_s=None if verdict is None else age,
            anomaly_age_s=None if history.last_anomaly is None else now - history.last_anomaly,
            last=None if verdict is None else VerdictReport.from_verdict(verdict),
            verdicts_per_second=history.rate(now),
            stages=[],
            drift=None if drift is None else drift.as_json(),
            inspected=history.results,
            anomalous=history.anomalies,
        )
