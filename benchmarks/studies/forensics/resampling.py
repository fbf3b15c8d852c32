"""Whether a region was enlarged: interpolated pixels are better predicted by their neighbours than original ones.

After Kirchner, "Fast and Reliable Resampling Detection by Spectral Analysis of Fixed Linear Predictor Residue" (ACM
MM&Sec 2008), with the residue averaged along lines as in Gallagher, "Detection of Linear and Cubic Interpolation in
JPEG Compressed Images" (CRV 2005): how well pixels are predicted is then periodic, which shows as a peak in the
spectrum. Images are enlarged alike in both directions, so rows and columns must show the same peak. An image f times
enlarged peaks at 1/f cycles a pixel, which reads 1 − 1/f for f < 2.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from uflow_edge.benchmarks.studies.forensics.luminance import luminance
from uflow_edge.runtime.numeric import FloatMap, Image

WINDOW, STRIDE = 96, 16
_PREDICTOR = np.array([[-0.25, 0.5, -0.25], [0.5, 0.0, 0.5], [-0.25, 0.5, -0.25]], np.float32)  # Kirchner, eq. 22
_ROUNDING = 0.5  # grey levels: what a residue is uncertain by
_CONTENT = (17, 17)  # pixels over which the picture's own roughness is averaged
_LOWEST = 0.1  # cycles a pixel: below, it is the picture's content that repeats
_NEIGHBOURHOOD = 15  # frequencies that say what is usual around one
_CERTAINTY = 5.0
"""How many independent powers the median of a neighbourhood is worth: 15 / 2.1, less for the window's overlap."""
_JPEG_GRID = 8  # pixels: at multiples of 1/8 the grid of a JPEG peaks, so nothing is sought there


@dataclass(frozen=True, slots=True)
class ResamplingDetection:
    """What the spectra say.

    Attributes:
        scores: (rows, columns) of each window, −log10 of the number of false alarms of its highest peak.
        frequency: of the most certain peak, cycles a pixel.
    """

    scores: NDArray[np.float64]
    frequency: float

    @property
    def score(self) -> float:
        """−log10 NFA of the whole image; above 0 is a detection."""
        return float(self.scores.max())


def detect_resampling(image_rgb: Image) -> ResamplingDetection:
    """Look at every window.

    Args:
        image_rgb: (H, W, 3) uint8, at least `WINDOW` pixels a side.
    """
    errors = prediction_errors(luminance(image_rgb))
    tops, lefts = (range(0, size - WINDOW + 1, STRIDE) for size in errors.shape)
    sought = np.flatnonzero(_is_sought(np.fft.rfftfreq(WINDOW)))
    tests = len(sought) * len(tops) * len(lefts)
    scores = np.empty((len(tops), len(lefts)))
    peaks = np.empty_like(scores)
    for row, top in enumerate(tops):
        for column, left in enumerate(lefts):
            window = errors[top : top + WINDOW, left : left + WINDOW]
            power = np.minimum(_spectrum(window.mean(axis=0)), _spectrum(window.mean(axis=1)))[sought]
            scores[row, column] = -2 * _log10_tail(power.max()) - math.log10(tests)
            peaks[row, column] = np.fft.rfftfreq(WINDOW)[sought[power.argmax()]]
    return ResamplingDetection(scores, float(peaks.flat[scores.argmax()]))


def prediction_errors(luma: FloatMap) -> FloatMap:
    """Logarithm of how far each pixel is from what its neighbours say, against what is usual around it.

    Args:
        luma: (H, W) float32, 0 to 255.
    """
    residue = luma - cv2.filter2D(luma, cv2.CV_32F, _PREDICTOR, borderType=cv2.BORDER_REFLECT_101)
    error = np.log(np.abs(residue) + np.float32(_ROUNDING))
    return np.asarray(error - cv2.blur(error, _CONTENT, borderType=cv2.BORDER_REFLECT_101), np.float32)


def _is_sought(frequencies: NDArray[np.floating]) -> NDArray[np.bool_]:
    in_grid_units = frequencies * _JPEG_GRID
    near_grid = np.abs(in_grid_units - np.rint(in_grid_units)) < 1.5 * _JPEG_GRID / WINDOW
    return np.asarray((frequencies > _LOWEST) & ~near_grid, np.bool_)


def _spectrum(profile: FloatMap) -> NDArray[np.float64]:
    """Power at each frequency, in units of what is usual around it."""
    centred = (profile - profile.mean()) * np.hanning(len(profile))
    power = np.abs(np.fft.rfft(centred)) ** 2
    around = sliding_window_view(np.pad(power, _NEIGHBOURHOOD // 2, mode="reflect"), _NEIGHBOURHOOD)
    usual = np.median(around, axis=1) / math.log(2)  # an exponential variable's median is ln 2 of its mean
    return np.asarray(power / (usual + 1e-12), np.float64)


def _log10_tail(power: float) -> float:
    """Of an exponential variable divided by its mean as measured from `_CERTAINTY` others: a Fisher ratio."""
    return -_CERTAINTY * math.log10(1 + power / _CERTAINTY)
