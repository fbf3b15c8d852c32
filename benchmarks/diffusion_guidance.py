"""The guidance gradient in closed form against autograd: ``python -m uflow_edge.benchmarks.diffusion_guidance``."""

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from uflow_edge.benchmarks.timing import interleaved_medians
from uflow_edge.runtime.diffusion.similarity import GUIDES, SIMILARITIES, Guide, gaussian_window

SIZES = ((1, 64), (1, 256), (4, 256))
"""Pictures and pixels a side; three channels."""
ROUNDS = 30

Pictures = NDArray[np.float32]


def by_autograd(guide: Guide, first: Pictures, second: Pictures) -> Pictures:
    """Gradient of the similarity of each picture, as a program that has torch would compute it."""
    x, y = torch.from_numpy(first).requires_grad_(), torch.from_numpy(second)
    value = {"ssim": _ssim, "mse": _mse, "corr": _corr}[guide](x, y)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    return np.asarray(gradient.numpy())


def _ssim(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    channels = x.shape[1]
    line = torch.from_numpy(gaussian_window()).float()
    window = (line[:, None] * line).expand(channels, 1, -1, -1).contiguous()
    blur = partial(F.conv2d, weight=window, padding=5, groups=channels)
    mean_x, mean_y = blur(x), blur(y)
    variance_x, variance_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
    return (luminance * (2 * covariance + 9e-4) / (variance_x + variance_y + 9e-4)).mean(dim=(1, 2, 3))


def _mse(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return -((x - y) ** 2).mean(dim=(1, 2, 3))


def _corr(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.corrcoef(torch.stack([a.flatten(), b.flatten()])).sum() for a, b in zip(x, y)])  # noqa: B905


def pictures(count: int, side: int) -> tuple[Pictures, Pictures]:
    """Two noisy versions of a photograph, (count, 3, side, side)."""
    from skimage import data

    rng = np.random.default_rng(0)
    photograph = data.astronaut()[:side, 150 : 150 + side].transpose(2, 0, 1) / 127.5 - 1
    first, second = (photograph + rng.normal(0, 0.15, (2, count, *photograph.shape))).astype(np.float32)
    return first, second


def main() -> None:
    """Check that both agree, then print a table of medians."""
    print(f"gradient of a batch, one thread of torch; median of {ROUNDS} rounds, in ms\n")
    print(f"{'guide':8}{'batch':>16}{'autograd':>12}{'closed form':>14}{'times':>8}")
    torch.set_num_threads(1)
    for guide in GUIDES:
        for count, side in SIZES:
            first, second = pictures(count, side)
            closed = SIMILARITIES[guide](first, second).gradient
            expected = by_autograd(guide, first, second)
            assert np.linalg.norm(closed - expected) < 1e-4 * np.linalg.norm(expected)
            medians = interleaved_medians(
                {
                    "autograd": partial(by_autograd, guide, first, second),
                    "closed": partial(SIMILARITIES[guide], first, second),
                },
                ROUNDS,
            )
            ratio = medians["autograd"] / medians["closed"]
            batch = f"{count} x 3 x {side} x {side}"
            print(f"{guide:8}{batch:>16}{medians['autograd']:12.2f}{medians['closed']:14.2f}{ratio:8.1f}")


if __name__ == "__main__":
    main()
