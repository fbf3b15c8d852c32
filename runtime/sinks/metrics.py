"""Metrics for Prometheus (text exposition format 0.0.4 and later): counts, scores, latencies, temperatures.

Counts are read from the pipeline's tally at each scrape, so that the two cannot differ.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from uflow_edge.runtime.errors import BadInput, require
from uflow_edge.runtime.sinks import verdict_only
from uflow_edge.runtime.sinks.bounded_server import BoundedServer
from uflow_edge.runtime.tally import Tally

if TYPE_CHECKING:
    from uflow_edge.runtime.inspection import Inspection
    from uflow_edge.runtime.sources import Frame

_REQUEST_TIMEOUT_S = 10  # from one byte to the next
# Seconds:
_STAGE_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
_AGE_BUCKETS = (*_STAGE_BUCKETS, 10.0, 30.0, 60.0)
_POSITIVE_SCORES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
_SCORE_BUCKETS = (*(-score for score in reversed(_POSITIVE_SCORES)), 0.0, *_POSITIVE_SCORES)


class Metrics:
    """Collects the metrics of one pipeline. `put` takes microseconds and never fails, so it needs no buffer."""

    name: Final = "metrics"

    def __init__(self, tally: Callable[[], Tally], *, thermal_zones: Path = Path("/sys/class/thermal")) -> None:
        """Create the metrics in a registry of their own.

        Args:
            tally: returns the pipeline's current counts; called from the server's threads.
            thermal_zones: the folder where Linux shows the machine's temperatures.

        Raises:
            MissingDependency: prometheus_client is not installed.
        """
        prometheus = require("prometheus_client", "serve")
        self._registry = prometheus.CollectorRegistry()
        self._registry.register(_TallyCollector(tally))
        self._registry.register(_TemperatureCollector(thermal_zones))
        prometheus.ProcessCollector(registry=self._registry)
        self._stages = prometheus.Histogram(
            "uflow_stage_seconds",
            "Time that a frame took in a stage; total covers all stages",
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
            "uflow_threshold", "A frame is anomalous if its score exceeds this", registry=self._registry
        )
        self._drift_warning = prometheus.Gauge(
            "uflow_drift_warning",
            "1 while a camera's good frames differ from those of the calibration",
            ["camera"],
            registry=self._registry,
        )
        self._drift_shift = prometheus.Gauge(
            "uflow_drift_shift",
            "Difference of a camera's good frames from the calibration, in standard deviations of good images",
            ["camera"],
            registry=self._registry,
        )

    def needed(self, frame: "Frame", inspection: "Inspection") -> "tuple[Frame, Inspection]":
        return verdict_only(frame, inspection, mask=False)

    def put(self, frame: "Frame", inspection: "Inspection") -> None:
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
        """Do nothing: no file stays open."""

    def exposition(self) -> tuple[bytes, str]:
        """The text that Prometheus scrapes, and its content type. Thread-safe."""
        prometheus = require("prometheus_client", "serve")
        return prometheus.generate_latest(self._registry), prometheus.CONTENT_TYPE_LATEST

    @contextmanager
    def served(self, host: str = "127.0.0.1", port: int = 9108) -> Iterator[int]:
        """Serve the metrics without the live page; yields the port.

        Args:
            host: address to listen on; by default only this machine can connect.
            port: port to listen on; 0 for any free one.

        Raises:
            BadInput: the server cannot listen on this address.
        """
        try:
            server = _MetricsServer(host, port, self.exposition)
        except OSError as error:
            raise BadInput(f"metrics cannot be served on {host}:{port} ({error}); choose another port") from error
        server.start()
        try:
            yield server.port
        finally:
            server.close()


class _MetricsServer(BoundedServer):
    def __init__(self, host: str, port: int, exposition: Callable[[], tuple[bytes, str]]) -> None:
        self.exposition = exposition
        super().__init__(host, port, _MetricsHandler)


class _MetricsHandler(BaseHTTPRequestHandler):
    server: _MetricsServer
    timeout = _REQUEST_TIMEOUT_S

    def do_GET(self) -> None:
        content, kind = self.server.exposition()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class _TallyCollector:
    def __init__(self, tally: Callable[[], Tally]) -> None:
        self._tally = tally

    def collect(self) -> Iterator[Any]:
        """Yield one counter per field of the tally."""
        core = require("prometheus_client.core", "serve")
        tally = self._tally()
        for name, text, count in (
            ("uflow_frames_captured", "Frames that the trigger took from a source", tally.captured),
            ("uflow_frames_inspected", "Frames with a verdict", tally.inspected),
            ("uflow_frames_dropped", "Frames that a newer one replaced", tally.dropped),
            ("uflow_frames_unreadable", "Frames that could not be decoded", tally.unreadable),
            ("uflow_frames_not_judged", "Frames whose inspection failed", tally.not_judged),
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


class _TemperatureCollector:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Any]:
        """Yield one gauge, labelled by zone, with every thermal zone that can be read."""
        core = require("prometheus_client.core", "serve")
        gauge = core.GaugeMetricFamily(
            "uflow_temperature_celsius", "Temperature of a part of the machine", labels=["zone", "type"]
        )
        for zone in sorted(self._folder.glob("thermal_zone*")):
            try:
                kind = (zone / "type").read_text().strip()
                gauge.add_metric([zone.name, kind], int((zone / "temp").read_text()) / 1e3)
            except (OSError, ValueError):  # a Jetson has zones whose sensors are switched off
                continue
        yield gauge
