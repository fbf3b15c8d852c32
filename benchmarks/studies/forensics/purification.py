"""The product's purifier, from an exported bundle, as a function of an image."""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.unet import UNetManifest
from uflow_edge.runtime.diffusion.options import Guidance, PurifyOptions
from uflow_edge.runtime.diffusion.purifier import Purifier
from uflow_edge.runtime.engines.selection import open_engine
from uflow_edge.runtime.numeric import Image

Purify: TypeAlias = Callable[[Image, Guidance], Image]
"""(H, W, 3) uint8 RGB and a guide to the purified image of the same size."""


def purifier(bundle: Path, steps: int) -> Purify:
    """Purify with noise up to a step of the schedule. Each image has noise of its own that follows from its content.

    Args:
        bundle: of a UNet; runs in onnxruntime on the CPU.
        steps: t of the paper.
    """
    loaded = Bundle.load(bundle, UNetManifest)
    engine = open_engine(loaded, "onnxruntime")

    def purify(image: Image, guide: Guidance) -> Image:
        options = PurifyOptions(steps=steps, guide=guide, seed=zlib.crc32(image.tobytes()))
        return Purifier.of(engine.run, loaded.manifest, options).purify(image)

    return purify
