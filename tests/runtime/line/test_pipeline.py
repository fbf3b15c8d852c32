"""The pipeline: every frame accounted for, in order, whatever sources, stages and sinks do."""

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uflow_edge.runtime.engines import EngineFailed
from uflow_edge.runtime.errors import ExitCode, Stuck, Unavailable
from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.line import stage
from uflow_edge.runtime.line.capture import Capture, Patience
from uflow_edge.runtime.line.inbox import Inbox
from uflow_edge.runtime.line.pipeline import Feed, Pipeline, PipelineOptions
from uflow_edge.runtime.line.triggers import EveryMilliseconds, FreeRun
from uflow_edge.runtime.sources import Frame, SourceLost
from waiting import DEADLINE


class Numbers:
    """A source of small frames whose brightness is their number."""

    def __init__(
        self, count: int = 10, *, live: bool = False, name: str = "numbers", loses: tuple[int, ...] = ()
    ) -> None:
        self.count, self.live, self.name, self.loses = count, live, name, list(loses)
        self.opened: list[int] = []
        self.released = 0

    def frames(self, stop: threading.Event, first: int = 0) -> Iterator[Frame]:
        self.opened.append(first)
        try:
            for i in range(first, self.count):
                if stop.is_set():
                    return
                if self.loses and i == self.loses[0]:
                    self.loses.pop(0)
                    raise SourceLost(f"{self.name} is gone")
                yield Frame(np.full((8, 8, 3), i % 256, np.uint8), i, self.name, Path(f"{i}"), i / 128)
        finally:
            self.released += 1


class Kept:
    """A sink that keeps what it gets."""

    name = "kept"

    def __init__(self, on_put: Callable[[Frame], object] = lambda frame: None) -> None:
        self.frames: list[tuple[str, int]] = []
        self.on_put = on_put

    def put(self, frame: Frame, inspection: Inspection) -> None:
        assert inspection.verdict.frame == frame.index
        assert inspection.verdict.source == frame.source
        self.frames.append((frame.source, frame.index))
        self.on_put(frame)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def inspector(exported: Path) -> Inspector:
    return Inspector.load(exported, threads=1)


def test_files_are_inspected_one_and_all(inspector: Inspector) -> None:
    source, sink = Numbers(40), Kept()
    tally = Pipeline(inspector, [Feed(source)], [sink]).run()
    assert sink.frames == [("numbers", i) for i in range(40)]
    assert (tally.captured, tally.inspected, tally.dropped) == (40, 40, 0)
    assert (source.opened, source.released) == ([0], 1)


def test_verdicts_are_the_inspectors(inspector: Inspector, texture_folder: Path) -> None:
    """Stages on three frames at a time give what one call gives."""
    from uflow_edge.runtime.sources.folders import ImageFiles, image_files

    files = image_files([texture_folder])
    found = {}

    class Collecting(Kept):
        def put(self, frame: Frame, inspection: Inspection) -> None:
            found[frame.source] = (frame, inspection)

    Pipeline(inspector, [Feed(ImageFiles(files))], [Collecting()]).run()
    assert len(found) == len(files) > 15
    for frame, inspection in found.values():
        expected = inspector.examine(frame.image_bgr)
        assert inspection.verdict.score == expected.verdict.score
        np.testing.assert_array_equal(inspection.score, expected.score)


def test_a_live_source_loses_frames_and_they_are_counted(inspector: Inspector) -> None:
    """The sink holds everything up until the source has delivered all it has."""
    exhausted = threading.Event()

    class Fast(Numbers):
        def frames(self, stop: threading.Event, first: int = 0) -> Iterator[Frame]:
            yield from super().frames(stop, first)
            exhausted.set()

    sink = Kept(lambda frame: exhausted.wait(DEADLINE))
    tally = Pipeline(inspector, [Feed(Fast(200, live=True))], [sink]).run()
    numbers = [index for _, index in sink.frames]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 199  # the latest is never the one that is dropped
    assert tally.captured == 200 == tally.inspected + tally.dropped
    assert tally.inspected == len(numbers) < 20


