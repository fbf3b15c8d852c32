"""The recent history of one camera in ring buffers: scores in steps of half a second, latencies per frame."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.sources import Frame
from uflow_edge.runtime.verdict import Timestamps

STEP_S = 0.5
STEPS = 600
"""Five minutes of history, at any frame rate."""
LATENCIES = 256
_RATE_STEPS = 10
STAGES = ("waiting", "resizing", "network", "thresholding", "camera to verdict")


@dataclass(slots=True)
class Step:
    """Half a second of scores.

    Attributes:
        number: position on the page's clock, seconds / `STEP_S`.
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


class CameraHistory:
    """One camera's last result and recent history. Not thread-safe: `LivePage` guards it with a lock.

    Attributes:
        results, anomalies: counts since the start.
        seen: when it arrived, on the page's clock; before the first result, when the history began.
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
        """Copies of the steps whose number is at least ``number``, oldest first."""
        fresh = []
        for step in reversed(self._steps):
            if step.number < number:
                break
            fresh.append(Step(step.number, step.lowest, step.highest, step.threshold, step.inspected, step.anomalous))
        return fresh[::-1]

    def rate(self, now: float) -> float:
        """Verdicts per second over the last five seconds."""
        last = int(now / STEP_S)
        seconds = min(now - self._began, (_RATE_STEPS - 1) * STEP_S + now - last * STEP_S)
        recent = sum(step.inspected for step in self.steps_from(last - _RATE_STEPS + 1))
        return recent / seconds if seconds > 0 else 0.0

    def times(self) -> list[Timestamps]:
        """A copy of the last timestamps, for `latencies`."""
        return list(self._times)


def latencies(times: Sequence[Timestamps]) -> list[StageLatency]:
    """The latency of each stage in `STAGES`; an empty list without timestamps."""
    if not times:
        return []
    rows = []
    for one in times:
        whole = (one.thresholded - one.captured) * 1e3
        worked = (one.preprocess_ms, one.engine_ms, one.nfa_ms)
        rows.append((whole - sum(worked), *worked, whole))
    p50, p95 = np.percentile(np.array(rows, np.float64), [50, 95], axis=0)
    return [StageLatency(*row) for row in zip(STAGES, p50.tolist(), p95.tolist(), strict=True)]
