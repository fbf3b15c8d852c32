"""A camera without hardware for tests, benchmarks and trials: a moving texture or given images, some with a scratch."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import cv2
import numpy as np

from uflow_edge.runtime.errors import UsageError
from uflow_edge.runtime.numeric import Image, Size
from uflow_edge.runtime.sources.source import Frame, numbered

_LONGEST: Final = 1 << 14  # pixels
_LARGEST: Final = 1 << 25  # pixels in all; drawing the belt takes 20 bytes per pixel
_SPEED: Final = 7  # pixels per frame
_HOLD: Final = 30  # frames that show the same image


class SyntheticCamera:
    """Shows a moving belt of grained material; frame ``i`` depends only on the size, the seed, the images and ``i``."""

    live: Final = True

    def __init__(
        self,
        width: int | None = None,
        height: int | None = None,
        fps: float = 30.0,
        *,
        seed: int = 0,
        defect_rate: float = 0.02,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Draw the belt.

        Args:
            width, height: in pixels; by default 640 x 480, or the size given to `show`.
            fps: frames per second; 0 delivers frames as fast as they are read.
            defect_rate: share of the frames that show a scratch.
            clock: monotonic clock, in seconds, that paces the frames.

        Raises:
            UsageError: the size is not possible.
        """
        self._sized = width is not None or height is not None
        width, height = 640 if width is None else width, 480 if height is None else height
        if not (1 <= width <= _LONGEST and 1 <= height <= _LONGEST and width * height <= _LARGEST):
            raise UsageError(
                f"synthetic camera: expected 1 to {_LONGEST} pixels per side and at most {_LARGEST >> 20} megapixels, "
                f"got {width}x{height}"
            )
        self._rate, self._images = fps, list[Image]()
        self.name = f"synthetic {width}x{height}@{fps:g}"
        self._period = 1 / fps if fps else 0.0
        self._seed, self._defect_rate, self._clock = seed, defect_rate, clock
        self._belt = _belt(width, height, np.random.default_rng(seed))

    def show(self, images_bgr: Sequence[Image], size: Size) -> None:
        """Show these images in turn instead of the belt.

        Args:
            images_bgr: (H, W, 3) uint8, of any sizes; an empty sequence changes nothing.
            size: (height, width) of the frames, unless the camera was made with a size.
        """
        if not images_bgr:
            return
        drawable = max(size) <= _LONGEST and size[0] * size[1] <= _LARGEST
        height, width = size if drawable and not self._sized else (self._belt.shape[0] // 2, self._belt.shape[1])
        self.name = f"synthetic {width}x{height}@{self._rate:g}"
        self._images = [
            np.asarray(cv2.resize(one, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8) for one in images_bgr
        ]

    def frames(self, stop: threading.Event, first: int = 0) -> Iterator[Frame]:
        """Frames until ``stop``, paced by the clock; a slow reader delays the following frames."""
        index, due = first, self._clock()
        while not stop.wait(max(due - self._clock(), 0.0)):
            yield Frame(self.image(index), index, self.name, numbered(index), time.time())
            index += 1
            due = max(due, self._clock() - self._period) + self._period

    def defective(self, index: int) -> bool:
        """Whether a frame shows a scratch."""
        return bool(self._random(index).random() < self._defect_rate)

    def image(self, index: int) -> Image:
        """The content of frame ``index``, (H, W, 3) uint8, BGR."""
        if self._images:
            image = self._images[index // _HOLD % len(self._images)].copy()
        else:
            height = self._belt.shape[0] // 2
            top = index * _SPEED % height
            image = self._belt[top : top + height].copy()
        if self.defective(index):
            _scratch(image, self._random(index))
        return image

    def _random(self, index: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, index])


def _belt(width: int, height: int, random: np.random.Generator) -> Image:
    """(2H, W, 3) uint8: the same grain twice, one below the other, so that any H rows show part of an endless belt."""
    noise = random.standard_normal((height, width)).astype(np.float32)
    coarse = cv2.GaussianBlur(noise, (0, 0), 3.0, borderType=cv2.BORDER_REFLECT_101 if min(height, width) > 1 else 0)
    grain = 128 + 20 * noise + 200 * np.asarray(coarse)
    image = np.clip(grain, 0, 255).astype(np.uint8)
    return np.repeat(np.concatenate([image, image])[:, :, np.newaxis], 3, axis=2)


def _scratch(image: Image, random: np.random.Generator) -> None:
    height, width, _ = image.shape
    random.random()  # skip the number that `defective` used
    x, y = int(random.integers(width)), int(random.integers(height))
    length, angle = max(height, width) / 8, random.uniform(0, np.pi)
    end = (round(x + length * np.cos(angle)), round(y + length * np.sin(angle)))
    cv2.line(image, (x, y), end, (15, 15, 15), max(min(height, width) // 100, 1), cv2.LINE_AA)