def test_every_frame_of_a_live_source_if_asked_for(inspector: Inspector) -> None:
    sink = Kept()
    tally = Pipeline(inspector, [Feed(Numbers(50, live=True), policy="every")], [sink]).run()
    assert (tally.inspected, tally.dropped) == (50, 0)


def test_several_sources_share_the_engine(inspector: Inspector) -> None:
    sources, sink = [Numbers(30, name=name) for name in "abc"], Kept()
    tally = Pipeline(inspector, [Feed(source) for source in sources], [sink]).run()
    assert tally.inspected == 90
    for name in "abc":
        assert [index for source, index in sink.frames if source == name] == list(range(30))


def test_only_what_the_trigger_takes_is_captured(inspector: Inspector) -> None:
    sink = Kept()
    tally = Pipeline(inspector, [Feed(Numbers(50), EveryMilliseconds(125))], [sink]).run()  # 128 frames a second
    assert [index for _, index in sink.frames] == [0, 16, 32, 48]
    assert tally.captured == 4


def test_no_more_frames_than_asked_for(inspector: Inspector) -> None:
    sources, sink = [Numbers(1000, name="a"), Numbers(1000, name="b")], Kept()
    tally = Pipeline(inspector, [Feed(source) for source in sources], [sink], PipelineOptions(max_frames=7)).run()
    assert (tally.captured, tally.inspected, len(sink.frames)) == (7, 7, 7)
    assert [source.released for source in sources] == [1, 1]


def test_stop_delivers_what_was_captured(inspector: Inspector) -> None:
    source = Numbers(10**9)
    pipeline = Pipeline(inspector, [Feed(source)], [sink := Kept(lambda frame: frame.index == 20 and pipeline.stop())])
    tally = pipeline.run()
    assert tally.captured == tally.inspected == len(sink.frames) > 20
    assert sink.frames == [("numbers", i) for i in range(tally.captured)]
    assert source.released == 1


def test_a_lost_source_is_opened_again_and_goes_on_counting(inspector: Inspector, logged: list[str]) -> None:
    source, sink = Numbers(30, live=True, loses=(10, 20)), Kept()
    options = PipelineOptions(patience=Patience(first_delay=0.001))
    tally = Pipeline(inspector, [Feed(source, policy="every")], [sink], options).run()
    assert source.opened == [0, 10, 20]
    assert [index for _, index in sink.frames] == list(range(30))
    assert tally.reconnects == 2
    assert logged == ["numbers is gone; trying again until it is back", "numbers is back"] * 2


def test_patience_ends(inspector: Inspector, logged: list[str]) -> None:
    source = Numbers(30, live=True, loses=(10,))
    options = PipelineOptions(patience=Patience(give_up=0))
    pipeline = Pipeline(inspector, [Feed(source, policy="every")], [Kept()], options)
    with pytest.raises(SourceLost, match="numbers is gone"):
        pipeline.run()
    assert (pipeline.tally().captured, logged) == (10, [])


def test_a_source_that_was_never_there_ends_it(inspector: Inspector) -> None:
    class Absent(Numbers):
        def frames(self, stop: threading.Event, first: int = 0) -> Iterator[Frame]:
            raise Unavailable("camera 97 cannot be opened")
            yield

    others = Numbers(10**9, name="other")
    with pytest.raises(Unavailable, match="camera 97 cannot be opened"):
        Pipeline(inspector, [Feed(Absent(live=True)), Feed(others)], [Kept()]).run()
    assert others.released == 1


@pytest.mark.parametrize("stage", ["prepare", "infer", "judge", "put"])
def test_a_stage_that_fails_takes_all_down_with_its_own_error(inspector: Inspector, monkeypatch, stage: str) -> None:
    def failing(*_: object, **__: object) -> None:
        raise ZeroDivisionError(stage)

    source, sink = Numbers(10**9), Kept()
    monkeypatch.setattr(sink if stage == "put" else inspector, stage, failing)
    with pytest.raises(ZeroDivisionError, match=stage):
        Pipeline(inspector, [Feed(source)], [sink]).run()
    assert source.released == 1
    assert not [
        thread for thread in threading.enumerate() if thread.name in ("preparation", "engine", "judgement", "delivery")
    ]


