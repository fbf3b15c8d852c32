"""The channel that the detectors look at."""

import numpy as np

from uflow_edge.runtime.numeric import FloatMap, Image


def luminance(image_rgb: Image) -> FloatMap:
    """Rec. 601 luma, as JPEG has it, not rounded: (H, W, 3) uint8 to (H, W) float32, 0 to 255."""
    return np.asarray(image_rgb.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32), np.float32)
