"""Writes bundles of diffusion UNets: graphs, parity, manifest, all or nothing."""

import logging
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from uflow_edge.export.engines.plans import carry_over
from uflow_edge.export.graphs.parity import PARITY, parity_json
from uflow_edge.export.graphs.sample_pictures import parity_images
from uflow_edge.export.unet.checkpoint import UNetCheckpoint, load_unet
from uflow_edge.export.unet.graph import torch_predictor, trace_unet
from uflow_edge.export.unet.parity import UNET_BOUNDS, Difference, UNetParity, UNetReference, parity_samples
from uflow_edge.export.writing import (
    Exported,
    GraphOptions,
    bundle_there,
    refuse_parity_loss,
    refuse_to_replace,
    tool_versions,
    write_variant,
)
from uflow_edge.runtime.bundle.folder import MANIFEST, Bundle
from uflow_edge.runtime.bundle.manifest import DEFAULT_OPSET, EXPORTED_PRECISIONS, Precision, Source, Variant
from uflow_edge.runtime.bundle.unet import UNetManifest
from uflow_edge.runtime.diffusion.schedule import NoiseSchedule
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.storage.files import replacing_folder, sha256
from uflow_edge.runtime.text import printable

logger = logging.getLogger(__name__)


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

    precisions: tuple[Precision, ...] = EXPORTED_PRECISIONS
    opset: int = DEFAULT_OPSET
    batch: int | None = None
    parity_images: tuple[Path, ...] = ()
    allow_parity_loss: bool = False
    bounds: Mapping[Precision, Difference] = field(default_factory=lambda: UNET_BOUNDS)


def export_unet_bundle(
    checkpoint_path: Path,
    folder: Path,
    config: Path | None = None,
    options: UNetExportOptions = UNetExportOptions(),
    *,
    overwrite: bool = False,
) -> Exported[UNetManifest, UNetParity]:
    """Turn a diffusion UNet into a bundle that has proved itself against the checkpoint.

    Args:
        checkpoint_path: a state dict of guided-diffusion, or a folder of diffusers; see `load_unet`.
        folder: the bundle, written in one rename.
        config: flags of the network in YAML, where its tensors do not tell them.
        options: see `UNetExportOptions`.
        overwrite: replace a bundle that is there, but keep its engines where their graphs stay the same.

    Raises:
        BadInput: a checkpoint that cannot be used, or a bundle that is already there.
        ParityLost: no graph keeps its bound; nothing is written.
    """
    refuse_to_replace(folder, overwrite)
    logger.info("reading the checkpoint …")
    checkpoint = load_unet(checkpoint_path, config)
    manifest = manifest_of(checkpoint)
    logger.info("running it in torch …")
    reference = _reference(checkpoint, options)
    with replacing_folder(folder, overwrite=overwrite) as temporary:
        logger.info("tracing the network …")
        graph = trace_unet(checkpoint, manifest.signature, options.opset, options.batch)
        graph_options = GraphOptions(options.opset, options.batch, options.allow_parity_loss)
        results = []
        for precision in options.precisions:
            logger.info(f"comparing {precision} with torch …")
            bound = options.bounds[precision]
            measure = partial(_parities, manifest, reference, bound)
            variant, result = write_variant(graph, precision, temporary, graph_options, bound.maximum, measure)
            results.append(result)
            if result.written:
                manifest = replace(manifest, variants=(*manifest.variants, variant))
        refuse_parity_loss(checkpoint_path, results)
        (temporary / PARITY).write_text(
            parity_json({result.file: result.parities for result in results}), encoding="utf-8"
        )
        manifest = replace(manifest, files={file.name: sha256(file) for file in sorted(temporary.iterdir())})
        old = bundle_there(folder, UNetManifest)
        if old is not None:
            manifest = carry_over(old, temporary, manifest)
        (temporary / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return Exported(Bundle.load(folder, UNetManifest), tuple(results))


def manifest_of(checkpoint: UNetCheckpoint) -> UNetManifest:
    """What the manifest says before there are files."""
    return UNetManifest(
        source=Source(printable(checkpoint.path.name), sha256(checkpoint.path), checkpoint.origin),
        image_size=checkpoint.image_size,
        channels=checkpoint.channels,
        learned_variance=checkpoint.learned_variance,
        schedule=checkpoint.schedule,
        steps=checkpoint.steps,
        noisiest_step=checkpoint.noisiest_step,
        variants=(),
        files={},
        tools=tool_versions("diffusers"),
    )


def _reference(checkpoint: UNetCheckpoint, options: UNetExportOptions) -> UNetReference:
    side = checkpoint.image_size
    given = options.parity_images
    pictures = parity_images(checkpoint.path, given, side, "crop") if given else ()
    schedule = NoiseSchedule.make(checkpoint.schedule, checkpoint.steps)
    samples, steps = parity_samples(schedule.alphas_cumprod, side, checkpoint.channels, pictures)
    return UNetReference.of("torch", torch_predictor(checkpoint), samples, steps)


def _parities(
    manifest: UNetManifest, reference: UNetReference, bound: Difference, path: Path, variant: Variant, how: str
) -> list[UNetParity]:
    """In onnxruntime alone: on a large network a second opinion takes minutes more."""
    with closing(OnnxRuntimeEngine(path, manifest, variant)) as engine:
        parity = reference.compare(engine, bound)
    return [replace(parity, engine=parity.engine + how)]
