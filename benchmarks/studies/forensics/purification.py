"""The product's purifier, from an exported bundle, as a function of an image."""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from uflow_edge.runtime.diffusion.options import Guidance, PurifyOptions
from uflow_edge.runtime.diffusion.purifier import Purifier
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.purify.network import open_network

Purify: TypeAlias = Callable[[Image, Guidance], Image]
"""(H, W, 3) uint8 RGB and a guide to the purified image of the same size."""


def purifier(bundle: Path, steps: int) -> Purify:
    """Purify with noise up to a step of the schedule. Each image has noise of its own that follows from its content.

    Args:
        bundle: of a UNet; runs in onnxruntime on the CPU.
        steps: t of the paper.
    """
    network = open_network(bundle, "onnxruntime")

    def purify(image: Image, guide: Guidance) -> Image:
        options = PurifyOptions(steps=steps, guide=guide, seed=zlib.crc32(image.tobytes()))
        return Purifier(network.predict, network.schedule, network.image_size, options, network.noisiest_step).purify(
            image
        )

    return purify
