"""From a folder of good images to a checkpoint in the authors' layout."""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from uflow_edge.export.checkpoints.checkpoint import (
    BITS,
    EXTRACTOR_WEIGHTS,
    FITTED,
    HELD_OUT,
    PICTURES,
    PREFIX,
    TRAINED_ON,
)
from uflow_edge.export.checkpoints.tensors import save_tensors
from uflow_edge.export.network.architecture import Architecture
from uflow_edge.export.network.uflow import EnergyGraph, UFlow
from uflow_edge.runtime.errors import UsageError
from uflow_edge.runtime.images.decode import in_use
from uflow_edge.runtime.images.files import read_image, spread
from uflow_edge.runtime.images.layouts import good_images
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.resize.cpu import model_input
from uflow_edge.runtime.storage.files import check_writable
from uflow_edge.runtime.text import counted
from uflow_edge.training.dataset import checked_images, hold_out
from uflow_edge.training.device import chosen_device, repeatable
from uflow_edge.training.features import AugmentedFeatures, CachedFeatures, Features
from uflow_edge.training.fit import Fit, fit_flow
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
from uflow_edge.training.resume import read_state, refuse_to_replace, state_until_written
from uflow_edge.training.standardize import standardize, supported_choice

logger = logging.getLogger(__name__)

FEW_IMAGES = 20
"""With fewer good images, a detector is poor."""
KEPT_PICTURES = 24
"""FP16 weights are rounded with two thirds of them; the others are an independent check."""
_LIGHTNING_LAYOUT = "2.0.0"


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
    on_step: Callable[[Progress], None] = lambda progress: None,
    on_epoch: Callable[[Sequence[Epoch]], None] = lambda epochs: None,
) -> Fit:
    """Train a U-Flow and write its checkpoint in one rename.

    Args:
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
    run = {**_run(network, data, standardization, options, trained_on), "device": on.type}
    if not restart:
        read_state(resume, run, dict)
    check_writable(checkpoint, size=_bytes_to_write(network))
    check_writable(log_file(checkpoint))

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
        chosen = standardize(network, fit, held, standardization)
        logger.info(f"features standardised by {chosen}")
        if restart:
            resume.unlink(missing_ok=True)
        result = fit_flow(network, fit, held, options, resume_file=resume, run=run, on_step=on_step, on_epoch=end_epoch)
    network.cpu()
    with state_until_written(checkpoint):
        save_checkpoint(network, result, images_kept, trained_on, origin, checkpoint)
    return result


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


def save_checkpoint(
    network: UFlow,
    result: Fit,
    images: Sequence[Image],
    trained_on: Mapping[str, Sequence[str]],
    weights: str,
    path: Path,
) -> None:
    """Write the weights in the layout of the authors' trainer, with our hashes, images and bit depth beside them.

    Args:
        images: held-out good images, (S, S, 3) uint8 RGB each; may be empty.
        trained_on: the `content_hash` of every image under `FITTED` and `HELD_OUT`, so that calibration recognises
            images that the network has seen.
        weights: origin of those of the extractor.
    """
    state = {PREFIX + name: value for name, value in network.state_dict().items()}
    state["pixel_aupro.fpr_limit"] = torch.tensor(0.3)  # upstream's own metric; without it, its strict loading fails
    content = {
        "epoch": result.epochs[-1].epoch,
        "global_step": result.steps,
        "pytorch-lightning_version": _LIGHTNING_LAYOUT,
        "state_dict": state,
        "hyper_parameters": network.architecture.hyper_parameters(),
        TRAINED_ON: {split: list(hashes) for split, hashes in trained_on.items()},
        EXTRACTOR_WEIGHTS: weights,
    }
    if (bits := in_use().bits) is not None:
        content[BITS] = bits
    if images:
        content[PICTURES] = torch.from_numpy(np.stack(images))
    save_tensors(content, path)
