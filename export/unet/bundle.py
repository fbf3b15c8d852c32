"""Writes bundles of diffusion UNets: graphs, parity, manifest, all or nothing."""

from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx_ir as ir

from uflow_edge.export.bundle import ParityLost
from uflow_edge.export.onnx_graph import write_onnx
from uflow_edge.export.parity import PARITY, to_json
from uflow_edge.export.parity_images import parity_images
from uflow_edge.export.plans import carry_over
from uflow_edge.export.precision import rounded, to_fp16
from uflow_edge.export.unet.checkpoint import UNetCheckpoint, load_unet
from uflow_edge.export.unet.graph import torch_predictor, trace_unet
from uflow_edge.export.unet.parity import UNET_BOUNDS, Difference, UNetParity, UNetReference, parity_samples
from uflow_edge.runtime.bundle import MANIFEST, Bundle
from uflow_edge.runtime.diffusion.schedule import NoiseSchedule
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.errors import DISTRIBUTION, BadInput
from uflow_edge.runtime.files import replacing_folder, sha256
from uflow_edge.runtime.manifest import DEFAULT_OPSET, PRECISIONS, Precision, Source, Variant
from uflow_edge.runtime.unet_manifest import UNetManifest

_TOOLS = (DISTRIBUTION, "torch", "diffusers", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "onnxruntime-gpu")


@dataclass(frozen=True, slots=True)
class UNetExportOptions:
    """Choices of an export.

    Attributes:
        precisions: of the graphs to write, the reference first.
        opset: of the ONNX standard operators.
        batch: pictures a run that graphs are fixed to; None takes any number.
        parity_images: files and folders to compare graphs and checkpoint on; none: seeded ones.
        allow_parity_loss: also write graphs that miss their bound.
        bounds: that graphs have to keep, by precision.
    """

    precisions: tuple[Precision, ...] = PRECISIONS
    opset: int = DEFAULT_OPSET
    batch: int | None = None
    parity_images: tuple[Path, ...] = ()
    allow_parity_loss: bool = False
    bounds: Mapping[Precision, Difference] = field(default_factory=lambda: UNET_BOUNDS)


@dataclass(frozen=True, slots=True)
class WrittenUNet:
    """What became of one graph.

    Attributes:
        file: its name.
        size_bytes: with its weights.
        parities: one an engine.
        written: whether it is in the bundle.
    """

    file: str
    size_bytes: int
    parities: tuple[UNetParity, ...]
    written: bool


@dataclass(frozen=True, slots=True)
class ExportedUNet:
    """A bundle, and what became of every graph that was asked for."""

    bundle: Bundle[UNetManifest]
    variants: tuple[WrittenUNet, ...]


def export_unet_bundle(
    checkpoint_path: Path,
    folder: Path,
    config: Path | None = None,
    options: UNetExportOptions = UNetExportOptions(),
    *,
    overwrite: bool = False,
    report: Callable[[str], None] = lambda stage: None,
) -> ExportedUNet:
    """Turn a diffusion UNet into a bundle that has proved itself against the checkpoint.

    Args:
        checkpoint_path: a state dict of guided-diffusion, or a folder of diffusers; see `load_unet`.
        folder: the bundle, written in one rename.
        config: flags of the network in YAML, where its tensors do not tell them.
        options: see `UNetExportOptions`.
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
    checkpoint = load_unet(checkpoint_path, config)
    manifest = manifest_of(checkpoint)
    report("running it in torch")
    reference = _reference(checkpoint, options)
    with replacing_folder(folder) as temporary:
        report("tracing the network")
        graph = trace_unet(checkpoint, manifest.signature, options.opset, options.batch)
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
        manifest = replace(manifest, files={file.name: sha256(file) for file in sorted(temporary.iterdir())})
        with suppress(BadInput):  # no bundle there, or a damaged one: nothing to keep
            manifest = carry_over(Bundle.load(folder, UNetManifest), temporary, manifest)
        (temporary / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return ExportedUNet(Bundle.load(folder, UNetManifest), tuple(results))


def manifest_of(checkpoint: UNetCheckpoint) -> UNetManifest:
    """What the manifest says before there are files."""
    versions = {}
    for name in _TOOLS:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return UNetManifest(
        source=Source(checkpoint.path.name, sha256(checkpoint.path), checkpoint.origin),
        image_size=checkpoint.image_size,
        channels=checkpoint.channels,
        learned_variance=checkpoint.learned_variance,
        schedule=checkpoint.schedule,
        steps=checkpoint.steps,
        variants=(),
        files={},
        tools=versions,
    )


def _reference(checkpoint: UNetCheckpoint, options: UNetExportOptions) -> UNetReference:
    side = checkpoint.image_size
    given = options.parity_images
    pictures = parity_images(checkpoint.path, given, side, "crop") if given else ()
    schedule = NoiseSchedule.make(checkpoint.schedule, checkpoint.steps)
    samples, steps = parity_samples(schedule.alphas_cumprod, side, checkpoint.channels, pictures)
    return UNetReference.of("torch", torch_predictor(checkpoint), samples, steps)


def _write_variant(
    graph: ir.Model,
    precision: Precision,
    folder: Path,
    manifest: UNetManifest,
    reference: UNetReference,
    options: UNetExportOptions,
) -> tuple[Variant, WrittenUNet]:
    path = folder / f"model.{precision}.onnx"
    model = to_fp16(graph) if precision == "fp16" else graph
    files = write_onnx(model, path)
    size_bytes = sum(file.stat().st_size for file in files)
    data = next((file.name for file in files if file != path), None)
    bound = options.bounds[precision]
    variant = Variant(path.name, precision, options.opset, options.batch, bound.maximum, data)
    parities = [_compared(path, "", manifest, variant, reference, bound)]
    if precision == "fp16":  # CPUs compute much of it in FP32, which flatters it
        with TemporaryDirectory(dir=folder) as temporary:
            (as_on_a_gpu, *_) = write_onnx(rounded(model), Path(temporary) / path.name)
            parities.append(_compared(as_on_a_gpu, ", rounded as on a GPU", manifest, variant, reference, bound))
    written = options.allow_parity_loss or all(parity.holds for parity in parities)
    if not written:
        for file in files:
            file.unlink()
    return variant, WrittenUNet(path.name, size_bytes, tuple(parities), written)


def _compared(
    path: Path, how: str, manifest: UNetManifest, variant: Variant, reference: UNetReference, bound: Difference
) -> UNetParity:
    """In onnxruntime alone: on a large network a second opinion takes minutes more."""
    with closing(OnnxRuntimeEngine(path, manifest, variant)) as engine:
        engine.name += how
        return reference.compare(engine, bound)
