"""When a frame was captured, on the wall clock, from what the device says about it."""

import math
import time
from typing import Final

_CREEP: Final = 1e-3  # clocks differ by 0.1 % at most, far more than any quartz
_JUMP_S: Final = 5.0
_OLDEST_S: Final = 10.0


class DeviceClock:
    """Maps the clock of a device, whatever its origin, onto the wall clock.

    Frames arrive late by a varying delay, never early, so the smallest distance between arrival and device time is
    nearest to the truth. It is followed downwards at once and upwards slowly, as clocks drift apart. When the device
    restarts its clock, or the distance jumps because somebody set the wall clock, the mapping begins anew.
    """

    def __init__(self) -> None:
        self._device_s = -math.inf
        self._distance = math.inf
        self._captured = -math.inf

    def captured(self, device_s: float, arrived: float) -> float:
        """When a frame was captured.

        Args:
            device_s: its time stamp by the device, in seconds.
            arrived: when it arrived, seconds since the epoch.

        Returns:
            Seconds since the epoch, never after ``arrived``; ``arrived`` where the device gives no number.
        """
        if not math.isfinite(device_s):
            return arrived
        elapsed, distance = device_s - self._device_s, arrived - device_s
        if elapsed <= 0 or distance > self._distance + _JUMP_S:
            self._distance, self._captured = distance, -math.inf
        else:
            self._distance = min(distance, self._distance + _CREEP * elapsed)
        self._device_s = device_s
        self._captured = min(arrived, max(self._captured, device_s + self._distance))
        return self._captured


def captured_by_monotonic(device_s: float, arrived: float, now: float | None = None) -> float:
    """When a frame was captured that is stamped by this machine's monotonic clock, as V4L2 does.

    Args:
        device_s: its time stamp.
        arrived: the wall clock's time now, seconds since the epoch.
        now: the monotonic clock's time now; default, asked.

    Returns:
        Seconds since the epoch; ``arrived`` where the driver stamps by another clock, or not at all.
    """
    age = (time.monotonic() if now is None else now) - device_s
    return arrived - age if 0 <= age < _OLDEST_S else arrived
