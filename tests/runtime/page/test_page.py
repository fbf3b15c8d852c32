"""The live page over real sockets: what it says, whom it lets in, and what a hundred watchers cost."""

import asyncio
import json
import logging
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extras import extra
from factories import result
from uflow_edge.runtime.bundle.folder import BundleChanged
from uflow_edge.runtime.errors import BadInput, MissingDependency, UsageError
from uflow_edge.runtime.heat import colour_bar_png
from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.line.capture import CameraState
from uflow_edge.runtime.line.tally import Tally
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.page import Controls, LivePage, PageServer, serve
from uflow_edge.runtime.page import pictures as drawing
from uflow_edge.runtime.page.access import checked_access
from uflow_edge.runtime.page.state import GALLERY
from uflow_edge.runtime.page.status import LineReport
from uflow_edge.runtime.page.track import STEP_S, STEPS
from uflow_edge.runtime.sources import Frame
from uflow_edge.runtime.verdict import Timestamps
from waiting import DEADLINE, wait_until

httpx, websockets = extra("httpx"), extra("websockets")
connect = extra("websockets.sync.client").connect
extra("fastapi")

CHANNELS = (4,)
TOKEN = "a token that nobody guesses"


GREY = np.full((60, 80, 3), 90, np.uint8)


def shown(
    index: int = 0, *, score: float = -3.25, threshold: float = 0.0, camera: str = "belt"
) -> tuple[Frame, Inspection]:
    """A grey frame; where its score is above the threshold, with a region in the middle."""
    began = 1_700_000_000.0 + index
    times = Timestamps(began, began + 0.001, began + 0.003, began + 0.033, began + 0.037)
    point, box, name = OperatingPoint(threshold, "log_nfa_0"), (30, 20, 20, 20), str(index)
    return result(
        index, score, size=(60, 80), image_bgr=GREY, box=box, point=point, camera=camera, name=name, times=times
    )


class Line:
    """A pipeline's handles, and what was done with them."""

    def __init__(self) -> None:
        self.threshold, self.saved = 0.0, 0.0
        self.fired = 0
        self.states: dict[str, CameraState] = {}
        self.refuse: Exception | None = None

    def set(self, value: float) -> None:
        if self.refuse:
            raise self.refuse
        self.threshold = value

    def save(self) -> None:
        if self.refuse:
            raise self.refuse
        self.saved = self.threshold

    def fire(self) -> None:
        self.fired += 1

    def controls(self) -> Controls:
        return Controls(
            tally=lambda: Tally(
                captured=12, inspected=9, dropped=3, anomalous=1, reconnects=2, undelivered={"mqtt": 5}
            ),
            threshold=lambda: self.threshold,
            saved_threshold=lambda: self.saved,
            set_threshold=self.set,
            save_threshold=self.save,
            promise=lambda: "none",
            fire_trigger=self.fire,
            state=lambda: self.states,
            exposition=lambda: b"frames_total 9\n",
        )


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def page(line: Line) -> LivePage:
    return LivePage(CHANNELS, line.controls())


@pytest.fixture
def server(page: LivePage) -> Iterator[PageServer]:
    with serve(page, port=0) as running:
        yield running


@pytest.fixture
def http(server: PageServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=DEADLINE, trust_env=False) as client:
        yield client


def live(server: PageServer) -> str:
    return server.url.replace("http", "ws") + "api/live"


class Watcher:
    """What the page's script does: ask, get numbers, get a picture if there is one, ask again."""

    def __init__(self, socket_: "websockets.sync.client.ClientConnection", camera: str | None = "belt") -> None:
        self.socket, self.camera, self.picture, self.since = socket_, camera, 0, 0

    def ask(self) -> tuple[dict, bytes | None]:
        self.socket.send(json.dumps({"camera": self.camera, "picture": self.picture, "since": self.since}))
        message = json.loads(self.socket.recv(timeout=DEADLINE))
        if message["steps"]:
            self.since = message["steps"][-1][0]
        if message["picture"] is None:
            return message, None
        self.picture = message["picture"]["number"]
        jpeg = self.socket.recv(timeout=DEADLINE)
        assert isinstance(jpeg, bytes)
        return message, jpeg


def decoded(jpeg: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)


