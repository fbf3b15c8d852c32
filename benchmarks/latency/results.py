"""What ``uflow-bench --json`` writes: every sample, so that a later run can weigh noise against difference.

Schema 2. Durations are milliseconds unless their name says otherwise.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from uflow_edge.benchmarks.latency.machine import Machine
from uflow_edge.benchmarks.latency.yardstick import YARDSTICKS
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.files import replacing
from uflow_edge.runtime.strict_json import finite, read_json, to_json

SCHEMA = 2
_DIGITS = 4  # of milliseconds: a tenth of what a clock resolves


@dataclass(frozen=True, slots=True)
class Workload:
    """What was run: timings of two workloads cannot be compared.

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
        name: backend and precision.
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


@dataclass(frozen=True, slots=True)
class Results:
    """Of one run of ``uflow-bench``.

    Attributes:
        made: date and time, ISO 8601.
        bundle: its folder's name.
        machine: where it ran.
        workload: what was run.
        rows: engines that were timed.
        refused: name and reason of those that compute something else.
        absent: name and reason of those that do not run here.
        throttling: state and evidence.
        meter: what energy is of; None: not readable here.
        rounds: milliseconds of every round and of the yardsticks in it, with the clocks and temperatures after it.
    """

    made: str
    bundle: str
    machine: Machine
    workload: Workload
    rows: tuple[Row, ...]
    refused: Mapping[str, str]
    absent: Mapping[str, str]
    throttling: Mapping[str, Any]
    meter: str | None
    rounds: tuple[Mapping[str, Any], ...]

    @property
    def yardsticks(self) -> Mapping[str, tuple[float, ...]]:
        """Milliseconds of each in every round."""
        return {name: _durations(reading[name] for reading in self.rounds) for name in YARDSTICKS}


def write_results(path: Path, results: Results) -> None:
    """Write the file in one rename."""
    text = to_json({"schema": SCHEMA, **finite(_rounded(asdict(results)))}, indent=1, ensure_ascii=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_results(path: Path) -> Results:
    """Read what `write_results` wrote.

    Raises:
        BadInput: no such file, not of uflow-bench, or of another schema.
    """
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: expected what uflow-bench --json wrote, but it cannot be read ({error})") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise BadInput(
            f"{path}: expected schema {SCHEMA} of uflow-bench --json, found {schema}. "
            "Measure again with one version of uflow-bench on both sides"
        )
    try:
        told = {field.name: content[field.name] for field in fields(Results)}
        told["machine"] = Machine(**told["machine"])
        told["workload"] = Workload(**{**told["workload"], "frame": tuple(told["workload"]["frame"])})
        told["rows"] = tuple(_row(row) for row in told["rows"])
        told["rounds"] = tuple(told["rounds"])
        results = Results(**told)
        _ = results.yardsticks
        return results
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{path}: damaged, or edited: {type(error).__name__} at {error}. Measure again") from error


def _row(told: Mapping[str, Any]) -> Row:
    return Row(
        **{
            **told,
            "stages": {stage: _durations(samples) for stage, samples in told["stages"].items()},
            "batches": {int(size): _durations(samples) for size, samples in told["batches"].items()},
            "start_seconds": _durations(told["start_seconds"]),
            "start_megabytes": _durations(told["start_megabytes"]),
        }
    )


def _durations(samples: Any) -> tuple[float, ...]:
    found = tuple(float(sample) for sample in samples)
    if not all(0 < sample < float("inf") for sample in found):
        raise ValueError("a duration that is not positive")
    return found


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list | tuple) else value
