"""The stages of a pipeline, each in its own thread, and the check for stages that hang."""

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from uflow_edge.runtime.errors import ExitCode, Stuck
from uflow_edge.runtime.line.inbox import Inbox

if TYPE_CHECKING:
    from uflow_edge.runtime.sources import Frame

logger = logging.getLogger(__name__)

HUNG: Final = 60.0  # seconds on one item after which a stage hangs
HUNG_AT_THE_END: Final = 20.0  # likewise while the run is ending

In = TypeVar("In")
Out = TypeVar("Out")


def called(item: "Frame | tuple[Frame, object]") -> str:
    """Display name of a frame, given alone or as the first item of a tuple."""
    frame = item[0] if isinstance(item, tuple) else item
    return f"{frame.source} #{frame.index}"


class Stage(threading.Thread, Generic[In, Out]):
    """Takes items from one inbox and puts results into the next, until the first one is closed and empty."""

    def __init__(
        self,
        name: str,
        source: Inbox[In],
        work: Callable[[In], Out | None],
        target: Inbox[Out] | None,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """Prepare; `start` begins.

        Args:
            source: inbox of items; closed and emptied if the work fails.
            work: turns an item into a result; an item whose result is None goes no further.
            target: inbox of results, closed at the end; None for the last stage.
            on_failure: called from this thread with an exception of ``work``, which ends the stage.
        """
        super().__init__(name=name, daemon=True)
        self._source, self._work, self._target, self._on_failure = source, work, target, on_failure
        self._busy: tuple[In, float] | None = None

    def run(self) -> None:
        try:
            while (item := self._source.get()) is not None:
                self._busy = item, time.monotonic()
                result = self._work(item)
                self._busy = None
                if self._target is not None and result is not None:
                    self._target.put(0, result)
        except BaseException as error:  # no error may end this thread silently
            self._on_failure(error)
            self._source.close()
            self._source.clear()
        finally:
            self._busy = None
            if self._target is not None:
                self._target.close()

    def busy_for(self, seconds: float) -> In | None:
        """The item that the stage has worked on for at least ``seconds``, if any."""
        busy = self._busy  # read once: the thread may finish in between
        return busy[0] if busy is not None and time.monotonic() - busy[1] >= seconds else None


class Stages:
    """All stages of a run."""

    def __init__(self, *stages: Stage[Any, Any]) -> None:
        """Prepare stages for frames, or for tuples that begin with one."""
        self._stages = stages
        self._reported: Any = None

    def start(self) -> None:
        for stage in self._stages:
            stage.start()

    def wait(self, seconds: float) -> bool:
        """Wait for at most ``seconds``; returns whether all stages have ended."""
        alive = [stage for stage in self._stages if stage.is_alive()]
        if alive:
            alive[0].join(seconds)
        return not any(stage.is_alive() for stage in alive)

    def watch(self, *, ending: bool) -> None:
        """Log a stage that hangs; call this regularly.

        Raises:
            Stuck: the run is ending, and a stage hangs.
        """
        for stage in self._stages:
            item = stage.busy_for(HUNG)
            if item is not None and item is not self._reported:
                self._reported = item
                logger.warning(
                    "%(stage)s hangs: no result for %(frame)s after %(seconds).0f s",
                    {"stage": stage.name, "frame": called(item), "seconds": HUNG},
                )
        if ending:
            self.abandon(HUNG_AT_THE_END, ExitCode.MISSING)

    def abandon(self, seconds: float, code: ExitCode) -> None:
        """Give up if a stage has worked on one item for at least ``seconds``.

        Raises:
            Stuck: a stage has.
        """
        for stage in self._stages:
            if (item := stage.busy_for(seconds)) is not None:
                raise Stuck(f"{stage.name} has not returned; the run ends without a result for {called(item)}", code)