# What it says


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
    shot = shown()
    for _ in range(3 * STEPS):
        clock.now += STEP_S / 2
        page.put(*shot)
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


def test_what_is_not_offered_is_not_there(line: Line) -> None:
    bare = replace(line.controls(), save_threshold=None, fire_trigger=None, exposition=None)
    with (
        serve(LivePage(CHANNELS, bare), port=0) as server,
        httpx.Client(base_url=server.url, trust_env=False) as http,
    ):
        assert http.get("/metrics").status_code == 404
        assert http.post("/api/trigger").status_code == 404
        assert http.post("/api/threshold/save").status_code == 404
        assert http.get("/api/status").json()["trigger"] is False
        assert http.get("/api/status").json()["threshold"]["can_save"] is False


def test_every_file_of_the_page_is_served_and_none_from_elsewhere(http: httpx.Client) -> None:
    html = http.get("/").text
    wanted = re.findall(r'(?:href|src)="(/static/[^"#]+)', html)
    assert wanted
    scripts = [http.get(path) for path in wanted]
    for module in re.findall(r'from "\./(\w+\.js)"', "".join(script.text for script in scripts)):
        scripts.append(http.get(f"/static/{module}"))
    assert [script.status_code for script in scripts] == [200] * len(scripts)
    elsewhere = re.findall(r"https?://[^\s\"'`]+", html + "".join(script.text for script in scripts))
    assert set(elsewhere) <= {"http://www.w3.org/2000/svg"}  # a name, not an address


# What it changes


def test_the_threshold_applies_live_is_saved_and_taken_back(http: httpx.Client, line: Line) -> None:
    answer = http.put("/api/threshold", json={"value": 12.5}).json()
    assert answer == {"value": 12.5, "saved": 0.0, "can_save": True, "promise": "none"}
    assert (line.threshold, line.saved) == (12.5, 0.0)
    assert http.post("/api/threshold/save").json()["saved"] == 12.5
    assert line.saved == 12.5


@pytest.mark.parametrize(
    "body",
    [
        '{"value": NaN}',
        '{"value": 1e999}',
        '{"value": 1.7e308}',
        '{"value": "high"}',
        '{"value": [NaN]}',
        '{"value": {"a": Infinity}}',
        "{}",
        "NaN",
        r'"\ud800"',
        r'{"value": "\ud800"}',
        "no JSON",
    ],
)
def test_what_is_no_threshold_changes_nothing(http: httpx.Client, line: Line, body: str) -> None:
    line.threshold = 7.0
    answer = http.put("/api/threshold", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)
    assert line.threshold == 7.0


def test_what_the_pipeline_refuses_is_said(http: httpx.Client, line: Line) -> None:
    line.refuse = BadInput("the manifest is gone: restore the bundle")
    answer = http.put("/api/threshold", json={"value": 1.0})
    assert (answer.status_code, answer.json()) == (422, {"detail": "the manifest is gone: restore the bundle"})
    line.refuse = BundleChanged("its calibration has changed since it was loaded")
    answer = http.post("/api/threshold/save")
    assert (answer.status_code, answer.json()) == (409, {"detail": "its calibration has changed since it was loaded"})
    line.refuse = OSError("read-only file system")
    answer = http.post("/api/threshold/save")
    assert (answer.status_code, answer.json()) == (500, {"detail": "read-only file system"})


def test_the_trigger_fires(http: httpx.Client, line: Line) -> None:
    assert http.post("/api/trigger").json() == {"done": True}
    assert line.fired == 1


# Pictures


def test_the_picture_shows_frame_heat_and_outline() -> None:
    good, bad = (decoded(drawing.picture_of(*shown(score=score), CHANNELS)) for score in (-3.0, 9.0))
    assert good.shape == bad.shape == (480, 640, 3)
    assert np.abs(good.astype(int) - 90).max() <= 3
    assert np.abs(bad[:80].astype(int) - 90).max() <= 3  # far from the defect: the frame as it is
    assert (bad > 230).all(axis=2).any()  # the outline
    assert np.ptp(bad[240, 320].astype(int)) > 30  # inside it is coloured


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_pictures_keep_within_bounds(height: int, width: int) -> None:
    scaled = drawing.scaled((height, width), 640, 1280)
    assert 640 <= max(scaled) <= 1280
    assert min(scaled) >= 1


