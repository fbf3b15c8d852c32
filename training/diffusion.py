"""Trains a small diffusion UNet on photographs to predict the noise in a noisy patch (Ho et al., 2020, eq. 14).

It learns only the least noisy steps of the schedule, which purification uses; see `DiffusionOptions`.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers.models.unets.unet_2d import UNet2DModel

from uflow_edge.runtime.images.layouts import good_images
from uflow_edge.runtime.numeric import FloatMap
from uflow_edge.runtime.purify.quality import psnr
from uflow_edge.runtime.storage.files import content_hash
from uflow_edge.training.dataset import hold_out
from uflow_edge.training.device import chosen_device, repeatable
from uflow_edge.training.diffusion_fit import HELD_OUT_PATCHES, fit_unet
from uflow_edge.training.diffusion_network import alphas_cumprod, noised, save_unet, seeded_unet
from uflow_edge.training.diffusion_options import DiffusionOptions
from uflow_edge.training.diffusion_patches import Patches, read_images
from uflow_edge.training.options import DeviceChoice
from uflow_edge.training.progress import Progress, resume_file
from uflow_edge.training.resume import refuse_to_replace, state_until_written

logger = logging.getLogger(__name__)

HOLD_OUT = 0.15
PURIFY_STEP = 40
"""The step at which the paper starts to purify, and at which denoising is reported."""


@dataclass(frozen=True, slots=True)
class Denoising:
    """Quality of denoising on held-out patches with the noise of one step, as PSNR in dB; higher is better.

    Attributes:
        step: index into the schedule.
        noisy: without denoising.
        gaussian: with the best of several Gaussian filters.
        network: with the network, in one evaluation.
    """

    step: int
    noisy: float
    gaussian: float
    network: float

    def __str__(self) -> str:
        return (
            f"held-out patches with the noise of step {self.step}: {self.noisy:.2f} dB without denoising, "
            f"{self.gaussian:.2f} dB with the best Gaussian filter, {self.network:.2f} dB with the network"
        )


@dataclass(frozen=True, slots=True)
class DiffusionFit:
    """The result of a training.

    Attributes:
        held_out: mean squared error of the predicted noise at each evaluation on the held-out patches.
        denoising: quality at the step where purification starts, or at the noisiest step that was learned.
    """

    steps: int
    held_out: tuple[float, ...]
    denoising: Denoising


def train_unet(
    folder: Path,
    options: DiffusionOptions,
    out: Path,
    *,
    device: DeviceChoice = "auto",
    restart: bool = False,
    overwrite: bool = False,
    on_step: Callable[[Progress], None] = lambda progress: None,
) -> DiffusionFit:
    """Train a UNet and write it in the layout of diffusers (``unet/``, ``scheduler/``), in one rename.

    Every ``report_every`` steps, and on Ctrl-C, the state is written to ``<out>.resume``. The same call continues from
    there and ends with the same weights as without the interruption.

    Args:
        folder: folder of at least two photographs; a few are held out.
        restart: discard an interrupted run.

    Raises:
        BadInput: images that cannot be used, an interrupted run that does not fit these options, a folder that is
            there already or cannot be written, or a fit that diverges.
        MissingDependency: the device is not available.
        Unavailable: the GPU has too little free memory.
        KeyboardInterrupt: on Ctrl-C, after everything was saved.
    """
    on = chosen_device(device)
    refuse_to_replace(out, "folder", overwrite)
    resume = resume_file(out)
    paths = good_images(folder)
    fit_paths, held_paths = hold_out(paths, HOLD_OUT, options.seed)
    logger.info(
        f"{len(fit_paths)} images to fit, {len(held_paths)} held out: {', '.join(p.name for p in held_paths[:5])}"
    )
    images = read_images([*fit_paths, *held_paths], options.image_size)
    fit, held_out = (Patches(some, options.image_size) for some in (images[: len(fit_paths)], images[len(fit_paths) :]))
    run = {**asdict(options), "device": on.type, "images": [content_hash(path) for path in paths]}
    if restart:
        resume.unlink(missing_ok=True)
    model = seeded_unet(options)
    logger.info(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    with repeatable(on):
        model.to(on)  # type: ignore[arg-type] # diffusers wraps it without its types
        losses = fit_unet(model, fit, held_out, options, run, resume, on_step)
    model.cpu()
    step = min(PURIFY_STEP, options.noisiest_step)
    result = DiffusionFit(options.steps, losses, denoising(model, held_out, step, options.seed))
    with state_until_written(out):
        save_unet(model, out, options.noisiest_step, overwrite=overwrite)
    return result


def denoising(model: UNet2DModel, patches: Patches, step: int, seed: int) -> Denoising:
    """Measure how well the network denoises patches with the noise of one step, in one evaluation."""
    random = np.random.default_rng((seed, step))
    clean = patches.draw(HELD_OUT_PATCHES, random)
    steps = torch.full((HELD_OUT_PATCHES,), step)
    noisy, _ = noised(torch.from_numpy(clean), steps, random)
    alpha = float(alphas_cumprod()[step])
    with torch.no_grad():
        estimate = (noisy - math.sqrt(1 - alpha) * model(noisy, steps).sample) / math.sqrt(alpha)
    unscaled = (noisy / math.sqrt(alpha)).numpy()
    filtered = [psnr(_gaussian(unscaled, sigma), clean, 2) for sigma in np.arange(0.3, 2.0, 0.1)]
    return Denoising(step, psnr(unscaled, clean, 2), max(filtered), psnr(estimate.clamp(-1, 1).numpy(), clean, 2))


def _gaussian(images: FloatMap, sigma: float) -> FloatMap:
    return np.stack([[cv2.GaussianBlur(plane, (0, 0), sigma) for plane in image] for image in images])
