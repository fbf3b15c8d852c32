"""Keeps one source delivering: opens it again, with growing patience, when it is lost or hangs."""

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from uflow_edge.runtime.sources.source import Frame, Source, SourceLost
from uflow_edge.runtime.text import redacted

if TYPE_CHECKING:
    from uflow_edge.runtime.line.triggers import Trigger

logger = logging.getLogger(__name__)

CameraStatus: TypeAlias = Literal["running", "lost", "hung", "ended"]
Clock: TypeAlias = Callable[[], float]


@dataclass(frozen=True, slots=True)
class CameraState:
    """How a source is.

    Attributes:
        status: ``running``; ``lost``, it cannot be opened or stopped delivering; ``hung``, it is open and silent;
            ``ended``, as a video file does.
        since: from when on, seconds since the epoch.
        detail: for people, why; may be empty.
    """

    status: CameraStatus
    since: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a live source may be silent, and how often it is opened again.

    Attributes:
        silence: seconds after which it counts as hung.
        first_delay: seconds between its loss and the first attempt.
        longest_delay: seconds; each delay is twice the one before, up to this.
        give_up: seconds that it may be lost.
    """

    silence: float = 15.0
    first_delay: float = 0.5
    longest_delay: float = 30.0
    give_up: float = math.inf


class Capture:
    """One source in a thread of its own.

    A source that hangs cannot be stopped: its thread is left behind, and another one opens the source anew. Whatever
    the old thread still brings is not taken.
    """

    def __init__(
        self,
        source: Source,
        trigger: "Trigger",
        deliver: Callable[[Frame], bool],
        on_failure: Callable[[BaseException], None],
        *,
        patience: Patience = Patience(),
        clock: Clock = time.monotonic,
    ) -> None:
        """Prepare; `start` begins.

        Args:
            source: to read.
            trigger: chooses the frames that are delivered.
            deliver: takes a frame, and says whether it wants another; may block.
            on_failure: told of an error that trying again cannot mend.
            patience: see `Patience`.
            clock: seconds that only grow.
        """
        self.source: Final = source
        self._trigger = trigger
        self._deliver = deliver
        self._on_failure = on_failure
        self._patience = patience
        self._clock = clock
        self._stopped = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()  # guards the three below
        self._state = CameraState("running", time.time())
        self._reconnects = 0
        self._attempt: _Attempt | None = None
        self._next_index = 0
        self._lost_since: float | None = None

    @property
    def state(self) -> CameraState:
        """How the source is now."""
        with self._lock:
            return self._state

    @property
    def reconnects(self) -> int:
        """How often it was opened again."""
        with self._lock:
            return self._reconnects

    def start(self) -> None:
        """Open the source, or open it again."""
        attempt = _Attempt(self._clock())
        with self._lock:
            self._attempt = attempt
        name = f"capture {self.source.name}"
        threading.Thread(target=self._run, args=(attempt,), name=name, daemon=True).start()

    def stop(self) -> None:
        """Deliver nothing more; `wait` tells when the source is released. One that hangs is not waited for."""
        self._stopped.set()
        with self._lock:
            if self._attempt is not None:
                self._attempt.over.set()
            if self._state.status == "hung":
                self._ended.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it will deliver nothing more, and say whether that is so."""
        return self._ended.wait(timeout)

    def watch(self) -> None:
        """To be called now and then: leaves a source that hangs behind, and opens it anew."""
        with self._lock:
            attempt = self._attempt
            since = None if attempt is None else attempt.waiting_since  # read once: its thread changes it without lock
            if not self.source.live or attempt is None or since is None:
                return
            silence = self._clock() - since
            if silence <= self._patience.silence:
                return
            attempt.over.set()
            attempt.waiting_since = None
            self._reconnects += 1
            self._state = CameraState("hung", time.time(), f"no frame for {silence:.0f} s")
        if self._stopped.is_set():
            self._ended.set()
            return
        logger.warning(
            "%(camera)s: no frame for %(silence).0f s, so it is opened again",
            {"camera": self.source.name, "silence": silence},
        )
        self.start()

    def _run(self, attempt: "_Attempt") -> None:
        delay = self._patience.first_delay
        try:
            while not attempt.over.is_set():  # or one that is away would be tried without end
                try:
                    self._read(attempt)
                    break
                except SourceLost as error:
                    delay = self._patience.first_delay if attempt.delivered else delay
                    self._wait_for_its_return(attempt, error, delay)
                    delay = min(2 * delay, self._patience.longest_delay)
        except BaseException as error:  # whatever it is, it must not end this thread silently
            if self._end(attempt, redacted(error)):
                self._on_failure(error)
        else:
            self._end(attempt)

    def _read(self, attempt: "_Attempt") -> None:
        """Deliver until the source ends, or nobody wants more."""
        attempt.delivered = False
        attempt.waiting_since = self._clock()
        try:
            for frame in self.source.frames(attempt.over, self._next_index):
                attempt.waiting_since = None
                if attempt.over.is_set():
                    break
                self._next_index = frame.index + 1
                if not attempt.delivered and self.state.status != "running":
                    logger.info("%(camera)s is back", {"camera": self.source.name})
                    self._set(attempt, CameraState("running", time.time()))
                attempt.delivered, self._lost_since = True, None
                if self._trigger.due(frame.captured) and not self._deliver(frame):
                    break
                attempt.waiting_since = self._clock()
        finally:
            attempt.waiting_since = None

    def _wait_for_its_return(self, attempt: "_Attempt", error: SourceLost, delay: float) -> None:
        self._lost_since = self._clock() if self._lost_since is None else self._lost_since
        if self._clock() - self._lost_since >= self._patience.give_up:
            raise error
        if self.state.status != "lost":
            logger.warning("%(error)s; trying again until it is back", {"error": error, "camera": self.source.name})
            self._set(attempt, CameraState("lost", time.time(), redacted(error)))
        if not attempt.over.wait(delay):
            with self._lock:
                self._reconnects += 1

    def _end(self, attempt: "_Attempt", detail: str = "") -> bool:
        """Note that the thread ends; False for one that was left behind, of which nobody wants to hear."""
        current = self._set(attempt, CameraState("ended", time.time(), detail))
        if current:
            self._ended.set()
        return current

    def _set(self, attempt: "_Attempt", state: CameraState) -> bool:
        with self._lock:
            current = self._attempt is attempt
            if current:
                self._state = state
            return current


class _Attempt:
    """One thread's time with the source."""

    def __init__(self, now: float) -> None:
        self.over = threading.Event()
        self.waiting_since: float | None = now  # for a frame; None while one is delivered
        self.delivered = False  # since the source was last opened
