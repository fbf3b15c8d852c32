"""The small UNet that `train_unet` trains, the noise it learns to predict, and the folder that it is kept in.

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
    """A convolutional UNet without attention, whose initial weights follow from the seed."""
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
    """Linear, with the smaller of the two fixed variances (Ho et al., section 3.2): the network learns none."""
    scheduler: DDPMScheduler = DDPMScheduler(
        num_train_timesteps=SCHEDULE_STEPS, beta_schedule="linear", variance_type="fixed_small"
    )
    return scheduler


@cache
def alphas_cumprod() -> FloatMap:
    """ᾱ of each step, (1000,) float32: the share of the picture's variance that is left."""
    values = np.asarray(noise_schedule().alphas_cumprod.numpy(), np.float32).copy()
    values.flags.writeable = False
    return values


def noised(clean: Tensor, steps: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Patches with as much noise as belongs to a step, and that noise.

    Args:
        clean: (N, 3, S, S) in [-1, 1].
        steps: (N,) int64, indices into the schedule.
        random: what the noise is drawn from.

    Returns:
        The noisy patches and the normal draw in them, both (N, 3, S, S).
    """
    noise = torch.from_numpy(random.standard_normal(clean.shape, np.float32))
    alpha = torch.from_numpy(alphas_cumprod()[steps.numpy()]).reshape(-1, 1, 1, 1)
    return alpha.sqrt() * clean + (1 - alpha).sqrt() * noise, noise


def save_unet(model: UNet2DModel, out: Path, noisiest_step: int, *, overwrite: bool = True) -> None:
    """Write a folder as diffusers lays it out (``unet/``, ``scheduler/``) in one rename.

    Args:
        model: the network.
        out: the folder.
        noisiest_step: that it has learned; kept beside the schedule, so that nobody asks for more.
        overwrite: replace the folder if it is there.

    Raises:
        BadInput: the folder is there, and may not be replaced.
        OSError: it cannot be written.
    """
    scheduler = noise_schedule()
    scheduler.register_to_config(**{NOISIEST_STEP: noisiest_step})
    try:
        with replacing_folder(out, overwrite=overwrite) as temporary:
            model.save_pretrained(temporary / "unet")
            scheduler.save_pretrained(temporary / "scheduler")
    except SafetensorError as error:
        raise OSError(f"{out}: cannot be written ({error})") from error
