"""Diff-CF and Diff-CFG: add a little noise to an image, and let a diffusion network remove it again.

The network returns an image that is likely under its training images; the fine traces of a camera, a compression or an
edit are lost with the noise. A guide keeps the result close to the original: at each step the sample is pulled towards
the original with the same amount of noise, along the gradient of their similarity (Tailanian et al., WACV 2024).

Diff-CF's first step, from index t to t − 1, treats the sample as if it were at t − 1 already; ours does the same.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from uflow_edge.runtime.diffusion.noise import NoiseField, NoiseSource
from uflow_edge.runtime.diffusion.options import PurifyOptions
from uflow_edge.runtime.diffusion.patches import Corner, Layout, Planes, cut
from uflow_edge.runtime.diffusion.sampling import Batch, Index, NoisePredictor, add_noise, ddim_step, ddpm_step, denoise
from uflow_edge.runtime.diffusion.schedule import NoiseSchedule
from uflow_edge.runtime.diffusion.similarity import SIMILARITIES
from uflow_edge.runtime.errors import BadInput, UsageError
from uflow_edge.runtime.numeric import Image, Size

if TYPE_CHECKING:
    from uflow_edge.runtime.bundle.unet import UNetManifest


@dataclass(frozen=True, slots=True)
class Draws:
    """The numbers of the draws for a patch, in the order of Diff-CF.

    The first draw adds noise to the patch. Then each step has one draw for the sample and, with a guide, one for the
    guide.
    """

    guided: bool

    first = 0

    def sampling(self, step: int) -> int:
        """Number of the sample's draw, ``step`` steps after the first."""
        return 1 + step * (2 if self.guided else 1)

    def guide(self, step: int) -> int:
        return 2 + 2 * step


class Purifier:
    """Purifies images with one network.

    Example:
        purifier = Purifier(predict, NoiseSchedule.make("linear"), 256, PurifyOptions(guide="ssim"))
        purified_rgb = purifier.purify(image_rgb)
    """

    def __init__(
        self,
        predict: NoisePredictor,
        schedule: NoiseSchedule,
        image_size: int,
        options: PurifyOptions = PurifyOptions(),
        noisiest_step: int | None = None,
    ) -> None:
        """Prepare the network's schedule.

        Args:
            schedule: the schedule that the network was trained with.
            image_size: S, side of a patch in pixels.
            noisiest_step: index of the noisiest step that the network has learned; None for the schedule's last.

        Raises:
            UsageError: the options ask for a noisier step.
        """
        last = len(schedule) - 1 if noisiest_step is None else noisiest_step
        if options.steps > last:
            raise UsageError(f"noise {options.steps}: the network has learned steps 1 to {last} of its schedule")
        self.schedule: Final = schedule
        self.image_size: Final = image_size
        self.options: Final = options
        self._predict = predict
        self._way_back = schedule.respaced(options.evaluations, below=options.steps)
        self._draws = Draws(guided=options.guide != "none")

    @classmethod
    def of(cls, predict: NoisePredictor, manifest: "UNetManifest", options: PurifyOptions) -> "Purifier":
        """A purifier with the network of a bundle; raises as the constructor does."""
        schedule = NoiseSchedule.make(manifest.schedule, manifest.steps)
        return cls(predict, schedule, manifest.image_size, options, manifest.noisiest_step)

    def layout(self, size: Size) -> Layout:
        return Layout.of(size, self.image_size, self.options.patching, self.options.overlap)

    def evaluations(self, size: Size) -> int:
        """Evaluations of the network for an image of this size, counted in patches."""
        return len(self.layout(size).corners) * self.options.evaluations

    def purify(self, image: Image, seed: int | None = None, on_step: Callable[[int], None] | None = None) -> Image:
        """Purify one image.

        Args:
            image: (H, W, C) uint8, with the network's C; RGB if C is 3.
            seed: seed of the noise; None for that of the options. The result depends on the seed, the image and all
                options except ``batch``.
            on_step: called after each run of the network with the number of patches in it.

        Returns:
            (H, W, C) uint8.

        Raises:
            BadInput: the image is not such an array.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.size == 0:
            raise BadInput(f"an image must be a uint8 array [H, W, C]; got {image.dtype} of shape {image.shape}")
        noise = NoiseField(self.options.seed if seed is None else seed)
        values = self.purify_values(to_values(image), noise, on_step)
        return to_image(values)

    def purify_values(self, image: Planes, noise: NoiseSource, on_step: Callable[[int], None] | None = None) -> Planes:
        """Purify an image in the network's own range.

        Args:
            image: (C, H, W) float32 in [-1, 1].

        Returns:
            (C, H, W) float32; a guide can push values beyond [-1, 1].
        """
        layout = self.layout(image.shape[1:])
        padded = layout.padded(image)

        def purified() -> Iterator[tuple[Corner, Planes]]:
            corners = layout.corners
            for start in range(0, len(corners), self.options.batch):
                chosen = corners[start : start + self.options.batch]
                steps = self.trajectory(cut(padded, chosen, layout.patch), chosen, noise, on_step)
                yield from zip(chosen, deque(steps, maxlen=1)[0], strict=True)

        return layout.stitched(purified(), len(image))

    def trajectory(
        self,
        patches: Batch,
        corners: tuple[Corner, ...],
        noise: NoiseSource,
        on_step: Callable[[int], None] | None = None,
    ) -> Iterator[Batch]:
        """Purify a batch of patches step by step; yields the sample after each step, the last one is the result.

        Args:
            patches: (N, C, S, S) in [-1, 1].
            corners: positions of the patches in the image, for their noise.
        """
        count, channels, side, _ = patches.shape
        schedule, last = self._way_back, len(self._way_back) - 1

        def drawn(number: int) -> Batch:
            return noise(number, corners, channels, side)

        sample = add_noise(self.schedule, patches, np.full(count, self.options.steps), drawn(self._draws.first))
        for step in range(last + 1):
            index = np.full(count, last - step)
            denoised = denoise(schedule, self._predict, sample, index)
            pull = None
            if self.options.scale:
                pull = self._pull(sample, add_noise(schedule, patches, index, drawn(self._draws.guide(step))), index)
            if self.options.sampler == "ddim":
                sample = ddim_step(schedule, denoised, sample, index, pull)
            else:
                fresh = drawn(self._draws.sampling(step)) if step < last else None
                sample = ddpm_step(denoised, index, fresh, pull)
            if on_step is not None:
                on_step(count)
            yield sample

    def _pull(self, sample: Batch, guide: Batch, index: Index) -> Batch:
        """The scaled gradient that pulls the samples towards the guides."""
        assert self.options.guide != "none"
        gradient = SIMILARITIES[self.options.guide](sample, guide).gradient
        strength = self.options.scale * sample[0].size * self._way_back.sqrt_recipm1_alphas_cumprod[index]
        return np.asarray(gradient * strength.astype(np.float32).reshape(-1, 1, 1, 1))


def to_image(values: Planes) -> Image:
    """(C, H, W) float32 to (H, W, C) uint8, rounded and clipped to [-1, 1]."""
    scaled = np.rint(np.clip((values + 1) * np.float32(127.5), 0, 255))
    return np.ascontiguousarray(scaled.transpose(1, 2, 0), np.uint8)


def to_values(image: Image) -> Planes:
    """(H, W, C) uint8 to (C, H, W) float32 in [-1, 1]."""
    return np.ascontiguousarray(image.transpose(2, 0, 1), np.float32) / np.float32(127.5) - np.float32(1)
