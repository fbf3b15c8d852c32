"""Writes bundles: graph, parity, manifest, all or nothing."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from uflow_edge.export.checkpoint import Checkpoint, load_checkpoint
from uflow_edge.export.network import EnergyGraph
from uflow_edge.export.onnx_graph import export_onnx
from uflow_edge.export.parity import FP32_BOUND, Parity, measure, noise_images, to_json
from uflow_edge.runtime.bundle import DEFAULT_OPSET, MANIFEST, Bundle, Fit, LatentScale, Manifest, Source, Variant
from uflow_edge.runtime.command_line import progress
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.errors import DISTRIBUTION, BadInput, UflowEdgeError
from uflow_edge.runtime.files import replacing_folder, sha256
from uflow_edge.runtime.images import find_images, read_image
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.nfa.block import DEFAULT_PROBABILITY
from uflow_edge.runtime.operating_point import DEFAULT_FALSE_ALARM_RATE, conformal_operating_point

PARITY = "parity.json"
_TOOLS = (DISTRIBUTION, "torch", "timm", "FrEIA", "onnx", "onnxruntime")


class ParityLost(UflowEdgeError):
    """The exported graph does not compute what the checkpoint does."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Choices of an export.

    Attributes:
        opset: of the ONNX standard operators.
        fit: how frames that are not square become so.
        parity_bound: relative error of energies above which nothing is written.
    """

    opset: int = DEFAULT_OPSET
    fit: Fit = "squash"
    parity_bound: float = FP32_BOUND


@dataclass(frozen=True, slots=True)
class GoodImages:
    """Good images of the line that the training has not seen, to take the threshold from.

    Attributes:
        paths: files and folders.
        false_alarm_rate: share of good images that may be called anomalous.
    """

    paths: tuple[Path, ...]
    false_alarm_rate: float = DEFAULT_FALSE_ALARM_RATE


def export_bundle(
    checkpoint_path: Path,
    folder: Path,
    options: ExportOptions = ExportOptions(),
    good: GoodImages | None = None,
    *,
    overwrite: bool = False,
    report: Callable[[str], None] = lambda stage: None,
) -> tuple[Bundle, Parity]:
    """Turn a checkpoint into a bundle that has proved itself against the checkpoint.

    Args:
        checkpoint_path: a U-Flow checkpoint, the authors' or ours.
        folder: the bundle, written in one rename.
        options: see `ExportOptions`.
        good: to take the threshold from; default, it is log-NFA 0.
        overwrite: replace a bundle that is there.
        report: told the name of each stage as it starts.

    Raises:
        BadInput: a checkpoint that cannot be used, or a bundle that is already there.
        ParityLost: the graph misses the bound; nothing is written.
    """
    if folder.exists() and not overwrite:
        raise BadInput(f"{folder}: exists already; choose another --out, or replace it with --overwrite")
    if folder.exists() and not (folder / MANIFEST).is_file():
        raise BadInput(f"{folder}: is not a bundle, so it will not be replaced; choose another --out")
    report("reading the checkpoint")
    checkpoint = load_checkpoint(checkpoint_path)
    graph = EnergyGraph(checkpoint.network(), DEFAULT_PROBABILITY).eval()
    variant = Variant(file="model.fp32.onnx", precision="fp32", opset=options.opset)
    manifest = _manifest(checkpoint, variant, options)
    with replacing_folder(folder) as temporary:
        report("tracing the ONNX graph")
        names = (*manifest.energy_names, *manifest.exceedance_names)
        export_onnx(graph, names, temporary / variant.file, options.opset)
        report("comparing it with torch")
        engine = OnnxRuntimeEngine(temporary / variant.file, manifest, variant.precision)
        images = noise_images(manifest.input_size)
        parity = measure(graph, engine, images, manifest.rule, options.parity_bound)
        if not parity.holds:
            raise ParityLost(
                f"{checkpoint_path}: the exported graph differs from the checkpoint; no bundle written. {parity}"
            )
        (temporary / PARITY).write_text(to_json({variant.file: parity}), encoding="utf-8")
        if good is not None:
            report("taking the threshold from good images")
            scores = _image_scores(Inspector(manifest, engine), good.paths)
            manifest = replace(manifest, operating_point=conformal_operating_point(scores, good.false_alarm_rate))
        files = {file.name: sha256(file) for file in sorted(temporary.iterdir())}
        manifest = replace(manifest, files=files)
        (temporary / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return Bundle.load(folder), parity


def _manifest(checkpoint: Checkpoint, variant: Variant, options: ExportOptions) -> Manifest:
    architecture = checkpoint.architecture
    return Manifest(
        source=Source(checkpoint.path.name, sha256(checkpoint.path)),
        extractor=architecture.extractor,
        input_size=architecture.input_size,
        fit=options.fit,
        scales=tuple(LatentScale(s.stride, s.side, s.side, s.channels) for s in architecture.latents),
        exceedance_probability=DEFAULT_PROBABILITY,
        variants=(variant,),
        files={},
        tools={name: version(name) for name in _TOOLS},
    )


def _image_scores(inspector: Inspector, paths: tuple[Path, ...]) -> list[float]:
    files = list(find_images(paths))
    return [inspector.inspect(read_image(file)).score for file in progress(files, "scoring good images")]
