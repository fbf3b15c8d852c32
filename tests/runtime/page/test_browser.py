"""The live page in a real browser: what an operator sees, touches and types."""

import base64
import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import cv2
import numpy as np
import pytest

from extras import extra
from factories import result
from uflow_edge.runtime.drift import DriftState
from uflow_edge.runtime.line.capture import CameraState
from uflow_edge.runtime.line.tally import Tally
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.page import Controls, LivePage, PageServer, serve
from uflow_edge.runtime.verdict import Timestamps
from waiting import DEADLINE, wait_until

pytestmark = pytest.mark.long

connect = extra("websockets.sync.client").connect
extra("fastapi")

TOKEN = "a token that nobody guesses"
SCREENS = {
    "phone": (390, 844),
    "small phone": (320, 568),
    "tablet upright": (800, 1280),
    "tablet": (1280, 800),
    "desktop": (1920, 1080),
}
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


class Tab:
    """A browser's tab over Chrome's DevTools protocol."""

    def __init__(self, socket_: Any) -> None:
        self._socket = socket_
        self._numbers = itertools.count(1)
        self.complaints: list[str] = []

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=DEADLINE))
            if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.complaints.append(json.dumps(message["params"]))
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message["result"])

    def run(self, script: str) -> Any:
        answer = self.send(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, script: str, expected: Any = True) -> None:
        deadline = time.monotonic() + DEADLINE
        while (value := self.run(script)) != expected:
            assert time.monotonic() < deadline, f"{script}: expected {expected!r}, got {value!r}"

    def open(self, url: str) -> None:
        self.complaints.clear()
        self.send("Page.navigate", url=url)
        self.until("document.readyState", "complete")

    def text(self, selector: str) -> str:
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.textContent ?? ''"))

    def click(self, selector: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def press(self, key: str) -> None:
        text = {"text": "\r"} if key == "Enter" else {}
        code = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39, "Tab": 9}[key]
        for kind in ("keyDown", "keyUp"):
            extra = text if kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **extra)

    def screen(self, width: int, height: int, *, dark: bool = False) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[feature])

    def screenshot(self) -> np.ndarray:
        png = base64.b64decode(self.send("Page.captureScreenshot")["data"])
        return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)


