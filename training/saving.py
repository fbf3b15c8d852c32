"""The file that a training writes: the authors' layout, with what we add beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from uflow_edge.export.checkpoints.checkpoint import BITS, EXTRACTOR_WEIGHTS, PICTURES, PREFIX, TRAINED_ON
from uflow_edge.export.checkpoints.tensors import save_tensors
from uflow_edge.export.network.uflow import UFlow
from uflow_edge.runtime.images.decode import in_use
from uflow_edge.runtime.numeric import Image
from uflow_edge.training.fit import Fit
from uflow_edge.training.judge.trials import Trial

TRIALS = "trials"
"""Entry of a checkpoint, and of the state of a run: records of `Trial`, which nothing but people read."""
_LIGHTNING_LAYOUT = "2.0.0"


def save_checkpoint(
    network: UFlow,
    result: Fit,
    images: Sequence[Image],
    trained_on: Mapping[str, Sequence[str]],
    weights: str,
    path: Path,
    trials: Sequence[Trial] = (),
) -> None:
    """Write the weights in the layout of the authors' trainer, with our hashes, images and bit depth beside them.

    Args:
        images: held-out good images, (S, S, 3) uint8 RGB each; may be empty.
        trained_on: the `content_hash` of every image under `FITTED` and `HELD_OUT`, so that calibration recognises
            images that the network has seen.
        weights: origin of those of the extractor.
        trials: what was tried before the first step, and how well it did.
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
        TRIALS: [trial.record() for trial in trials],
        EXTRACTOR_WEIGHTS: weights,
    }
    if (bits := in_use().bits) is not None:
        content[BITS] = bits
    if images:
        content[PICTURES] = torch.from_numpy(np.stack(images))
    save_tensors(content, path)