def test_anomalies_are_kept_newest_first_and_bounded(page: LivePage, http: httpx.Client) -> None:
    for i in range(GALLERY + 3):
        page.keep(shot_of(page, i), drawing.Pictures(b"large %d" % i, b"small %d" % i))
    listed = http.get("/api/anomalies").json()
    assert [anomaly["frame"] for anomaly in listed] == list(range(GALLERY + 2, 2, -1))
    newest = listed[0]
    assert http.get(f"/api/anomalies/{newest['id']}.jpg").content == b"large %d" % (GALLERY + 2)
    assert http.get(f"/api/anomalies/{newest['id']}/small.jpg").content == b"small %d" % (GALLERY + 2)
    assert http.get("/api/anomalies/1.jpg").status_code == 404
    assert http.get("/api/anomalies/elephant.jpg").status_code == 422


def shot_of(page: LivePage, index: int):
    page.put(*shown(index, score=9.0))
    shot = page.next_undeveloped()
    assert shot is not None
    return shot


def test_an_anomaly_gets_its_picture_though_nobody_watches(page: LivePage, http: httpx.Client) -> None:
    page.put(*shown(0))
    page.put(*shown(1, score=9.0))
    wait_until(lambda: bool(page.anomalies()))
    (anomaly,) = http.get("/api/anomalies").json()
    assert (anomaly["frame"], anomaly["score"], anomaly["threshold"], anomaly["regions"]) == (1, 9.0, 0.0, 1)
    picture = http.get(f"/api/anomalies/{anomaly['id']}.jpg")
    assert picture.headers["content-type"] == "image/jpeg"
    assert decoded(picture.content).shape == (480, 640, 3)
    assert decoded(http.get(f"/api/anomalies/{anomaly['id']}/small.jpg").content).shape == (180, 240, 3)


def test_a_file_whose_name_is_no_utf_8_is_shown(page: LivePage, http: httpx.Client) -> None:
    frame, inspection = shown(1, score=9.0)
    verdict = replace(inspection.verdict, source="caf\udce9.png")
    page.put(replace(frame, source=verdict.source), replace(inspection, verdict=verdict))
    wait_until(lambda: bool(page.anomalies()))
    (anomaly,) = http.get("/api/anomalies").json()
    (camera,) = http.get("/api/status").json()["cameras"]
    assert anomaly["source"] == camera["last"]["source"] == "caf\\udce9.png"


def test_a_flood_of_anomalies_keeps_few_frames_and_says_so(line: Line) -> None:
    page = LivePage(CHANNELS, line.controls())
    for i in range(100):
        page.put(*shown(i, score=9.0))
    waiting = []
    while (shot := page.next_undeveloped()) is not None:
        waiting.append(shot.frame.index)
    assert waiting == list(range(92, 100))
    assert page.status().gallery.skipped == 92


def test_a_single_picture_for_other_screens(page: LivePage, http: httpx.Client) -> None:
    assert http.get("/api/picture.jpg").status_code == 404
    page.put(*shown())
    assert decoded(http.get("/api/picture.jpg").content).shape == (480, 640, 3)
    assert http.get("/api/picture.jpg", params={"camera": "elsewhere"}).status_code == 404


# The live socket


def test_the_socket_gives_numbers_history_and_each_picture_once(page: LivePage, server: PageServer) -> None:
    page.put(*shown(4, score=2.0))
    with connect(live(server)) as socket_:
        watcher = Watcher(socket_)
        message, jpeg = watcher.ask()
        assert message["picture"]["frame"] == 4
        assert message["picture"]["anomalous"] is True
        assert message["status"]["cameras"][0]["name"] == "belt"
        assert [step[2] for step in message["steps"]] == [2.0]
        assert jpeg is not None
        assert decoded(jpeg).shape == (480, 640, 3)
        message, jpeg = watcher.ask()
        assert (message["picture"], jpeg) == (None, None)  # nothing new
        page.put(*shown(5))
        message, jpeg = watcher.ask()
        assert message["picture"]["frame"] == 5


