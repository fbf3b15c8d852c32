"""The small UNet of `train_unet`, the noise that it learns to predict, and the folder that it is saved to.

Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020.
"""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from safetensors import SafetensorError
from torch import Tensor

from uflow_edge.export.unet.schedule import NOISIEST_STEP
from uflow_edge.runtime.numeric import FloatMap
from uflow_edge.runtime.storage.files import replacing_folder
from uflow_edge.training.diffusion_options import SCHEDULE_STEPS, DiffusionOptions


def seeded_unet(options: DiffusionOptions) -> UNet2DModel:
    """A convolutional UNet without attention; the seed decides its initial weights."""
    levels = len(options.channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        model: UNet2DModel = UNet2DModel(
            sample_size=options.image_size,
            in_channels=3,
            out_channels=3,
            block_out_channels=options.channels,
            layers_per_block=options.blocks,
            down_block_types=("DownBlock2D",) * levels,
            up_block_types=("UpBlock2D",) * levels,
            norm_num_groups=8,
            add_attention=False,
        )
    return model


def noise_schedule() -> DDPMScheduler:
    """The linear schedule with the smaller of the two fixed variances (Ho et al., section 3.2)."""
    scheduler: DDPMScheduler = DDPMScheduler(
        num_train_timesteps=SCHEDULE_STEPS, beta_schedule="linear", variance_type="fixed_small"
    )
    return scheduler


@cache
def alphas_cumprod() -> FloatMap:
    """ᾱ of each step, (1000,) float32: the remaining share of the image's variance."""
    values = np.asarray(noise_schedule().alphas_cumprod.numpy(), np.float32).copy()
    values.flags.writeable = False
    return values


def noised(clean: Tensor, steps: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Add the noise of a step to patches.

    Args:
        clean: (N, 3, S, S) in [-1, 1].
        steps: (N,) int64, indices into the schedule.

    Returns:
        The noisy patches and their noise, a normal draw, both (N, 3, S, S).
    """
    noise = torch.from_numpy(random.standard_normal(clean.shape, np.float32))
    alpha = torch.from_numpy(alphas_cumprod()[steps.numpy()]).reshape(-1, 1, 1, 1)
    return alpha.sqrt() * clean + (1 - alpha).sqrt() * noise, noise


def save_unet(model: UNet2DModel, out: Path, noisiest_step: int, *, overwrite: bool = True) -> None:
    """Write a folder in the layout of diffusers (``unet/``, ``scheduler/``), in one rename.

    Args:
        noisiest_step: the noisiest step that the network has learned; stored beside the schedule as a limit.

    Raises:
        BadInput: the folder exists and may not be replaced.
        OSError: the folder cannot be written.
    """
    scheduler = noise_schedule()
    scheduler.register_to_config(**{NOISIEST_STEP: noisiest_step})
    try:
        with replacing_folder(out, overwrite=overwrite) as temporary:
            model.save_pretrained(temporary / "unet")
            scheduler.save_pretrained(temporary / "scheduler")
    except SafetensorError as error:
        raise OSError(f"{out}: cannot be written ({error})") from error
