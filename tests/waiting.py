"""How tests wait for threads and processes: until something has happened, and never for a fixed time."""

import subprocess
import threading
import time
from collections.abc import Callable

DEADLINE = 60.0  # seconds; only a test that fails waits as long
NEVER = threading.Event()  # for what ends once an event is set


def wait_until(
    condition: Callable[[], bool],
    failure: Callable[[], str] = lambda: "it did not happen",
    process: "subprocess.Popen[str] | subprocess.Popen[bytes] | None" = None,
) -> None:
    """Poll a condition, and fail with a message after `DEADLINE`, or as soon as the process has ended."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert process is None or process.poll() is None, f"it ended: {failure()}"
        assert time.monotonic() < end, failure()
        time.sleep(0.005)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
