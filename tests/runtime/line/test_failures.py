"""The pipeline when a source hangs, the inspection fails on a frame, or the engine hangs."""

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from factories import Kept, Numbers
from uflow_edge.runtime.engines import EngineFailed
from uflow_edge.runtime.errors import ExitCode, Stuck
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.line import stage
from uflow_edge.runtime.line.capture import Capture, Feed, ReconnectOptions
from uflow_edge.runtime.line.pipeline import Pipeline
from uflow_edge.runtime.line.triggers import FreeRun
from uflow_edge.runtime.sources import Frame
from waiting import DEADLINE, Clock


@pytest.fixture(scope="module")
def inspector(exported: Path) -> Inspector:
    return Inspector.load(exported, threads=1)


def test_a_source_that_hangs_is_left_behind_and_opened_anew(logged: list[str]) -> None:
    hanging, release = threading.Event(), threading.Event()

    class Hanging(Numbers):
        def frames(self, stop: threading.Event, first: int = 0) -> Iterator[Frame]:
            if not self.opened:
                yield from super().frames(threading.Event(), first)  # frames 0 to 4, then silence
                hanging.set()
                release.wait(DEADLINE)
                yield Frame(np.zeros((8, 8, 3), np.uint8), 99, self.name, Path("99"), 0.0)  # too late
            else:
                self.count = 8
                yield from super().frames(stop, first)

    clock, taken = Clock(), []

    def take(frame: Frame) -> bool:
        taken.append(frame.index)
        return True

    capture = Capture(Hanging(5, live=True), FreeRun(), take, pytest.fail, reconnect=ReconnectOptions(10), clock=clock)
    capture.start()
    assert hanging.wait(DEADLINE)
    clock.now = 9
    capture.watch()
    assert (capture.state.status, capture.reconnects) == ("running", 0)
    clock.now = 11
    capture.watch()
    assert capture.wait(DEADLINE)
    release.set()
    assert taken == [0, 1, 2, 3, 4, 5, 6, 7]
    assert capture.reconnects == 1
    assert logged == ["numbers: no frame for 11 s, so it is opened again", "numbers is back"]


def test_a_source_that_hangs_does_not_keep_the_pipeline(inspector: Inspector, monkeypatch) -> None:
    monkeypatch.setattr("uflow_edge.runtime.line.pipeline._GRACE", 0.1)
    release = threading.Event()

    class Hanging(Numbers):
        def frames(self, stop: threading.Event, first: int = 0) -> Iterator[Frame]:
            yield from super().frames(stop, first)
            release.wait(DEADLINE)

    sink = Kept(lambda frame: frame.index == 4 and pipeline.stop())
    pipeline = Pipeline(inspector, [Feed(Hanging(5, live=True), policy="every")], [sink])
    tally = pipeline.run()
    release.set()
    assert tally.inspected == 5


def failing_on(inspector: Inspector, monkeypatch, part: str, which: Callable[[int], bool], error: Exception) -> None:
    """Make one part of the inspector raise for some frames; frame i of `Numbers` is uniformly i."""
    real = getattr(inspector, part)

    def sometimes(value, **about):
        prepared = value.prepared if part == "judge" else value
        brightness = int((prepared if part == "prepare" else prepared.frame_bgr)[0, 0, 0])
        if which(brightness):
            raise error
        return real(value, **about)

    monkeypatch.setattr(inspector, part, sometimes)


@pytest.mark.parametrize("part", ["prepare", "infer", "judge"])
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (EngineFailed("energies are not finite"), "energies are not finite"),
        (MemoryError("no room"), "MemoryError: no room"),
        (RuntimeError("a node failed"), "RuntimeError: a node failed"),
    ],
)
def test_a_frame_that_the_inspection_fails_on_is_named_and_the_others_go_on(
    inspector: Inspector, monkeypatch, part: str, error: Exception, told: str, logged: list[str]
) -> None:
    failing_on(inspector, monkeypatch, part, lambda i: i == 3, error)
    sink = Kept()
    tally = Pipeline(inspector, [Feed(Numbers(8))], [sink]).run()
    assert [index for _, index in sink.frames] == [0, 1, 2, 4, 5, 6, 7]
    assert (tally.captured, tally.inspected, tally.not_judged, tally.unreadable) == (8, 7, 1, 0)
    assert logged == [f"not judged: numbers #3: {told}"]


