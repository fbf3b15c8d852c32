"""The verdict on a frame."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.drift import DriftState
from uflow_edge.runtime.nfa.regions import Region
from uflow_edge.runtime.numeric import Size
from uflow_edge.runtime.operating_point import OperatingPoint


@dataclass(frozen=True, slots=True)
class Timestamps:
    """When each stage was done with the frame, in seconds since the epoch.

    Attributes:
        captured: the frame was captured.
        started: work on it began.
        preprocessed, inferred, thresholded: that stage ended.
        engine_started, nfa_started: that stage began; None if it began when the one before it ended.
    """

    captured: float
    started: float
    preprocessed: float
    inferred: float
    thresholded: float
    engine_started: float | None = None
    nfa_started: float | None = None

    @property
    def preprocess_ms(self) -> float:
        """Resizing, in milliseconds."""
        return (self.preprocessed - self.started) * 1e3

    @property
    def engine_ms(self) -> float:
        """The network, in milliseconds."""
        started = self.preprocessed if self.engine_started is None else self.engine_started
        return (self.inferred - started) * 1e3

    @property
    def nfa_ms(self) -> float:
        """Thresholding, in milliseconds."""
        started = self.inferred if self.nfa_started is None else self.nfa_started
        return (self.thresholded - started) * 1e3

    @property
    def work_ms(self) -> float:
        """All stages, without the waiting between them, in milliseconds."""
        return self.preprocess_ms + self.engine_ms + self.nfa_ms

    @property
    def total_ms(self) -> float:
        """Frame to verdict, waiting included, in milliseconds."""
        return (self.thresholded - self.started) * 1e3


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision on one frame, with its evidence.

    Attributes:
        frame: number of the frame in its source, from 0.
        source: file, camera or stream it came from.
        size: (height, width) of the frame.
        anomalous: the decision: score above the operating point's threshold.
        score: −log10 NFA of the most significant region.
        regions: where the score map exceeds the threshold, in pixels of the frame, the most significant first.
        mask: (height, width) bool, the same regions pixel by pixel.
        drift: how this camera's good frames compare with those of the calibration; None without a calibration.
    """

    frame: int
    source: str
    size: Size
    anomalous: bool
    score: float
    operating_point: OperatingPoint
    regions: tuple[Region, ...]
    mask: NDArray[np.bool_]
    timestamps: Timestamps
    drift: DriftState | None = None

    def as_json(self) -> dict[str, Any]:
        """Every field in plain types; the mask in COCO's uncompressed run-length encoding (column by column)."""
        times = self.timestamps
        return {
            "frame": self.frame,
            "source": self.source,
            "size": list(self.size),
            "anomalous": self.anomalous,
            "score": self.score,
            "operating_point": _fields(self.operating_point),
            "regions": [_fields(region) for region in self.regions],
            "mask": {"size": list(self.size), "counts": run_lengths(self.mask) if self.anomalous else [self.mask.size]},
            "timestamps": _fields(times),
            "milliseconds": {
                "preprocess": times.preprocess_ms,
                "engine": times.engine_ms,
                "nfa": times.nfa_ms,
                "work": times.work_ms,
                "total": times.total_ms,
            },
            "drift": None if self.drift is None else self.drift.as_json(),
        }


def _fields(record: OperatingPoint | Region | Timestamps) -> dict[str, Any]:
    """All fields; ``asdict`` copies each value, which takes longer than writing the JSON."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """Lengths of alternating runs of False and True down the columns; the first, of False, may be 0."""
    column_by_column = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(column_by_column)) + 1
    runs = np.diff(np.concatenate([[0], edges, [column_by_column.size]]))
    return ([0] if column_by_column[0] else []) + [int(run) for run in runs]
