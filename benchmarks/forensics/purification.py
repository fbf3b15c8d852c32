"""The product's purifier around a UNet that was just trained, without the detour over an exported bundle."""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from numpy.typing import NDArray

from uflow_edge.runtime.diffusion.purifier import Guidance, Purifier, PurifyOptions
from uflow_edge.runtime.diffusion.sampling import NoisePredictor
from uflow_edge.runtime.diffusion.schedule import NoiseSchedule
from uflow_edge.runtime.numeric import FloatMap, Image

Purify: TypeAlias = Callable[[Image, Guidance], Image]
"""(H, W, 3) uint8 RGB and a guide to the purified image of the same size."""


def purifier(unet: Path, steps: int) -> Purify:
    """Purify with noise up to a step of the schedule. Each image has noise of its own that follows from its content.

    Args:
        unet: folder that `uflow_edge.training.diffusion.train_unet` wrote.
        steps: t of the paper.
    """
    model = UNet2DModel.from_pretrained(unet / "unet", low_cpu_mem_usage=False).eval()
    predict, schedule = noise_predictor(model), NoiseSchedule.make("linear")

    def purify(image: Image, guide: Guidance) -> Image:
        options = PurifyOptions(steps=steps, guide=guide, seed=zlib.crc32(image.tobytes()))
        return Purifier(predict, schedule, int(model.config["sample_size"]), options).purify(image)

    return purify


def noise_predictor(model: UNet2DModel) -> NoisePredictor:
    """A network in torch, as the purifier calls it."""

    def predict(sample: FloatMap, timestep: NDArray[np.float32]) -> tuple[FloatMap, ...]:
        with torch.no_grad():
            noise = model(torch.from_numpy(np.ascontiguousarray(sample)), torch.from_numpy(timestep)).sample
        return (noise.numpy(),)

    return predict
