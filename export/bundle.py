"""Writes bundles: graphs, parity, manifest, all or nothing."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx_ir as ir

from uflow_edge.export.checkpoint import Checkpoint, load_checkpoint
from uflow_edge.export.lowered_network import lower
from uflow_edge.export.network import EnergyGraph, torch_runner
from uflow_edge.export.onnx_graph import trace, write_onnx
from uflow_edge.export.parity import ENERGY_BOUNDS, PARITY, Parity, Reference, engines_here, to_json
from uflow_edge.export.parity_images import parity_images
from uflow_edge.export.plans import carry_over
from uflow_edge.export.precision import rounded, to_fp16
from uflow_edge.runtime.bundle import MANIFEST, Bundle
from uflow_edge.runtime.command_line import progress
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.errors import DISTRIBUTION, BadInput, UflowEdgeError
from uflow_edge.runtime.files import replacing_folder, sha256
from uflow_edge.runtime.images import find_images, read_image
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.manifest import DEFAULT_OPSET, EXPORTED_PRECISIONS, Precision, Source, Variant
from uflow_edge.runtime.nfa.block import DEFAULT_PROBABILITY
from uflow_edge.runtime.operating_point import DEFAULT_FALSE_ALARM_RATE, conformal_operating_point
from uflow_edge.runtime.preprocess import Fit
from uflow_edge.runtime.uflow_manifest import LatentScale, UFlowManifest

_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "openvino")  # those that are installed
_TOOLS = (DISTRIBUTION, "torch", "timm", "FrEIA", "onnx", "onnx-ir", "onnxscript", *_RUNTIMES)


class ParityLost(UflowEdgeError):
    """The exported graphs do not compute what the checkpoint does."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Choices of an export.

    Attributes:
        precisions: of the graphs to write, the reference first.
        opset: of the ONNX standard operators.
        batch: images a run that graphs are fixed to; None takes any number.
        fit: how frames that are not square become so; None: as the checkpoint says, else ``squash``.
        extractor: that the checkpoint must have; None: any.
        parity_images: files and folders to compare graphs and checkpoint on; see `parity_images`.
        allow_parity_loss: also write graphs that miss their bound.
        energy_bounds: relative error of energies above which a graph misses it, by precision.
    """

    precisions: tuple[Precision, ...] = EXPORTED_PRECISIONS
    opset: int = DEFAULT_OPSET
    batch: int | None = None
    fit: Fit | None = None
    extractor: str | None = None
    parity_images: tuple[Path, ...] = ()
    allow_parity_loss: bool = False
    energy_bounds: Mapping[Precision, float] = field(default_factory=lambda: ENERGY_BOUNDS)


@dataclass(frozen=True, slots=True)
class GoodImages:
    """Good images of the line that the training has not seen, to take the threshold from.

    Attributes:
        paths: files and folders.
        false_alarm_rate: share of good images that may be called anomalous.
    """

    paths: tuple[Path, ...]
    false_alarm_rate: float = DEFAULT_FALSE_ALARM_RATE


@dataclass(frozen=True, slots=True)
class WrittenVariant:
    """What became of one graph.

    Attributes:
        file: its name.
        size_bytes: with its weights.
        parities: one an engine.
        written: whether it is in the bundle.
    """

    file: str
    size_bytes: int
    parities: tuple[Parity, ...]
    written: bool


@dataclass(frozen=True, slots=True)
class Exported:
    """A bundle, and what became of every graph that was asked for."""

    bundle: Bundle[UFlowManifest]
    variants: tuple[WrittenVariant, ...]


def export_bundle(
    checkpoint_path: Path,
    folder: Path,
    options: ExportOptions = ExportOptions(),
    good: GoodImages | None = None,
    *,
    overwrite: bool = False,
    report: Callable[[str], None] = lambda stage: None,
) -> Exported:
    """Turn a checkpoint into a bundle that has proved itself against the checkpoint.

    Args:
        checkpoint_path: a U-Flow checkpoint: the authors', anomalib's or ours.
        folder: the bundle, written in one rename.
        options: see `ExportOptions`.
        good: to take the threshold from; default, it is log-NFA 0.
        overwrite: replace a bundle that is there, but keep its engines where their graphs stay the same.
        report: told the name of each stage as it starts.

    Raises:
        BadInput: a checkpoint that cannot be used, or a bundle that is already there.
        ParityLost: no graph keeps its bound; nothing is written.
    """
    if folder.exists() and not overwrite:
        raise BadInput(f"{folder}: exists already; choose another --out, or replace it with --overwrite")
    if folder.exists() and not (folder / MANIFEST).is_file():
        raise BadInput(f"{folder}: is not a bundle, so it will not be replaced; choose another --out")
    report("reading the checkpoint")
    checkpoint = load_checkpoint(checkpoint_path, options.extractor)
    manifest = _manifest(checkpoint, options)
    report("running it in torch")
    images = parity_images(checkpoint_path, options.parity_images, manifest.input_size, manifest.fit)
    reference = Reference.of("torch", torch_runner(energy_graph(checkpoint)), images, manifest.channels, manifest.rule)
    with replacing_folder(folder) as temporary:
        report("tracing the lowered network")
        names = manifest.signature.output_names
        graph = trace(energy_graph(checkpoint, lowered=True), manifest.input_size, names, options.opset, options.batch)
        results = []
        for precision in options.precisions:
            report(f"comparing {precision} with torch")
            variant, result = _write_variant(graph, precision, temporary, manifest, reference, options)
            results.append(result)
            if result.written:
                manifest = replace(manifest, variants=(*manifest.variants, variant))
        if not manifest.variants:
            worst = "; ".join(str(parity) for result in results for parity in result.parities if not parity.holds)
            raise ParityLost(
                f"{checkpoint_path}: the exported graphs differ from the checkpoint; no bundle written. {worst}"
            )
        (temporary / PARITY).write_text(to_json({result.file: result.parities for result in results}), encoding="utf-8")
        if good is not None:
            report("taking the threshold from good images")
            scores = _image_scores(temporary, manifest, good.paths)
            manifest = replace(manifest, operating_point=conformal_operating_point(scores, good.false_alarm_rate))
        manifest = replace(manifest, files={file.name: sha256(file) for file in sorted(temporary.iterdir())})
        manifest = _with_old_engines(folder, temporary, manifest)
        (temporary / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return Exported(Bundle.load(folder, UFlowManifest), tuple(results))


def energy_graph(checkpoint: Checkpoint, lowered: bool = False) -> EnergyGraph:
    """The network from resized picture to energies, in evaluation mode: as trained, or rewritten for inference.

    Soft permutations mix channels, so a flow that has them stays as it is.
    """
    network = checkpoint.network()
    hard = checkpoint.architecture.coupling.permutation == "hard"
    return EnergyGraph(
        lower(network) if lowered and hard else network, DEFAULT_PROBABILITY, checkpoint.normalization
    ).eval()


def _write_variant(
    graph: ir.Model,
    precision: Precision,
    folder: Path,
    manifest: UFlowManifest,
    reference: Reference,
    options: ExportOptions,
) -> tuple[Variant, WrittenVariant]:
    path = folder / f"model.{precision}.onnx"
    model = to_fp16(graph) if precision == "fp16" else graph
    files = write_onnx(model, path)
    size_bytes = sum(file.stat().st_size for file in files)
    data = next((file.name for file in files if file != path), None)
    bound = options.energy_bounds[precision]
    variant = Variant(path.name, precision, options.opset, options.batch, bound, data)
    parities = [reference.compare(make(), bound) for make in engines_here(path, manifest, variant)]
    if precision == "fp16":
        parities.append(_parity_as_on_a_gpu(model, folder, manifest, variant, reference))
    written = options.allow_parity_loss or all(parity.holds for parity in parities)
    if not written:
        for file in files:
            file.unlink()
    return variant, WrittenVariant(path.name, size_bytes, tuple(parities), written)


def _parity_as_on_a_gpu(
    model: ir.Model, folder: Path, manifest: UFlowManifest, variant: Variant, reference: Reference
) -> Parity:
    """CPUs compute much of an FP16 graph in FP32, which flatters it; here every FP16 result is rounded."""
    with TemporaryDirectory(dir=folder) as temporary:
        path = Path(temporary) / variant.file
        write_onnx(rounded(model), path)
        engine = OnnxRuntimeEngine(path, manifest, variant)
        engine.name += ", rounded as on a GPU"
        return reference.compare(engine, variant.error_bound)


def _manifest(checkpoint: Checkpoint, options: ExportOptions) -> UFlowManifest:
    architecture = checkpoint.architecture
    return UFlowManifest(
        source=Source(checkpoint.path.name, sha256(checkpoint.path), checkpoint.origin),
        extractor=architecture.extractor,
        input_size=architecture.input_size,
        mean=checkpoint.normalization.mean,
        std=checkpoint.normalization.std,
        fit=options.fit or checkpoint.fit or "squash",
        scales=tuple(LatentScale(s.stride, s.side, s.side, s.channels) for s in architecture.latents),
        exceedance_probability=DEFAULT_PROBABILITY,
        variants=(),
        files={},
        tools=_installed(_TOOLS),
    )


def _installed(distributions: tuple[str, ...]) -> dict[str, str]:
    versions = {}
    for name in distributions:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _with_old_engines(folder: Path, new_folder: Path, manifest: UFlowManifest) -> UFlowManifest:
    """Keep what took a long time to build, if the bundle that is replaced has it and it still fits."""
    try:
        return carry_over(Bundle.load(folder, UFlowManifest), new_folder, manifest)
    except BadInput:  # no bundle there, or a damaged one: nothing to keep
        return manifest


def _image_scores(folder: Path, manifest: UFlowManifest, paths: tuple[Path, ...]) -> list[float]:
    variant = manifest.variants[0]
    inspector = Inspector(manifest, OnnxRuntimeEngine(folder / variant.file, manifest, variant))
    files = list(find_images(paths))
    return [inspector.inspect(read_image(file)).score for file in progress(files, "scoring good images")]
