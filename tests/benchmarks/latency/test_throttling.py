import numpy as np
import pytest

from uflow_edge.benchmarks.latency.instruments import MachineState
from uflow_edge.benchmarks.latency.throttling import assess

_ROUNDS = 60


def _durations(last_third: float) -> list[float]:
    random = np.random.default_rng(0)
    trend = np.repeat([1.0, (1 + last_third) / 2, last_third], _ROUNDS // 3)
    return list(20 * trend * np.exp(random.normal(0, 0.02, _ROUNDS)))


def _readings(**courses: tuple[float, float]) -> list[MachineState]:
    """Figures that go evenly from one value to another."""
    lines = {name: np.linspace(*ends, _ROUNDS) for name, ends in courses.items()}
    return [MachineState(float(i), **{name: float(line[i]) for name, line in lines.items()}) for i in range(_ROUNDS)]


@pytest.mark.parametrize(
    ("slower", "courses", "state"),
    [
        pytest.param(1.0, {}, "steady", id="nothing to read"),
        pytest.param(1.0, {"cpu_mhz": (3000, 3000), "celsius": (40, 70)}, "steady", id="warm, but as fast as before"),
        pytest.param(1.3, {"cpu_mhz": (3000, 2000), "celsius": (60, 95)}, "throttled", id="hot, slow clock"),
        pytest.param(1.3, {"gpu_mhz": (1500, 900), "gpu_celsius": (60, 90)}, "throttled", id="hot GPU"),
        pytest.param(1.3, {}, "slowed down, cause not readable here", id="slower, nothing to read"),
        pytest.param(1.3, {"celsius": (60, 95)}, "slowed down, cause not readable here", id="slower, no clock"),
        pytest.param(
            1.3, {"cpu_mhz": (3000, 3000), "celsius": (60, 60)}, "slowed down, not by heat", id="slower, cool"
        ),
        pytest.param(
            1.0, {"throttle_events": (3, 5)}, "throttled", id="the hardware says so, though rounds do not show it"
        ),
    ],
)
def test_states(slower, courses, state):
    found = assess(_durations(slower), _readings(**courses))
    assert found.state == state
    assert any("CPU clock" in line for line in found.evidence)


def test_what_is_not_readable_is_said():
    evidence = assess(_durations(1.0), _readings()).evidence
    assert "CPU clock: not readable here" in evidence
    assert "temperature, hottest zone: not readable here" in evidence


def test_few_rounds_are_not_judged():
    found = assess([20.0, 20.0, 90.0], [MachineState(float(i)) for i in range(3)])
    assert found.state == "too few rounds to tell"
    assert found.trend == 4.5


def test_a_last_third_within_the_spread_of_the_first_is_steady():
    restless = [10.0, 10.0, 10.0, 14.0, 14.0] * 4
    assert assess([*restless, *restless, *[11.0] * 20], _readings()).state == "steady"
