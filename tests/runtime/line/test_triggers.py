"""Triggers: which frames are inspected."""

import sys
import threading
from datetime import timedelta
from enum import Enum
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extras import extra
from uflow_edge.runtime.errors import MissingDependency, Unavailable, UsageError
from uflow_edge.runtime.line.triggers import EveryMilliseconds, FreeRun, GpioTrigger, SoftwareTrigger, parse_trigger


def test_free_run_takes_every_frame() -> None:
    trigger = FreeRun()
    assert all(trigger.due(captured) for captured in (3.0, 1.0, 1.0))
    trigger.close()


@given(
    interval_ms=st.integers(5, 500),
    start=st.floats(1e9, 2e9),
    gaps_ms=st.lists(st.floats(0.01, 400), min_size=1, max_size=200),
)
def test_every_interval_has_at_most_one_frame_and_none_that_has_frames_goes_without(interval_ms, start, gaps_ms):
    trigger, captured, due = EveryMilliseconds(interval_ms), [start], []
    for gap in gaps_ms:
        captured.append(captured[-1] + gap / 1e3)
    due = [moment for moment in captured if trigger.due(moment)]
    assert due[0] == start
    intervals = [int((moment - start) / (interval_ms / 1e3)) for moment in due]
    assert len(set(intervals)) == len(intervals)
    assert set(intervals) == {int((moment - start) / (interval_ms / 1e3)) for moment in captured}


def test_intervals_do_not_drift_with_the_frame_rate() -> None:
    """At 30 frames a second, every 100 ms is every third frame, also after an hour."""
    trigger = EveryMilliseconds(100)
    due = [i for i in range(30 * 3600) if trigger.due(1e6 + (i + 0.01 * (i > 0)) / 30)]
    assert due == list(range(0, 30 * 3600, 3))


def test_a_clock_that_was_set_back_silences_nothing() -> None:
    trigger = EveryMilliseconds(1000)
    assert [trigger.due(moment) for moment in (5000.0, 5000.5, 1400.2, 1400.9, 1401.2)] == [
        True,
        False,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf")])
def test_no_interval(interval: float) -> None:
    with pytest.raises(UsageError, match="above 0 ms"):
        EveryMilliseconds(interval)


def test_a_call_takes_the_first_frame_captured_after_it() -> None:
    now = [100.0]
    trigger = SoftwareTrigger(lambda: now[0])
    assert not trigger.due(99.0)
    assert trigger.fire() == 100.0
    assert not trigger.due(99.9), "this picture was taken before the call"
    assert trigger.due(100.02)
    assert not trigger.due(100.05)
    for now[0] in (101.0, 101.01):
        trigger.fire()
    assert [trigger.due(moment) for moment in (101.0, 101.005, 101.02, 101.03)] == [True, False, True, False]
    for now[0] in (102.0, 102.01):
        trigger.fire()
    assert [trigger.due(moment) for moment in (102.02, 102.03)] == [True, False], "calls between two frames share one"
    now[0] = 200.0
    trigger.fire()
    now[0] = 150.0  # somebody set the clock back
    trigger.fire()
    assert trigger.due(150.1)
    trigger.close()


def test_calls_from_many_threads_are_neither_lost_nor_kept_for_ever() -> None:
    trigger, ready = SoftwareTrigger(lambda: 1.0), threading.Barrier(8)

    def fire() -> None:
        ready.wait()
        for _ in range(1000):
            trigger.fire()

    threads = [threading.Thread(target=fire) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trigger.due(1.0)
    assert not trigger.due(1.1)


class FakeRequest:
    """A `gpiod.LineRequest` whose edges the test makes."""

    def __init__(self, settings: SimpleNamespace) -> None:
        self.settings, self.edges, self.released, self.broken = settings, [], False, False

    def wait_edge_events(self, timeout: float | None = None) -> bool:
        assert timeout == 0, "the trigger must not block"
        if self.broken:
            raise OSError(19, "No such device")
        return bool(self.edges)

    def read_edge_events(self, max_events: int | None = None) -> list[SimpleNamespace]:
        events, self.edges = [SimpleNamespace(timestamp_ns=int(edge * 1e9)) for edge in self.edges], []
        return events

    def release(self) -> None:
        self.released = True


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, int | str], FakeRequest]:
    """gpiod as far as the trigger uses it; what was requested, by chip and line."""
    made = {}

    def request_lines(path, config, consumer=None):
        if path == "/dev/absent":
            raise FileNotFoundError(2, "No such file or directory")
        [(line, settings)] = config.items()
        return made.setdefault((path, line), FakeRequest(settings))

    lines = ModuleType("gpiod.line")
    lines.Direction = Enum("Direction", "AS_IS INPUT OUTPUT")
    lines.Edge = Enum("Edge", "NONE RISING FALLING BOTH")
    lines.Clock = Enum("Clock", "MONOTONIC REALTIME HTE")
    gpiod = ModuleType("gpiod")
    gpiod.LineSettings, gpiod.request_lines, gpiod.line = SimpleNamespace, request_lines, lines
    monkeypatch.setitem(sys.modules, "gpiod", gpiod)
    monkeypatch.setitem(sys.modules, "gpiod.line", lines)
    return made


