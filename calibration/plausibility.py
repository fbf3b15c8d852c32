"""What speaks against the images of a calibration: scores far out, scores that repeat each other, another product.

Another product is noticed by its energies. Of each image ln(mean E / C) of every scale is taken, and the median of the
images is held against the mean of good pictures of the training that were not fitted. On crops of three textures (96
pixels, six epochs) new crops of the same texture lie within 0.1 of them, and darkening by a fifth moves them by 0.1;
another texture lies 0.7 to 3 above, and pictures that the flow was fitted to lie 0.7 to 1.3 below.
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
    """In one sentence, how images differ from the training's; None where they do not, or the latter are unknown.

    Args:
        training: ln(mean E / C) of every scale, finest first, of good pictures that were not fitted.
        found: likewise of the images.
        manifest: whose scales these are.
    """
    if not training or not found:
        return None
    known, new = np.asarray(training, np.float64), np.asarray(found, np.float64)
    shifts = np.median(new, axis=0) - known.mean(axis=0)
    limits = np.maximum(_DEVIATIONS * np.maximum(known.std(axis=0), new.std(axis=0)), _LIMIT)
    worst = int(np.argmax(np.abs(shifts) / limits))
    if abs(shifts[worst]) <= limits[worst]:
        return None
    usual = "Is it the same product, camera and part of the frame?"
    fitted = "Pictures that the flow was fitted to look like this, also when they were saved again."
    return (
        f"The images are unlike those that the flow was trained on: their mean energy at stride "
        f"{manifest.scales[worst].stride} is {math.exp(shifts[worst]):.2g} times as high. "
        f"{usual if shifts[worst] > 0 else fitted}"
    )


def fence_of(scores: Sequence[float]) -> float:
    """Above it a score looks anomalous: three interquartile ranges above the upper quartile."""
    lower, upper = np.quantile(scores, [0.25, 0.75])
    return float(upper + _FAR_OUT * (upper - lower))


def neighbours_alike(scores: Sequence[float]) -> float | None:
    """Rank correlation of successive scores (Spearman), if it is more than chance: a sign of several images a part."""
    ranks = np.argsort(np.argsort(scores)).astype(np.float64)
    if len(ranks) < _FEWEST:
        return None
    correlation = float(np.corrcoef(ranks[:-1], ranks[1:])[0, 1])
    return correlation if correlation > _ALIKE / np.sqrt(len(ranks)) else None
