"""The pictures by which weights are rounded to FP16: what the network will see, or what it might."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from uflow_edge.runtime.images.files import find_images, read_image, spread
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.resize.cpu import Fit, model_input

_PICTURES, _STAND_INS = 16, 12
_BRIGHTNESS, _CONTRAST = (60.0, 190.0), (8.0, 50.0)
_CHROMA = (0.0, 0.0, 0.3)  # one in three has colours


def rounding_pictures(given: Sequence[Path], side: int, fit: Fit, carried: Sequence[Image] = ()) -> list[Image]:
    """Up to sixteen of the given images, or of what the checkpoint carries, spread evenly over them; or stand-ins.

    Args:
        given: images and folders of them.
        side: S, the model's input size.
        fit: how images that are not square become so.
        carried: pictures in the checkpoint.

    Returns:
        (S, S, 3) uint8 RGB each.

    Raises:
        BadInput: an image that was given is missing or cannot be read.
    """
    files = list(find_images(given)) if given else []
    if not files:
        return spread(carried, _PICTURES) if carried else stand_ins(side)
    return [model_input(read_image(file), side, fit) for file in spread(files, _PICTURES)]


def stand_ins(side: int, seed: int = 0) -> list[Image]:
    """Seeded noise of many a brightness and contrast, grey and coloured, with a photograph's spectrum.

    Pictures that are all alike would have weights rounded to their advantage and to that of no others.
    """
    random = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.rfftfreq(side), np.fft.fftfreq(side)))
    amplitude = 1 / np.maximum(frequency, 1 / side)

    def planes(count: int) -> np.ndarray:
        spectrum = np.fft.rfft2(random.standard_normal((count, side, side))) * amplitude
        noise = np.fft.irfft2(spectrum, s=(side, side))
        return np.asarray(noise / noise.std())

    pictures = []
    for i in range(_STAND_INS):
        texture = planes(1) + _CHROMA[i % len(_CHROMA)] * planes(3)
        picture = random.uniform(*_BRIGHTNESS) + random.uniform(*_CONTRAST) * texture
        pictures.append(np.clip(picture.transpose(1, 2, 0), 0, 255).astype(np.uint8))
    return pictures
