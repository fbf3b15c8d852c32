"""Exports a U-Flow checkpoint as a bundle."""

import logging
import shutil
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from uflow_edge.export.checkpoints.checkpoint import Checkpoint, load_checkpoint
from uflow_edge.export.export_loop import (
    Exported,
    GraphOptions,
    NetworkExport,
    check_replaceable,
    export_network,
    tool_versions,
)
from uflow_edge.export.graphs.parity import ENERGY_BOUNDS, Parity, Reference, engines_here
from uflow_edge.export.graphs.sample_pictures import parity_images, rounding_pictures
from uflow_edge.export.graphs.trace import trace
from uflow_edge.export.graphs.weight_rounding import round_weights
from uflow_edge.export.network.lowered_network import lower
from uflow_edge.export.network.uflow import EnergyGraph, torch_runner
from uflow_edge.runtime.bundle.calibration_record import REPORT
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.manifest import CheckpointSource, Precision, Variant
from uflow_edge.runtime.bundle.training_record import TrainingRecord
from uflow_edge.runtime.bundle.uflow import LatentScale, UFlowManifest
from uflow_edge.runtime.cli.command_line import progress
from uflow_edge.runtime.drift import log_gains
from uflow_edge.runtime.engines.deviation import BOUNDED
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.engines.reference import REFERENCE
from uflow_edge.runtime.images.decode import in_use, use
from uflow_edge.runtime.inspection import LatentStatistics
from uflow_edge.runtime.nfa.block import DEFAULT_PROBABILITY
from uflow_edge.runtime.operating_point import LOG_NFA_0
from uflow_edge.runtime.resize.cpu import Fit
from uflow_edge.runtime.scoring import Scorer
from uflow_edge.runtime.storage.files import sha256
from uflow_edge.runtime.text import printable

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExportOptions(GraphOptions):
    """Options of an export of a U-Flow.

    Attributes:
        fit: how frames become square; None: as the checkpoint says, else ``squash``.
        extractor: that the checkpoint must have; None: any.
        block_nfa: whether graphs also count exceedances, for the block rule.
        energy_bounds: relative error of energies above which a graph misses its bound, by precision.
    """

    fit: Fit | None = None
    extractor: str | None = None
    block_nfa: bool = False
    energy_bounds: Mapping[Precision, float] = field(default_factory=lambda: ENERGY_BOUNDS)


def export_bundle(
    checkpoint_path: Path, folder: Path, options: ExportOptions = ExportOptions(), *, overwrite: bool = False
) -> Exported[UFlowManifest, Parity]:
    """Turn a checkpoint into a bundle whose graphs have been compared with it.

    Args:
        checkpoint_path: a U-Flow checkpoint: the authors', anomalib's or ours.
        folder: the bundle, written in one rename.
        overwrite: replace an existing bundle, but keep its engines where their graphs stay the same, and its
            calibration where it still holds.

    Raises:
        BadInput: the checkpoint cannot be used, or a bundle exists already.
        ParityLost: no graph keeps its bound; nothing is written.
    """
    check_replaceable(folder, overwrite)
    logger.info("reading the checkpoint …")
    checkpoint = load_checkpoint(checkpoint_path, options.extractor)
    use(replace(in_use(), bits=checkpoint.bits))  # for the images that graphs are compared on
    manifest = _manifest(checkpoint, options)
    logger.info("running it in torch …")
    pictures = parity_images(
        checkpoint_path, options.parity_images, manifest.input_size, manifest.fit, checkpoint.pictures
    )
    network = torch_runner(energy_graph(checkpoint, block_nfa=options.block_nfa))
    reference = Reference.of("torch", network, pictures, Scorer(manifest))
    export = _UFlowExport(checkpoint, options, manifest, reference)
    return export_network(export, checkpoint_path, folder, options, overwrite=overwrite)


def energy_graph(checkpoint: Checkpoint, *, lowered: bool = False, block_nfa: bool = False) -> EnergyGraph:
    """The network from resized picture to energies, in evaluation mode: as trained, or rewritten for inference.

    Soft permutations mix channels, so a flow that has them stays as it is.
    """
    network = checkpoint.network()
    hard = checkpoint.architecture.coupling.permutation == "hard"
    probability = DEFAULT_PROBABILITY if block_nfa else None
    return EnergyGraph(lower(network) if lowered and hard else network, checkpoint.normalization, probability).eval()


