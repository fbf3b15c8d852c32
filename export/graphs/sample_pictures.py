"""The pictures that graphs are compared on, and those by which weights are rounded to FP16."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from uflow_edge.runtime.engines.reference import noise_images, one_over_f_noise
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.images.files import IMAGE_SUFFIXES, find_images, read_image, spread
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.resize.cpu import Fit, model_input

_NEIGHBOURING_IMAGES = 8
_PARITY_IMAGES = 32  # many, for the bound is on the worst pixel of all
_ROUNDING_PICTURES, _STAND_INS = 16, 12
_BRIGHTNESS, _CONTRAST = (60.0, 190.0), (8.0, 50.0)
_CHROMA = (0.0, 0.0, 0.3)  # one in three has colours


def parity_images(
    checkpoint: Path, given: Sequence[Path], side: int, fit: Fit, carried: Sequence[Image] = ()
) -> list[Image]:
    """Pictures to compare engines on, (S, S, 3) uint8 RGB.

    Args:
        checkpoint: the checkpoint's file; images beside it are used if none are given.
        given: images and folders of images; 32 of them are used, spread evenly. If empty: the pictures that the
            checkpoint carries, or else seeded noise, and the first few images beside it.
        side: S, the model's input size.
        fit: how images that are not square become so.
        carried: pictures in the checkpoint.

    Raises:
        BadInput: an image that was given is missing or cannot be read.
    """
    if given:
        return _read(given, _PARITY_IMAGES, side, fit)
    pictures = list(carried or noise_images(side))
    beside = sorted(path for path in checkpoint.parent.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    for file in beside[:_NEIGHBOURING_IMAGES]:
        with suppress(BadInput):  # nobody named it
            pictures.append(model_input(read_image(file), side, fit))
    return pictures


def rounding_pictures(given: Sequence[Path], side: int, fit: Fit, carried: Sequence[Image] = ()) -> list[Image]:
    """Up to 16 pictures like those that the network will see: given ones, the checkpoint's, or else stand-ins.

    Args:
        given: images and folders of images, spread evenly.
        side: S, the model's input size.
        fit: how images that are not square become so.
        carried: pictures in the checkpoint.

    Returns:
        (S, S, 3) uint8 RGB each.

    Raises:
        BadInput: an image that was given is missing or cannot be read.
    """
    if given:
        return _read(given, _ROUNDING_PICTURES, side, fit)
    return spread(carried, _ROUNDING_PICTURES) if carried else stand_ins(side)


def stand_ins(side: int, seed: int = 0) -> list[Image]:
    """Seeded noise with the spectrum of photographs, of varied brightness and contrast, grey and coloured.

    If all pictures were alike, the rounding of the weights would suit them and no others.
    """
    random = np.random.default_rng(seed)

    def planes(count: int) -> np.ndarray:
        noise = one_over_f_noise(random, count, side)
        return np.asarray(noise / noise.std())

    pictures = []
    for i in range(_STAND_INS):
        texture = planes(1) + _CHROMA[i % len(_CHROMA)] * planes(3)
        picture = random.uniform(*_BRIGHTNESS) + random.uniform(*_CONTRAST) * texture
        pictures.append(np.clip(picture.transpose(1, 2, 0), 0, 255).astype(np.uint8))
    return pictures


def _read(given: Sequence[Path], count: int, side: int, fit: Fit) -> list[Image]:
    return [model_input(read_image(file), side, fit) for file in spread(list(find_images(given)), count)]
