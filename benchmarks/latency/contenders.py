"""Every engine of a bundle that runs on this machine and computes what it should."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from uflow_edge.benchmarks.latency.nvml import Nvml
from uflow_edge.export.graphs.parity import Parity, Reference
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.manifest import Precision
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.engines import Engine
from uflow_edge.runtime.engines.deviation import BOUNDED
from uflow_edge.runtime.engines.proof import EngineDeviates
from uflow_edge.runtime.engines.reference import noise_images
from uflow_edge.runtime.engines.selection import BACKENDS, NamedBackend, graph_for, open_engine
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
        suffix: end of its name, where two bundles take part.
        stopwatch: receives the duration of the engine's transfers.
        parity: how close it is to `REFERENCE`, on the frames if there are any.
        device_bytes: memory of the GPU that it took; None where that cannot be read.
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
        """Unique among the engines of the run."""
        return f"{self.backend} {self.precision}{self.suffix}"


@dataclass(frozen=True, slots=True)
class Choice:
    """Which engines to measure.

    Attributes:
        backends: by name; each must then run in at least one precision. None: all that run here.
        precisions: None: all in the bundle.
        threads: of CPU engines; None: one per core.
    """

    backends: tuple[NamedBackend, ...] | None = None
    precisions: tuple[Precision, ...] | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """The engines that were found.

    Attributes:
        refused: why others, by name, are not: they run, but compute something else.
        absent: why others, by name, do not run here.
    """

    contenders: list[Contender] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


def line_up(
    bundle: Bundle[UFlowManifest],
    choice: Choice,
    stack: ExitStack,
    frames: Sequence[Image] = (),
    nvml: Nvml | None = None,
    suffix: str = "",
) -> Field:
    """Open every chosen engine, and compare it with `REFERENCE`.

    On seeded noise and on the frames, it must keep the error bound that the bundle promises for its graph.

    Args:
        frames: (S, S, 3) uint8 RGB each, to compare engines on as well.
        nvml: reads how much memory they take, if it is there.

    Raises:
        UsageError: the bundle has no graph in a precision that was chosen.
        UflowEdgeError: a backend that was chosen by name does not run here in any of the precisions, or the bundle has
            no FP32 graph to compare with.
    """
    precisions, references, found = _precisions(bundle, choice), _references(bundle, choice, frames), Field()
    for backend in choice.backends or BACKENDS:
        errors: list[UflowEdgeError] = []
        for precision in precisions:
            name = f"{backend} {precision}{suffix}"
            before, stopwatch = nvml.used_bytes() if nvml else None, Stopwatch()
            try:
                engine = open_engine(bundle, backend, precision, choice.threads, stopwatch=stopwatch)
            except EngineDeviates as error:
                found.refused[name] = f"it computes something else: {error}"
                continue
            except UflowEdgeError as error:
                errors.append(error)
                found.absent[name] = str(error)
                continue
            stack.callback(engine.close)
            after = nvml.used_bytes() if nvml else None
            bound = graph_for(bundle.manifest, [precision]).error_bound
            parities = [reference.compare(engine, bound, BOUNDED[precision]) for reference in references]
            broken = next((parity for parity in parities if not parity.holds), None)
            if broken is not None:
                found.refused[name] = f"it computes something else: {broken}"
                continue
            taken = None if before is None or after is None else max(0, after - before)
            inspector = _inspector(bundle, engine, stack)
            found.contenders.append(
                Contender(bundle.folder, suffix, backend, precision, inspector, stopwatch, parities[-1], taken)
            )
        if choice.backends and len(errors) == len(precisions):
            raise errors[0]
    return found


def _references(bundle: Bundle[UFlowManifest], choice: Choice, frames: Sequence[Image]) -> list[Reference]:
    """On seeded noise, and on the frames if there are any."""
    scorer = Scorer.load(bundle.folder, bundle.manifest)
    with closing(open_engine(bundle, "onnxruntime", "fp32", choice.threads)) as engine:
        return [
            Reference.of(REFERENCE, engine.run, pictures, scorer)
            for pictures in (noise_images(bundle.manifest.input_size), frames)
            if pictures
        ]


def _precisions(bundle: Bundle[UFlowManifest], choice: Choice) -> tuple[Precision, ...]:
    there = tuple(dict.fromkeys(variant.precision for variant in bundle.manifest.variants))
    missing = [one for one in choice.precisions or () if one not in (*there, "bf16")]
    if missing:
        raise UsageError(f"{bundle.folder}: it has no {' or '.join(missing)} graph, only: {', '.join(there)}")
    return choice.precisions or there


def _inspector(bundle: Bundle[UFlowManifest], engine: Engine, stack: ExitStack) -> Inspector:
    from uflow_edge.runtime.engines.device_frames import device_frames

    device = device_frames(engine, bundle.manifest.input_size)
    if device is not None:
        stack.callback(device.close)
    inspector = Inspector.from_bundle(bundle, engine, device=device)
    inspector.warm_up()
    return inspector
