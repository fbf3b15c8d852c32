"""Converts the timestamps of cameras to the wall clock."""

import math
import time
from typing import Final

_CREEP: Final = 1e-3  # clocks differ by at most 0.1 %, a generous bound for quartz clocks
_JUMP_S: Final = 5.0
_OLDEST_S: Final = 10.0


class DeviceClock:
    """Maps the clock of a device, of any origin, to the wall clock.

    Frames arrive with a varying delay, never early, so the smallest difference between arrival and device time is the
    best estimate of the offset. The estimate follows a smaller difference at once and a larger one slowly, as clocks
    drift apart. The mapping starts again when the device restarts its clock, or when the difference jumps because the
    wall clock was set.
    """

    def __init__(self) -> None:
        self._device_s = -math.inf
        self._offset = math.inf
        self._captured = -math.inf

    def captured(self, device_s: float, arrived: float) -> float:
        """The capture time of a frame.

        Args:
            device_s: the device's timestamp, in seconds.
            arrived: time of arrival, in seconds since the epoch.

        Returns:
            Seconds since the epoch, never after ``arrived``; ``arrived`` if the device gives no timestamp.
        """
        if not math.isfinite(device_s):
            return arrived
        elapsed, offset = device_s - self._device_s, arrived - device_s
        if elapsed <= 0 or offset > self._offset + _JUMP_S:
            self._offset, self._captured = offset, -math.inf
        else:
            self._offset = min(offset, self._offset + _CREEP * elapsed)
        self._device_s = device_s
        self._captured = min(arrived, max(self._captured, device_s + self._offset))
        return self._captured


def captured_by_monotonic(device_s: float, arrived: float, now: float | None = None) -> float:
    """The capture time of a frame with a timestamp of this machine's monotonic clock, as V4L2 gives it.

    Args:
        device_s: the timestamp, in seconds.
        arrived: the wall clock's current time, in seconds since the epoch.
        now: the monotonic clock's current time; None to read it.

    Returns:
        Seconds since the epoch; ``arrived`` if the driver uses another clock or gives no timestamp.
    """
    age = (time.monotonic() if now is None else now) - device_s
    return arrived - age if 0 <= age < _OLDEST_S else arrived
