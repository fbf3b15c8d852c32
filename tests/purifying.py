"""A purifier of files whose network takes a few lines."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from skimage import data

from uflow_edge.runtime.diffusion.options import PurifyOptions
from uflow_edge.runtime.diffusion.purifier import Purifier
from uflow_edge.runtime.diffusion.schedule import NoiseSchedule
from uflow_edge.runtime.purify.images import FilePurifier, PurifyOutcome
from uflow_edge.runtime.purify.jobs import plan_jobs

LINEAR = NoiseSchedule.make("linear")
PHOTO = data.astronaut()[:100, 180:300]


class Smoother:
    """A network that takes for noise whatever a blur takes away; counts the patches it has seen."""

    def __init__(self) -> None:
        self.patches = 0

    def __call__(self, sample: np.ndarray, timestep: np.ndarray) -> tuple[np.ndarray, ...]:
        self.patches += len(sample)
        left = LINEAR.alphas_cumprod[timestep.astype(int)].reshape(-1, 1, 1, 1)
        planes = sample.reshape(-1, *sample.shape[2:])
        start = np.stack([cv2.GaussianBlur(plane, (5, 5), 0.8) for plane in planes]).reshape(sample.shape)
        return (((sample - start) / np.sqrt(1 - left)).astype(np.float32),)


def file_purifier(network: Callable | None = None, channels: int = 3, keep: bool = False, **options) -> FilePurifier:
    options = {"steps": 2, **options}
    purifier = Purifier(network or Smoother(), LINEAR, 64, PurifyOptions(**options))
    return FilePurifier(purifier, channels, "smoother", keep_metadata=keep)


def purified(path: Path, **options) -> tuple[PurifyOutcome, Image.Image]:
    (outcome,) = file_purifier(**options).run(plan_jobs([path], path.parent / "out"))
    assert outcome.status == "purified", outcome.error
    with Image.open(outcome.job.result) as opened:
        opened.load()
        return outcome, opened