@dataclass(frozen=True)
class _UFlowExport(NetworkExport[UFlowManifest, Parity]):
    checkpoint: Checkpoint
    options: ExportOptions
    manifest: UFlowManifest
    reference: Reference
    reference_file = REFERENCE

    def trace(self) -> ir.Model:
        graph = energy_graph(self.checkpoint, lowered=True, block_nfa=self.options.block_nfa)
        names = self.manifest.signature.output_names
        return trace(graph, self.manifest.input_size, names, self.options.opset, self.options.batch)

    def error_bound(self, precision: Precision) -> float:
        return self.options.energy_bounds[precision]

    def suited_to_fp16(self, graph: ir.Model) -> ir.Model:
        if not self.checkpoint.architecture.whitening:  # which amplifies every rounding error
            return graph
        given, manifest = self.options.parity_images, self.manifest
        return round_weights(
            graph, rounding_pictures(given, manifest.input_size, manifest.fit, self.checkpoint.pictures)
        )

    def compare(self, path: Path, variant: Variant, how: str) -> list[Parity]:
        """In every engine that is installed; a graph that is not the bundle's, in the first."""
        makers = engines_here(path, self.manifest, variant)
        parities = []
        for make in makers[:1] if how else makers:
            with closing(make()) as engine:
                parity = self.reference.compare(engine, variant.error_bound, BOUNDED[variant.precision])
            parities.append(replace(parity, engine=parity.engine + how))
        return parities

    def add_files(self, folder: Path, manifest: UFlowManifest) -> None:
        self.reference.stored().save(folder / REFERENCE, manifest)
        record = TrainingRecord(self.checkpoint.fitted, self.checkpoint.held_out, self._gains(folder, manifest))
        if record != TrainingRecord():
            record.save(folder)

    def keep(self, old: Bundle[UFlowManifest], folder: Path, manifest: UFlowManifest) -> UFlowManifest:
        return with_old_calibration(old, folder, manifest)

    def _gains(self, folder: Path, manifest: UFlowManifest) -> tuple[tuple[float, ...], ...]:
        """Of the pictures that the checkpoint carries."""
        gains = []
        variant = manifest.variants[0]
        with closing(OnnxRuntimeEngine(folder / variant.file, manifest, variant)) as engine:
            for picture in progress(self.checkpoint.pictures, "pictures of the training"):
                energies = LatentStatistics.of(engine.run(picture[np.newaxis]), len(manifest.scales)).energies
                gains.append(log_gains(energies, manifest.channels))
        return tuple(gains)


def _manifest(checkpoint: Checkpoint, options: ExportOptions) -> UFlowManifest:
    architecture = checkpoint.architecture
    return UFlowManifest(
        source=CheckpointSource(printable(checkpoint.path.name), sha256(checkpoint.path), checkpoint.origin),
        extractor=architecture.extractor,
        input_size=architecture.input_size,
        mean=checkpoint.normalization.mean,
        std=checkpoint.normalization.std,
        fit=options.fit or checkpoint.fit or "squash",
        scales=tuple(LatentScale(s.stride, s.side, s.side, s.channels) for s in architecture.latents),
        exceedance_probability=DEFAULT_PROBABILITY if options.block_nfa else None,
        bits=checkpoint.bits,
        window=architecture.window,
        variants=(),
        files={},
        tools=tool_versions("timm", "FrEIA", "openvino"),
    )


def with_old_calibration(old: Bundle[UFlowManifest], folder: Path, manifest: UFlowManifest) -> UFlowManifest:
    """Keep a calibration if the new graphs give the energies that it was made with, as those of one checkpoint do.

    Args:
        old: the bundle that will be replaced.
        folder: of the new bundle, to which files are copied.
    """
    before = old.manifest
    calibration = f"threshold {before.operating_point.threshold:.2f}" + (" and null model" if before.null_model else "")
    calibrated = before.operating_point != LOG_NFA_0 or before.null_model is not None
    reason = _why_not(before, manifest)
    if calibrated and reason is None:
        logger.info(f"keeping the calibration of the bundle that is replaced: {calibration}")
        names = [name for name in before.files if name in (before.null_model, REPORT)]
        for name in names:
            shutil.copyfile(old.folder / name, folder / name)
        manifest = replace(
            manifest,
            files={**manifest.files, **{name: before.files[name] for name in names}},
            null_model=before.null_model,
            operating_point=before.operating_point,
            drift=before.drift,
            calibration=before.calibration,
        )
    elif calibrated:
        logger.warning(f"discarding the calibration of the bundle that is replaced, {calibration}: {reason}")
    if any(variant.precision == "int8" for variant in before.variants):
        logger.warning("discarding the INT8 graph of the replaced bundle; uflow-calibrate --int8 makes it again")
    return manifest


def _why_not(before: UFlowManifest, now: UFlowManifest) -> str | None:
    """Why a calibration does not hold for the new graphs; None if it does."""
    if before.source.sha256 != now.source.sha256:
        return "it was made with another checkpoint"
    if before.fit != now.fit:
        return f"frames were made square by {before.fit}, now by {now.fit}"
    precision = "fp32" if before.calibration is None else before.calibration.precision
    if ("fp32" if precision == "bf16" else precision) not in {variant.precision for variant in now.variants}:
        return f"it was made in {precision}, which is not among the new graphs"
    return None
