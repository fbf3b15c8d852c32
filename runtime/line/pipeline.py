"""Moves frames from sources to sinks through stages, and counts every frame.

    capture ─▶ [inbox] ─▶ prepare ─▶ [2] ─▶ engine ─▶ [2] ─▶ judge ─▶ [2] ─▶ sinks

While the engine works on one frame, the next one is resized and the one before is thresholded, in other threads. In the
inbox a newer frame of a live source may replace an older one (policy ``latest``), which is counted as dropped; after
the inbox no frame is lost. Each source keeps its order. A frame on which a stage fails is logged and counted, and the
run goes on unless many fail in a row. A sink that fails ends the run at once.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from uflow_edge.runtime.engines import MOST_FAILURES_IN_A_ROW
from uflow_edge.runtime.errors import BadInput, ExitCode, UflowEdgeError
from uflow_edge.runtime.line.capture import CameraState, Capture, Feed, ReconnectOptions
from uflow_edge.runtime.line.inbox import Inbox
from uflow_edge.runtime.line.stage import Stages, called
from uflow_edge.runtime.sinks.names import camera_folders
from uflow_edge.runtime.tally import Tally

if TYPE_CHECKING:
    from uflow_edge.runtime.inspection import Inferred, Inspection, Prepared
    from uflow_edge.runtime.inspector import Inspector
    from uflow_edge.runtime.sinks import Sink
    from uflow_edge.runtime.sources import Frame

logger = logging.getLogger(__name__)

Out = TypeVar("Out")

_WATCH_EVERY = 0.1  # seconds
_GRACE = 5.0  # seconds for sources to end; one that hangs is abandoned
_MOST_WAITING = 4  # frames per source that wait for the engine, with policy ``every``
_MOST_BYTES = 512 << 20  # of all frames from the inbox to the sinks, if the source can wait
_PROMPT = 1.0  # seconds for stages to end after a second signal


@dataclass(frozen=True, slots=True)
class PipelineOptions:
    """Settings of a run.

    Attributes:
        max_frames: frames to capture in total; None: until the sources end.
    """

    max_frames: int | None = None
    reconnect: ReconnectOptions = ReconnectOptions()


class Pipeline:
    """Runs sources through one inspector into sinks, once.

    `run` blocks. Any thread may call `stop`, `tally` and `states`; a signal handler may call `stop`.
    """

    def __init__(
        self,
        inspector: "Inspector",
        feeds: Sequence[Feed],
        sinks: Sequence["Sink"] = (),
        options: PipelineOptions = PipelineOptions(),
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            inspector: until `run` returns, only the stages' threads may use it.
            feeds: at least one.
            sinks: each gets every result; wrap a sink that may be slow or down in a `BufferedSink`.
        """
        self.inspector: Final = inspector
        self._sinks = list(sinks)
        self._options = options
        policies = tuple(feed.effective_policy for feed in feeds)
        self._inbox: Inbox[Frame] = Inbox(policies, _MOST_WAITING, lambda frame: frame.image_bgr.nbytes, _MOST_BYTES)
        works = (
            ("preparation", self._prepare),
            ("engine", self._infer),
            ("judgement", self._judge),
            ("delivery", self._deliver),
        )
        self._stages = Stages(self._inbox, works, self.fail)
        self._folders = camera_folders([feed.source.name for feed in feeds])
        self._captures = tuple(self._capture(lane, feed) for lane, feed in enumerate(feeds))
        self._lock = threading.Lock()  # guards _counts and _failure
        self._counts = Counter[str]()  # of the fields of `Tally`
        self._failure: BaseException | None = None
        self._stopping = False
        self._failures_in_a_row: Counter[str] = Counter()  # of each stage

    def _capture(self, lane: int, feed: Feed) -> Capture:
        folder = self._folders[lane]

        def take(frame: "Frame") -> bool:
            return self._take(lane, replace(frame, name=folder / frame.name) if folder.parts else frame)

        reconnect = self._options.reconnect
        return Capture(feed.source, feed.trigger, take, self._source_failed, reconnect=reconnect)

    def connect(self, sink: "Sink") -> None:
        """Add a sink; call it before `run`."""
        self._sinks.append(sink)

    def run(self) -> Tally:
        """Inspect until all sources have ended or `stop` is called, deliver the results, and count all frames.

        Raises:
            UflowEdgeError, or the exception of a stage: the first failure.
            Stuck: a stage hangs on a frame although the run should end.
        """
        stages = self._stages
        try:
            stages.start()
            for capture in self._captures:
                capture.start()
            self._watch_captures(stages)
            self._inbox.close()
            stages.wake()
            while not stages.wait(_WATCH_EVERY):
                stages.watch(ending=self._stopping)
        except KeyboardInterrupt as error:  # the second signal
            self.fail(error)
            if not stages.wait(_PROMPT):
                stages.abandon(0, ExitCode.INTERRUPTED)
        if self._failure is not None:
            raise self._failure
        return self.tally()

    def _watch_captures(self, stages: Stages) -> None:
        grace = _GRACE
        while grace > 0 and (capturing := [capture for capture in self._captures if not capture.wait(0)]):
            for capture in capturing:
                capture.watch()
                if self._stopping:
                    capture.stop()
            stages.watch(ending=self._stopping)
            capturing[0].wait(_WATCH_EVERY)
            grace -= _WATCH_EVERY if self._stopping else 0

    def stop(self) -> None:
        """Capture no more frames; captured ones are still inspected. Safe in signal handlers, as it takes no lock."""
        self._stopping = True

    def fail(self, error: BaseException) -> None:
        """Stop everything; `run` raises the first error. For stages and for sinks with threads."""
        self._source_failed(error)
        self._inbox.close()
        self._inbox.clear()
        self._stages.wake()

    def _source_failed(self, error: BaseException) -> None:
        """End the run with this error after the captured frames are inspected."""
        with self._lock:
            self._failure = self._failure or error
        self._stopping = True

    def tally(self) -> Tally:
        """Counts of frames so far; it can be read from any thread."""
        undelivered: dict[str, int] = {}
        for sink in self._sinks:  # two sinks may have the same name
            undelivered[sink.name] = undelivered.get(sink.name, 0) + int(getattr(sink, "undelivered", 0))
        reconnects = sum(capture.reconnects for capture in self._captures)
        with self._lock:
            counts, files = self._counts, self._unreadable_files()
            return Tally(
                captured=counts["captured"] + files,
                inspected=counts["inspected"],
                dropped=counts["dropped"],
                anomalous=counts["anomalous"],
                unreadable=counts["unreadable"] + files,
                not_judged=counts["not_judged"],
                reconnects=reconnects,
                undelivered=undelivered,
            )

    def states(self) -> Mapping[str, CameraState]:
        """The state of each camera, by the name of its source."""
        return {capture.source.name: capture.state for capture in self._captures}

    def _unreadable_files(self) -> int:
        # Each of them counts as a captured frame.
        return sum(getattr(capture.source, "unreadable", 0) for capture in self._captures)

    def _count(self, **more: int) -> None:
        with self._lock:
            for name, number in more.items():
                self._counts[name] += number

    def _take(self, lane: int, frame: "Frame") -> bool:
        limit = self._options.max_frames
        with self._lock:
            captured = self._counts["captured"] + self._unreadable_files() + 1
            if self._stopping or (limit is not None and captured > limit):
                return False
            self._counts["captured"] += 1
        if overtaken := self._inbox.put(lane, frame):
            self._count(dropped=len(overtaken))
        self._stages.wake()
        return not (captured == limit or self._stopping)

    def _prepare(self, frame: "Frame") -> "tuple[Frame, Prepared] | None":
        return self._survived("prepare", frame, lambda: self.inspector.prepare(frame.image_bgr))

    def _infer(self, item: "tuple[Frame, Prepared]") -> "tuple[Frame, Inferred] | None":
        frame, prepared = item
        return self._survived("infer", frame, lambda: self.inspector.infer(prepared))

    def _judge(self, item: "tuple[Frame, Inferred]") -> "tuple[Frame, Inspection] | None":
        frame, inferred = item
        camera = frame.source if len(self._captures) > 1 else self._captures[0].source.name
        judge = partial(self.inspector.judge, inferred, frame=frame.index, source=frame.source, captured=frame.captured)
        if (judged := self._survived("judge", frame, partial(judge, camera=camera))) is not None:
            self._count(inspected=1, anomalous=int(judged[1].verdict.anomalous))
        return judged

    def _survived(self, stage: str, frame: "Frame", work: Callable[[], Out]) -> "tuple[Frame, Out] | None":
        """Run a stage on a frame. A failure is logged and counted; the tenth in a row is raised."""
        try:
            done = work()
            self._failures_in_a_row[stage] = 0
            return frame, done
        except BadInput as error:
            logger.warning("%(source)s: %(error)s", {"source": frame.source, "error": error})
            self._count(unreadable=1)
        except Exception as error:
            self._count(not_judged=1)
            self._failures_in_a_row[stage] += 1
            if self._failures_in_a_row[stage] >= MOST_FAILURES_IN_A_ROW:
                raise
            kind = "" if isinstance(error, UflowEdgeError) else f"{type(error).__name__}: "
            logger.warning("not judged: %(frame)s: %(error)s", {"frame": called(frame), "error": f"{kind}{error}"})
        self._inbox.done(frame)
        return None

    def _deliver(self, item: "tuple[Frame, Inspection]") -> None:
        for sink in self._sinks:
            sink.put(*item)
        self._inbox.done(item[0])
