"""Similarity of two images and its gradient with respect to the first, in closed form, without autograd.

With G the blur by a Gaussian window (zero padding; its own transpose), μ and σ the blurred means and deviations,
A₁ = 2μ₁μ₂ + C₁, A₂ = 2σ₁₂ + C₂, B₁ = μ₁² + μ₂² + C₁ and B₂ = σ₁² + σ₂² + C₂, SSIM is the mean of S = A₁A₂ / (B₁B₂) over
the N values of an image (Wang et al. 2004). Its derivative with respect to the first image x, with second image y, is

    ∇ = [ G(2μ₂(A₂ − A₁)/(B₁B₂) + 2μ₁S(1/B₂ − 1/B₁)) + 2x·G(−S/B₂) + y·G(2A₁/(B₁B₂)) ] / N

All functions take two (N, C, H, W) arrays, float32 or float64, and treat each of the N images separately.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

Guide: TypeAlias = Literal["ssim", "mse", "corr"]
GUIDES: tuple[Guide, ...] = get_args(Guide)

Images: TypeAlias = NDArray[Any]
"""(N, C, H, W), float32 or float64."""

_REACH = 5
_DEVIATION = 1.5
_CACHED = 1 << 16
"""Pixels processed at once, so that the maps stay in a core's cache."""
# For images with a range of 1. Diff-CFG uses the same constants for its range of 2.
_C1, _C2 = 0.01**2, 0.03**2


class Similarity(NamedTuple):
    """Similarity of images.

    Attributes:
        value: (N,).
        gradient: derivative of the value with respect to the first images, (N, C, H, W).
    """

    value: NDArray[Any]
    gradient: Images


def gaussian_window() -> NDArray[np.float64]:
    """(11,), σ = 1.5, sums to 1."""
    weights = np.exp(-0.5 * (np.arange(-_REACH, _REACH + 1) / _DEVIATION) ** 2)
    return np.asarray(weights / weights.sum())


def ssim(first: Images, second: Images) -> Similarity:
    """Mean structural similarity over all channels, with zeros beyond the border; 1 for equal images."""
    count, channels, height, width = first.shape
    x, y = (a.reshape(count * channels, height, width) for a in (first, second))
    means = np.empty(count * channels, first.dtype)
    gradient = np.empty_like(x)
    together = max(_CACHED // (height * width), 1)
    for start in range(0, count * channels, together):
        some = slice(start, start + together)
        means[some] = _ssim_of_planes(x[some], y[some], gradient[some])
    gradient /= channels * height * width
    return Similarity(means.reshape(count, channels).mean(axis=1), gradient.reshape(first.shape))


def ssim_map(first: Images, second: Images) -> Images:
    """Structural similarity at every pixel of two (H, W) planes with a range of 1: (H, W)."""
    a1, a2, b1, b2, *_ = _parts(first[np.newaxis], second[np.newaxis])
    return np.asarray((a1 * a2 / (b1 * b2))[0])


def mse(first: Images, second: Images) -> Similarity:
    """Negative mean squared error; 0 for equal images."""
    difference = first - second
    size = difference[0].size
    value = -np.square(difference).reshape(len(first), -1).mean(axis=1)
    return Similarity(value, difference * difference.dtype.type(-2 / size))


def corr(first: Images, second: Images) -> Similarity:
    """Sum of the matrix of Pearson correlations, 2 + 2ρ, as in Diff-CFG; 2 if an image is constant."""
    x, y = (_centred(images) for images in (first, second))
    norm_x, norm_y = (np.sqrt(np.square(a).sum(axis=1, keepdims=True)) for a in (x, y))
    varies = (norm_x > 0) & (norm_y > 0)
    x, y = (np.divide(a, norm, out=np.zeros_like(a), where=varies) for a, norm in ((x, norm_x), (y, norm_y)))
    rho = (x * y).sum(axis=1, keepdims=True)
    gradient = np.divide(2 * (y - rho * x), norm_x, out=np.zeros_like(x), where=varies)
    return Similarity(2 + 2 * rho[:, 0], gradient.reshape(first.shape))


SIMILARITIES: dict[Guide, Callable[[Images, Images], Similarity]] = {"ssim": ssim, "mse": mse, "corr": corr}


def _ssim_of_planes(x: Images, y: Images, gradient: Images) -> NDArray[Any]:
    """Mean SSIM of (P, H, W) planes; writes the gradients of the sums into ``gradient``."""
    a1, a2, b1, b2, mean_x, mean_y = _parts(x, y)
    b = 1 / (b1 * b2)
    similarity = a1 * a2 * b
    inner, of_x, of_y = _blurred(
        2 * (mean_y * (a2 - a1) * b + mean_x * similarity * (1 / b2 - 1 / b1)), -2 * similarity / b2, 2 * a1 * b
    )
    gradient[:] = inner + x * of_x + y * of_y
    return np.asarray(similarity.mean(axis=(1, 2)))


def _parts(x: Images, y: Images) -> tuple[Images, Images, Images, Images, Images, Images]:
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


def _blurred(*maps: Images) -> Images:
    """Blur (P, H, W) maps in one call: one below the other, separated by zeros as far as the window reaches."""
    count, height, width = maps[0].shape
    tall = np.zeros((len(maps), count, height + _REACH, width), maps[0].dtype)
    np.stack(maps, out=tall[:, :, :height])
    window = gaussian_window().astype(tall.dtype)
    blurred = cv2.sepFilter2D(tall.reshape(-1, width), -1, window, window, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(blurred.reshape(tall.shape)[:, :, :height])


def _centred(images: Images) -> Images:
    """(N, C·H·W), each image with mean 0."""
    flat = images.reshape(len(images), -1)
    return np.asarray(flat - flat.mean(axis=1, keepdims=True))
