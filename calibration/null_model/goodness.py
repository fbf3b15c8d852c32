"""Measures how well a null model fits good images that it was not fitted to."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_POINTS = 200


@dataclass(frozen=True, slots=True)
class ScaleFit:
    """P-values of one scale on held-out good images, before calibration (χ²_C) and after.

    Under a true null model p-values are uniform: a Q–Q plot of ``expected`` against one of the others is the diagonal.

    Attributes:
        ks_before, ks_after: Kolmogorov–Smirnov distance of the p-values from uniform, 0 to 1; 0 is perfect.
        expected: (M,) −log10 of the uniform quantiles, rising.
        before, after: (M,) −log10 of the p-values' quantiles; above ``expected``, the model promises too much.
    """

    ks_before: float
    ks_after: float
    expected: NDArray[np.float64]
    before: NDArray[np.float64]
    after: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GoodnessOfFit:
    """Goodness of fit on good images, each scored by a model that was fitted without it.

    Attributes:
        scales: finest first.
        image_scores: (N,) −log10 NFA of each image's most significant region.
        false_alarms: (N,) number of regions with log-NFA ≤ 0 in each image; the promise is a mean of at most 1.
    """

    scales: tuple[ScaleFit, ...]
    image_scores: NDArray[np.float64]
    false_alarms: NDArray[np.intp]

    @property
    def false_alarms_per_image(self) -> float:
        """Mean number of regions with log-NFA ≤ 0; the promise is at most 1."""
        return float(self.false_alarms.mean())

    @property
    def images_flagged(self) -> float:
        """Share of images with any such region."""
        return float((self.false_alarms > 0).mean())


def scale_fit(log_p_before: NDArray[np.float64], log_p_after: NDArray[np.float64]) -> ScaleFit:
    """Compare log10 p-values of pooled pixels, of any shape, with uniform ones."""
    before, after = np.sort(-log_p_before.ravel()), np.sort(-log_p_after.ravel())
    n = after.size
    rank = np.unique(np.geomspace(1, n, _POINTS).round().astype(np.intp))[::-1]  # dense at small p-values
    expected = -np.log10((rank - 0.5) / n)
    return ScaleFit(_distance(before), _distance(after), expected, before[n - rank], after[n - rank])


def _distance(minus_log_p: NDArray[np.float64]) -> float:
    """Kolmogorov–Smirnov distance of rising −log10 p from the uniform law."""
    uniform = 1 - 10.0**-minus_log_p  # rising
    n = uniform.size
    steps = np.arange(n + 1) / n
    return float(max((steps[1:] - uniform).max(), (uniform - steps[:-1]).max()))
