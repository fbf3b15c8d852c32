"""A thread, a bounded buffer and retries for any sink, so that a receiver that is down never stalls the inspection."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from uflow_edge.runtime.backoff import Backoff
from uflow_edge.runtime.errors import UflowEdgeError
from uflow_edge.runtime.sinks import SelectiveSink, Sink, Undeliverable, first_lines

if TYPE_CHECKING:
    from uflow_edge.runtime.inspection import Inspection
    from uflow_edge.runtime.sources import Frame

logger = logging.getLogger(__name__)

_SECONDS_TO_CLOSE_THE_SINK = 2.0


@dataclass(frozen=True, slots=True)
class BufferOptions:
    """How much a sink may owe, and how often it is reminded.

    Attributes:
        results: waiting at most; beyond, the oldest are dropped.
        bytes: of arrays in waiting results at most, except that one result may always wait, however large.
    """

    results: int = 10_000
    bytes: int = 128 << 20
    backoff: Backoff = Backoff(0.1, 5.0)


@dataclass(frozen=True, slots=True)
class _Waiting:
    frame: "Frame"
    inspection: "Inspection"

    @property
    def nbytes(self) -> int:
        inspection = self.inspection
        maps = (inspection.verdict.mask, inspection.score, *inspection.energies, *inspection.exceedances)
        return self.frame.image_bgr.nbytes + sum(one.nbytes for one in maps)


class BufferedSink:
    """Delivers to another sink, in order and on a thread of its own, and retries results that fail.

    Every result is either delivered or counted in `undelivered`. A receiver that fails after it has accepted a result
    may get that result twice.
    """

    def __init__(
        self, sink: Sink, on_failure: Callable[[Exception], None], *, options: BufferOptions = BufferOptions()
    ) -> None:
        """Start the thread.

        Args:
            sink: used and closed by this thread only.
            on_failure: called once, on this thread, with an error that retrying cannot fix: a UflowEdgeError, or an
                exception caused by a bug. It must not call `close`. Later results are counted as undelivered.
        """
        self.name: Final = sink.name
        self._sink = sink
        self._needed = sink.needed if isinstance(sink, SelectiveSink) else _everything
        self._on_failure = on_failure
        self._log_lost = first_lines(logger.warning)
        self._options = options
        self._changed = threading.Condition()  # guards the five below
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._in_hand = 0
        self._undelivered = 0
        self._failed = False
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        self._down = False
        self._thread = threading.Thread(target=self._run, name=f"sink {self.name}", daemon=True)
        self._thread.start()

    @property
    def undelivered(self) -> int:
        with self._changed:
            return self._undelivered

    @property
    def waiting(self) -> int:
        with self._changed:
            return len(self._waiting) + self._in_hand

    def put(self, frame: "Frame", inspection: "Inspection") -> None:
        """Queue a result for delivery. Never blocks and never raises; a full buffer drops its oldest result."""
        needed = self._needed(frame, inspection)
        if needed is None:
            return
        result = _Waiting(*needed)
        with self._changed:
            if self._closing.is_set() or self._failed:
                self._undelivered += 1
                return
            self._waiting.append(result)
            self._waiting_bytes += result.nbytes
            while self._over_the_bound():
                self._take_oldest()
                self._undelivered += 1
            self._changed.notify()

    def close(self, timeout: float = 5.0, *, while_it_delivers: bool = False) -> None:
        """Deliver the waiting results for up to `timeout` seconds, then close the sink; the rest is undelivered.

        A sink that hangs is abandoned: its thread does not keep the process alive.

        Args:
            timeout: in seconds.
            while_it_delivers: restart the timeout as long as results are delivered.
        """
        with self._changed:
            self._closing.set()
            self._changed.notify()
        before = self.waiting
        self._thread.join(timeout)
        while while_it_delivers and self.waiting < before:
            before = self.waiting
            self._thread.join(timeout)
        self._abandoned.set()
        self._thread.join(_SECONDS_TO_CLOSE_THE_SINK)
        self._discard()

    def _run(self) -> None:
        try:
            while (result := self._next()) is not None and self._deliver(result):
                with self._changed:
                    self._in_hand = 0
        except Exception as error:  # no exception may end this thread silently
            self._fail(error)
        finally:
            self._discard()
            self._close_sink()

    def _next(self) -> _Waiting | None:
        """Wait for the next result; None after `close`, when no result is left."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing.is_set())
            if not self._waiting or self._abandoned.is_set():
                return None
            self._in_hand = 1
            return self._take_oldest()

    def _deliver(self, result: _Waiting) -> bool:
        """Try until the result is delivered or cannot be; False if `close` has given up."""
        delays = self._options.backoff.delays()
        while True:
            try:
                self._sink.put(result.frame, result.inspection)
            except Undeliverable as error:
                self._log_lost(str(error))
                with self._changed:
                    self._undelivered += 1
                self._note_up()
                return True
            except UflowEdgeError:
                raise
            except OSError as error:
                self._note_down(error)
            else:
                self._note_up()
                return True
            if self._closing.is_set():
                if self._abandoned.wait(next(delays)):
                    return False
            elif self._closing.wait(next(delays)):
                delays = self._options.backoff.delays()  # little time is left: do not spend it waiting

    def _over_the_bound(self) -> bool:
        too_many = len(self._waiting) > self._options.results
        return too_many or (self._waiting_bytes > self._options.bytes and len(self._waiting) > 1)

    def _take_oldest(self) -> _Waiting:
        oldest = self._waiting.popleft()
        self._waiting_bytes -= oldest.nbytes
        return oldest

    def _discard(self) -> None:
        """Count the results that will not be delivered. Does nothing the second time."""
        with self._changed:
            self._undelivered += len(self._waiting) + self._in_hand
            self._waiting.clear()
            self._waiting_bytes = self._in_hand = 0

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._failed = True
        self._discard()
        self._on_failure(error)

    def _close_sink(self) -> None:
        try:
            self._sink.close()
        except OSError as error:
            logger.warning("%(sink)s could not be closed properly (%(error)s)", {"sink": self.name, "error": error})

    def _note_down(self, error: OSError) -> None:
        if not self._down:
            logger.warning(
                "%(sink)s is down (%(error)s); results wait, and the oldest are dropped when there are too many",
                {"sink": self.name, "error": error},
            )
        self._down = True

    def _note_up(self) -> None:
        if self._down:
            logger.info("%(sink)s is back", {"sink": self.name})
        self._down = False


def _everything(frame: "Frame", inspection: "Inspection") -> "tuple[Frame, Inspection]":
    return frame, inspection
