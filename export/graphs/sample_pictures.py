"""The pictures that engines are compared on."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from uflow_edge.runtime.engines.reference import noise_images
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.images.files import IMAGE_SUFFIXES, find_images, read_image, spread
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.resize.cpu import Fit, model_input

_NEIGHBOURING_IMAGES = 8
_GIVEN_IMAGES = 32
"""The bound is on the worst pixel of all, which the number of pictures must not decide."""


def parity_images(
    checkpoint: Path, given: Sequence[Path], side: int, fit: Fit, carried: Sequence[Image] = ()
) -> list[Image]:
    """Pictures to compare engines on, (S, S, 3) uint8 RGB.

    Args:
        checkpoint: the checkpoint's file; images beside it are taken if none are given.
        given: images and folders of them, of which 32 are taken, spread evenly; if empty, what the
            checkpoint carries, or else seeded noise, and the first few images beside it.
        side: S, the model's input size.
        fit: how images that are not square become so.
        carried: pictures in the checkpoint.

    Raises:
        BadInput: an image that was given is missing or cannot be read.
    """
    if given:
        return [model_input(read_image(file), side, fit) for file in spread(list(find_images(given)), _GIVEN_IMAGES)]
    pictures = list(carried or noise_images(side))
    beside = sorted(path for path in checkpoint.parent.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    for file in beside[:_NEIGHBOURING_IMAGES]:
        with suppress(BadInput):  # nobody named it
            pictures.append(model_input(read_image(file), side, fit))
    return pictures
