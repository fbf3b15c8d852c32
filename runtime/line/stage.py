"""The stages of a pipeline, the threads that carry frames through them, and the check for stages that hang.

A frame that is alone on the line stays in one thread from the first stage to the last, because each hand-over to a
sleeping thread takes about 0.1 ms. While more frames wait, threads stay at their stages, so that the engine goes on
with the next frame at once.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from uflow_edge.runtime.errors import ExitCode, Stuck
from uflow_edge.runtime.line.inbox import Inbox

if TYPE_CHECKING:
    from uflow_edge.runtime.sources import Frame

logger = logging.getLogger(__name__)

HUNG: Final = 60.0  # seconds on one item after which a stage hangs
HUNG_AT_THE_END: Final = 20.0  # likewise while the run is ending
_MOST_WAITING = 2  # items between two stages

Work: TypeAlias = Callable[[Any], Any]
_Job: TypeAlias = tuple[int, Any]  # a stage, and the item that it works on


def called(item: "Frame | tuple[Frame, object]") -> str:
    """Display name of a frame, given alone or as the first item of a tuple."""
    frame = item[0] if isinstance(item, tuple) else item
    return f"{frame.source} #{frame.index}"


class Stages:
    """All stages of a run. Each works on one item at a time, in the order of the source, until that has ended.

    There are as many threads as stages. The last stage always runs in the same one, which prefers the last stages and
    takes its item along. The others stay at a stage while items wait there.
    """

    def __init__(
        self, source: Inbox[Any], works: Sequence[tuple[str, Work]], on_failure: Callable[[BaseException], None]
    ) -> None:
        """Prepare; `start` begins.

        Args:
            source: of frames; call `wake` after a change.
            works: name and work of each stage. A work turns an item into one for the next stage, a frame or a tuple
                that begins with one; an item whose result is None goes no further.
            on_failure: called with an exception of a work. The items up to that stage are dropped.
        """
        self._source, self._on_failure = source, on_failure
        self._names, self._works = zip(*works, strict=True)
        self._last = len(works) - 1
        self._waiting: tuple[deque[Any], ...] = tuple(deque() for _ in works)  # before each stage but the first
        self._busy: list[tuple[Any, float] | None] = [None for _ in works]
        self._broken = -1  # the last stage that has failed
        lock = threading.Lock()  # guards the three above
        self._last_wakes, self._others_wake = threading.Condition(lock), threading.Condition(lock)
        self._last_sleeps = False
        mosts = [self._last] + [self._last - 1] * self._last
        self._threads = [threading.Thread(target=self._run, args=(most,), name="stages", daemon=True) for most in mosts]
        self._reported: Any = None

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Look at the source again: it has a new frame, or is closed."""
        with self._last_wakes:
            self._wake_one()
            if self._over():
                self._wake_all()

    def wait(self, seconds: float) -> bool:
        """Wait for at most ``seconds``; returns whether all stages have ended."""
        alive = [thread for thread in self._threads if thread.is_alive()]
        if alive:
            alive[0].join(seconds)
        return not any(thread.is_alive() for thread in alive)

    def watch(self, *, ending: bool) -> None:
        """Log a stage that hangs; call this regularly.

        Raises:
            Stuck: the run is ending, and a stage hangs.
        """
        for name, item in self._busy_for(HUNG):
            if item is not self._reported:
                self._reported = item
                logger.warning(
                    "%(stage)s hangs: no result for %(frame)s after %(seconds).0f s",
                    {"stage": name, "frame": called(item), "seconds": HUNG},
                )
        if ending:
            self.abandon(HUNG_AT_THE_END, ExitCode.MISSING)

    def abandon(self, seconds: float, code: ExitCode) -> None:
        """Give up if a stage has worked on one item for at least ``seconds``.

        Raises:
            Stuck: a stage has.
        """
        for name, item in self._busy_for(seconds):
            raise Stuck(f"{name} has not returned; the run ends without a result for {called(item)}", code)

    def _busy_for(self, seconds: float) -> list[tuple[str, Any]]:
        now = time.monotonic()
        busy = zip(self._names, tuple(self._busy), strict=True)
        return [(name, one[0]) for name, one in busy if one is not None and now - one[1] >= seconds]

    def _run(self, most: int) -> None:
        """Carry items through the stages up to ``most``."""
        try:
            with self._last_wakes:
                job = self._awake(most, None)
            while job is not None:
                stage, item = job
                try:
                    result = self._works[stage](item)
                except BaseException as error:
                    self._on_failure(error)
                    result = None
                    self._break(stage)
                job = self._next(most, stage, result)
        except BaseException as error:  # no error may end this thread silently
            self._on_failure(error)

    def _break(self, stage: int) -> None:
        with self._last_wakes:
            self._broken = max(self._broken, stage)
            for waiting in self._waiting[: self._broken + 1]:
                waiting.clear()

    def _next(self, most: int, stage: int, result: Any) -> _Job | None:
        """Leave a stage: hand the result on, or take it along. Returns the next job; None: there will be none."""
        with self._last_wakes:
            self._busy[stage] = None
            following, stays = stage + 1, most < self._last and self._is_ready(stage)
            if result is None or following <= self._broken or stage == self._last:
                return self._awake(most, self._job_at(stage) if stays else None)
            self._waiting[following].append(result)
            if stays and self._is_ready(stage):
                return self._awake(most, self._job_at(stage))
            alone = following <= most and len(self._waiting[following]) == 1 and self._is_ready(following)
            return self._awake(most, self._job_at(following) if alone else None)

    def _awake(self, most: int, job: _Job | None) -> _Job | None:
        """Wait for a job unless there is one, and wake another thread for what is left; None at the end of the run."""
        while True:
            job = job or self._choose(most)
            self._wake_one()
            if job is not None:
                return job
            if self._over():
                self._wake_all()
                return None
            self._last_sleeps |= most == self._last
            (self._last_wakes if most == self._last else self._others_wake).wait()

    def _choose(self, most: int) -> _Job | None:
        ready = (stage for stage in range(most, -1, -1) if self._is_ready(stage))
        return next((job for stage in ready if (job := self._job_at(stage)) is not None), None)

    def _is_ready(self, stage: int) -> bool:
        """Whether an item waits for the stage, nobody works there, and there is room for the result."""
        waits = self._waiting[stage] if stage else self._source.waiting
        has_room = stage == self._last or len(self._waiting[stage + 1]) < _MOST_WAITING
        return self._busy[stage] is None and bool(waits) and has_room

    def _job_at(self, stage: int) -> _Job | None:
        item = self._waiting[stage].popleft() if stage else self._source.take()
        if item is None:  # the source was cleared
            return None
        self._busy[stage] = item, time.monotonic()
        return stage, item

    def _wake_one(self) -> None:
        """Wake a thread that sleeps if there is something for it to do."""
        ready = [stage for stage in range(self._last + 1) if self._is_ready(stage)]
        if ready and self._last_sleeps:
            self._last_sleeps = False
            self._last_wakes.notify()
        elif ready and ready != [self._last]:
            self._others_wake.notify()

    def _wake_all(self) -> None:
        self._last_wakes.notify_all()
        self._others_wake.notify_all()

    def _over(self) -> bool:
        return self._source.ended and not any(self._waiting) and not any(self._busy)
