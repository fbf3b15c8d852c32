"""How alike two pictures are, and in which direction one must change to become more alike: closed forms, no autograd.

With G the blur by a Gaussian window (zero padding; its own transpose), μ and σ the blurred means and deviations,
A₁ = 2μ₁μ₂ + C₁, A₂ = 2σ₁₂ + C₂, B₁ = μ₁² + μ₂² + C₁ and B₂ = σ₁² + σ₂² + C₂, SSIM is the mean of S = A₁A₂ / (B₁B₂) over
the N values of a picture (Wang et al. 2004). Its derivative with respect to the first picture x, the second being y, is

    ∇ = [ G(2μ₂(A₂ − A₁)/(B₁B₂) + 2μ₁S(1/B₂ − 1/B₁)) + 2x·G(−S/B₂) + y·G(2A₁/(B₁B₂)) ] / N

All functions take two (N, C, H, W) arrays, float32 or float64, and treat each of the N pictures on its own.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

Guide: TypeAlias = Literal["ssim", "mse", "corr"]
GUIDES: tuple[Guide, ...] = get_args(Guide)

Pictures: TypeAlias = NDArray[Any]
"""(N, C, H, W), float32 or float64."""

_REACH = 5
_DEVIATION = 1.5
_CACHED = 1 << 16
"""Pixels to work on at once: maps of so many stay in a core's cache."""
# For pictures with a range of 1. Diff-CFG keeps them for its range of 2.
_C1, _C2 = 0.01**2, 0.03**2


class Likeness(NamedTuple):
    """How alike pictures are.

    Attributes:
        value: (N,).
        gradient: its derivative with respect to the first pictures, (N, C, H, W).
    """

    value: NDArray[Any]
    gradient: Pictures


def gaussian_window() -> NDArray[np.float64]:
    """(11,), σ = 1.5, sums to 1."""
    weights = np.exp(-0.5 * (np.arange(-_REACH, _REACH + 1) / _DEVIATION) ** 2)
    return np.asarray(weights / weights.sum())


def ssim(first: Pictures, second: Pictures) -> Likeness:
    """Mean structural similarity per channel, with zeros beyond the border; 1 for equal pictures."""
    count, channels, height, width = first.shape
    x, y = (a.reshape(count * channels, height, width) for a in (first, second))
    means = np.empty(count * channels, first.dtype)
    gradient = np.empty_like(x)
    together = max(_CACHED // (height * width), 1)
    for start in range(0, count * channels, together):
        some = slice(start, start + together)
        means[some] = _ssim_of_planes(x[some], y[some], gradient[some])
    gradient /= channels * height * width
    return Likeness(means.reshape(count, channels).mean(axis=1), gradient.reshape(first.shape))


def ssim_map(first: Pictures, second: Pictures) -> Pictures:
    """Structural similarity of two planes with a range of 1 at every pixel: (H, W) both, (H, W)."""
    a1, a2, b1, b2, *_ = _parts(first[np.newaxis], second[np.newaxis])
    return np.asarray((a1 * a2 / (b1 * b2))[0])


def mse(first: Pictures, second: Pictures) -> Likeness:
    """Mean squared error with its sign turned; 0 for equal pictures."""
    difference = first - second
    size = difference[0].size
    value = -np.square(difference).reshape(len(first), -1).mean(axis=1)
    return Likeness(value, difference * difference.dtype.type(-2 / size))


def corr(first: Pictures, second: Pictures) -> Likeness:
    """Sum of the matrix of Pearson correlations, 2 + 2ρ, as in Diff-CFG; 2 where a picture is constant."""
    x, y = (_centred(pictures) for pictures in (first, second))
    norm_x, norm_y = (np.sqrt(np.square(a).sum(axis=1, keepdims=True)) for a in (x, y))
    varies = (norm_x > 0) & (norm_y > 0)
    x, y = (np.divide(a, norm, out=np.zeros_like(a), where=varies) for a, norm in ((x, norm_x), (y, norm_y)))
    rho = (x * y).sum(axis=1, keepdims=True)
    gradient = np.divide(2 * (y - rho * x), norm_x, out=np.zeros_like(x), where=varies)
    return Likeness(2 + 2 * rho[:, 0], gradient.reshape(first.shape))


SIMILARITIES: dict[Guide, Callable[[Pictures, Pictures], Likeness]] = {"ssim": ssim, "mse": mse, "corr": corr}


def _ssim_of_planes(x: Pictures, y: Pictures, gradient: Pictures) -> NDArray[Any]:
    """Means of the maps of (P, H, W) planes; the derivatives of their sums go to ``gradient``."""
    a1, a2, b1, b2, mean_x, mean_y = _parts(x, y)
    b = 1 / (b1 * b2)
    similarity = a1 * a2 * b
    inner, of_x, of_y = _blurred(
        2 * (mean_y * (a2 - a1) * b + mean_x * similarity * (1 / b2 - 1 / b1)), -2 * similarity / b2, 2 * a1 * b
    )
    gradient[:] = inner + x * of_x + y * of_y
    return np.asarray(similarity.mean(axis=(1, 2)))


def _parts(x: Pictures, y: Pictures) -> tuple[Pictures, Pictures, Pictures, Pictures, Pictures, Pictures]:
    """A₁, A₂, B₁, B₂, μ₁, μ₂ of (P, H, W) planes."""
    mean_x, mean_y, square_x, square_y, product = _blurred(x, y, x * x, y * y, x * y)
    means, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    return (
        2 * means + _C1,
        2 * (product - means) + _C2,
        squares + _C1,
        square_x + square_y - squares + _C2,
        mean_x,
        mean_y,
    )


def _blurred(*maps: Pictures) -> Pictures:
    """Blur maps of (P, H, W) in one call, one below the other with as many zeros between them as the window reaches."""
    count, height, width = maps[0].shape
    tall = np.zeros((len(maps), count, height + _REACH, width), maps[0].dtype)
    np.stack(maps, out=tall[:, :, :height])
    window = gaussian_window().astype(tall.dtype)
    blurred = cv2.sepFilter2D(tall.reshape(-1, width), -1, window, window, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(blurred.reshape(tall.shape)[:, :, :height])


def _centred(pictures: Pictures) -> Pictures:
    """(N, C·H·W), each picture with mean 0."""
    flat = pictures.reshape(len(pictures), -1)
    return np.asarray(flat - flat.mean(axis=1, keepdims=True))
