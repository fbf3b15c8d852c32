"""From a folder of good images to a checkpoint in the authors' layout."""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from uflow_edge.export.checkpoints.checkpoint import FITTED, HELD_OUT
from uflow_edge.export.network.architecture import Architecture
from uflow_edge.export.network.uflow import EnergyGraph, UFlow
from uflow_edge.runtime.errors import UsageError
from uflow_edge.runtime.images.decode import in_use
from uflow_edge.runtime.images.files import read_image, spread
from uflow_edge.runtime.images.layouts import good_images
from uflow_edge.runtime.report.page import write_page
from uflow_edge.runtime.resize.cpu import model_input
from uflow_edge.runtime.storage.files import check_writable
from uflow_edge.runtime.text import counted
from uflow_edge.training.dataset import checked_images, hold_out
from uflow_edge.training.device import chosen_device, repeatable
from uflow_edge.training.features import AugmentedFeatures, CachedFeatures, Features
from uflow_edge.training.fit import Fit, fit_flow
from uflow_edge.training.judge.choice import FEWEST_IMAGES, Exam, best_of, log_trials, with_backbone_of
from uflow_edge.training.judge.report import report_page
from uflow_edge.training.judge.trials import HeldOut, Trial, judged_network, try_laws
from uflow_edge.training.options import (
    HOLD_OUT,
    Augmentation,
    CacheChoice,
    DeviceChoice,
    StandardizationChoice,
    TrainingOptions,
)
from uflow_edge.training.pretrained import load_pretrained
from uflow_edge.training.progress import Epoch, Progress, log_file, resume_file, write_log
from uflow_edge.training.resume import read_state, refuse_to_replace, saved_run, state_until_written
from uflow_edge.training.saving import TRIALS, save_checkpoint
from uflow_edge.training.standardize import standardize, supported_choice

logger = logging.getLogger(__name__)

FEW_IMAGES = 20
"""With fewer good images, a detector is poor."""
KEPT_PICTURES = 24
"""FP16 weights are rounded with two thirds of them; the others are an independent check."""


@dataclass(frozen=True, slots=True)
class Data:
    """The training images and their preparation.

    Attributes:
        folder: folder of good images, or a data set; see `images.layouts`.
        weights: files with the extractor's weights, one per backbone; by default its ImageNet weights.
        keep_pictures: store 24 held-out images in the checkpoint, with which export compares graphs and rounds FP16
            weights.
        hold_out: share of the images that is held out: they decide when the training stops, and calibration may use
            them.

    Raises:
        UsageError: on construction, unless the share lies between 0 and 1.
    """

    folder: Path
    augmentation: Augmentation = Augmentation()
    standardization: StandardizationChoice = "auto"
    cache: CacheChoice = "auto"
    weights: tuple[Path, ...] = ()
    keep_pictures: bool = True
    hold_out: float = HOLD_OUT

    def __post_init__(self) -> None:
        if not 0 < self.hold_out < 1:
            raise UsageError(f"--hold-out {self.hold_out:g}: expected a share of the images between 0 and 1")