def test_watchers_of_two_cameras_see_their_own(page: LivePage, server: PageServer) -> None:
    page.put(*shown(1, camera="belt"))
    page.put(*shown(2, camera="top"))
    with connect(live(server)) as one, connect(live(server)) as other:
        belt, top = Watcher(one, "belt"), Watcher(other, "top")
        assert belt.ask()[0]["picture"]["source"] == "belt"
        assert top.ask()[0]["picture"]["source"] == "top"
        top.camera, top.picture = "belt", 0
        assert top.ask()[0]["picture"]["source"] == "belt"
        top.camera, top.picture = "elsewhere", 0
        message, jpeg = top.ask()
        assert (message["picture"], message["steps"], jpeg) == (None, [], None)


@pytest.mark.parametrize("ask", ["no JSON", "[]", '{"camera": 3}', '{"picture": "x"}', b"bytes", "x" * 5000])
def test_a_wrong_ask_ends_only_its_own_socket(page: LivePage, server: PageServer, ask: str | bytes) -> None:
    page.put(*shown())
    with connect(live(server)) as wrong, connect(live(server)) as right:
        wrong.send(ask)
        with pytest.raises(websockets.ConnectionClosed):
            wrong.recv(timeout=DEADLINE)
        assert Watcher(right).ask()[1] is not None


