"""Writes bundles: graphs, parity, manifest, all or nothing."""

import logging
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from uflow_edge.export.checkpoints.checkpoint import Checkpoint, load_checkpoint
from uflow_edge.export.engines.plans import carry_over
from uflow_edge.export.graphs.parity import ENERGY_BOUNDS, PARITY, Parity, Reference, engines_here, parity_json
from uflow_edge.export.graphs.rounding_pictures import rounding_pictures
from uflow_edge.export.graphs.sample_pictures import parity_images
from uflow_edge.export.graphs.trace import trace
from uflow_edge.export.graphs.weight_rounding import round_weights
from uflow_edge.export.network.lowered_network import lower
from uflow_edge.export.network.uflow import EnergyGraph, torch_runner
from uflow_edge.export.old_calibration import with_old_calibration
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
from uflow_edge.runtime.bundle.training_record import TrainingRecord
from uflow_edge.runtime.bundle.uflow import LatentScale, UFlowManifest
from uflow_edge.runtime.cli.command_line import progress
from uflow_edge.runtime.drift import log_gains
from uflow_edge.runtime.engines.deviation import BOUNDED
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.engines.reference import REFERENCE
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.images.decode import in_use, use
from uflow_edge.runtime.images.files import read_image
from uflow_edge.runtime.inspection import LatentStatistics
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.nfa.block import DEFAULT_PROBABILITY
from uflow_edge.runtime.operating_point import DEFAULT_FALSE_ALARM_RATE, conformal_operating_point
from uflow_edge.runtime.resize.cpu import Fit
from uflow_edge.runtime.scoring import Scorer
from uflow_edge.runtime.sources.admission import admit
from uflow_edge.runtime.sources.folders import image_files
from uflow_edge.runtime.storage.files import replacing_folder, sha256
from uflow_edge.runtime.text import printable

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Choices of an export.

    Attributes:
        precisions: of the graphs to write, the reference first.
        opset: of the ONNX standard operators.
        batch: images a run that graphs are fixed to; None takes any number.
        fit: how frames that are not square become so; None: as the checkpoint says, else ``squash``.
        extractor: that the checkpoint must have; None: any.
        block_nfa: whether graphs also count exceedances, for the block rule.
        parity_images: files and folders to compare graphs and checkpoint on; see `parity_images`.
        allow_parity_loss: also write graphs that miss their bound.
        energy_bounds: relative error of energies above which a graph misses it, by precision.
    """

    precisions: tuple[Precision, ...] = EXPORTED_PRECISIONS
    opset: int = DEFAULT_OPSET
    batch: int | None = None
    fit: Fit | None = None
    extractor: str | None = None
    block_nfa: bool = False
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


def export_bundle(
    checkpoint_path: Path,
    folder: Path,
    options: ExportOptions = ExportOptions(),
    good: GoodImages | None = None,
    *,
    overwrite: bool = False,
) -> Exported[UFlowManifest, Parity]:
    """Turn a checkpoint into a bundle that has proved itself against the checkpoint.

    Args:
        checkpoint_path: a U-Flow checkpoint: the authors', anomalib's or ours.
        folder: the bundle, written in one rename.
        options: see `ExportOptions`.
        good: to take the threshold from; default, it is log-NFA 0.
        overwrite: replace a bundle that is there, but keep its engines where their graphs stay the same, and its
            calibration where it still holds.

    Raises:
        BadInput: a checkpoint that cannot be used, or a bundle that is already there.
        ParityLost: no graph keeps its bound; nothing is written.
    """
    refuse_to_replace(folder, overwrite)
    logger.info("reading the checkpoint …")
    checkpoint = load_checkpoint(checkpoint_path, options.extractor)
    use(replace(in_use(), bits=checkpoint.bits))  # for pictures to compare graphs on
    manifest = _manifest(checkpoint, options)
    logger.info("running it in torch …")
    side, fit, carried = manifest.input_size, manifest.fit, checkpoint.pictures
    images = parity_images(checkpoint_path, options.parity_images, side, fit, carried)
    reference = Reference.of(
        "torch", torch_runner(energy_graph(checkpoint, block_nfa=options.block_nfa)), images, Scorer(manifest)
    )
    with replacing_folder(folder, overwrite=overwrite) as temporary:
        logger.info("tracing the lowered network …")
        names = manifest.signature.output_names
        lowered = energy_graph(checkpoint, lowered=True, block_nfa=options.block_nfa)
        graph = trace(lowered, manifest.input_size, names, options.opset, options.batch)
        graph_options = GraphOptions(options.opset, options.batch, options.allow_parity_loss)
        measure = partial(_parities, manifest, reference)
        results = []
        for precision in options.precisions:
            logger.info(f"comparing {precision} with torch …")
            bound = options.energy_bounds[precision]
            source = graph
            if precision == "fp16" and checkpoint.architecture.whitening:  # which makes much of every rounding
                like = options.parity_images or (() if good is None else good.paths)
                source = round_weights(graph, rounding_pictures(like, side, fit, carried))
            variant, result = write_variant(source, precision, temporary, graph_options, bound, measure)
            results.append(result)
            if all(parity.holds for parity in result.parities):
                variant = replace(variant, reference=REFERENCE)
            if result.written:
                manifest = replace(manifest, variants=(*manifest.variants, variant))
        refuse_parity_loss(checkpoint_path, results)
        reference.stored().save(temporary / REFERENCE, manifest)
        record = _training_record(checkpoint, temporary, manifest)
        if record != TrainingRecord():
            record.save(temporary)
        parities = {result.file: result.parities for result in results}
        (temporary / PARITY).write_text(parity_json(parities), encoding="utf-8")
        if good is not None:
            logger.info("taking the threshold from good images …")
            scores = _image_scores(temporary, manifest, good.paths, record)
            manifest = replace(manifest, operating_point=conformal_operating_point(scores, good.false_alarm_rate))
        manifest = replace(manifest, files={file.name: sha256(file) for file in sorted(temporary.iterdir())})
        old = bundle_there(folder, UFlowManifest)
        if old is not None:
            manifest = carry_over(old, temporary, manifest)
            manifest = with_old_calibration(old, temporary, manifest)
        (temporary / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return Exported(Bundle.load(folder, UFlowManifest), tuple(results))


def energy_graph(checkpoint: Checkpoint, *, lowered: bool = False, block_nfa: bool = False) -> EnergyGraph:
    """The network from resized picture to energies, in evaluation mode: as trained, or rewritten for inference.

    Soft permutations mix channels, so a flow that has them stays as it is.
    """
    network = checkpoint.network()
    hard = checkpoint.architecture.coupling.permutation == "hard"
    probability = DEFAULT_PROBABILITY if block_nfa else None
    return EnergyGraph(lower(network) if lowered and hard else network, checkpoint.normalization, probability).eval()


def _parities(manifest: UFlowManifest, reference: Reference, path: Path, variant: Variant, how: str) -> list[Parity]:
    """In every engine that is here; what is written only to be measured, in the first."""
    makers = engines_here(path, manifest, variant)
    parities = []
    for make in makers[:1] if how else makers:
        with closing(make()) as engine:
            parity = reference.compare(engine, variant.error_bound, BOUNDED[variant.precision])
        parities.append(replace(parity, engine=parity.engine + how))
    return parities


def _manifest(checkpoint: Checkpoint, options: ExportOptions) -> UFlowManifest:
    architecture = checkpoint.architecture
    return UFlowManifest(
        source=Source(printable(checkpoint.path.name), sha256(checkpoint.path), checkpoint.origin),
        extractor=architecture.extractor,
        input_size=architecture.input_size,
        mean=checkpoint.normalization.mean,
        std=checkpoint.normalization.std,
        fit=options.fit or checkpoint.fit or "squash",
        scales=tuple(LatentScale(s.stride, s.side, s.side, s.channels) for s in architecture.latents),
        exceedance_probability=DEFAULT_PROBABILITY if options.block_nfa else None,
        bits=checkpoint.bits,
        variants=(),
        files={},
        tools=tool_versions("timm", "FrEIA", "openvino"),
    )


def _inspector(folder: Path, manifest: UFlowManifest) -> Inspector:
    variant = manifest.variants[0]
    return Inspector(manifest, OnnxRuntimeEngine(folder / variant.file, manifest, variant))


def _training_record(checkpoint: Checkpoint, folder: Path, manifest: UFlowManifest) -> TrainingRecord:
    inspector = _inspector(folder, manifest)
    gains = []
    for picture in progress(checkpoint.pictures, "pictures of the training"):
        energies = LatentStatistics.of(inspector.engine.run(picture[np.newaxis]), len(manifest.scales)).energies
        gains.append(log_gains(energies, manifest.channels))
    return TrainingRecord(checkpoint.fitted, checkpoint.held_out, tuple(gains))


def _image_scores(
    folder: Path,
    manifest: UFlowManifest,
    paths: tuple[Path, ...],
    record: TrainingRecord,
) -> list[float]:
    admission = admit(image_files(paths, good=True), record)
    if admission.unreadable:
        raise BadInput(admission.unreadable[0])
    for sentence in admission.left_out:
        logger.info(sentence)
    inspector = _inspector(folder, manifest)
    images = progress(admission.images, "scoring good images")
    return [inspector.inspect(read_image(image.path)).score for image in images]