def train(
    data: Data,
    architecture: Architecture,
    options: TrainingOptions,
    checkpoint: Path,
    *,
    device: DeviceChoice = "auto",
    restart: bool = False,
    overwrite: bool = False,
    alternatives: Sequence[Architecture] = (),
    report: Path | None = None,
    on_step: Callable[[Progress], None] = lambda progress: None,
    on_epoch: Callable[[Sequence[Epoch]], None] = lambda epochs: None,
) -> Fit:
    """Train a U-Flow and write its checkpoint in one rename.

    Args:
        architecture: taken unless an alternative finds more of the defects that are drawn into held-out images.
        alternatives: see `options.alternatives`; they are not tried with augmentation, which computes features anew.
        report: HTML file to write about what was tried; none is written where nothing was judged.
        checkpoint: file to write; during the training its `resume_file` holds the state. Its `log_file` holds a row
            per epoch.
        restart: discard an interrupted run.
        on_epoch: called with all epochs so far when one ends.

    Raises:
        BadInput: images cannot be used, an interrupted run has other options, or the checkpoint exists already or
            cannot be written. All of this is checked before the first feature is computed.
        UsageError: the extractor does not support this standardisation.
        MissingDependency: the device or the extractor's weights are not available.
        Unavailable: the GPU has too little free memory.
        KeyboardInterrupt: on Ctrl-C, after everything was saved.
    """
    on = chosen_device(device)
    refuse_to_replace(checkpoint, "file", overwrite)
    resume = resume_file(checkpoint)
    images = good_images(data.folder)
    if len(images) < FEW_IMAGES:
        logger.warning(
            f"warning: a detector trained on {counted(len(images), 'good image')} is poor; expect a good one from 50 on"
        )
    fit_paths, held_paths = hold_out(images, data.hold_out, options.seed)
    logger.info(f"{counted(len(fit_paths), 'good image')} to fit, {len(held_paths)} held out to decide when to stop")
    hashes = checked_images(images)
    trained_on = {FITTED: [hashes[path] for path in fit_paths], HELD_OUT: [hashes[path] for path in held_paths]}
    kept = spread(held_paths, KEPT_PICTURES) if data.keep_pictures else []
    images_kept = [model_input(read_image(path), architecture.input_size) for path in kept]

    network = seeded_network(architecture, options.seed)
    standardization = supported_choice(network, data.standardization)
    origin = load_pretrained(network.feature_extractor, architecture.extractor, data.weights)
    logger.info(f"weights of {architecture.extractor}: {origin}")
    is_judged = standardization != "none" and len(held_paths) >= FEWEST_IMAGES
    candidates = [architecture, *(alternatives if is_judged and data.augmentation.is_none else ())]
    run = _run(network, data, standardization, options, trained_on)
    run |= {"device": on.type, "alternatives": len(candidates) - 1}
    if not restart:
        read_state(resume, run, dict)
    check_writable(checkpoint, size=_bytes_to_write(network))
    check_writable(log_file(checkpoint))
    if report is not None:
        check_writable(report)
    if not is_judged and standardization != "none":
        logger.info(f"fewer than {FEWEST_IMAGES} held-out images: features are not chosen by drawn defects")

    def end_epoch(epochs: Sequence[Epoch]) -> None:
        write_log(log_file(checkpoint), epochs)
        on_epoch(epochs)

    graph = EnergyGraph(network).eval().to(on)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(repeatable(on))
        fit: Features = AugmentedFeatures(graph, fit_paths, data.augmentation, options.seed)
        if data.augmentation.is_none:
            fit = stack.enter_context(CachedFeatures(graph, fit_paths, where=data.cache, folder=checkpoint.parent))
            logger.info(f"features of {counted(len(fit), 'image')} cached in {fit.where}: {fit.bytes / 2**20:.0f} MiB")
        held = stack.enter_context(CachedFeatures(graph, held_paths, where=data.cache, folder=checkpoint.parent))
        if restart:
            resume.unlink(missing_ok=True)
        trials: list[Trial] = []
        judge: Callable[[], float] | None = None
        if is_judged:
            exam = Exam.of(held_paths, architecture.input_size, options.seed)
            drawn = CachedFeatures(graph, exam.images, where=data.cache, folder=checkpoint.parent)
            held_out = HeldOut(stack.enter_context(drawn), exam.counts)
            trials = [Trial(**trial) for trial in saved_run(resume).get(TRIALS, [])] or try_laws(
                candidates, fit, held_out, standardization
            )
            log_trials(trials)
            run |= {TRIALS: [trial.record() for trial in trials]}
            best = best_of(trials)
            standardization = best.standardization
            network = with_backbone_of(network, seeded_network(best.applied_to(architecture), options.seed))
            judge = partial(_not_found, network, held_out)
        chosen = standardize(network, fit, held, standardization)
        logger.info(f"features standardised by {chosen}")
        result = fit_flow(
            network, fit, held, options, resume_file=resume, run=run, judge=judge, on_step=on_step, on_epoch=end_epoch
        )
    network.cpu()
    with state_until_written(checkpoint):
        save_checkpoint(network, result, images_kept, trained_on, origin, checkpoint, trials)
    if report is not None and is_judged:
        write_page(report, report_page(trials, exam, result.epochs))
    return result


def _not_found(network: UFlow, held_out: HeldOut) -> float:
    # Smaller differences are chance, and a flow that is no better than its start takes time for nothing.
    return round(1 - judged_network(network, held_out).found, 3)


def _run(
    network: UFlow,
    data: Data,
    standardization: StandardizationChoice,
    options: TrainingOptions,
    trained_on: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Everything that decides the weights, by names for people; patience only decides when to stop."""
    fitting = asdict(options)
    del fitting["patience"]
    return {
        **network.architecture.hyper_parameters(),
        **fitting,
        **asdict(data.augmentation),
        "standardising": standardization,
        "bits": in_use().bits or 16,
        "weights_of_the_extractor": _digest(network.feature_extractor.state_dict()),
        **{f"{split}_images": list(hashes) for split, hashes in trained_on.items()},
    }


def _digest(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _bytes_to_write(network: UFlow) -> int:
    """Size of checkpoint and state; the state holds the flow four times: current, best, and Adam's two moments."""

    def size(module: nn.Module) -> int:
        return sum(value.numel() * value.element_size() for value in module.state_dict().values())

    return size(network) + 4 * size(network.flow)


def seeded_network(architecture: Architecture, seed: int) -> UFlow:
    """A network whose seed decides its initial weights and permutations; global random states do not change."""
    numpy_state = np.random.get_state()  # noqa: NPY002 - FrEIA draws its permutations from the global generator
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            return UFlow(architecture)
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
