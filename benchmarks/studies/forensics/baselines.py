"""What else takes traces away: the simple means that the paper compares with."""

import cv2
import numpy as np

from uflow_edge.benchmarks.studies.forensics.traces import jpeg
from uflow_edge.runtime.numeric import Image

__all__ = ["gaussian_noise", "jpeg", "median_filter"]


def gaussian_noise(image: Image, sigma: float, random: np.random.Generator) -> Image:
    """White noise of a standard deviation in grey levels, each channel on its own."""
    return np.clip(np.rint(image + random.normal(0.0, sigma, image.shape)), 0, 255).astype(np.uint8)


def median_filter(image: Image, side: int) -> Image:
    """Of squares of pixels, channel by channel."""
    return np.asarray(cv2.medianBlur(image, side), np.uint8)
