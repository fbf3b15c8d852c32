"""Choose the frames to inspect: all, one per interval, one per call, or one per edge of a GPIO line."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from uflow_edge.runtime.errors import Unavailable, UsageError, require

Edge = Literal["rising", "falling"]

_MOST_PENDING: Final = 1024


class Trigger(Protocol):
    """Chooses the frames to inspect. Each source has its own."""

    def due(self, captured: float) -> bool:
        """Whether to inspect a frame captured at this time (seconds since the epoch); never blocks."""

    def close(self) -> None: ...


class FreeRun:
    """Chooses every frame."""

    def due(self, captured: float) -> bool:
        return True

    def close(self) -> None:
        pass


class EveryMilliseconds:
    """Chooses the first frame of each interval. Intervals are counted from the first frame, so they do not drift."""

    def __init__(self, interval_ms: float) -> None:
        """Start with the first frame.

        Raises:
            UsageError: the interval is not positive.
        """
        if not 0 < interval_ms < math.inf:
            raise UsageError(f"trigger: expected an interval above 0 ms, got {interval_ms:g}")
        self._interval_s = interval_ms / 1e3
        self._start: float | None = None
        self._interval = -1

    def due(self, captured: float) -> bool:
        # Any change counts, because the clock may be set back.
        if self._start is None:
            self._start = captured
        interval = math.floor((captured - self._start) / self._interval_s)
        due, self._interval = interval != self._interval, interval
        return due

    def close(self) -> None:
        pass


class _Pending:
    """Moments that wait for a frame. A frame answers all moments up to its capture."""

    def __init__(self) -> None:
        self._moments: deque[float] = deque(maxlen=_MOST_PENDING)
        self._lock = threading.Lock()

    def add(self, moment: float) -> None:
        """Wait for a frame captured at ``moment`` or later, seconds since the epoch."""
        with self._lock:
            if self._moments and moment < self._moments[-1]:  # the clock was set back: the old ones would wait too long
                self._moments.clear()
            self._moments.append(moment)

    def answer(self, captured: float) -> bool:
        """Remove the moments up to ``captured``; returns whether there were any."""
        answered = False
        with self._lock:
            while self._moments and self._moments[0] <= captured:
                self._moments.popleft()
                answered = True
        return answered


class SoftwareTrigger:
    """Chooses the first frame after each call of `fire`, from any thread; calls between two frames count once.

    For live sources only: frames of files have no time that compares with that of a call.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._pending = _Pending()

    def fire(self) -> float:
        """Request a frame; returns its earliest time of capture, seconds since the epoch."""
        moment = self._clock()
        self._pending.add(moment)
        return moment

    def due(self, captured: float) -> bool:
        return self._pending.answer(captured)

    def close(self) -> None:
        pass


class GpioTrigger:
    """Chooses the first frame after each edge of a GPIO line, through gpiod 2 (Linux 5.11 or later): extra ``gpio``.

    The kernel records the time of each edge, so it does not matter when we read it. For live sources only.
    """

    def __init__(
        self, chip: Path, line: int | str, *, edge: Edge = "rising", delay_ms: float = 0.0, debounce_ms: float = 0.0
    ) -> None:
        """Request the line.

        Args:
            chip: device file, ``/dev/gpiochip0``.
            line: offset of the line on the chip, or its name.
            delay_ms: time from the edge until the part is in front of the camera.
            debounce_ms: time for which the line must be stable before an edge counts.

        Raises:
            MissingDependency: gpiod is not installed.
            Unavailable: the line cannot be opened.
        """
        gpiod, lines = require("gpiod", "gpio"), require("gpiod.line", "gpio")
        settings = gpiod.LineSettings(
            direction=lines.Direction.INPUT,
            edge_detection=lines.Edge.RISING if edge == "rising" else lines.Edge.FALLING,
            debounce_period=timedelta(milliseconds=debounce_ms),
            event_clock=lines.Clock.REALTIME,
        )
        self._name = f"GPIO line {line} of {chip}"
        self._delay_s = delay_ms / 1e3
        self._pending = _Pending()
        try:
            self._request: Any = gpiod.request_lines(str(chip), {line: settings}, consumer="uflow-edge")
        except (OSError, ValueError) as error:
            raise Unavailable(
                f"{self._name} cannot be used as a trigger ({error}); check that it exists, that no other program uses "
                "it, and that you may read it"
            ) from error

    def due(self, captured: float) -> bool:
        """See `Trigger.due`.

        Raises:
            Unavailable: the line is gone.
        """
        try:
            if self._request.wait_edge_events(0):
                for event in self._request.read_edge_events():
                    self._pending.add(event.timestamp_ns / 1e9 + self._delay_s)
        except OSError as error:
            raise Unavailable(f"{self._name} can no longer be read ({error})") from error
        return self._pending.answer(captured)

    def close(self) -> None:
        self._request.release()


def parse_trigger(text: str) -> Trigger:
    """Parse a trigger: ``free``, ``every:100`` (milliseconds), ``software`` or ``gpio:gpiochip0/17``.

    A GPIO line may trigger on the falling edge, delayed and debounced by milliseconds:
    ``gpio:gpiochip0/17,falling,delay=20,debounce=5``.

    Raises:
        UsageError: the text is none of these.
        MissingDependency: gpiod is not installed.
        Unavailable: the line cannot be opened.
    """
    kind, _, rest = text.partition(":")
    if text == "free":
        return FreeRun()
    if text == "software":
        return SoftwareTrigger()
    try:
        if kind == "every":
            return EveryMilliseconds(float(rest))
        if kind == "gpio":
            return _parse_gpio(rest)
    except ValueError as error:
        raise UsageError(f"trigger {text!r}: {error}") from error
    raise UsageError(f"trigger {text!r}: expected free, every:MILLISECONDS, software or gpio:CHIP/LINE")


def _parse_gpio(text: str) -> GpioTrigger:
    place, *options = text.split(",")
    chip, slash, line = place.rpartition("/")
    if not (slash and chip and line):
        raise ValueError("expected gpio:CHIP/LINE, as in gpio:gpiochip0/17")
    edge: Edge = "rising"
    milliseconds = {"delay": 0.0, "debounce": 0.0}
    for option in options:
        name, _, value = option.partition("=")
        if option in ("rising", "falling"):
            edge = "falling" if option == "falling" else "rising"
        elif name in milliseconds and 0 <= float(value) < math.inf:
            milliseconds[name] = float(value)
        else:
            raise ValueError(f"expected rising, falling, delay=MS or debounce=MS, got {option!r}")
    return GpioTrigger(
        Path("/dev") / chip,
        int(line) if line.isdecimal() else line,
        edge=edge,
        delay_ms=milliseconds["delay"],
        debounce_ms=milliseconds["debounce"],
    )