@contextmanager
def browser(executable: str) -> Iterator[Tab]:
    """A headless browser with one tab, and nothing remembered."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        quiet = ["--disable-background-networking", "--disable-dev-shm-usage", "--remote-debugging-port=0"]
        process = subprocess.Popen(
            [executable, *flags, *quiet, f"--user-data-dir={profile}", "about:blank"], stderr=subprocess.DEVNULL
        )
        try:
            port = _debugging_port(Path(profile) / "DevToolsActivePort")
            with urlopen(f"http://127.0.0.1:{port}/json") as answer:
                target = next(one for one in json.load(answer) if one["type"] == "page")
            with connect(target["webSocketDebuggerUrl"], max_size=None) as socket_:
                tab = Tab(socket_)
                for domain in ("Page", "Runtime", "Log"):
                    tab.send(f"{domain}.enable")
                yield tab
        finally:
            process.kill()
            process.wait()


def _debugging_port(file: Path) -> int:
    wait_until(lambda: file.is_file() and "\n" in file.read_text(), lambda: "the browser does not start")
    return int(file.read_text().splitlines()[0])


@pytest.fixture(scope="module")
def browser_tab() -> Iterator[Tab]:
    if CHROMIUM is None:
        if os.environ.get("UFLOW_EDGE_REQUIRE_SERVICES"):
            pytest.fail("a browser is required, but there is no chromium")
        pytest.skip("no chromium")
    with browser(CHROMIUM) as tab:
        yield tab


@pytest.fixture
def tab(browser_tab: Tab) -> Tab:
    browser_tab.open("about:blank")
    browser_tab.screen(1280, 800)
    return browser_tab


class Line:
    """A line whose results a test puts on the page one by one."""

    def __init__(self, *cameras: str, clock: Callable[[], float] = time.monotonic) -> None:
        from skimage import data

        self._texture = cv2.cvtColor(data.gravel()[:240, :320], cv2.COLOR_GRAY2BGR)
        self._indices = itertools.count()
        self.threshold, self.saved, self.fired = 0.0, 0.0, 0
        self.undelivered = {"mqtt": 0}
        self.states = {name: CameraState("running", time.time()) for name in cameras}
        controls = Controls(
            tally=lambda: Tally(captured=1300, inspected=1234, dropped=66, undelivered=self.undelivered),
            threshold=lambda: self.threshold,
            saved_threshold=lambda: self.saved,
            set_threshold=lambda value: setattr(self, "threshold", value),
            save_threshold=lambda: setattr(self, "saved", self.threshold),
            fire_trigger=lambda: setattr(self, "fired", self.fired + 1),
            state=lambda: self.states,
        )
        self.page = LivePage((4,), controls, cameras=cameras, silence_limit_s=None, clock=clock)

    def put(self, score: float = -12.0, camera: str = "belt", drift: DriftState | None = None) -> None:
        index, now = next(self._indices), time.time()
        image, size = self._texture.copy(), (240, 320)
        if score > self.threshold:
            cv2.line(image, (120, 90), (200, 150), (0, 0, 0), 6)
        point, box = OperatingPoint(self.threshold, "log_nfa_0"), (110, 80, 100, 80)
        times = Timestamps(now - 0.04, now - 0.039, now - 0.036, now - 0.004, now)
        made = result(
            index, score, size=size, image_bgr=image, box=box, point=point, camera=camera, times=times, drift=drift
        )
        self.page.put(*made)


@pytest.fixture
def line() -> Line:
    return Line("belt")


@pytest.fixture
def server(line: Line) -> Iterator[PageServer]:
    with serve(line.page, port=0) as running:
        yield running


CAMERA_LOST = CameraState("lost", 1_700_000_000.0, "is it connected?")
PAINTED = (
    "(() => { const c = document.getElementById('picture'); if (c.width < 640) return 0;"
    " const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
    " let sum = 0; for (let i = 0; i < d.length; i += 4) sum += d[i]; return sum / (d.length / 4); })()"
)


def test_good_then_an_anomaly(tab: Tab, line: Line, server: PageServer) -> None:
    tab.open(server.url)
    tab.until("document.getElementById('word').textContent", "WAITING")
    line.put(-12.0)
    tab.until("document.getElementById('lamp').dataset.state", "good")
    assert tab.text("#word") == "GOOD"
    tab.until("document.getElementById('reason').textContent", "score −12.0 ≤ 0.0")
    tab.until(f"{PAINTED} > 40")
    line.put(34.5)
    tab.until("document.getElementById('lamp').dataset.state", "anomaly")
    assert tab.text("#word") == "ANOMALY"
    tab.until("document.title", "▲ ANOMALY · belt")
    tab.until("document.getElementById('caption').textContent.endsWith('score 34.5')")
    tab.until("document.querySelectorAll('#shots img').length", 1)
    tab.until("document.querySelector('#shots img').naturalWidth", 240)
    assert tab.run("document.querySelector('.chart .anomalies').getAttribute('d').length") > 0
    assert tab.text("#facts").startswith("Rate")
    assert "1,234" in tab.text("#facts")
    assert "camera to verdict" in tab.text("#stages")
    assert tab.complaints == []
    loaded = tab.run("performance.getEntriesByType('resource').map(entry => entry.name)")
    assert all(name.startswith(server.url) for name in loaded)


def test_an_anomaly_of_one_frame_is_not_missed(tab: Tab, line: Line, server: PageServer) -> None:
    """Both come between two editions, so the picture shows only the second; the lamp and the history show both."""
    tab.open(server.url)
    line.put(9.0)
    line.put(-9.0)
    tab.until("document.getElementById('lamp').dataset.state", "anomaly")
    tab.until("document.getElementById('lamp').dataset.state", "good")
    tab.until("document.querySelectorAll('#shots li').length", 1)


def test_a_lost_camera_is_said_loudly_and_its_picture_is_grey(tab: Tab, line: Line, server: PageServer) -> None:
    tab.open(server.url)
    line.put()
    tab.until("document.getElementById('lamp').dataset.state", "good")
    line.states = {"belt": CAMERA_LOST}
    tab.until("document.getElementById('word').textContent", "CAMERA LOST")
    clock = tab.run("new Date(1700000000000).toLocaleTimeString([], {hour12: false})")
    assert tab.text("#alarm").startswith(f"CAMERA LOST since {clock}")
    assert "is it connected?" in tab.text("#alarm")
    assert "grayscale(1)" in tab.run("getComputedStyle(document.getElementById('picture')).filter")
    line.states = {"belt": CameraState("running")}
    tab.until("document.getElementById('alarm').hidden")
    tab.until("getComputedStyle(document.getElementById('picture')).filter", "none")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_drift_is_shown_until_it_is_over(tab: Tab, line: Line, server: PageServer, dark: bool) -> None:
    tab.screen(1280, 800, dark=dark)
    tab.open(server.url)
    line.put(drift=DriftState("ok", "belt", "gain_0", 0.2, 0.6))
    tab.until("document.getElementById('lamp').dataset.state", "good")
    assert tab.run("document.getElementById('drift').hidden") is True
    line.put(drift=DriftState("warning", "belt", "gain_2", -1.44, 0.6, 1_700_000_000.0))
    tab.until("document.getElementById('drift').hidden", False)
    clock = tab.run("new Date(1700000000000).toLocaleTimeString([], {hour12: false})")
    assert f"since {clock}" in tab.text("#drift strong")
    assert "energy at scale 3 is 1.4 standard deviations lower than at calibration" in tab.text("#drift-detail")
    colours = "(s => [s.color, s.backgroundColor])(getComputedStyle(document.getElementById('drift')))"
    ink, ground = ([int(part) for part in re.findall(r"\d+", colour)[:3]] for colour in tab.run(colours))
    assert abs(luminance(ink) - luminance(ground)) > 0.5
    assert tab.text("#word") == "GOOD"
    tab.screen(*SCREENS["small phone"], dark=dark)
    assert tab.run("document.documentElement.scrollWidth") <= SCREENS["small phone"][0]
    line.put(drift=DriftState("ok", "belt", "score", 0.1, 0.6))
    tab.until("document.getElementById('drift').hidden")
    assert tab.complaints == []


def luminance(rgb: list[int]) -> float:
    return float(np.dot(rgb, [0.2126, 0.7152, 0.0722])) / 255


def test_when_hardly_any_frame_is_good_the_page_says_that_instead(tab: Tab, line: Line, server: PageServer) -> None:
    tab.open(server.url)
    for _ in range(30):
        line.put(9.0, drift=DriftState("warning", "belt", "gain_2", 1.44, 0.6, 1_700_000_000.0))
    tab.until("document.getElementById('drift').hidden", False)
    tab.until("document.getElementById('drift-title').textContent", "Nearly all frames are anomalous")
    assert "30 of the last 30" in tab.text("#drift-detail")
    assert "Good frames look different" not in tab.text("#drift")


def test_colours_of_an_anomaly_have_a_legend(tab: Tab, line: Line, server: PageServer) -> None:
    line.threshold = -0.5
    tab.open(server.url)
    line.put(-9.0)
    tab.until("document.getElementById('lamp').dataset.state", "good")
    assert tab.run("document.getElementById('heat').hidden") is True
    line.put(34.5)
    tab.until("document.getElementById('heat').hidden", False)
    tab.until("document.querySelector('#heat img').naturalWidth", 256)
    assert tab.run("[...document.querySelectorAll('#heat span')].map(one => one.textContent)") == [
        "−0.5",
        "+1",
        "+10",
        "+100",
        "+1000",
    ]


def test_two_cameras_are_told_apart(tab: Tab) -> None:
    long = "camera rtsp://192.168.100.200:554/Streaming/Channels/101?transportmode=unicast"
    line = Line("belt", long)
    with serve(line.page, port=0) as server:
        tab.screen(*SCREENS["phone"])
        tab.open(server.url)
        line.put(9.0, camera="belt")
        line.put(-9.0, camera=long)
        tab.until("document.querySelectorAll('#shots .from').length", 1)
        tab.until("document.querySelector('#shots .from').textContent", "belt")
        tab.until("getComputedStyle(document.querySelector('#shots .from')).display", "block")
        assert tab.text("#camera-facts-title") == "belt"
        assert "1,234" not in tab.text("#facts")
        assert "1,234" in tab.text("#line-facts")
        assert tab.run("document.documentElement.scrollWidth") <= SCREENS["phone"][0]
        right, left = "document.querySelectorAll('.camera')[1].getBoundingClientRect().right", SCREENS["phone"][0]
        assert tab.run(right) <= left


def test_good_frames_stay_readable_beside_peaks(tab: Tab) -> None:
    """A peak of 900 is cut off and named: scores of −3 stay well away from a threshold of 0."""
    seconds = itertools.count(1000.0)
    now = [next(seconds)]
    line = Line("belt", clock=lambda: now[0])
    for score in (-3.0, -3.0, 900.0, -3.0, 40.0, 50.0, -3.0):
        now[0] = next(seconds)
        line.put(score)
    with serve(line.page, port=0) as server:
        tab.open(server.url)
        tab.until("document.querySelector('.chart .beyond')?.textContent", "↑ up to 900.0")
        height = (
            "(name => document.querySelector(`.chart .${name}`).getBBox())"
            "('limit').y - document.querySelector('.chart .scores').getBBox().y"
        )
        of_all = "document.querySelector('.chart .scores').getBBox().height"
        assert tab.run(height) / tab.run(of_all) == pytest.approx(6 / 9, abs=0.05)
        marks = "document.querySelector('.chart .anomalies').getAttribute('d').match(/M/g).length"
        assert tab.run(marks) == 1  # three that would overlap


def test_a_device_that_is_away_is_said_and_found_again(tab: Tab, line: Line) -> None:
    with closing(serve(line.page, port=0)) as first:
        port = int(first.url.rstrip("/").rpartition(":")[2])
        tab.open(first.url)
        line.put()
        tab.until("document.getElementById('lamp').dataset.state", "good")
    tab.until("document.getElementById('word').textContent", "OFFLINE")
    assert tab.text("#alarm").startswith("NO CONNECTION since ")
    with closing(serve(line.page, port=port)):
        line.put()
        tab.until("document.getElementById('word').textContent", "GOOD")
        tab.until("document.getElementById('alarm').hidden")


def test_anomalies_open_by_keyboard(tab: Tab, line: Line, server: PageServer) -> None:
    tab.open(server.url)
    for score in (11.0, 22.0, 33.0):
        line.put(score)
    tab.until("document.querySelectorAll('#shots button').length", 3)
    tab.run("document.querySelector('#shots button').focus()")
    tab.press("Enter")
    tab.until("document.getElementById('viewer').open")
    tab.until("document.getElementById('viewer-image').naturalWidth", 640)
    assert "score 33.0 > 0.0" in tab.text("#viewer-caption")
    assert tab.run("document.getElementById('newer').disabled") is True
    tab.press("ArrowRight")
    tab.until("document.getElementById('viewer-caption').textContent.includes('score 22.0')")
    tab.press("ArrowRight")
    tab.press("ArrowRight")
    tab.until("document.getElementById('viewer-caption').textContent.includes('score 11.0')")
    assert tab.run("document.getElementById('older').disabled") is True
    tab.press("Escape")
    tab.until("document.getElementById('viewer').open", False)
    tab.until("document.activeElement.ariaLabel?.includes('score 11.0')")  # the focus is where it was looked at


SLIDE = "(v => { const s = document.getElementById('slider'); s.value = v; s.dispatchEvent(new Event('input')); })"


def test_the_threshold_slides_live_goes_back_and_is_saved(tab: Tab, line: Line, server: PageServer) -> None:
    tab.open(server.url)
    for score in (-50.0, 40.0):
        line.put(score)
    tab.until("document.getElementById('threshold').textContent", "0.0")
    assert tab.run("document.getElementById('adjusting').hidden") is True  # nobody moves it by accident
    tab.click("#adjust")
    tab.until("Number(document.getElementById('slider').max) > 40")
    for value in (5, 10, 25):
        tab.run(f"{SLIDE}({value})")
    tab.until("document.getElementById('threshold-badge').textContent", "not saved; bundle: 0.0")
    tab.until("document.getElementById('threshold').textContent", "25.0")
    assert (line.threshold, line.saved) == (25.0, 0.0)
    tab.click("#back")
    tab.until("document.getElementById('threshold-badge').textContent", "as in the bundle")
    assert line.threshold == 0.0
    tab.run("(e => { e.value = '17.25'; e.dispatchEvent(new Event('change')); })(document.getElementById('exact'))")
    tab.until("document.getElementById('save').disabled", False)
    tab.click("#save")
    assert "17.3" in tab.text("#question-text")
    tab.click("#question button[value=no]")
    tab.until("document.getElementById('question').open", False)
    assert line.saved == 0.0
    tab.click("#save")
    tab.click("#question button[value=yes]")
    tab.until("document.getElementById('toast').textContent.includes('saved to the bundle')")
    assert (line.threshold, line.saved) == (17.25, 17.25)


def test_the_trigger_button(tab: Tab, line: Line, server: PageServer) -> None:
    tab.open(server.url)
    tab.until("document.getElementById('trigger').hidden", False)
    tab.click("#trigger")
    deadline = time.monotonic() + DEADLINE
    while line.fired == 0:
        assert time.monotonic() < deadline
        tab.run("1")
    assert line.fired == 1


def test_what_a_sink_lost_is_marked(tab: Tab, line: Line, server: PageServer) -> None:
    tab.open(server.url)
    line.put()
    tab.until("document.getElementById('facts').textContent.includes('Not delivered0')")
    line.undelivered = {"mqtt": 17, "seen.jsonl": 0}
    tab.until("document.querySelector('#facts .bad')?.textContent.trim()", "Not delivered to mqtt17")


def test_each_of_several_cameras_can_be_chosen(tab: Tab) -> None:
    line = Line("belt", "top view")
    with serve(line.page, port=0) as server:
        tab.open(server.url)
        line.put(-5.0, "belt")
        line.put(7.0, "top view")
        tab.until("document.querySelectorAll('.camera').length", 2)
        tab.until("document.querySelector('.camera[data-name=belt]').getAttribute('aria-selected')", "true")
        line.put(-8.0, "top view")
        tab.until("document.querySelector('.camera[data-name=\"top view\"]').ariaLabel", "top view: GOOD")
        tab.click('.camera[data-name="top view"]')
        tab.until("document.getElementById('caption').textContent.endsWith('score −8.0')")
        line.states = {**line.states, "belt": CAMERA_LOST}  # not the one that is shown, and yet seen
        tab.until("document.querySelector('.camera[data-name=belt]').textContent", "belt: CAMERA LOST")
        tab.open(server.url)
        tab.until("document.getElementById('caption').textContent.endsWith('score −8.0')")  # the choice is remembered


def test_a_chosen_camera_brings_its_whole_history_and_nothing_of_the_other(tab: Tab) -> None:
    seconds = [1000.0]
    line = Line("belt", "top view", clock=lambda: seconds[0])
    for score in (-8.0, 5.0, -7.0):
        line.put(score, "top view")
        seconds[0] += 1
    for _ in range(20):
        line.put(30.0, "belt")
        seconds[0] += 1
    band = "(document.querySelector('.chart .band')?.getAttribute('d').match(/M/g) ?? []).length"
    with serve(line.page, port=0) as server:
        tab.open(server.url)
        for name, steps in (("belt", 20), ("top view", 3), ("belt", 20), ("top view", 3)):
            tab.until(f"!!document.querySelector('.camera[data-name=\"{name}\"]')")
            tab.click(f'.camera[data-name="{name}"]')
            tab.until(band, steps)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("screen", SCREENS)
def test_it_fits_every_screen_in_every_state(tab: Tab, line: Line, server: PageServer, screen: str, dark: bool) -> None:
    tab.screen(*SCREENS[screen], dark=dark)
    tab.open(server.url)
    states: list[tuple[str, Callable[[], object]]] = [
        ("WAITING", lambda: None),
        ("GOOD", line.put),
        ("ANOMALY", lambda: line.put(12_345.6)),
        ("CAMERA LOST", lambda: line.states.update(belt=CAMERA_LOST)),
        ("CAMERA HUNG", lambda: line.states.update(belt=CameraState("hung", 1_700_000_000.0))),
    ]
    colours = set()
    for word, act in states:
        act()
        tab.until("document.getElementById('word').textContent", word)
        tab.click("#adjust")
        assert tab.run("document.documentElement.scrollWidth <= innerWidth"), word
        assert tab.run("document.getElementById('word').scrollWidth <= document.getElementById('word').clientWidth"), (
            word
        )
        box = tab.run("JSON.stringify(document.getElementById('lamp').getBoundingClientRect())")
        rectangle = json.loads(box)
        assert 0 <= rectangle["top"] < rectangle["bottom"] <= SCREENS[screen][1]  # the lamp is seen without scrolling
        x, y = int(rectangle["right"]) - 6, int((rectangle["top"] + rectangle["bottom"]) / 2)
        colours.add(tuple(int(value) for value in tab.screenshot()[y, x]))
    assert len(colours) == 4  # grey, green, red, and yellow for both troubles
    ground = tab.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(value) for value in ground[4:-1].split(",")) < 3 * 64) is dark


def test_the_theme_can_be_chosen_and_stays(tab: Tab, server: PageServer) -> None:
    tab.open(server.url)
    theme = "document.documentElement.dataset.theme"
    tab.run("localStorage.removeItem('theme')")
    tab.open(server.url)
    assert tab.run(theme) == "light"
    for expected in ("light", "dark"):
        tab.click("#theme")
        tab.until(theme, expected)
    tab.open(server.url)
    assert tab.run(theme) == "dark"
    tab.click("#theme")
    assert tab.run(theme) == "light"  # as the device says, again


def test_a_link_with_the_token_signs_in_and_is_not_left_in_the_bar(tab: Tab, line: Line) -> None:
    line.put()
    with serve(line.page, host="127.0.0.1", port=0, token=TOKEN) as server:
        tab.open(server.url)
        assert tab.text("h1") == "This page needs its token"
        assert tab.run("getComputedStyle(document.querySelector('form')).display") == "flex"  # its style is allowed
        tab.run(f"document.querySelector('input').value = {json.dumps(TOKEN)}")
        tab.click("button")
        tab.until("document.getElementById('word')?.textContent", "GOOD")
        assert tab.run("location.search") == ""
        assert TOKEN not in tab.run("document.cookie")
        tab.open(server.url)
        tab.until("document.getElementById('word')?.textContent", "GOOD")
        tab.send("Network.clearBrowserCookies")
        tab.open(server.link)
        tab.until("document.getElementById('word')?.textContent", "GOOD")


def test_a_page_that_is_not_seen_asks_for_nothing(tab: Tab, line: Line, server: PageServer) -> None:
    """Without animation frames, as in a tab behind another one."""
    tab.open(server.url)
    line.put(-7.0)
    tab.until("document.getElementById('caption').textContent.endsWith('score −7.0')")
    tab.run("window.requestAnimationFrame = () => 0")
    with connect(server.url.replace("http", "ws") + "api/live") as other:

        def editions(count: int) -> None:
            for _ in range(count):
                other.send('{"camera": null}')
                other.recv(timeout=DEADLINE)

        editions(3)  # whatever was asked before has been answered
        line.put(5.0)
        editions(3)
    assert tab.text("#caption").endswith("score −7.0")
