"""Ctrl-C, SIGTERM and SIGHUP end a command, at once or when it is ready."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


def _stop_signals() -> list[signal.Signals]:
    """The signals that end a command, except those that are ignored, such as SIGHUP under nohup."""
    numbers = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
    return [number for number in numbers if number is not None and signal.getsignal(number) != signal.SIG_IGN]


@contextmanager
def _handled(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle these signals during the block; does nothing outside the main thread, where Python forbids it."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (_stop_signals() if main else ())}
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signals_interrupt() -> Iterator[Callable[[], bool]]:
    """Let SIGTERM and SIGHUP act like Ctrl-C.

    Yields:
        a function that says whether a signal came, as native code can swallow the exception.
    """
    came: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt

    with _handled(handle):
        yield lambda: bool(came)


@contextmanager
def deferred_interrupts(stop: Callable[[], None] = lambda: None) -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C, SIGTERM or SIGHUP into a request to stop; a second one raises KeyboardInterrupt at once.

    Args:
        stop: called in the signal handler, so it may take no lock.

    Yields:
        a function that says whether a signal came.
    """
    came: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt
        stop()

    with _handled(handle):
        yield lambda: bool(came)
