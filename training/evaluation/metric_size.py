"""Measures pixels at one size for all images, as the paper does at 256 x 256, instead of at the size of each image."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.views import mask_in_frame


def resized_truth(truth: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Resize an (H, W) bool mask to (side, side): a pixel is defective if more than half of it is.

    Pillow's antialiased bilinear filter, above one half, is what the authors' code does.
    """
    grey = PillowImage.fromarray(truth.astype(np.uint8) * 255)
    return np.asarray(grey.resize((side, side), PillowImage.Resampling.BILINEAR)) > 127


def resized_inspection(inspection: Inspection, point: OperatingPoint, side: int) -> Inspection:
    """The inspection of the same frame as if it had side x side pixels; the score and the regions do not change.

    Maps are not resized twice: they are enlarged from the network's output to the new size.
    """
    height, width = inspection.verdict.size
    left, top, right, bottom = inspection.box
    box = (left * side // width, top * side // height, -(-right * side // width), -(-bottom * side // height))
    mask = mask_in_frame(inspection.score, point, (side, side), box)
    return replace(inspection, verdict=replace(inspection.verdict, size=(side, side), mask=mask), box=box)
