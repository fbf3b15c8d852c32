"""Figures for Prometheus (text exposition format 0.0.4 and later): counts, scores, latencies, temperatures.

Counts are read when somebody asks, from the pipeline's own tally, so that they cannot differ from it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from uflow_edge.runtime.errors import BadInput, require
from uflow_edge.runtime.line.tally import Tally
from uflow_edge.runtime.sinks import verdict_only
from uflow_edge.runtime.sinks.bounded_server import BoundedServer

if TYPE_CHECKING:
    from uflow_edge.runtime.inspection import Inspection
    from uflow_edge.runtime.sources import Frame

_SECONDS_FOR_A_REQUEST = 10  # from one byte to the next
_STAGE_BUCKETS = (
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.03,
    0.05,
    0.075,
    0.1,
    0.15,
    0.2,
    0.3,
    0.5,
    1.0,
    2.0,
    5.0,
)  # seconds
_AGE_BUCKETS = (*_STAGE_BUCKETS, 10.0, 30.0, 60.0)
_POSITIVE_SCORES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
_SCORE_BUCKETS = (*(-score for score in reversed(_POSITIVE_SCORES)), 0.0, *_POSITIVE_SCORES)


class Metrics:
    """Collects the figures of one pipeline. `put` takes microseconds and never fails: it needs no buffer."""

    name: Final = "metrics"

    def __init__(self, tally: Callable[[], Tally], *, thermal_zones: Path = Path("/sys/class/thermal")) -> None:
        """Make the instruments, in a registry of their own.

        Args:
            tally: the pipeline's counts at this moment; called from the threads that ask.
            thermal_zones: where Linux shows the temperatures of the machine.

        Raises:
            MissingDependency: prometheus_client is not installed.
        """
        prometheus = require("prometheus_client", "serve")
        self._registry = prometheus.CollectorRegistry()
        self._registry.register(_Counts(tally))
        self._registry.register(_Temperatures(thermal_zones))
        prometheus.ProcessCollector(registry=self._registry)
        self._stages = prometheus.Histogram(
            "uflow_stage_seconds",
            "Time that a frame took in a stage; total is all of them",
            ["stage"],
            buckets=_STAGE_BUCKETS,
            registry=self._registry,
        )
        self._age = prometheus.Histogram(
            "uflow_age_seconds",
            "Time from the capture of a frame to its verdict",
            buckets=_AGE_BUCKETS,
            registry=self._registry,
        )
        self._scores = prometheus.Histogram(
            "uflow_score", "Scores of frames, -log10 NFA", buckets=_SCORE_BUCKETS, registry=self._registry
        )
        self._last_score = prometheus.Gauge("uflow_last_score", "Score of the last frame", registry=self._registry)
        self._threshold = prometheus.Gauge(
            "uflow_threshold", "A frame with a score above is anomalous", registry=self._registry
        )
        self._drift_warning = prometheus.Gauge(
            "uflow_drift_warning",
            "1 while a camera's good frames differ from those of the calibration",
            ["camera"],
            registry=self._registry,
        )
        self._drift_shift = prometheus.Gauge(
            "uflow_drift_shift",
            "How far they are off, in standard deviations of good images",
            ["camera"],
            registry=self._registry,
        )

    def needed(self, frame: "Frame", inspection: "Inspection") -> "tuple[Frame, Inspection]":
        """The verdict without its mask."""
        return verdict_only(frame, inspection, mask=False)

    def put(self, frame: "Frame", inspection: "Inspection") -> None:
        """Take one verdict's score and times into account."""
        verdict = inspection.verdict
        times = verdict.timestamps
        for stage, milliseconds in (
            ("preprocess", times.preprocess_ms),
            ("engine", times.engine_ms),
            ("nfa", times.nfa_ms),
            ("total", times.total_ms),
        ):
            self._stages.labels(stage).observe(milliseconds / 1e3)
        self._age.observe(times.thresholded - times.captured)
        self._scores.observe(verdict.score)
        self._last_score.set(verdict.score)
        self._threshold.set(verdict.operating_point.threshold)
        drift = verdict.drift
        if drift is not None:
            self._drift_warning.labels(drift.camera).set(drift.status == "warning")
            self._drift_shift.labels(drift.camera).set(drift.shift)

    def close(self) -> None:
        """Nothing is held open."""

    def exposition(self) -> tuple[bytes, str]:
        """The page that Prometheus reads, and its content type. For any thread."""
        prometheus = require("prometheus_client", "serve")
        return prometheus.generate_latest(self._registry), prometheus.CONTENT_TYPE_LATEST

    @contextmanager
    def served(self, host: str = "127.0.0.1", port: int = 9108) -> Iterator[int]:
        """A web server that shows nothing else, for a line without the live page; yields its port.

        Args:
            host: to listen on; default, for this machine only.
            port: 0 takes a free one.

        Raises:
            BadInput: the address cannot be listened on.
        """
        try:
            server = _Server(host, port, self.exposition)
        except OSError as error:
            raise BadInput(f"metrics cannot be served on {host}:{port} ({error}); choose another port") from error
        server.start()
        try:
            yield server.port
        finally:
            server.close()


class _Server(BoundedServer):
    def __init__(self, host: str, port: int, exposition: Callable[[], tuple[bytes, str]]) -> None:
        self.exposition = exposition
        super().__init__(host, port, _Page)


class _Page(BaseHTTPRequestHandler):
    server: _Server
    timeout = _SECONDS_FOR_A_REQUEST

    def do_GET(self) -> None:
        """The figures, whatever the path."""
        content, kind = self.server.exposition()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nobody reads a log of this."""


class _Counts:
    """What became of every frame, as counters."""

    def __init__(self, tally: Callable[[], Tally]) -> None:
        self._tally = tally

    def collect(self) -> Iterator[Any]:
        """One counter for each of the tally's fields."""
        core = require("prometheus_client.core", "serve")
        tally = self._tally()
        for name, text, count in (
            ("uflow_frames_captured", "Frames that the trigger took from a source", tally.captured),
            ("uflow_frames_inspected", "Frames with a verdict", tally.inspected),
            ("uflow_frames_dropped", "Frames that a newer one overtook", tally.dropped),
            ("uflow_frames_unreadable", "Frames that could not be decoded", tally.unreadable),
            ("uflow_frames_not_judged", "Frames that the inspection failed on", tally.not_judged),
            ("uflow_anomalies", "Verdicts above the threshold", tally.anomalous),
            ("uflow_source_reconnects", "Times a source was opened again", tally.reconnects),
        ):
            yield core.CounterMetricFamily(name, text, value=count)
        undelivered = core.CounterMetricFamily(
            "uflow_results_undelivered", "Results lost because a sink was down for too long", labels=["sink"]
        )
        for sink, count in tally.undelivered.items():
            undelivered.add_metric([sink], count)
        yield undelivered


class _Temperatures:
    """Every thermal zone that can be read; a machine that shows none has no such figures."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Any]:
        """One gauge with a label for each zone."""
        core = require("prometheus_client.core", "serve")
        gauge = core.GaugeMetricFamily("uflow_temperature_celsius", "Of a part of the machine", labels=["zone", "type"])
        for zone in sorted(self._folder.glob("thermal_zone*")):
            try:
                kind = (zone / "type").read_text().strip()
                gauge.add_metric([zone.name, kind], int((zone / "temp").read_text()) / 1e3)
            except (OSError, ValueError):  # a Jetson has zones whose sensors are switched off
                continue
        yield gauge