def test_one_camera_that_always_fails_does_not_end_the_others(inspector: Inspector, monkeypatch) -> None:
    class Bright(Numbers):
        def frames(self, stop: threading.Event, first: int = 0) -> Iterator[Frame]:
            for frame in super().frames(stop, first):
                yield replace(frame, image_bgr=np.full((8, 8, 3), 255, np.uint8))

    failing_on(inspector, monkeypatch, "judge", lambda i: i == 255, EngineFailed("nonsense"))
    sink = Kept()
    feeds = [Feed(Bright(40, name="bad")), Feed(Numbers(40, name="good"))]
    tally = Pipeline(inspector, feeds, [sink]).run()
    assert sink.frames == [("good", i) for i in range(40)]
    assert (tally.inspected, tally.not_judged) == (40, 40)


def test_an_engine_that_fails_on_every_frame_ends_the_run_with_its_error(inspector: Inspector, monkeypatch) -> None:
    failing_on(inspector, monkeypatch, "infer", lambda i: i >= 5, EngineFailed("the device is lost"))
    pipeline = Pipeline(inspector, [Feed(source := Numbers(10**9))], [sink := Kept()])
    with pytest.raises(EngineFailed, match="the device is lost"):
        pipeline.run()
    tally = pipeline.tally()
    assert (tally.inspected, len(sink.frames)) == (5, 5)
    assert tally.not_judged == 10
    assert source.released == 1


@pytest.fixture
def stuck(inspector: Inspector, monkeypatch) -> Iterator[threading.Event]:
    """An engine that does not return from frame 4 before the test is over; the event says that it has begun."""
    began, release = threading.Event(), threading.Event()
    real = inspector.infer

    def hanging(prepared):
        if prepared.frame_bgr[0, 0, 0] == 4:
            began.set()
            release.wait(DEADLINE)
        return real(prepared)

    monkeypatch.setattr(inspector, "infer", hanging)
    yield began
    release.set()


def test_an_engine_that_hangs_is_reported_and_cannot_hold_up_the_end(
    inspector: Inspector, monkeypatch, stuck: threading.Event, logged: list[str]
) -> None:
    monkeypatch.setattr("uflow_edge.runtime.line.stage.HUNG", 0.0)
    monkeypatch.setattr("uflow_edge.runtime.line.stage.HUNG_AT_THE_END", 0.0)
    monkeypatch.setattr("uflow_edge.runtime.line.pipeline._GRACE", 0.1)
    pipeline = Pipeline(inspector, [Feed(Numbers(10**9))], [Kept()])

    class Stop(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            pipeline.stop()

    monkeypatch.setattr(stage.logger, "handlers", [Stop()])
    with pytest.raises(Stuck, match="engine has not returned; the run ends without a result for numbers #4"):
        pipeline.run()
    assert "engine hangs: no result for numbers #4 after 0 s" in logged


def test_a_second_signal_waits_for_nothing(inspector: Inspector, monkeypatch, stuck: threading.Event) -> None:
    monkeypatch.setattr("uflow_edge.runtime.line.pipeline._PROMPT", 0.0)
    real = Capture.watch

    def interrupted(capture: Capture) -> None:
        real(capture)
        if stuck.is_set():
            raise KeyboardInterrupt

    monkeypatch.setattr(Capture, "watch", interrupted)
    pipeline = Pipeline(inspector, [Feed(Numbers(10**9))], [Kept()])
    with pytest.raises(Stuck, match="numbers #4") as info:
        pipeline.run()
    assert info.value.exit_code == ExitCode.INTERRUPTED


def test_a_frame_that_arrives_while_its_source_is_watched_is_no_error() -> None:
    """The capturing thread takes no lock, so the moment since which it waits may vanish at any time."""

    class Vanishing:
        over = threading.Event()
        looks = 0

        @property
        def waiting_since(self) -> float | None:
            self.looks += 1
            return 0.0 if self.looks == 1 else None

    capture = Capture(Numbers(live=True), FreeRun(), lambda frame: True, pytest.fail, clock=lambda: 1.0)
    capture._attempt = Vanishing()
    capture.watch()
    assert capture.state.status == "running"
