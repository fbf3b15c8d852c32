"""The live page's memory: a sink that keeps what the page shows, and never more than that."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import Lock

from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.line.capture import CameraState
from uflow_edge.runtime.page.controls import Controls
from uflow_edge.runtime.page.pictures import Pictures
from uflow_edge.runtime.page.status import (
    AnomalyReport,
    CameraReport,
    Counts,
    DriftReport,
    GalleryReport,
    LastVerdict,
    LineReport,
    Status,
    ThresholdReport,
)
from uflow_edge.runtime.page.track import STEP_S, Step, Track, latencies
from uflow_edge.runtime.sources import Frame
from uflow_edge.runtime.text import printable

GALLERY = 50
_UNDEVELOPED = 8
_CAMERAS = 32


@dataclass(frozen=True, slots=True)
class Shot:
    """A result of a camera, with its number among that camera's results, from 1."""

    camera: str
    number: int
    frame: Frame
    inspection: Inspection


@dataclass(frozen=True, slots=True)
class Anomaly:
    """An anomaly with its pictures."""

    report: AnomalyReport
    pictures: Pictures


class LivePage:
    """The sink behind the live page; safe to use from any thread.

    `put` keeps references and draws nothing, so frames and maps must not be written to after they were delivered.

    Args:
        channels: of the latents, per scale.
        controls: the pipeline's handles.
        cameras: names of the sources, in the order to show them; others are added as their frames come. With one name
            all frames are that camera's, even those of a folder, each of which has its own source.
        silence_limit_s: without a verdict for so long, a camera's picture counts as old and ``/healthz`` as failed;
            None where a trigger may rest.
        clock: seconds that never jump.
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
        self._tracks = {name: Track(clock()) for name in self._cameras}
        self._undeveloped: deque[Shot] = deque(maxlen=_UNDEVELOPED)
        self._gallery: deque[Anomaly] = deque(maxlen=GALLERY)
        self._anomalies = 0
        self._skipped = 0
        self._on_close: list[Callable[[], None]] = []

    def put(self, frame: Frame, inspection: Inspection) -> None:
        """Remember a result; microseconds."""
        camera = self._cameras[0] if len(self._cameras) == 1 else printable(frame.source)
        now = self._clock()
        with self._lock:
            track = self._track(camera, now)
            track.add(frame, inspection, now)
            if inspection.verdict.anomalous:
                self._skipped += len(self._undeveloped) == _UNDEVELOPED
                self._undeveloped.append(Shot(camera, track.results, frame, inspection))

    def close(self) -> None:
        """Stop whoever serves this page."""
        while self._on_close:
            self._on_close.pop()()

    def on_close(self, action: Callable[[], None]) -> None:
        """Have something done when the page closes."""
        self._on_close.append(action)

    def newest(self, camera: str) -> Shot | None:
        """The last result of a camera."""
        with self._lock:
            track = self._tracks.get(camera)
            if track is None or track.last is None:
                return None
            return Shot(camera, track.results, *track.last)

    def steps(self, camera: str, first: int) -> list[Step]:
        """Score history of a camera, from a step on."""
        with self._lock:
            track = self._tracks.get(camera)
            return track.steps_from(first) if track else []

    def next_undeveloped(self) -> Shot | None:
        """The oldest anomaly that has no picture yet, if any; it is the caller's from now on."""
        with self._lock:
            return self._undeveloped.popleft() if self._undeveloped else None

    def keep(self, shot: Shot, pictures: Pictures) -> None:
        """Hang an anomaly in the gallery; the oldest one leaves when it is full."""
        verdict = shot.inspection.verdict
        with self._lock:
            self._anomalies += 1
            report = AnomalyReport(
                id=self._anomalies,
                camera=shot.camera,
                frame=verdict.frame,
                source=printable(verdict.source),
                captured=verdict.timestamps.captured,
                score=verdict.score,
                threshold=verdict.operating_point.threshold,
                regions=len(verdict.regions),
            )
            self._gallery.append(Anomaly(report, pictures))

    def anomalies(self) -> list[AnomalyReport]:
        """The gallery, newest first."""
        with self._lock:
            return [anomaly.report for anomaly in reversed(self._gallery)]

    def anomaly(self, number: int) -> Anomaly | None:
        """One of the gallery by its id, or None: never there, or no longer."""
        with self._lock:
            return next((anomaly for anomaly in self._gallery if anomaly.report.id == number), None)

    def silence(self) -> dict[str, float]:
        """Seconds without a verdict of every camera that is silent for too long; cameras that ended may be."""
        if self._silence_limit_s is None:
            return {}
        states, now = self.controls.state(), self._clock()
        with self._lock:
            ages = {name: now - track.seen for name, track in self._tracks.items()}
        return {
            name: age
            for name, age in ages.items()
            if age > self._silence_limit_s and not (name in states and states[name].status == "ended")
        }

    def threshold(self) -> ThresholdReport:
        """The threshold, and what it promises."""
        controls = self.controls
        can_save = controls.save_threshold is not None
        return ThresholdReport(controls.threshold(), controls.saved_threshold(), can_save, controls.promise())

    def status(self) -> Status:
        """All numbers of the page."""
        controls = self.controls
        states, tally = controls.state(), controls.tally()
        now = self._clock()
        with self._lock:
            for name in states:
                self._track(name, now)
            seen = [
                (self._report(name, track, states.get(name), now), track.times())
                for name, track in self._tracks.items()
            ]
            gallery = GalleryReport(len(self._gallery), self._anomalies if self._gallery else 0, self._skipped)
        return Status(
            now=time.time(),
            step=now / STEP_S,
            cameras=[replace(report, stages=latencies(times)) for report, times in seen],  # numpy, outside the lock
            threshold=self.threshold(),
            counts=Counts(
                tally.captured,
                tally.inspected,
                tally.dropped,
                tally.anomalous,
                tally.unreadable,
                tally.reconnects,
                dict(tally.undelivered),
            ),
            gallery=gallery,
            trigger=controls.fire_trigger is not None,
            line=LineReport(controls.bundle, controls.digest, controls.engine, now - self._began),
        )

    def _track(self, camera: str, now: float) -> Track:
        if camera not in self._tracks:
            if len(self._tracks) >= _CAMERAS:
                del self._tracks[min(self._tracks, key=lambda name: self._tracks[name].seen)]
            self._tracks[camera] = Track(now)
        return self._tracks[camera]

    def _report(self, name: str, track: Track, state: CameraState | None, now: float) -> CameraReport:
        state = state or CameraState("running")
        age = now - track.seen
        silent = self._silence_limit_s is not None and age > self._silence_limit_s
        waiting = state.status == "running" and track.last is None
        return CameraReport(
            name=name,
            status="waiting" if waiting else state.status,
            since=state.since,
            detail=state.detail,
            stale=state.status != "running" or silent,
            age_s=age if track.last else None,
            anomaly_age_s=None if track.last_anomaly is None else now - track.last_anomaly,
            last=_last_verdict(track),
            verdicts_per_second=track.rate(now),
            stages=[],
            drift=_drift(track),
            inspected=track.results,
            anomalous=track.anomalies,
        )


def _last_verdict(track: Track) -> LastVerdict | None:
    if track.last is None:
        return None
    verdict = track.last[1].verdict
    return LastVerdict(
        frame=verdict.frame,
        source=printable(verdict.source),
        captured=verdict.timestamps.captured,
        score=verdict.score,
        threshold=verdict.operating_point.threshold,
        anomalous=verdict.anomalous,
        regions=len(verdict.regions),
    )


def _drift(track: Track) -> DriftReport | None:
    drift = None if track.last is None else track.last[1].verdict.drift
    if drift is None:
        return None
    return DriftReport(drift.status, drift.statistic, drift.direction, drift.shift, drift.limit, drift.since)
