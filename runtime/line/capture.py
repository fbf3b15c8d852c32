"""Reads one source, and opens it again, after growing delays, when it is lost or hangs."""

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from uflow_edge.runtime.backoff import Backoff
from uflow_edge.runtime.line.inbox import Policy
from uflow_edge.runtime.line.triggers import FreeRun, Trigger
from uflow_edge.runtime.sources.source import Frame, Source, SourceLost
from uflow_edge.runtime.text import redacted

logger = logging.getLogger(__name__)

CameraStatus: TypeAlias = Literal["running", "lost", "hung", "ended"]
Clock: TypeAlias = Callable[[], float]


@dataclass(frozen=True, slots=True)
class CameraState:
    """State of a source.

    Attributes:
        status: ``running``; ``lost``, it cannot be opened or has failed; ``hung``, it is open but gives no frames;
            ``ended``, like a video file after its last frame.
        since: start of this state, seconds since the epoch.
        detail: the reason, as text; may be empty.
    """

    status: CameraStatus
    since: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ReconnectOptions:
    """When a live source counts as hung or lost, and how it is opened again.

    Attributes:
        silence: seconds without a frame after which a source hangs.
        give_up: seconds after which a lost source ends the run.
    """

    silence: float = 15.0
    give_up: float = math.inf
    backoff: Backoff = Backoff(0.5, 30.0)


@dataclass(frozen=True, slots=True)
class Feed:
    """A source, its trigger, and whether its frames may be dropped.

    Attributes:
        trigger: chooses the frames that are inspected; sources share no trigger.
        policy: None: ``latest`` for a live source, ``every`` for the others.
    """

    source: Source
    trigger: Trigger = FreeRun()
    policy: Policy | None = None

    @property
    def effective_policy(self) -> Policy:
        """The policy; if it is None, the one for this kind of source."""
        return self.policy or ("latest" if self.source.live else "every")


class Capture:
    """Reads one source in its own thread.

    A source that hangs cannot be stopped: its thread is abandoned, and a new thread opens the source again. Frames from
    the old thread are discarded.
    """

    def __init__(
        self,
        source: Source,
        trigger: Trigger,
        deliver: Callable[[Frame], bool],
        on_failure: Callable[[BaseException], None],
        *,
        reconnect: ReconnectOptions = ReconnectOptions(),
        clock: Clock = time.monotonic,
    ) -> None:
        """Prepare; `start` begins.

        Args:
            deliver: takes a frame and returns whether more are wanted; may block.
            on_failure: called with an error that another attempt cannot repair.
            clock: monotonic seconds.
        """
        self.source: Final = source
        self._trigger = trigger
        self._deliver = deliver
        self._on_failure = on_failure
        self._reconnect = reconnect
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
        with self._lock:
            return self._state

    @property
    def reconnects(self) -> int:
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
        """Deliver no more frames. Use `wait` to wait until the source is released; a source that hangs is abandoned."""
        self._stopped.set()
        with self._lock:
            if self._attempt is not None:
                self._attempt.over.set()
            if self._state.status == "hung":
                self._ended.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the capture has ended; returns whether it has."""
        return self._ended.wait(timeout)

    def watch(self) -> None:
        """Abandon a source that hangs and open it again; call this regularly."""
        with self._lock:
            attempt = self._attempt
            since = (
                None if attempt is None else attempt.waiting_since
            )  # read once: its thread changes it without a lock
            if not self.source.live or attempt is None or since is None:
                return
            silence = self._clock() - since
            if silence <= self._reconnect.silence:
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
        delays = self._reconnect.backoff.delays()
        try:
            while not attempt.over.is_set():  # otherwise an absent source would be tried forever
                try:
                    self._read(attempt)
                    break
                except SourceLost as error:
                    if attempt.delivered:
                        delays = self._reconnect.backoff.delays()
                    self._wait_before_reconnect(attempt, error, next(delays))
        except BaseException as error:  # no error may end this thread silently
            if self._end(attempt, redacted(error)):
                self._on_failure(error)
        else:
            self._end(attempt)

    def _read(self, attempt: "_Attempt") -> None:
        """Deliver frames until the source ends or no more are wanted."""
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

    def _wait_before_reconnect(self, attempt: "_Attempt", error: SourceLost, delay: float) -> None:
        self._lost_since = self._clock() if self._lost_since is None else self._lost_since
        if self._clock() - self._lost_since >= self._reconnect.give_up:
            raise error
        if self.state.status != "lost":
            logger.warning("%(error)s; trying again until it is back", {"error": error, "camera": self.source.name})
            self._set(attempt, CameraState("lost", time.time(), redacted(error)))
        if not attempt.over.wait(delay):
            with self._lock:
                self._reconnects += 1

    def _end(self, attempt: "_Attempt", detail: str = "") -> bool:
        """Record the end of the thread; returns False for an abandoned thread."""
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
    """One thread that reads the source."""

    def __init__(self, now: float) -> None:
        self.over = threading.Event()
        self.waiting_since: float | None = now  # waits for a frame since; None while one is delivered
        self.delivered = False  # since the source was last opened