def test_a_frame_that_cannot_be_inspected_is_counted(inspector: Inspector, logged: list[str]) -> None:
    class Grey(Numbers):
        def frames(self, stop: threading.Event, first: int = 0) -> Iterator[Frame]:
            for frame in super().frames(stop, first):
                image = frame.image_bgr[:, :, 0] if frame.index == 3 else frame.image_bgr
                yield Frame(image, frame.index, frame.source, frame.name, frame.captured)

    tally = Pipeline(inspector, [Feed(Grey(10))], [Kept()]).run()
    assert (tally.captured, tally.inspected, tally.unreadable) == (10, 9, 1)
    assert logged == ["numbers: a frame must be a uint8 array [H, W, 3] in BGR order; got shape (8, 8)"]


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


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

    capture = Capture(Hanging(5, live=True), FreeRun(), take, pytest.fail, patience=Patience(10), clock=clock)
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


@settings(max_examples=60, deadline=None)
@given(
    lanes=st.lists(st.tuples(st.sampled_from(["latest", "every"]), st.integers(0, 30)), min_size=1, max_size=4),
    capacity=st.integers(1, 5),
)
def test_the_inbox_keeps_order_and_loses_nothing_unsaid(lanes: list[tuple[str, int]], capacity: int) -> None:
    inbox: Inbox[tuple[int, int]] = Inbox(tuple(policy for policy, _ in lanes), capacity)
    overtaken: list[list[tuple[int, int]]] = [[] for _ in lanes]

    def produce(lane: int, count: int) -> None:
        for number in range(count):
            overtaken[lane] += inbox.put(lane, (lane, number))

    threads = [threading.Thread(target=produce, args=(lane, count)) for lane, (_, count) in enumerate(lanes)]
    taken: list[tuple[int, int]] = []
    consumer = threading.Thread(target=lambda: [taken.append(item) for item in iter(inbox.get, None)])
    for thread in (*threads, consumer):
        thread.start()
    for thread in threads:
        thread.join()
    inbox.close()
    consumer.join()
    for lane, (policy, count) in enumerate(lanes):
        mine = [number for one, number in taken if one == lane]
        assert mine == sorted(mine)
        lost = [number for _, number in overtaken[lane]]
        assert sorted(mine + lost) == list(range(count))
        assert policy == "latest" or not lost
        assert count == 0 or mine[-1] == count - 1


def test_a_closed_inbox_gives_back_what_it_gets() -> None:
    inbox: Inbox[str] = Inbox(("every",), 1)
    assert inbox.put(0, "a") == []
    inbox.close()
    assert inbox.put(0, "b") == ["b"]
    assert (inbox.get(), inbox.get()) == ("a", None)


def test_lanes_are_taken_in_turn() -> None:
    inbox: Inbox[str] = Inbox(("every", "every"), 3)
    for item in ("a1", "a2", "a3"):
        inbox.put(0, item)
    inbox.put(1, "b1")
    assert [inbox.get() for _ in range(4)] == ["a1", "b1", "a2", "a3"]


# Frames that the inspection fails on


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


def test_heavy_items_wait_alone_until_they_are_done() -> None:
    inbox: Inbox[int] = Inbox(("every",), 4, lambda item: item, 100)
    put: list[int] = []

    def produce() -> None:
        for item in (60, 30, 20, 300):
            inbox.put(0, item)
            put.append(item)

    producer = threading.Thread(target=produce)
    producer.start()
    assert [inbox.get(), inbox.get()] == [60, 30]
    assert put in ([60], [60, 30]), "20 more would be too much, though nothing waits"
    inbox.done(60)
    assert inbox.get() == 20
    inbox.done(30)
    assert 300 not in put
    inbox.done(20)
    assert inbox.get() == 300, "one is taken however heavy it is"
    producer.join(10)
    assert put == [60, 30, 20, 300]
