"""Options of a calibration, and the random split of its images into those for the null model and held-out ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from uflow_edge.calibration.null_model.fit import ADVISED_IMAGES, MIN_IMAGES
from uflow_edge.calibration.operating_point import Promise, TooFewImages, alternatives
from uflow_edge.runtime.sources.folders import ImageFile
from uflow_edge.runtime.views import ViewOptions

MOST_FITTED = 1000
"""The most images that a null model is learned from; more would change little."""
LADDER = (Promise(0.01), Promise(0.02), Promise(0.05), Promise(0.1), Promise(0.05, None))
"""The default promise is the first of these that the images allow."""
FEWEST = 20
"""The fewest images with which a default promise is made."""


@dataclass(frozen=True, slots=True)
class CalibrationOptions:
    """Options of a calibration.

    Attributes:
        views: which parts of a frame are inspected; the line must use the same.
    """

    promise: Promise = Promise()
    null_model: bool = True
    seed: int = 0
    views: ViewOptions = ViewOptions()

    def with_best_promise(self, images: int) -> "CalibrationOptions":
        """Choose the first promise of `LADDER` that so many images allow, without a null model if none allows one.

        Raises:
            TooFewImages: fewer than `FEWEST`.
        """
        if images < FEWEST:
            message = f"{images} good images are too few for a threshold: {FEWEST} are needed"
            if images:
                weaker = alternatives(images, LADDER[-1])
                message += f". With {images}, and without a null model (--null-model none): {weaker}"
            raise TooFewImages(message)
        for null_model in (True, False) if self.null_model else (False,):
            for promise in LADDER:
                if images >= promise.images_needed + MIN_IMAGES * null_model:
                    return replace(self, promise=promise, null_model=null_model)
        raise AssertionError("the last promise needs fewer images than the fewest")


@dataclass(frozen=True, slots=True)
class Split:
    """Images for the null model, and held-out images; both in the original order."""

    fitted: tuple[ImageFile, ...]
    held_out: tuple[ImageFile, ...]

    @classmethod
    def of(cls, images: Sequence[ImageFile], options: CalibrationOptions) -> "Split":
        """Hold out half of the images, or more if the promise needs more.

        Raises:
            TooFewImages: the message says how many are needed, and what these images can promise.
        """
        if not options.null_model:
            options.promise.require(len(images))
            return cls((), tuple(images))
        held_out = max(options.promise.images_needed, len(images) // 2, len(images) - MOST_FITTED)
        if len(images) - held_out < MIN_IMAGES:
            raise _too_few(len(images), options.promise)
        chosen = np.zeros(len(images), np.bool_)
        chosen[np.random.default_rng(options.seed).permutation(len(images))[:held_out]] = True
        return cls(
            tuple(image for image, out in zip(images, chosen, strict=True) if not out),
            tuple(image for image, out in zip(images, chosen, strict=True) if out),
        )


def _too_few(images: int, promise: Promise) -> TooFewImages:
    needed = promise.images_needed
    message = (
        f"{images} good images are too few for a null model and for {promise}: the null model needs {MIN_IMAGES}, "
        f"better {ADVISED_IMAGES}, and the promise needs {needed} more"
    )
    spare = images - MIN_IMAGES
    if spare > 0:
        offers = [alternatives(spare, promise)] if spare < needed else []
        offers += ["no null model (--null-model none)"] if images >= needed else []
        message += f". With {images}: {'; or '.join(offers)}"
    elif images:
        message += f". With {images}, and without a null model (--null-model none): {alternatives(images, promise)}"
    return TooFewImages(message)
