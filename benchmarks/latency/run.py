"""One run of ``uflow-bench``: a bundle in, results out."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from uflow_edge.benchmarks.latency.contenders import Choice, Contender, Field, line_up
from uflow_edge.benchmarks.latency.instruments import Instruments
from uflow_edge.benchmarks.latency.machine import describe_machine
from uflow_edge.benchmarks.latency.results import Results, Row, Workload
from uflow_edge.benchmarks.latency.stages import Samples, measure, noise_frames
from uflow_edge.benchmarks.latency.starts import Start, measure_starts
from uflow_edge.benchmarks.latency.statistics import paired_ratio
from uflow_edge.benchmarks.latency.throttling import assess
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.images.files import find_images, read_image
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.resize.cpu import model_input

_MOST_IMAGES = 32


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure.

    Attributes:
        against: folder of another bundle, whose engines take turns with this one's; None: no other.
        batches: batch sizes for the throughput of the engine alone.
        images: files and folders; the first few images, resized, are the frames. Empty: seeded noise.
        frame: width and height of the frames.
        rounds: number of rounds; each engine inspects one frame per round.
        starts: number of new processes per engine; 0: none.
    """

    choice: Choice = Choice()
    against: Path | None = None
    batches: tuple[int, ...] = (1, 2, 4)
    images: tuple[Path, ...] = ()
    frame: tuple[int, int] = (640, 480)
    rounds: int = 100
    starts: int = 5


def measure_bundle(folder: Path, options: Options, instruments: Instruments) -> Results:
    """Check what the engines of one or two bundles compute, then time them in turn.

    Raises:
        BadInput: a bundle or an image cannot be read, or a bundle has no engine left to be timed; the message says why.
        UflowEdgeError: see `contenders.line_up`.
    """
    bundles = [Bundle.load(path, UFlowManifest) for path in (folder, options.against) if path is not None]
    frames = _frames(options)
    made = datetime.now(timezone.utc).isoformat(timespec="seconds")
    with ExitStack() as stack:
        fields = [
            line_up(bundle, options.choice, stack, _proof(bundle, options, frames), instruments.nvml, suffix)
            for bundle, suffix in zip(bundles, _suffixes(bundles), strict=True)
        ]
        for bundle, field in zip(bundles, fields, strict=True):
            if not field.contenders:
                raise BadInput(f"{bundle.folder}: no engine to time. {_reasons(field)}")
        contenders = [contender for field in fields for contender in field.contenders]
        found = measure(contenders, frames, options.batches, options.rounds, instruments)
    starts = measure_starts(contenders, frames[0], options.starts, options.choice.threads)
    throttling = assess(found.rounds_ms, found.readings)
    first, *other = (_name(bundle) for bundle in bundles)
    return Results(
        made=made,
        bundle=first,
        against=other[0] if other else None,
        machine=describe_machine(nvml=instruments.nvml),
        workload=_workload(bundles[0], options),
        rows=compared(contenders, list(map(_row, contenders, found.samples, starts))),
        refused={name: reason for field in fields for name, reason in field.refused.items()},
        absent={name: reason for field in fields for name, reason in field.absent.items()},
        throttling={"state": throttling.state, "evidence": list(throttling.evidence)},
        meter=found.meter,
        rounds=tuple(
            {"ms": milliseconds, **asdict(reading)}
            for milliseconds, reading in zip(found.rounds_ms, found.readings, strict=True)
        ),
    )


def compared(contenders: Sequence[Contender], rows: Sequence[Row]) -> tuple[Row, ...]:
    """Rows with their ratios, in the order of the contenders.

    An engine is compared with the same engine of the other bundle; within one bundle, all are with the first.
    """
    two_bundles = any(contender.suffix for contender in contenders)
    others = {(contender.backend, contender.precision): i for i, contender in enumerate(contenders) if contender.suffix}
    result = []
    for i, (contender, row) in enumerate(zip(contenders, rows, strict=True)):
        partner = others.get((contender.backend, contender.precision)) if two_bundles else 0
        if partner is not None and partner != i:
            row = replace(row, against=rows[partner].name, ratios=_ratios(row, rows[partner]))
        result.append(row)
    return tuple(result)


def _ratios(row: Row, other: Row) -> dict[str, float]:
    def samples(one: Row) -> dict[str, Sequence[float]]:
        batches = {f"batch {size}": times for size, times in one.batches.items()}
        return {**one.stages, **batches, "first verdict": one.start_seconds, "resident": one.start_megabytes}

    ours, theirs = samples(row), samples(other)
    return {what: paired_ratio(ours[what], theirs[what]) for what in ours if ours[what] and theirs.get(what)}


def _suffixes(bundles: Sequence[Bundle[UFlowManifest]]) -> Iterable[str]:
    """Ends of the names of two bundles' engines: the other folder's name, or its path where both names are equal."""
    names = [_name(bundle) for bundle in bundles]
    distinct = names if len(set(names)) == len(names) else [str(bundle.folder.resolve()) for bundle in bundles]
    return ["", *(f" of {name}" for name in distinct[1:])]


def _name(bundle: Bundle[UFlowManifest]) -> str:
    return bundle.folder.resolve().name


def _workload(bundle: Bundle[UFlowManifest], options: Options) -> Workload:
    manifest = bundle.manifest
    return Workload(
        checkpoint=manifest.source.sha256,
        extractor=manifest.extractor,
        input_size=manifest.input_size,
        frame=options.frame,
        frames=", ".join(path.name for path in options.images) or "seeded noise",
        threads=options.choice.threads,
        rule=manifest.rule if manifest.null_model is None else "calibrated null model",
    )


def _proof(bundle: Bundle[UFlowManifest], options: Options, frames: Sequence[Image]) -> list[Image]:
    """The frames that engines are compared on besides seeded noise."""
    if not options.images:
        return []
    return [model_input(frame, bundle.manifest.input_size, bundle.manifest.fit) for frame in frames]


def _frames(options: Options) -> list[Image]:
    width, height = options.frame
    if not options.images:
        return noise_frames((height, width))
    files: Iterable[Path] = islice(find_images(options.images), _MOST_IMAGES)
    resized = [cv2.resize(read_image(file), (width, height), interpolation=cv2.INTER_AREA) for file in files]
    return [np.asarray(frame, np.uint8) for frame in resized]


def _row(contender: Contender, samples: Samples, starts: Sequence[Start]) -> Row:
    # The engine is named beside it already.
    parity = replace(contender.parity, engine="parity")
    return Row(
        name=contender.name,
        engine=contender.inspector.engine.name,
        parity=str(parity).removeprefix("parity: "),
        stages={stage: tuple(times) for stage, times in samples.stages.items()},
        batches={size: tuple(times) for size, times in samples.batches.items()},
        start_seconds=tuple(start.seconds for start in starts),
        start_megabytes=tuple(start.megabytes for start in starts),
        device_bytes=contender.device_bytes,
        joules_per_frame=samples.joules_per_frame,
        anomalous=samples.anomalous,
    )


def _reasons(field: Field) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in {**field.refused, **field.absent}.items())
