"""Checks whether the images of a calibration are plausible: outlying scores, correlated scores, another product.

Another product shows in its energies. ln(mean E / C) is taken for every image and scale, and the median over the images
is compared with the mean over the training's held-out images. On crops of three textures (96 pixels, six epochs) new
crops of the same texture lie within 0.1 of that mean, and darkening by a fifth shifts them by 0.1; another texture lies
0.7 to 3 above it, and images that the flow was fitted to lie 0.7 to 1.3 below it.
"""

import math
from collections.abc import Sequence

import numpy as np

from uflow_edge.runtime.bundle.uflow import UFlowManifest

_FAR_OUT = 3.0  # interquartile ranges: Tukey, "Exploratory Data Analysis", 1977
_ALIKE = 3.0  # standard errors of a correlation
_FEWEST = 20
_LIMIT = 0.5
_DEVIATIONS = 3.0


def difference_from_training(
    training: Sequence[Sequence[float]], found: Sequence[Sequence[float]], manifest: UFlowManifest
) -> str | None:
    """How the images differ from those of the training, in one sentence; None if they do not, or none are known.

    Args:
        training: per image ln(mean E / C) of every scale, finest first, of the training's held-out images.
        found: the same of the calibration's images.
    """
    if not training or not found:
        return None
    known, new = np.asarray(training, np.float64), np.asarray(found, np.float64)
    shifts = np.median(new, axis=0) - known.mean(axis=0)
    limits = np.maximum(_DEVIATIONS * np.maximum(known.std(axis=0), new.std(axis=0)), _LIMIT)
    worst = int(np.argmax(np.abs(shifts) / limits))
    if abs(shifts[worst]) <= limits[worst]:
        return None
    higher = "Is it the same product, camera and part of the frame?"
    lower = "Images that the flow was fitted to look like this, even after they were saved again."
    return (
        f"The images are unlike those that the flow was trained on: their mean energy at stride "
        f"{manifest.scales[worst].stride} is {math.exp(shifts[worst]):.2g} times as high. "
        f"{higher if shifts[worst] > 0 else lower}"
    )


def suspicious_above(scores: Sequence[float]) -> float:
    """The limit above which a score looks anomalous: three interquartile ranges above the upper quartile."""
    lower, upper = np.quantile(scores, [0.25, 0.75])
    return float(upper + _FAR_OUT * (upper - lower))


def correlation_of_neighbours(scores: Sequence[float]) -> float | None:
    """Rank correlation of successive scores (Spearman) if it is significant, as with several images of each part."""
    ranks = np.argsort(np.argsort(scores)).astype(np.float64)
    if len(ranks) < _FEWEST:
        return None
    correlation = float(np.corrcoef(ranks[:-1], ranks[1:])[0, 1])
    return correlation if correlation > _ALIKE / np.sqrt(len(ranks)) else None
