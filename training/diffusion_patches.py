"""Random patches of photographs, for training a diffusion network."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from uflow_edge.runtime.cli.command_line import progress
from uflow_edge.runtime.errors import BadInput, refuse_faults
from uflow_edge.runtime.images.files import read_image
from uflow_edge.runtime.numeric import FloatMap, Image


class Patches:
    """Random square patches of images; the probability of an image grows with its size.

    Args:
        side: side of a patch in pixels.
    """

    def __init__(self, images: Sequence[Image], side: int) -> None:
        self._side = side
        self._images = images
        places = np.array([(i.shape[0] - side + 1) * (i.shape[1] - side + 1) for i in self._images], np.float64)
        self._probabilities = places / places.sum()

    def draw(self, count: int, random: np.random.Generator) -> FloatMap:
        """Draw patches at random places, mirrored and rotated at random.

        Returns:
            (count, 3, side, side) float32 RGB in [-1, 1].
        """
        chosen = random.choice(len(self._images), count, p=self._probabilities)
        patches = np.stack([self._one(self._images[i], random) for i in chosen])
        return np.ascontiguousarray(patches.transpose(0, 3, 1, 2), np.float32) * np.float32(2 / 255) - np.float32(1)

    def _one(self, image: Image, random: np.random.Generator) -> Image:
        top, left = (int(random.integers(size - self._side + 1)) for size in image.shape[:2])
        patch = image[top : top + self._side, left : left + self._side]
        mirrored, turns = random.random() < 0.5, int(random.integers(4))
        return np.rot90(patch[:, ::-1] if mirrored else patch, turns)


def read_images(paths: Sequence[Path], side: int) -> list[Image]:
    """Read all images, (H, W, 3) uint8 RGB each, at least ``side`` pixels high and wide.

    Raises:
        BadInput: some images cannot be read or are too small; the message names them.
    """
    images: list[Image] = []
    faults: list[str] = []
    for path in progress(paths, "reading images"):
        try:
            images.append(_read(path, side))
        except BadInput as error:
            faults.append(str(error))
    refuse_faults(faults, "Repair them or remove them from the folder")
    return images


def _read(path: Path, side: int) -> Image:
    image = np.asarray(cv2.cvtColor(read_image(path), cv2.COLOR_BGR2RGB), np.uint8)
    if min(image.shape[:2]) < side:
        height, width = image.shape[:2]
        raise BadInput(f"{path}: {width} x {height} pixels; expected at least the size of a patch, {side} x {side}")
    return image