def test_nothing_is_drawn_unless_somebody_asks_and_once_for_all(
    page: LivePage, server: PageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []

    def counted(frame: Frame, inspection: Inspection, channels: tuple[int, ...]) -> bytes:
        drawn.append(frame.index)
        return drawing.picture_of(frame, inspection, channels)

    monkeypatch.setattr("uflow_edge.runtime.page.editions.picture_of", counted)
    page.put(*shown(0))
    page.put(*shown(1, score=9.0))
    wait_until(lambda: bool(page.anomalies()))  # the server has been at work
    assert drawn == []
    with ExitStack() as stack:
        watchers = [Watcher(stack.enter_context(connect(live(server)))) for _ in range(5)]
        pictures = [[watcher.ask()[1] is not None for watcher in watchers] for _ in range(3)]
    assert pictures == [[True] * 5, [False] * 5, [False] * 5]
    assert drawn == [1]


def test_a_watcher_that_does_not_ask_gets_nothing(page: LivePage, server: PageServer) -> None:
    with connect(live(server)) as sleeper, connect(live(server)) as awake:
        watcher = Watcher(awake)
        for i in range(5):
            page.put(*shown(i))
            watcher.ask()
        with pytest.raises(TimeoutError):
            sleeper.recv(timeout=0)


def test_a_page_that_cannot_be_drawn_says_so_and_recovers(
    page: LivePage, server: PageServer, line: Line, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("uflow_edge.runtime.page.editions._AFTER_FAILURE_S", 0.01)
    page.put(*shown())
    failed = threading.Event()

    def fail_once(frame: Frame, inspection: Inspection, channels: tuple[int, ...]) -> bytes:
        if not failed.is_set():
            failed.set()
            raise RuntimeError("out of colours")
        return drawing.picture_of(frame, inspection, channels)

    monkeypatch.setattr("uflow_edge.runtime.page.editions.picture_of", fail_once)
    with caplog.at_level(logging.ERROR), connect(live(server)) as socket_:
        assert Watcher(socket_).ask()[0]["status"]["cameras"][0]["name"] == "belt"
    assert "out of colours" in caplog.text


def test_a_hundred_watchers_and_the_line_does_not_wait(page: LivePage, server: PageServer) -> None:
    """Real sockets: each opens the page and its script, and watches three pictures, while results keep coming."""
    stop = threading.Event()
    slowest = 0.0
    delivered = 0

    def deliver() -> None:
        nonlocal slowest, delivered
        shots = [shown(i) for i in range(50)]
        while not stop.wait(0.005):
            page.put(*shots[delivered % 50])
            delivered += 1

    async def watch(client: httpx.AsyncClient) -> list[int]:
        for path in ("/", "/static/page.js", "/static/page.css"):
            assert (await client.get(path)).status_code == 200
        seen: list[int] = []
        async with websockets.connect(live(server), open_timeout=DEADLINE) as socket_:
            picture = 0
            while len(seen) < 3:
                await socket_.send(json.dumps({"camera": "belt", "picture": picture, "since": 0}))
                message = json.loads(await asyncio.wait_for(socket_.recv(), DEADLINE))
                if message["picture"] is not None:
                    picture = message["picture"]["number"]
                    jpeg = await asyncio.wait_for(socket_.recv(), DEADLINE)
                    assert isinstance(jpeg, bytes)
                    assert jpeg[:2] == b"\xff\xd8"
                    seen.append(picture)
        return seen

    async def all_watch() -> list[list[int]]:
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(base_url=server.url, timeout=DEADLINE, limits=limits, trust_env=False) as client:
            return await asyncio.gather(*(watch(client) for _ in range(100)))

    line = threading.Thread(target=deliver)
    line.start()
    try:
        seen = asyncio.run(all_watch())
    finally:
        stop.set()
        line.join()
    assert len(seen) == 100
    assert all(numbers == sorted(set(numbers)) for numbers in seen)
    assert len({number for numbers in seen for number in numbers}) < 100  # drawn once, for all
    assert page.newest("belt").number == delivered  # every result was taken


# Whom it lets in


def test_beyond_loopback_it_asks_for_a_token_that_cannot_be_guessed(page: LivePage) -> None:
    for host in ("0.0.0.0", "", "::", "192.0.2.7", "belt.example"):
        with pytest.raises(UsageError, match="give it a token"):
            serve(page, host=host, port=0)
    for host in ("127.0.0.1", "127.8.8.8", "localhost", "::1"):
        assert checked_access(host, None).token is None
    with pytest.raises(UsageError, match="5 characters, which can be guessed"):
        serve(page, token="short", port=0)
    assert TOKEN not in repr(checked_access("0.0.0.0", TOKEN))


def test_a_taken_port_is_said(page: LivePage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{port}"):
            serve(page, port=port)


@pytest.fixture
def locked(page: LivePage) -> Iterator[httpx.Client]:
    page.put(*shown())
    with (
        serve(page, host="0.0.0.0", port=0, token=TOKEN) as server,
        httpx.Client(
            base_url=f"http://127.0.0.1:{httpx.URL(server.url).port}", timeout=DEADLINE, trust_env=False
        ) as client,
    ):
        yield client


ROUTES = [
    ("GET", "/"),
    ("GET", "/static/page.js"),
    ("GET", "/api/status"),
    ("GET", "/api/anomalies"),
    ("GET", "/api/anomalies/1.jpg"),
    ("GET", "/api/picture.jpg"),
    ("GET", "/api/openapi.json"),
    ("GET", "/metrics"),
    ("PUT", "/api/threshold"),
    ("POST", "/api/threshold/save"),
    ("POST", "/api/trigger"),
    ("GET", "/nowhere"),
    ("GET", "/healthz/"),
    ("GET", "/healthz/../api/status"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_without_the_token_nothing_is_open(locked: httpx.Client, line: Line, method: str, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "uflow_edge_00000000=x"}, {"Cookie": "é"}):
        answer = locked.request(method, path, headers={k: v.encode("latin-1") for k, v in headers.items()})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    assert locked.request(method, path, params={"token": "wrong"}).status_code == 401
    assert line.fired == 0


def test_health_needs_no_token_and_names_no_camera(locked: httpx.Client) -> None:
    answer = locked.get("/healthz")
    assert answer.status_code == 200
    assert "belt" not in answer.text


def test_a_bearer_and_a_link_open_it(locked: httpx.Client) -> None:
    assert locked.get("/api/status", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    opened = locked.get("/", params={"token": TOKEN})
    assert opened.status_code == 200
    cookie = opened.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    assert locked.get("/api/status").status_code == 200  # by the cookie
    assert locked.post("/api/trigger").status_code == 200
    with httpx.Client(base_url=locked.base_url, trust_env=False) as stranger:
        assert stranger.post("/api/trigger", params={"token": TOKEN}).status_code == 401  # a link changes nothing


def test_people_get_a_form_and_programs_a_line(locked: httpx.Client) -> None:
    page = locked.get("/", headers={"Accept": "text/html,application/xhtml+xml"})
    assert page.status_code == 401
    assert '<form action="/" method="get">' in page.text
    assert locked.get("/").text == "the live page needs its token\n"


def test_the_socket_needs_the_token_too(locked: httpx.Client) -> None:
    address = str(locked.base_url).replace("http", "ws").rstrip("/") + "/api/live"
    with pytest.raises(websockets.InvalidStatus), connect(address):
        pass
    with connect(address, additional_headers={"Authorization": f"Bearer {TOKEN}"}) as socket_:
        assert Watcher(socket_).ask()[1] is not None


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "", "localhost.evil.example", "[", "127.0.0.1.evil"]
)
def test_another_name_for_this_machine_gets_nothing(http: httpx.Client, host: str) -> None:
    for path in ("/", "/api/status", "/api/anomalies"):
        assert http.get(path, headers={"Host": host}).status_code in (400, 421)


@pytest.mark.parametrize("host", ["127.0.0.1:1234", "localhost", "[::1]:8000", "192.168.1.20", socket.gethostname()])
def test_addresses_and_own_names_are_known(http: httpx.Client, host: str) -> None:
    assert http.get("/api/status", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "http://[", "evil://{own}", "{own}"],
)
def test_another_site_changes_nothing(http: httpx.Client, server: PageServer, line: Line, origin: str) -> None:
    origin = origin.format(own=server.url.removeprefix("http://").rstrip("/"))
    headers = {"Origin": origin}
    assert http.put("/api/threshold", json={"value": 5.0}, headers=headers).status_code == 403
    assert http.post("/api/threshold/save", headers=headers).status_code == 403
    assert http.post("/api/trigger", headers=headers).status_code == 403
    assert (line.threshold, line.fired) == (0.0, 0)
    with pytest.raises(websockets.InvalidStatus), connect(live(server), origin=origin):
        pass


def test_the_page_itself_changes_things(http: httpx.Client, server: PageServer, line: Line) -> None:
    own = server.url.rstrip("/")
    assert http.put("/api/threshold", json={"value": 5.0}, headers={"Origin": own}).status_code == 200
    assert line.threshold == 5.0


def test_the_colour_scale_is_the_one_of_the_pictures(http: httpx.Client) -> None:
    answer = http.get("/api/colours.png")
    assert (answer.headers["content-type"], answer.content) == ("image/png", colour_bar_png())


def test_browsers_find_an_icon(http: httpx.Client) -> None:
    assert http.get("/favicon.ico").headers["content-type"].startswith("image/svg+xml")


@pytest.mark.parametrize("path", ["/", "/static/page.css", "/api/status", "/healthz", "/nowhere"])
def test_every_answer_has_security_headers(http: httpx.Client, path: str) -> None:
    headers = http.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


# Its end


def test_closing_the_page_ends_streams_and_thread(page: LivePage) -> None:
    before = {thread.name for thread in threading.enumerate()}
    server = serve(page, port=0)
    page.put(*shown())
    with connect(live(server)) as waiting, connect(live(server)) as idle:
        assert Watcher(waiting).ask()[1] is not None
        waiting.send('{"camera": "belt", "picture": 1}')
        page.close()
        for socket_ in (waiting, idle):
            with pytest.raises(websockets.ConnectionClosed):
                while True:
                    socket_.recv(timeout=DEADLINE)
    wait_until(lambda: {thread.name for thread in threading.enumerate()} <= before)
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url, trust_env=False)
    page.close()
    server.close()
    page.put(*shown())  # a late result does no harm


def test_closing_at_once_is_clean(page: LivePage) -> None:
    serve(page, port=0).close()


@pytest.mark.parametrize("module", ["fastapi", "uvicorn", "websockets"])
def test_what_is_missing_is_named(page: LivePage, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependency, match=rf"{module} is not installed.*\[serve\]"):
        serve(page, port=0)


def test_importing_loads_no_server_and_no_pixels() -> None:
    code = (
        "import sys, uflow_edge.runtime.page\n"
        "print(*[name for name in ('numpy', 'cv2', 'fastapi', 'uvicorn') if name in sys.modules])\n"
        "import uflow_edge.runtime.page.server\n"
        "print(*[name for name in ('fastapi', 'uvicorn', 'websockets', 'torch') if name in sys.modules])"
    )
    result_ = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result_.stdout.split("\n") == ["", "", ""]
