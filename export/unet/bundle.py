"""Exports a diffusion UNet as a bundle."""

import logging
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx_ir as ir

from uflow_edge.export.export_loop import (
    Exported,
    GraphOptions,
    NetworkExport,
    check_replaceable,
    export_network,
    tool_versions,
)
from uflow_edge.export.graphs.sample_pictures import parity_images
from uflow_edge.export.unet.checkpoint import UNetCheckpoint, load_unet
from uflow_edge.export.unet.graph import torch_predictor, trace_unet
from uflow_edge.export.unet.parity import UNET_BOUNDS, Difference, UNetParity, UNetReference, parity_samples
from uflow_edge.runtime.bundle.manifest import CheckpointSource, Precision, Variant
from uflow_edge.runtime.bundle.unet import UNetManifest
from uflow_edge.runtime.diffusion.schedule import NoiseSchedule
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.storage.files import sha256
from uflow_edge.runtime.text import printable

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class UNetExportOptions(GraphOptions):
    """Options of an export of a diffusion UNet.

    Attributes:
        bounds: that graphs have to keep, by precision.
    """

    bounds: Mapping[Precision, Difference] = field(default_factory=lambda: UNET_BOUNDS)


def export_unet_bundle(
    checkpoint_path: Path,
    folder: Path,
    config: Path | None = None,
    options: UNetExportOptions = UNetExportOptions(),
    *,
    overwrite: bool = False,
) -> Exported[UNetManifest, UNetParity]:
    """Turn a diffusion UNet into a bundle whose graphs have been compared with it.

    Args:
        checkpoint_path: a state dict of guided-diffusion, or a folder of diffusers; see `load_unet`.
        folder: the bundle, written in one rename.
        config: YAML file with those flags of the network that its tensors do not tell.
        overwrite: replace an existing bundle, but keep its engines where their graphs stay the same.

    Raises:
        BadInput: the checkpoint cannot be used, or a bundle exists already.
        ParityLost: no graph keeps its bound; nothing is written.
    """
    check_replaceable(folder, overwrite)
    logger.info("reading the checkpoint …")
    checkpoint = load_unet(checkpoint_path, config)
    logger.info("running it in torch …")
    network = _UNetExport(checkpoint, options, manifest_of(checkpoint), _reference(checkpoint, options))
    return export_network(network, checkpoint_path, folder, options, overwrite=overwrite)


def manifest_of(checkpoint: UNetCheckpoint) -> UNetManifest:
    """The manifest before there are files."""
    return UNetManifest(
        source=CheckpointSource(printable(checkpoint.path.name), sha256(checkpoint.path), checkpoint.origin),
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


@dataclass(frozen=True)
class _UNetExport(NetworkExport[UNetManifest, UNetParity]):
    checkpoint: UNetCheckpoint
    options: UNetExportOptions
    manifest: UNetManifest
    reference: UNetReference

    def trace(self) -> ir.Model:
        return trace_unet(self.checkpoint, self.manifest.signature, self.options.opset, self.options.batch)

    def error_bound(self, precision: Precision) -> float:
        return self.options.bounds[precision].maximum

    def compare(self, path: Path, variant: Variant, how: str) -> list[UNetParity]:
        """In onnxruntime alone: on a large network a second engine takes minutes more."""
        with closing(OnnxRuntimeEngine(path, self.manifest, variant)) as engine:
            parity = self.reference.compare(engine, self.options.bounds[variant.precision])
        return [replace(parity, engine=parity.engine + how)]


def _reference(checkpoint: UNetCheckpoint, options: UNetExportOptions) -> UNetReference:
    side = checkpoint.image_size
    given = options.parity_images
    pictures = parity_images(checkpoint.path, given, side, "crop") if given else ()
    schedule = NoiseSchedule.make(checkpoint.schedule, checkpoint.steps)
    samples, steps = parity_samples(schedule.alphas_cumprod, side, checkpoint.channels, pictures)
    return UNetReference.of("torch", torch_predictor(checkpoint), samples, steps)
