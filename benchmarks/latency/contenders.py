"""Every engine of a bundle that runs on this machine and computes what it should."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from uflow_edge.benchmarks.latency.nvml import Nvml
from uflow_edge.export.graphs.parity import Parity, Reference
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.manifest import Precision
from uflow_edge.runtime.bundle.reference import noise_images
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.engines import Engine
from uflow_edge.runtime.engines.deviation import BOUNDED
from uflow_edge.runtime.engines.proof import EngineDeviates
from uflow_edge.runtime.engines.selection import BACKENDS, NamedBackend, open_engine
from uflow_edge.runtime.engines.stopwatch import Stopwatch
from uflow_edge.runtime.errors import UflowEdgeError, UsageError
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.scoring import Scorer

REFERENCE = "the FP32 graph in onnxruntime"


@dataclass(frozen=True, slots=True)
class Contender:
    """One engine, ready to be timed.

    Attributes:
        bundle: folder that its graph is in.
        suffix: of its name, where two bundles take part.
        backend: what runs it.
        precision: of its graph.
        inspector: with the engine.
        stopwatch: that the engine tells of its transfers.
        parity: how near it is to `REFERENCE`, on frames where there are any.
        device_bytes: of the GPU's memory that it took; None where that cannot be read.
    """

    bundle: Path
    suffix: str
    backend: NamedBackend
    precision: Precision
    inspector: Inspector
    stopwatch: Stopwatch
    parity: Parity
    device_bytes: int | None

    @property
    def name(self) -> str:
        """Unlike that of any other engine in the run."""
        return f"{self.backend} {self.precision}{self.suffix}"


@dataclass(frozen=True, slots=True)
class Missing:
    """An engine that is not timed, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Which engines are wanted.

    Attributes:
        backends: by name; each must then run in one precision at least. None: whatever runs here.
        precisions: None: all that the bundle has.
        threads: of the CPU; None: one a core.
    """

    backends: tuple[NamedBackend, ...] | None = None
    precisions: tuple[Precision, ...] | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """Who takes part.

    Attributes:
        contenders: that are timed.
        refused: that run, but compute something else.
        absent: that do not run here.
    """

    contenders: tuple[Contender, ...]
    refused: tuple[Missing, ...]
    absent: tuple[Missing, ...]


def line_up(
    bundle: Bundle[UFlowManifest],
    choice: Choice,
    stack: ExitStack,
    frames: Sequence[Image] = (),
    nvml: Nvml | None = None,
    suffix: str = "",
) -> Field:
    """Open every engine that is wanted, and hold it against `REFERENCE`.

    It must keep what the bundle promises of its graph, on seeded noise and on frames.

    Args:
        bundle: as loaded.
        choice: what is wanted.
        stack: closes the engines.
        frames: (S, S, 3) uint8 RGB each, to compare engines on as well.
        nvml: to read what memory they take.
        suffix: of their names.

    Raises:
        UsageError: the bundle has no graph in a precision that is wanted.
        UflowEdgeError: a backend that was asked for by name does not run here in any of the precisions, or the bundle
            has no FP32 graph to compare with.
    """
    precisions = _precisions(bundle, choice)
    with closing(open_engine(bundle, "onnxruntime", "fp32", choice.threads)) as engine:
        scorer = Scorer.load(bundle.folder, bundle.manifest)
        references = [
            Reference.of(REFERENCE, engine.run, pictures, scorer)
            for pictures in (noise_images(bundle.manifest.input_size), frames)
            if pictures
        ]
    contenders: list[Contender] = []
    refused: list[Missing] = []
    absent: list[Missing] = []
    for backend in choice.backends or BACKENDS:
        errors: list[UflowEdgeError] = []
        for precision in precisions:
            name = f"{backend} {precision}{suffix}"
            before = nvml.used_bytes() if nvml else None
            stopwatch = Stopwatch()
            try:
                engine = open_engine(bundle, backend, precision, choice.threads, stopwatch=stopwatch)
            except EngineDeviates as error:
                refused.append(Missing(name, f"it computes something else: {error}"))
                continue
            except UflowEdgeError as error:
                errors.append(error)
                absent.append(Missing(name, str(error)))
                continue
            stack.callback(engine.close)
            after = nvml.used_bytes() if nvml else None
            bound = _bound(bundle, precision)
            parities = [reference.compare(engine, bound, BOUNDED[precision]) for reference in references]
            broken = next((parity for parity in parities if not parity.holds), None)
            if broken is not None:
                refused.append(Missing(name, f"it computes something else: {broken}"))
                continue
            taken = None if before is None or after is None else max(0, after - before)
            inspector = _inspector(bundle, engine, stack)
            contenders.append(
                Contender(bundle.folder, suffix, backend, precision, inspector, stopwatch, parities[-1], taken)
            )
        if choice.backends and len(errors) == len(precisions):
            raise errors[0]
    return Field(tuple(contenders), tuple(refused), tuple(absent))


def _precisions(bundle: Bundle[UFlowManifest], choice: Choice) -> tuple[Precision, ...]:
    there = tuple(dict.fromkeys(variant.precision for variant in bundle.manifest.variants))
    missing = [precision for precision in choice.precisions or () if precision not in there]
    if missing:
        raise UsageError(f"{bundle.folder}: it has no {' or '.join(missing)} graph, only: {', '.join(there)}")
    return choice.precisions or there


def _bound(bundle: Bundle[UFlowManifest], precision: Precision) -> float:
    """What the bundle itself promises of its graphs."""
    return max(variant.error_bound for variant in bundle.manifest.variants if variant.precision == precision)


def _inspector(bundle: Bundle[UFlowManifest], engine: Engine, stack: ExitStack) -> Inspector:
    from uflow_edge.runtime.engines.device_frames import device_frames

    device = device_frames(engine, bundle.manifest.input_size)
    if device is not None:
        stack.callback(device.close)
    inspector = Inspector.from_bundle(bundle, engine, device=device)
    inspector.warm_up()
    return inspector
