"""How natural an image looks, without the original: small is natural.

After Mittal, Soundararajan, Bovik, "Making a 'Completely Blind' Image Quality Analyzer" (NIQE, IEEE SPL 2013). Each
patch gives 36 features of natural scene statistics, 18 at each of two scales; the distance is between the normal law of
an image's patches and that of photographs without a history. NIQE-like only: fitted on a handful of photographs and on
smaller patches, so that values compare within this benchmark and not with published ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from uflow_edge.benchmarks.studies.forensics.luminance import luminance
from uflow_edge.runtime.numeric import FloatMap, Image

PATCH = 40
_SHARPEST = 0.75  # of the sharpest patch's: patches less sharp than that teach nothing
_SHAPES = np.arange(0.2, 10.0, 0.001)
_GAMMAS = np.array([[math.gamma(k / shape) for k in (1, 2, 3)] for shape in _SHAPES])
_RATIOS = _GAMMAS[:, 1] ** 2 / (_GAMMAS[:, 0] * _GAMMAS[:, 2])
"""(E|x|)² / E x² of the generalised normal law of each shape; rises with the shape."""

Features = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class NaturalnessModel:
    """The normal law of features of natural patches.

    Attributes:
        mean: (36,).
        covariance: (36, 36).
        photographs: how many it was fitted on.
    """

    mean: Features
    covariance: Features
    photographs: int

    @classmethod
    def fit(cls, images: Sequence[Image]) -> "NaturalnessModel":
        """From the sharpest patches of photographs, (H, W, 3) uint8 each."""
        kept = []
        for image in images:
            features, sharpness = patch_features(image)
            kept.append(features[sharpness >= _SHARPEST * sharpness.max()])
        rows = np.concatenate(kept)
        return cls(rows.mean(axis=0), np.cov(rows, rowvar=False), len(images))

    def distance(self, image: Image) -> float:
        """Of an image, (H, W, 3) uint8, at least three patches high and wide; 0 or more."""
        features, _ = patch_features(image)
        difference = features.mean(axis=0) - self.mean
        pooled = (self.covariance + np.cov(features, rowvar=False)) / 2
        return math.sqrt(max(float(difference @ np.linalg.pinv(pooled) @ difference), 0.0))


def patch_features(image: Image) -> tuple[Features, NDArray[np.float64]]:
    """Features of patches side by side, (N, 36), and how sharp each is, (N,)."""
    full = luminance(image)
    half = cv2.resize(full, (full.shape[1] // 2, full.shape[0] // 2), interpolation=cv2.INTER_AREA)
    columns = []
    for scale, (luma, side) in enumerate(((full, PATCH), (np.asarray(half, np.float32), PATCH // 2))):
        normalised, deviation = mscn(luma)
        places = [
            np.s_[top * side : (top + 1) * side, left * side : (left + 1) * side]
            for top in range(full.shape[0] // PATCH)
            for left in range(full.shape[1] // PATCH)
        ]
        columns.append(np.array([_features(normalised[place]) for place in places]))
        if scale == 0:
            sharpness = np.array([float(deviation[place].mean()) for place in places])
    return np.concatenate(columns, axis=1), sharpness


def mscn(luma: FloatMap) -> tuple[FloatMap, FloatMap]:
    """Mean-subtracted, contrast-normalised luminance, and the local deviation; both (H, W) float32."""
    mean = cv2.GaussianBlur(luma, (7, 7), 7 / 6)
    deviation = np.sqrt(np.abs(cv2.GaussianBlur(luma * luma, (7, 7), 7 / 6) - mean * mean))
    return np.asarray((luma - mean) / (deviation + 1), np.float32), np.asarray(deviation, np.float32)


def _features(normalised: FloatMap) -> list[float]:
    """Shape and scale of the values, then of the products of neighbours in four directions."""
    values = normalised.astype(np.float64)
    second = float(np.mean(values**2)) + 1e-12
    features = [_shape(float(np.mean(np.abs(values))) ** 2 / second), math.sqrt(second)]
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        features += _asymmetric(values * np.roll(values, (-down, -right), axis=(0, 1)))
    return features


def _asymmetric(products: Features) -> list[float]:
    """Shape, mean, left and right scale of the asymmetric generalised normal law (Mittal et al., eq. 4 to 7)."""
    left = math.sqrt(float(np.mean(products[products < 0] ** 2)) if (products < 0).any() else 1e-12)
    right = math.sqrt(float(np.mean(products[products > 0] ** 2)) if (products > 0).any() else 1e-12)
    balance = left / right
    ratio = float(np.mean(np.abs(products))) ** 2 / (float(np.mean(products**2)) + 1e-12)
    ratio *= (balance**3 + 1) * (balance + 1) / (balance**2 + 1) ** 2
    shape = _shape(ratio)
    first, second, third = (math.gamma(k / shape) for k in (1, 2, 3))
    spread = math.sqrt(first / third)
    return [shape, (right - left) * spread * second / first, left**2, right**2]


def _shape(ratio: float) -> float:
    return float(_SHAPES[min(int(np.searchsorted(_RATIOS, ratio)), len(_SHAPES) - 1)])
