"""What ``uflow-bench --json`` writes: every sample, and what was measured.

Schema 3. Durations are milliseconds unless their name says otherwise.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from uflow_edge.benchmarks.latency.machine import Machine
from uflow_edge.runtime.storage.files import replacing
from uflow_edge.runtime.storage.strict_json import finite, to_json

SCHEMA = 3
_DIGITS = 4  # of milliseconds: a tenth of what a clock resolves


@dataclass(frozen=True, slots=True)
class Workload:
    """What was run. It describes the bundle, not the other one that it is compared with.

    Attributes:
        checkpoint: SHA-256 of what the bundle was made from.
        extractor: name of the backbone.
        input_size: side of the model's input.
        frame: width and height of the frames.
        frames: where they come from.
        threads: of CPU engines; None: one a core.
        rule: how the NFA weighs regions, or that a null model was calibrated.
    """

    checkpoint: str
    extractor: str
    input_size: int
    frame: tuple[int, int]
    frames: str
    threads: int | None
    rule: str


@dataclass(frozen=True, slots=True)
class Row:
    """One engine.

    Attributes:
        name: backend and precision, and of which bundle if it is the other one.
        engine: what the engine calls itself.
        parity: how near it is to the FP32 graph, a sentence.
        stages: milliseconds of each round, by stage, and sums of them, see stages.py. Transfers are missing where the
            device's memory is the host's.
        batches: milliseconds of whole batches in the engine alone, by their size.
        start_seconds: of new processes until their first verdict.
        start_megabytes: resident memory of those at most.
        device_bytes: of the GPU's memory; None: not readable here.
        joules_per_frame: None: not readable here.
        anomalous: share of the frames that it called anomalous.
        against: name of the row that it is compared with; None: with none.
        ratios: this row over that one, by stage, batch or start: medians over rounds or starts. Below 1, it is faster.
    """

    name: str
    engine: str
    parity: str
    stages: Mapping[str, tuple[float, ...]]
    batches: Mapping[int, tuple[float, ...]]
    start_seconds: tuple[float, ...]
    start_megabytes: tuple[float, ...]
    device_bytes: int | None
    joules_per_frame: float | None
    anomalous: float
    against: str | None = None
    ratios: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Results:
    """Of one run of ``uflow-bench``.

    Attributes:
        made: date and time, ISO 8601.
        bundle: its folder's name.
        against: that of the other bundle; None: there is none.
        machine: where it ran.
        workload: what was run.
        rows: engines that were timed.
        refused: name and reason of those that compute something else.
        absent: name and reason of those that do not run here.
        throttling: state and evidence.
        meter: what energy is of; None: not readable here.
        rounds: milliseconds of every round, with the clocks and temperatures after it.
    """

    made: str
    bundle: str
    against: str | None
    machine: Machine
    workload: Workload
    rows: tuple[Row, ...]
    refused: Mapping[str, str]
    absent: Mapping[str, str]
    throttling: Mapping[str, Any]
    meter: str | None
    rounds: tuple[Mapping[str, Any], ...]


def write_results(path: Path, results: Results) -> None:
    """Write the file in one rename."""
    text = to_json({"schema": SCHEMA, **finite(_rounded(asdict(results)))}, indent=1, ensure_ascii=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list | tuple) else value
