"""The live page in a real browser: what it shows of cameras and verdicts."""

import itertools
import re
from contextlib import closing

import numpy as np
import pytest

from browser import CAMERA_LOST, SCREENS, Line, Tab, connect
from uflow_edge.runtime.drift import DriftState
from uflow_edge.runtime.line.capture import CameraState
from uflow_edge.runtime.page import PageServer, serve
from waiting import DEADLINE

pytestmark = pytest.mark.long

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
    tab.until("document.querySelectorAll('#thumbnails img').length", 1)
    tab.until("document.querySelector('#thumbnails img').naturalWidth", 240)
    assert tab.run("document.querySelector('.chart .anomalies').getAttribute('d').length") > 0
    assert tab.text("#facts").startswith("Rate")
    assert "1,234" in tab.text("#facts")
    assert "camera to verdict" in tab.text("#stages")
    assert tab.complaints == []
    loaded = tab.run("performance.getEntriesByType('resource').map(entry => entry.name)")
    assert all(name.startswith(server.url) for name in loaded)


def test_an_anomaly_of_one_frame_is_not_missed(tab: Tab, line: Line, server: PageServer) -> None:
    """Both come between two snapshots, so the picture shows only the second; the lamp and the history show both."""
    tab.open(server.url)
    line.put(9.0)
    line.put(-9.0)
    tab.until("document.getElementById('lamp').dataset.state", "anomaly")
    tab.until("document.getElementById('lamp').dataset.state", "good")
    tab.until("document.querySelectorAll('#thumbnails li').length", 1)


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
        tab.until("document.querySelectorAll('#thumbnails .from').length", 1)
        tab.until("document.querySelector('#thumbnails .from').textContent", "belt")
        tab.until("getComputedStyle(document.querySelector('#thumbnails .from')).display", "block")
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


def test_what_a_sink_lost_is_marked(tab: Tab, line: Line, server: PageServer) -> None:
    tab.open(server.url)
    line.put()
    tab.until("document.getElementById('facts').textContent.includes('Not delivered0')")
    line.undelivered = {"mqtt": 17, "seen.jsonl": 0}
    tab.until("document.querySelector('#facts .bad')?.textContent.trim()", "Not delivered to mqtt17")


def test_a_page_that_is_not_seen_asks_for_nothing(tab: Tab, line: Line, server: PageServer) -> None:
    """Without animation frames, as in a tab behind another one."""
    tab.open(server.url)
    line.put(-7.0)
    tab.until("document.getElementById('caption').textContent.endsWith('score −7.0')")
    tab.run("window.requestAnimationFrame = () => 0")
    with connect(server.url.replace("http", "ws") + "api/live") as other:

        def snapshots(count: int) -> None:
            for _ in range(count):
                other.send('{"camera": null}')
                other.recv(timeout=DEADLINE)

        snapshots(3)  # whatever was asked before has been answered
        line.put(5.0)
        snapshots(3)
    assert tab.text("#caption").endswith("score −7.0")
