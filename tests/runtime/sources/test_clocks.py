"""When a frame was captured, by the clock of its device."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uflow_edge.runtime.sources.clocks import DeviceClock, captured_by_monotonic


@given(
    origin=st.floats(-1e6, 1e9),
    drift=st.floats(-2e-4, 2e-4),
    delays=st.lists(st.floats(0.005, 0.2), min_size=50, max_size=200),
)
def test_a_device_clock_gives_the_moment_up_to_the_smallest_delay(origin, drift, delays) -> None:
    clock, last = DeviceClock(), 0.0
    for i, delay in enumerate(delays):
        captured = 1.7e9 + i / 25
        arrived = captured + delay
        mapped = clock.captured(origin + i / 25 * (1 + drift), arrived)
        assert mapped <= arrived
        clocks_apart = 2e-3 * i / 25 + 1e-5
        assert mapped - captured >= -clocks_apart
        assert mapped - captured <= min(delays[: i + 1]) + clocks_apart or mapped == last, "time does not run backwards"
        last = mapped


def test_a_device_clock_survives_restarts_and_set_clocks() -> None:
    clock = DeviceClock()
    assert clock.captured(50.0, 1000.2) == 1000.2
    assert clock.captured(51.0, 1001.1) == pytest.approx(1001.1)
    assert clock.captured(52.0, 1002.5) == pytest.approx(1002.1, abs=2e-3)
    assert clock.captured(0.0, 1005.0) == 1005.0, "the device began anew"
    assert clock.captured(1.0, 4606.0) == 4606.0, "the wall clock was set forward"
    assert clock.captured(2.0, 1007.0) == 1007.0, "and back"
    assert clock.captured(2.0, 1007.5) == 1007.5, "a device without a clock"
    assert clock.captured(float("nan"), 1008.0) == 1008.0


def test_a_stamp_of_this_machines_monotonic_clock() -> None:
    assert captured_by_monotonic(499.75, 1000.0, now=500.0) == 999.75
    assert captured_by_monotonic(0.0, 1000.0, now=500.0) == 1000.0, "the driver gives none"
    assert captured_by_monotonic(1.7e9, 1000.0, now=500.0) == 1000.0, "the driver stamps by another clock"
