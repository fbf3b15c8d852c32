"""The pipeline: every frame accounted for, in order, whatever sources, stages and sinks do."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from factories import Kept, Numbers
from uflow_edge.runtime.backoff import Backoff
from uflow_edge.runtime.errors import Unavailable
from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.line.capture import Feed, ReconnectOptions
from uflow_edge.runtime.line.pipeline import Pipeline, PipelineOptions
from uflow_edge.runtime.line.triggers import EveryMilliseconds
from uflow_edge.runtime.sources import Frame, SourceLost
from waiting import DEADLINE


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
    options = PipelineOptions(reconnect=ReconnectOptions(backoff=Backoff(0.001, 30.0)))
    tally = Pipeline(inspector, [Feed(source, policy="every")], [sink], options).run()
    assert source.opened == [0, 10, 20]
    assert [index for _, index in sink.frames] == list(range(30))
    assert tally.reconnects == 2
    assert logged == ["numbers is gone; trying again until it is back", "numbers is back"] * 2


def test_patience_ends(inspector: Inspector, logged: list[str]) -> None:
    source = Numbers(30, live=True, loses=(10,))
    options = PipelineOptions(reconnect=ReconnectOptions(give_up=0))
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
    assert not [thread for thread in threading.enumerate() if thread.name == "stages"]


def test_a_frame_that_cannot_be_inspected_is_counted(inspector: Inspector, logged: list[str]) -> None:
    class Grey(Numbers):
        def frames(self, stop: threading.Event, first: int = 0) -> Iterator[Frame]:
            for frame in super().frames(stop, first):
                image = frame.image_bgr[:, :, 0] if frame.index == 3 else frame.image_bgr
                yield Frame(image, frame.index, frame.source, frame.name, frame.captured)

    tally = Pipeline(inspector, [Feed(Grey(10))], [Kept()]).run()
    assert (tally.captured, tally.inspected, tally.unreadable) == (10, 9, 1)
    assert logged == ["numbers: a frame must be a uint8 array [H, W, 3] in BGR order; got shape (8, 8)"]
