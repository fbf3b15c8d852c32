"""What Prometheus reads is what happened."""

import re
import socket
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from extras import extra
from factories import result
from uflow_edge.runtime.drift import DriftState
from uflow_edge.runtime.errors import BadInput, MissingDependency
from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.sinks.metrics import Metrics
from uflow_edge.runtime.sources import Frame
from uflow_edge.runtime.tally import Tally
from uflow_edge.runtime.verdict import Timestamps

REGISTRY = extra("prometheus_client").REGISTRY
text_string_to_metric_families = extra("prometheus_client.parser").text_string_to_metric_families
NOWHERE = Path("no-such-folder")


def timed(score: float, *, waited_ms: float, stages_ms: tuple[float, float, float]) -> tuple[Frame, Inspection]:
    """A frame that waited, and was then preprocessed, run and thresholded in so many milliseconds."""
    started = 1_700_000_000.0 + waited_ms / 1e3
    times = Timestamps(1_700_000_000.0, started, *map(float, started + np.cumsum(stages_ms) / 1e3))
    return result(0, score, size=(4, 4), point=OperatingPoint(1.5, "conformal", 0.05, 19), times=times)


def samples(page: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of a page by name and labels, read by Prometheus's own parser."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def test_counts_are_the_tally_at_the_moment_of_asking() -> None:
    tally = Tally()
    metrics = Metrics(lambda: tally, thermal_zones=NOWHERE)
    assert samples(metrics.exposition()[0])["uflow_frames_captured_total", ()] == 0
    tally = Tally(20, 15, 3, 4, 2, 1, {"mqtt://broker:1883": 7, 'a "log"\\with\nodd name': 1})
    page, content_type = metrics.exposition()
    assert re.match(r"text/plain; version=\d", content_type)
    found = samples(page)
    names = ["captured", "inspected", "dropped", "unreadable"]
    assert [found[f"uflow_frames_{name}_total", ()] for name in names] == [20, 15, 3, 2]
    assert found["uflow_anomalies_total", ()] == 4
    assert found["uflow_source_reconnects_total", ()] == 1
    assert found["uflow_results_undelivered_total", (("sink", "mqtt://broker:1883"),)] == 7
    assert found["uflow_results_undelivered_total", (("sink", 'a "log"\\with\nodd name'),)] == 1


def test_latencies_and_scores() -> None:
    metrics = Metrics(Tally, thermal_zones=NOWHERE)
    metrics.put(*timed(-40.0, waited_ms=100, stages_ms=(4, 18, 1.5)))
    metrics.put(*timed(250.0, waited_ms=900, stages_ms=(6, 22, 2.5)))
    found = samples(metrics.exposition()[0])
    for stage, total_ms in (("preprocess", 10), ("engine", 40), ("nfa", 4), ("total", 54)):
        assert found["uflow_stage_seconds_count", (("stage", stage),)] == 2
        assert found["uflow_stage_seconds_sum", (("stage", stage),)] == pytest.approx(total_ms / 1e3, abs=1e-5)
    engine = [found["uflow_stage_seconds_bucket", (("le", le), ("stage", "engine"))] for le in ("0.01", "0.02", "0.03")]
    assert engine == [0, 1, 2]
    assert found["uflow_age_seconds_sum", ()] == pytest.approx(1.0 + 0.054, abs=1e-5)
    scores = [found["uflow_score_bucket", (("le", le),)] for le in ("-100.0", "-30.0", "0.0", "100.0", "300.0", "+Inf")]
    assert scores == [0, 1, 1, 1, 2, 2]
    assert found["uflow_last_score", ()] == 250.0
    assert found["uflow_threshold", ()] == 1.5
    assert found["process_resident_memory_bytes", ()] > 1e6


def test_temperatures_where_they_can_be_read(tmp_path) -> None:
    for number, (kind, reading) in enumerate([("cpu-thermal\n", "48500\n"), ("gpu-thermal\n", "off\n"), ("tj", None)]):
        zone = tmp_path / f"thermal_zone{number}"
        zone.mkdir()
        (zone / "type").write_text(kind)
        if reading is not None:
            (zone / "temp").write_text(reading)
    page, _ = Metrics(Tally, thermal_zones=tmp_path).exposition()
    found = {key: value for key, value in samples(page).items() if key[0] == "uflow_temperature_celsius"}
    assert found == {("uflow_temperature_celsius", (("type", "cpu-thermal"), ("zone", "thermal_zone0"))): 48.5}


def test_two_pipelines_in_one_process_keep_their_figures_apart() -> None:
    first, second = (Metrics(Tally, thermal_zones=NOWHERE) for _ in range(2))
    first.put(*timed(3.0, waited_ms=0, stages_ms=(1, 1, 1)))
    assert samples(first.exposition()[0])["uflow_last_score", ()] == 3.0
    assert samples(second.exposition()[0])["uflow_last_score", ()] == 0.0
    assert not [name for name in REGISTRY._names_to_collectors if name.startswith("uflow")]


def test_no_array_waits_for_metrics() -> None:
    metrics = Metrics(Tally, thermal_zones=NOWHERE)
    frame, inspection = metrics.needed(*timed(0.0, waited_ms=0, stages_ms=(1, 1, 1)))
    assert frame.image_bgr.size == inspection.verdict.mask.size == inspection.score.size == 0
    metrics.put(frame, inspection)
    metrics.close()


def test_served_on_this_machine_and_gone_afterwards() -> None:
    metrics = Metrics(lambda: Tally(captured=5), thermal_zones=NOWHERE)
    with metrics.served(port=0) as port:
        for _ in range(2):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                assert samples(answer.read())["uflow_frames_captured_total", ()] == 5
                assert answer.headers["Content-Type"].startswith("text/plain; version=")
        with pytest.raises(BadInput, match=f"127.0.0.1:{port} .*choose another port"), metrics.served(port=port):
            pass
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30)


def test_the_default_address_is_not_reachable_from_outside() -> None:
    metrics = Metrics(Tally, thermal_zones=NOWHERE)
    with metrics.served(port=0) as port, socket.socket() as outside:
        outside.bind(("127.0.0.2", port))  # would be taken if the server listened on every address


def test_without_the_package_one_line_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "prometheus_client", None)
    with pytest.raises(MissingDependency, match=r"pip install '.\[serve\]'"):
        Metrics(Tally)


def test_drift_of_every_camera() -> None:
    metrics = Metrics(Tally, thermal_zones=NOWHERE)
    frame, inspection = timed(-3.0, waited_ms=0, stages_ms=(1, 2, 3))
    metrics.put(frame, inspection)
    assert not [name for name, labels in samples(metrics.exposition()[0]) if name.startswith("uflow_drift")]
    for state in (
        DriftState("warning", "left", "gain_1", -1.25, 0.6, 1_700_000_000.0),
        DriftState("ok", "right", "score", 0.25, 0.6),
    ):
        metrics.put(frame, replace(inspection, verdict=replace(inspection.verdict, drift=state)))
    found = samples(metrics.exposition()[0])
    left, right = (("camera", "left"),), (("camera", "right"),)
    assert (found["uflow_drift_warning", left], found["uflow_drift_shift", left]) == (1, -1.25)
    assert (found["uflow_drift_warning", right], found["uflow_drift_shift", right]) == (0, 0.25)