def test_an_edge_takes_the_first_frame_after_it_and_its_delay(requests) -> None:
    trigger = GpioTrigger(Path("/dev/gpiochip0"), 17, edge="falling", delay_ms=40, debounce_ms=5)
    request = requests["/dev/gpiochip0", 17]
    assert request.settings.direction.name == "INPUT"
    assert request.settings.edge_detection.name == "FALLING"
    assert request.settings.event_clock.name == "REALTIME", "edges must be on the clock that frames are on"
    assert request.settings.debounce_period == timedelta(milliseconds=5)
    assert not trigger.due(10.0)
    request.edges = [10.0, 10.1]
    assert [trigger.due(moment) for moment in (10.03, 10.05, 10.06, 10.15, 10.2)] == [False, True, False, True, False]
    request.broken = True
    with pytest.raises(Unavailable, match="GPIO line 17 of /dev/gpiochip0 can no longer be read"):
        trigger.due(11.0)
    trigger.close()
    assert request.released


def test_a_line_that_cannot_be_had(requests) -> None:
    with pytest.raises(Unavailable, match="GPIO line 3 of /dev/absent cannot be used as a trigger .*No such file"):
        GpioTrigger(Path("/dev/absent"), 3)


def test_without_gpiod_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gpiod", None)
    with pytest.raises(MissingDependency, match=r"'.\[gpio\]"):
        GpioTrigger(Path("/dev/gpiochip0"), 17)


def test_the_real_gpiod_takes_what_we_give_it(tmp_path: Path) -> None:
    gpiod = extra("gpiod")
    assert gpiod.api_version.startswith("2.")
    for used in ("wait_edge_events", "read_edge_events", "release"):
        assert callable(getattr(gpiod.LineRequest, used))
    assert "timestamp_ns" in gpiod.EdgeEvent.__dataclass_fields__
    (tmp_path / "gpiochip9").touch()
    for chip in (tmp_path / "gpiochip8", tmp_path / "gpiochip9"):  # absent; there, but no chip
        with pytest.raises(Unavailable, match="cannot be used as a trigger"):
            GpioTrigger(chip, 17, debounce_ms=1)


def test_what_a_person_types(requests) -> None:
    assert isinstance(parse_trigger("free"), FreeRun)
    assert isinstance(parse_trigger("software"), SoftwareTrigger)
    assert isinstance(parse_trigger("every:33.3"), EveryMilliseconds)
    assert isinstance(parse_trigger("gpio:gpiochip0/17"), GpioTrigger)
    parse_trigger("gpio:gpiochip1/part-sensor,falling,debounce=2.5")
    settings = requests["/dev/gpiochip1", "part-sensor"].settings
    assert settings.edge_detection.name == "FALLING"
    assert settings.debounce_period == timedelta(milliseconds=2.5)
    assert requests["/dev/gpiochip0", 17].settings.edge_detection.name == "RISING"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "every",
        "every:",
        "every:soon",
        "every:0",
        "hardware",
        "free:1",
        "gpio:17",
        "gpio:gpiochip0/",
        "gpio:gpiochip0/1,up",
        "gpio:gpiochip0/1,delay=-1",
        "gpio:gpiochip0/1,delay=",
    ],
)
def test_what_makes_no_sense(text: str, requests) -> None:
    with pytest.raises(UsageError, match="trigger"):
        parse_trigger(text)
    assert not requests
