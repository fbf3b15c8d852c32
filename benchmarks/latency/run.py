"""One run of ``uflow-bench``: a bundle in, results out."""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from uflow_edge.benchmarks.latency.contenders import Choice, Contender, Missing, line_up
from uflow_edge.benchmarks.latency.instruments import Instruments
from uflow_edge.benchmarks.latency.machine import Machine, describe_machine
from uflow_edge.benchmarks.latency.results import Results, Row, Workload
from uflow_edge.benchmarks.latency.stages import Samples, measure, noise_frames
from uflow_edge.benchmarks.latency.starts import Starts, measure_starts
from uflow_edge.benchmarks.latency.throttling import assess
from uflow_edge.runtime.bundle import Bundle
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.images import find_images, read_image
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.preprocess import model_input
from uflow_edge.runtime.uflow_manifest import UFlowManifest

_MOST_IMAGES = 32


@dataclass(frozen=True, slots=True)
class Options:
    """Of a run.

    Attributes:
        choice: which engines.
        batches: sizes for the throughput of the engine alone.
        images: files and folders; frames are the first few of them, resized. None: seeded noise.
        frame: width and height.
        rounds: of single frames.
        starts: new processes an engine; 0: none.
    """

    choice: Choice = Choice()
    batches: tuple[int, ...] = (1, 2, 4)
    images: tuple[Path, ...] = ()
    frame: tuple[int, int] = (640, 480)
    rounds: int = 100
    starts: int = 5


class Run:
    """Knows machine and workload from the start, so that whoever wants to compare hears of differences at once.

    Args:
        folder: of the bundle.
        options: of the run.
        instruments: that the machine has.

    Raises:
        BadInput: the bundle or an image cannot be read.
    """

    def __init__(self, folder: Path, options: Options, instruments: Instruments) -> None:
        self._bundle = Bundle.load(folder, UFlowManifest)
        self._options = options
        self._instruments = instruments
        self._frames = _frames(options)
        self.machine: Machine = describe_machine(nvml=instruments.nvml)
        manifest = self._bundle.manifest
        self.workload = Workload(
            checkpoint=manifest.source.sha256,
            extractor=manifest.extractor,
            input_size=manifest.input_size,
            frame=options.frame,
            frames=", ".join(path.name for path in options.images) or "seeded noise",
            threads=options.choice.threads,
            rule=manifest.rule if manifest.null_model is None else "calibrated null model",
        )

    def measure(self) -> Results:
        """Prove the engines, then time them.

        Raises:
            BadInput: not one engine is left to be timed; the message says why.
            UflowEdgeError: see `contenders.line_up`.
        """
        options, bundle, instruments = self._options, self._bundle, self._instruments
        made = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with ExitStack() as stack:
            field = line_up(bundle, options.choice, stack, self._proof(), instruments.nvml)
            contenders = field.contenders
            if not contenders:
                raise BadInput(f"{bundle.folder}: no engine to time. {_told((*field.refused, *field.absent))}")
            found = measure(contenders, self._frames, options.batches, options.rounds, instruments)
        starts = measure_starts(bundle.folder, contenders, self._frames[0], options.starts, options.choice.threads)
        throttling = assess(found.rounds_ms, found.readings)
        return Results(
            made=made,
            bundle=bundle.folder.resolve().name,
            machine=self.machine,
            workload=self.workload,
            rows=tuple(map(_row, contenders, found.samples, starts)),
            refused={missing.name: missing.reason for missing in field.refused},
            absent={missing.name: missing.reason for missing in field.absent},
            throttling={"state": throttling.state, "evidence": list(throttling.evidence)},
            meter=found.meter,
            rounds=tuple(
                {"ms": milliseconds, **asdict(lengths), **asdict(reading)}
                for milliseconds, lengths, reading in zip(
                    found.rounds_ms, found.yardsticks, found.readings, strict=True
                )
            ),
        )

    def _proof(self) -> list[Image]:
        """The frames that engines are compared on."""
        if not self._options.images:
            return []
        manifest = self._bundle.manifest
        return [model_input(frame, manifest.input_size, manifest.fit) for frame in self._frames]


def _frames(options: Options) -> list[Image]:
    width, height = options.frame
    if not options.images:
        return noise_frames((height, width))
    files: Iterable[Path] = islice(find_images(options.images), _MOST_IMAGES)
    resized = [cv2.resize(read_image(file), (width, height), interpolation=cv2.INTER_AREA) for file in files]
    return [np.asarray(frame, np.uint8) for frame in resized]


def _row(contender: Contender, samples: Samples, starts: Starts) -> Row:
    # The engine is named beside it already.
    parity = replace(contender.parity, engine="parity")
    return Row(
        name=contender.name,
        engine=contender.inspector.engine.name,
        parity=str(parity).removeprefix("parity: "),
        stages={stage: tuple(times) for stage, times in samples.stages.items()},
        batches={size: tuple(times) for size, times in samples.batches.items()},
        start_seconds=starts.seconds,
        start_megabytes=starts.megabytes,
        device_bytes=contender.device_bytes,
        joules_per_frame=samples.joules_per_frame,
        anomalous=samples.anomalous,
    )


def _told(missing: tuple[Missing, ...]) -> str:
    return "; ".join(f"{one.name}: {one.reason}" for one in missing)
