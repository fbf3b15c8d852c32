"""What the live page says of its line, over real sockets."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live_page import CHANNELS, Line, httpx, shown
from uflow_edge.runtime.line.capture import CameraState
from uflow_edge.runtime.page import LivePage, serve
from uflow_edge.runtime.page.history import STEP_S, STEPS
from uflow_edge.runtime.page.status import LineReport
from waiting import Clock


def test_status_has_every_number(page: LivePage, http: httpx.Client, line: Line) -> None:
    for i in range(3):
        page.put(*shown(i))
    page.put(*shown(3, score=20.0))
    line.states = {"belt": CameraState("running"), "top": CameraState("lost", 1_700_000_000.0, "unplugged")}
    status = http.get("/api/status").json()
    assert status["counts"] == {
        "captured": 12,
        "inspected": 9,
        "dropped": 3,
        "anomalous": 1,
        "unreadable": 0,
        "reconnects": 2,
        "undelivered": {"mqtt": 5},
        "not_judged": 0,
    }
    assert status["threshold"] == {"value": 0.0, "saved": 0.0, "can_save": True, "promise": "none"}
    assert status["trigger"] is True
    belt, top = status["cameras"]
    assert (belt["name"], belt["status"], belt["stale"]) == ("belt", "running", False)
    assert belt["last"]["score"] == 20.0
    assert belt["last"]["anomalous"] is True
    assert belt["last"]["regions"] == 1
    assert belt["anomaly_age_s"] >= 0
    assert (top["status"], top["since"], top["detail"]) == ("lost", 1_700_000_000.0, "unplugged")
    assert (top["stale"], top["last"]) == (True, None)
    medians = {stage["stage"]: stage["p50_ms"] for stage in belt["stages"]}
    assert medians == pytest.approx(
        {"waiting": 1, "resizing": 2, "network": 30, "thresholding": 4, "camera to verdict": 37}, rel=1e-3
    )


def test_what_inspects_is_named_and_cameras_are_counted_apart(line: Line) -> None:
    clock = Clock()
    named = replace(line.controls(), bundle="bottle.uflow", digest="ab" * 32, engine="onnxruntime, CPU")
    page = LivePage(CHANNELS, named, clock=clock)
    clock.now += 90
    for i in range(5):
        page.put(*shown(i, camera="belt", score=9.0 if i < 2 else -3.0))
    page.put(*shown(5, camera="top"))
    status = page.status()
    assert status.line == LineReport("bottle.uflow", "ab" * 32, "onnxruntime, CPU", 90.0)
    assert [(one.name, one.inspected, one.anomalous) for one in status.cameras] == [("belt", 5, 2), ("top", 1, 0)]


def test_one_camera_by_name_takes_all_frames(line: Line) -> None:
    page = LivePage(CHANNELS, line.controls(), cameras=["parts/"])
    for i in range(40):
        page.put(*shown(i, camera=f"parts/{i}.png"))
    (report,) = page.status().cameras
    assert report.name == "parts/"
    assert report.last is not None
    assert report.last.source == "parts/39.png"


def test_cameras_are_bounded_and_the_longest_silent_one_leaves(line: Line) -> None:
    clock = Clock()
    page = LivePage(CHANNELS, line.controls(), clock=clock)
    for i in range(40):
        clock.now += 1
        page.put(*shown(i, camera=f"{i}.png"))
    assert [report.name for report in page.status().cameras] == [f"{i}.png" for i in range(8, 40)]


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(-100, 100)), min_size=1, max_size=80))
def test_history_loses_no_extreme_and_no_verdict(results: list[tuple[float, float]]) -> None:
    clock = Clock()
    page = LivePage(CHANNELS, Line().controls(), clock=clock)
    for i, (pause, score) in enumerate(results):
        clock.now += pause
        page.put(*shown(i, score=score))
    steps = page.steps("belt", 0)
    scores = [score for _, score in results]
    assert sum(step.inspected for step in steps) == len(results)
    assert sum(step.anomalous for step in steps) == sum(score > 0 for score in scores)
    assert min(step.lowest for step in steps) == min(scores)
    assert max(step.highest for step in steps) == max(scores)
    numbers = [step.number for step in steps]
    assert numbers == sorted(set(numbers))
    assert page.steps("belt", numbers[-1]) == steps[-1:]


def test_history_ends_after_five_minutes_whatever_the_rate(line: Line) -> None:
    clock = Clock()
    page = LivePage(CHANNELS, line.controls(), clock=clock)
    result = shown()
    for _ in range(3 * STEPS):
        clock.now += STEP_S / 2
        page.put(*result)
    assert len(page.steps("belt", 0)) == STEPS
    assert page.status().cameras[0].verdicts_per_second == pytest.approx(4, rel=0.1)


def test_silence_makes_the_picture_old_and_health_fail(line: Line) -> None:
    clock = Clock()
    page = LivePage(CHANNELS, line.controls(), cameras=["belt", "top"], silence_limit_s=10, clock=clock)
    page.put(*shown())
    clock.now += 9
    page.put(*shown(camera="top"))
    with serve(page, port=0) as server, httpx.Client(base_url=server.url, trust_env=False) as http:
        assert http.get("/healthz").status_code == 200
        clock.now += 2
        answer = http.get("/healthz")
        assert (answer.status_code, answer.json()) == (503, {"status": "silent", "silent_s": {"camera 1": 11.0}})
        assert [camera["stale"] for camera in http.get("/api/status").json()["cameras"]] == [True, False]
        line.states = {"belt": CameraState("ended"), "top": CameraState("running")}
        assert http.get("/healthz").status_code == 200


def test_metrics_and_the_interface_are_served(http: httpx.Client) -> None:
    answer = http.get("/metrics")
    assert answer.text == "frames_total 9\n"
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    described = http.get("/api/openapi.json").json()["paths"]
    assert {"/api/status", "/api/threshold", "/api/threshold/save", "/api/trigger", "/api/anomalies"} <= set(described)
