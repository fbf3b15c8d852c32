"""The document that ``uflow-bench --json`` writes: every sample, the workload and the machine.

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
    """What was run, for the bundle itself and not for the one that it is compared with.

    Attributes:
        checkpoint: SHA-256 of the checkpoint that the bundle was made from.
        frame: width and height of the frames.
        frames: names of their files, or seeded noise.
        threads: of CPU engines; None: one per core.
        rule: the rule that weighs regions, or that a null model was calibrated.
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
    """The measurements of one engine.

    Attributes:
        name: backend and precision, followed by the bundle if it is the other one.
        parity: a sentence that says how close it is to the FP32 graph.
        stages: milliseconds of each round by stage, and their sums; see stages.py. Transfers are missing where the
            device shares the host's memory.
        batches: milliseconds that the engine alone takes for whole batches, by batch size.
        start_seconds: from the start of a new process to its first verdict.
        start_megabytes: the most resident memory of those processes.
        device_bytes: memory of the GPU; None: not readable here.
        joules_per_frame: None: not readable here.
        against: name of the row that this one is compared with; None: no other.
        ratios: median over rounds or starts of this row's time divided by the other's, by stage, batch or start. Below
            1, this row is faster.
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
    """The results of one run of ``uflow-bench``.

    Attributes:
        made: date and time, ISO 8601.
        bundle: name of its folder.
        against: name of the other bundle's folder; None: there is none.
        refused: reasons of engines that compute something else, by name.
        absent: reasons of engines that do not run here, by name.
        meter: part of the machine whose energy was measured; None: not readable here.
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
