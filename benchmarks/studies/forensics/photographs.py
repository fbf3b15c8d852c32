"""Photographs without a history: those to learn from and those to test with, which share no scene.

All come with the wheels of scikit-image and scikit-learn. Those to test with are used as they are: neither a JPEG grid
nor enlargement is detected in them. The others were JPEG files once, or enlarged (the astronaut shows a peak at 0.177
cycles a pixel in every part); averaging 2 × 2 pixels takes that away, and they are what is learned from.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as PillowImage

from uflow_edge.runtime.errors import require
from uflow_edge.runtime.numeric import Image

CROP = 160


@dataclass(frozen=True, slots=True)
class Photograph:
    """A name, and (H, W, 3) uint8 RGB."""

    name: str
    image: Image


def test_photographs() -> list[Photograph]:
    """In colour: a cup of coffee (Rachel Michetti), a motorcycle (Middlebury stereo, 2014)."""
    data = require("skimage.data", "dev")
    return [Photograph("coffee", data.coffee()), Photograph("motorcycle", data.stereo_motorcycle()[0])]


def grey_photographs() -> list[Photograph]:
    """More to test detectors with: a man with a camera, bricks, gravel; grey, as three equal channels."""
    data = require("skimage.data", "dev")
    return [
        Photograph(name, np.repeat(load()[:, :, None], 3, axis=2))
        for name, load in (("camera", data.camera), ("brick", data.brick), ("gravel", data.gravel))
    ]


test_photographs.__test__ = False  # type: ignore[attr-defined]


def training_photographs() -> list[Photograph]:
    """An astronaut, a cat, a rocket, stained tissue (scikit-image), a temple, a flower (scikit-learn), at half size."""
    data, samples = require("skimage.data", "dev"), require("sklearn.datasets", "train")
    full = {
        "astronaut": data.astronaut(),
        "cat": data.chelsea(),
        "rocket": data.rocket(),
        "tissue": data.immunohistochemistry(),
        "temple": samples.load_sample_image("china.jpg"),
        "flower": samples.load_sample_image("flower.jpg"),
    }
    return [Photograph(name, _halved(image)) for name, image in full.items()]


def write_training_photographs(folder: Path) -> None:
    """Write them as PNG, for the trainer to find."""
    folder.mkdir(parents=True, exist_ok=True)
    for photograph in training_photographs():
        PillowImage.fromarray(photograph.image).save(folder / f"{photograph.name}.png")


def crops(photographs: list[Photograph], side: int = CROP) -> list[Photograph]:
    """All squares that fit side by side, photograph by photograph."""
    return [
        Photograph(f"{name}-{top // side}-{left // side}", image[top : top + side, left : left + side].copy())
        for name, image in ((photograph.name, photograph.image) for photograph in photographs)
        for top in range(0, image.shape[0] - side + 1, side)
        for left in range(0, image.shape[1] - side + 1, side)
    ]


def _halved(image: Image) -> Image:
    size = (image.shape[1] // 2, image.shape[0] // 2)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
