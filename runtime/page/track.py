"""The recent past of one camera, in ring buffers: scores in steps of half a second, latencies frame by frame."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.sources import Frame
from uflow_edge.runtime.verdict import Timestamps

STEP_S = 0.5
STEPS = 600
"""Five minutes of history, however many frames a second there are."""
LATENCIES = 256
_RATE_STEPS = 10
STAGES = ("waiting", "resizing", "network", "thresholding", "camera to verdict")


@dataclass(slots=True)
class Step:
    """Half a second of scores.

    Attributes:
        number: of the step on the page's own clock, seconds / `STEP_S`.
        lowest, highest: of the scores in it.
        threshold: that applied last.
        inspected, anomalous: counts.
    """

    number: int
    lowest: float
    highest: float
    threshold: float
    inspected: int = 0
    anomalous: int = 0


@dataclass(frozen=True, slots=True)
class StageLatency:
    """Median and 95th percentile of one stage over the last frames, in milliseconds."""

    stage: str
    p50_ms: float
    p95_ms: float


class Track:
    """One camera's last result and recent past. Not thread-safe: `LivePage` holds a lock around it.

    Attributes:
        results, anomalies: how many there were.
        last: the newest, or None.
        seen: when it came, on the page's clock; before the first, when the track began.
        last_anomaly: when the newest anomaly came, or None.
    """

    def __init__(self, began: float) -> None:
        self.results = 0
        self.anomalies = 0
        self.last: tuple[Frame, Inspection] | None = None
        self.seen = began
        self.last_anomaly: float | None = None
        self._began = began
        self._steps: deque[Step] = deque(maxlen=STEPS)
        self._times: deque[Timestamps] = deque(maxlen=LATENCIES)

    def add(self, frame: Frame, inspection: Inspection, now: float) -> None:
        """Take in a result."""
        verdict = inspection.verdict
        self.results += 1
        self.last = (frame, inspection)
        self.seen = now
        self._times.append(verdict.timestamps)
        number, score, threshold = int(now / STEP_S), verdict.score, verdict.operating_point.threshold
        if not self._steps or self._steps[-1].number != number:
            self._steps.append(Step(number, score, score, threshold))
        step = self._steps[-1]
        step.lowest, step.highest = min(step.lowest, score), max(step.highest, score)
        step.threshold = threshold
        step.inspected += 1
        if verdict.anomalous:
            step.anomalous += 1
            self.anomalies += 1
            self.last_anomaly = now

    def steps_from(self, number: int) -> list[Step]:
        """Copies of the steps from a number on, oldest first."""
        fresh = []
        for step in reversed(self._steps):
            if step.number < number:
                break
            fresh.append(Step(step.number, step.lowest, step.highest, step.threshold, step.inspected, step.anomalous))
        return fresh[::-1]

    def rate(self, now: float) -> float:
        """Verdicts a second over the last five."""
        last = int(now / STEP_S)
        seconds = min(now - self._began, (_RATE_STEPS - 1) * STEP_S + now - last * STEP_S)
        recent = sum(step.inspected for step in self.steps_from(last - _RATE_STEPS + 1))
        return recent / seconds if seconds > 0 else 0.0

    def times(self) -> list[Timestamps]:
        """A copy of the last time stamps, for `latencies`."""
        return list(self._times)


def latencies(times: Sequence[Timestamps]) -> list[StageLatency]:
    """Of every stage in `STAGES`; none without time stamps."""
    if not times:
        return []
    rows = []
    for one in times:
        whole = (one.thresholded - one.captured) * 1e3
        worked = (one.preprocess_ms, one.engine_ms, one.nfa_ms)
        rows.append((whole - sum(worked), *worked, whole))
    p50, p95 = np.percentile(np.array(rows, np.float64), [50, 95], axis=0)
    return [StageLatency(*row) for row in zip(STAGES, p50.tolist(), p95.tolist(), strict=True)]
