"""The live page in a real browser: what an operator clicks, types and chooses, on every screen."""

import json
import time
from collections.abc import Callable

import pytest

from browser import CAMERA_LOST, SCREENS, TOKEN, Line, Tab
from uflow_edge.runtime.line.capture import CameraState
from uflow_edge.runtime.page import PageServer, serve
from waiting import DEADLINE

pytestmark = pytest.mark.long


def test_anomalies_open_by_keyboard(tab: Tab, line: Line, server: PageServer) -> None:
    tab.open(server.url)
    for score in (11.0, 22.0, 33.0):
        line.put(score)
    tab.until("document.querySelectorAll('#thumbnails button').length", 3)
    tab.run("document.querySelector('#thumbnails button').focus()")
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
