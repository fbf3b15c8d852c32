"""Diff-CF and Diff-CFG: noise a picture a little, then let a diffusion network take the noise away again.

What the network gives back is a picture as it believes pictures to be; the fine traces that a camera, a compression or
an edit have left behind went with the noise. A guide keeps it close to the original: at each step the sample is pulled
towards the original with as much noise, along the gradient of their similarity (Tailanian et al., WACV 2024).

The first step of Diff-CF goes from index t to t − 1 as if the sample were at t − 1 already; so does ours.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from uflow_edge.runtime.diffusion.noise import NoiseField, NoiseSource
from uflow_edge.runtime.diffusion.options import PurifyOptions
from uflow_edge.runtime.diffusion.patches import Corner, Layout, Planes, cut
from uflow_edge.runtime.diffusion.sampling import (
    Batch,
    Index,
    NoisePredictor,
    add_noise,
    ddim_step,
    ddpm_step,
    denoise,
)
from uflow_edge.runtime.diffusion.schedule import NoiseSchedule
from uflow_edge.runtime.diffusion.similarity import SIMILARITIES
from uflow_edge.runtime.errors import BadInput, UsageError
from uflow_edge.runtime.numeric import Image, Size


@dataclass(frozen=True, slots=True)
class Draws:
    """The numbers of the draws that a patch needs, in the order in which Diff-CF makes them.

    The first noises the patch. Then each step has one for the sample, and with a guide another one for that.
    """

    guided: bool

    first = 0

    def sampling(self, step: int) -> int:
        """Of the sample, ``step`` steps after the first."""
        return 1 + step * (2 if self.guided else 1)

    def guide(self, step: int) -> int:
        """Of the guide."""
        return 2 + 2 * step


class Purifier:
    """Purifies pictures with one network.

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
        """Keep the network and what it was trained with.

        Args:
            predict: the network.
            schedule: that it was trained with.
            image_size: side of a patch in pixels, S.
            options: how to purify.
            noisiest_step: index of the last step that the network has learned; default, the schedule's last.

        Raises:
            UsageError: more steps than it has learned.
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

    def layout(self, size: Size) -> Layout:
        """Where the patches of a picture are."""
        return Layout.of(size, self.image_size, self.options.patching, self.options.overlap)

    def evaluations(self, size: Size) -> int:
        """How often a picture of this size goes through the network, counted in patches."""
        return len(self.layout(size).corners) * self.options.evaluations

    def purify(self, image: Image, seed: int | None = None, on_step: Callable[[int], None] | None = None) -> Image:
        """Purify one picture.

        Args:
            image: (H, W, C) uint8; C as the network has it, RGB if 3.
            seed: of the noise; default, that of the options. The result depends on it, on the picture and the options
                except ``batch``.
            on_step: called after each run of the network with the number of patches in it.

        Returns:
            (H, W, C) uint8.

        Raises:
            BadInput: not such an array.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.size == 0:
            raise BadInput(f"a picture must be a uint8 array [H, W, C]; got {image.dtype} of shape {image.shape}")
        noise = NoiseField(self.options.seed if seed is None else seed)
        values = self.purify_values(to_values(image), noise, on_step)
        return to_image(values)

    def purify_values(
        self, picture: Planes, noise: NoiseSource, on_step: Callable[[int], None] | None = None
    ) -> Planes:
        """Purify a picture in the network's own range.

        Args:
            picture: (C, H, W) float32 in [-1, 1].
            noise: where its noise comes from.
            on_step: as for `purify`.

        Returns:
            (C, H, W) float32; a guide can push values beyond [-1, 1].
        """
        layout = self.layout(picture.shape[1:])
        padded = layout.padded(picture)

        def purified() -> Iterator[tuple[Corner, Planes]]:
            corners = layout.corners
            for start in range(0, len(corners), self.options.batch):
                chosen = corners[start : start + self.options.batch]
                steps = self.trajectory(cut(padded, chosen, layout.patch), chosen, noise, on_step)
                yield from zip(chosen, deque(steps, maxlen=1)[0], strict=True)

        return layout.stitched(purified(), len(picture))

    def trajectory(
        self,
        patches: Batch,
        corners: tuple[Corner, ...],
        noise: NoiseSource,
        on_step: Callable[[int], None] | None = None,
    ) -> Iterator[Batch]:
        """Purify a batch of patches, step by step; the last of the samples is the result.

        Args:
            patches: (N, C, S, S) in [-1, 1].
            corners: where in the picture they are, for their noise.
            noise: where it comes from.
            on_step: as for `purify`.
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
        """What pulls the samples towards the guides."""
        assert self.options.guide != "none"
        gradient = SIMILARITIES[self.options.guide](sample, guide).gradient
        strength = self.options.scale * sample[0].size * self._way_back.sqrt_recipm1_alphas_cumprod[index]
        return np.asarray(gradient * strength.astype(np.float32).reshape(-1, 1, 1, 1))


def to_image(values: Planes) -> Image:
    """(C, H, W) float32 to (H, W, C) uint8, rounded; what is beyond [-1, 1] becomes black or white."""
    scaled = np.rint(np.clip((values + 1) * np.float32(127.5), 0, 255))
    return np.ascontiguousarray(scaled.transpose(1, 2, 0), np.uint8)


def to_values(image: Image) -> Planes:
    """(H, W, C) uint8 to (C, H, W) float32 in [-1, 1]."""
    return np.ascontiguousarray(image.transpose(2, 0, 1), np.float32) / np.float32(127.5) - np.float32(1)
