"""Fits the null model to energies of good images (see `runtime.nfa.null_model` for the model).

Whatever is estimated from an image makes that image look more ordinary than a new one. So everything is cross-fitted:
gains come from one part of the images, the tail and the counts of regions from the levels of the others, and the
goodness of fit from images that neither has seen. Parts are runs of consecutive images, because neighbours in time are
alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uflow_edge.calibration.null_model.gains import image_gain, levels_of, log_energies, pixel_gain, trust_in_places
from uflow_edge.calibration.null_model.goodness import GoodnessOfFit, scale_fit
from uflow_edge.calibration.null_model.regions import fit_regions, maxima_by_class
from uflow_edge.calibration.null_model.screening import SUSPICIOUS, deviations, ranked_worst
from uflow_edge.calibration.null_model.tail import fit_tail
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.nfa.chi_square import chi_square_log10_tail
from uflow_edge.runtime.nfa.maps import averaged
from uflow_edge.runtime.nfa.null_model import NullModel, NullScale
from uflow_edge.runtime.numeric import FloatMap

MIN_IMAGES = 20
ADVISED_IMAGES = 200
IMAGE_GAIN_EXPONENT = 0.25
_FOLDS = 5
_MOST_SUSPICIOUS = 0.2

Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class NullFit:
    """A fitted null model.

    Attributes:
        model: fitted to all images but the suspicious ones.
        goodness: of the same images, each scored by a model that has not seen it.
        suspicious: indices of images that look anomalous themselves, the worst first; they were left out.
    """

    model: NullModel
    goodness: GoodnessOfFit
    suspicious: tuple[int, ...]


def fit_null_model(energies: Sequence[ArrayLike], channels: Sequence[int], window: int = 1) -> NullFit:
    """Fit a null model to good images, leaving out those that look anomalous.

    Args:
        energies: per scale, finest first, (N, H_i, W_i), of images that the flow was *not* trained on, in the order in
            which they were taken.
        channels: per scale, C_i.
        window: side in pixels of the windows over which energies are averaged.

    Raises:
        BadInput: fewer than 20 images, maps that cannot be energies, or more than a fifth of the images suspicious.
    """
    given = _checked(energies, channels)
    stacks = [np.stack([averaged(one, window) for one in stack]) for stack in given]
    deviating = deviations(stacks)
    suspicious = ranked_worst(deviating, SUSPICIOUS)
    if len(suspicious) > _MOST_SUSPICIOUS * len(deviating):
        raise BadInput(
            f"{len(suspicious)} of {len(deviating)} images look anomalous compared with the others, more than a fifth: "
            f"remove the bad images, or take more. Their numbers, from 0, the worst first: {suspicious}"
        )
    kept = [np.delete(stack, suspicious, axis=0) for stack in stacks]
    unseen = _cross_fit(kept)
    margin = unseen.margin
    model = replace(_with_margin(_fit(kept), margin), window=window)
    goodness = GoodnessOfFit(
        scales=tuple(
            scale_fit(chi_square_log10_tail(np.delete(stack, suspicious, axis=0), count), after)
            for stack, count, after in zip(given, channels, unseen.log_tails, strict=True)
        ),
        image_scores=np.array([-values.min() - margin for values in unseen.values]),
        false_alarms=np.array([(values + margin <= 0).sum() for values in unseen.values], np.intp),
    )
    return NullFit(model, goodness, tuple(suspicious))


def _checked(energies: Sequence[ArrayLike], channels: Sequence[int]) -> list[FloatMap]:
    stacks = [np.ascontiguousarray(one, np.float32) for one in energies]
    if not stacks or len(stacks) != len(channels):
        raise BadInput(f"expected energies of {len(channels)} scales, got {len(stacks)}")
    if any(stack.ndim != 3 or len(stack) != len(stacks[0]) or stack[:1].size == 0 for stack in stacks):
        raise BadInput(f"expected energies [N, H, W] with the same N at each scale, got {[s.shape for s in stacks]}")
    if len(stacks[0]) < MIN_IMAGES:
        raise BadInput(
            f"{len(stacks[0])} good images are too few to calibrate with: expected at least {MIN_IMAGES}, better "
            f"{ADVISED_IMAGES}, that the flow was not trained on"
        )
    for scale, stack in enumerate(stacks):
        if not (np.isfinite(stack).all() and stack.min() >= 0 and np.median(stack) > 0):
            raise BadInput(f"energies of scale {scale}: expected finite values of 0 or more, not mostly 0")
    return stacks


def _folds(images: int) -> list[Indices]:
    return [np.asarray(part, np.intp) for part in np.array_split(np.arange(images), _FOLDS)]


def _fit(stacks: Sequence[FloatMap]) -> NullModel:
    return NullModel(tuple(_fit_scale(stack) for stack in stacks), len(stacks[0]))


def _fit_scale(energies: FloatMap) -> NullScale:
    """Gains from all images; tail and counts from levels whose gains come from other images."""
    images, _, width = energies.shape
    logs, folds = log_energies(energies), _folds(images)
    trust = trust_in_places(logs, folds)
    levels = np.empty((images, logs[0].size), np.float32)
    for held_out in folds:
        others = np.delete(np.arange(images), held_out)
        gain = pixel_gain(logs[others], trust)
        levels[held_out] = levels_of(energies[held_out], gain, image_gain(energies[others], gain, IMAGE_GAIN_EXPONENT))
    tail = fit_tail(levels)
    repeats, counts = fit_regions(maxima_by_class(levels, width), tail, images)
    gain = pixel_gain(logs, trust)
    return NullScale(gain, image_gain(energies, gain, IMAGE_GAIN_EXPONENT), tail, repeats, counts)


@dataclass(frozen=True, slots=True)
class _CrossFit:
    """Results of each image under the model that was fitted to the other folds.

    Attributes:
        values: per image, log10 NFA of its surviving regions.
        log_tails: per scale, (N, H*W), log10 tail probability of the pixels.
    """

    values: list[NDArray[np.float64]]
    log_tails: list[NDArray[np.float64]]

    @property
    def margin(self) -> float:
        """By how much log10 NFA must rise so that at most one region per image is at or below 0; usually 0.

        Size classes share the allowed alarms, and their alarms are largely the same regions, so there is a reserve.
        Maps of a few pixels have a single class, and no reserve.
        """
        images = len(self.values)
        ordered = np.sort(np.concatenate(self.values))
        return max(float(-ordered[images]) + 1e-9, 0.0) if ordered.size > images else 0.0


def _cross_fit(stacks: Sequence[FloatMap]) -> _CrossFit:
    images = len(stacks[0])
    values: list[NDArray[np.float64]] = []
    log_tails = [np.empty((images, stack[0].size)) for stack in stacks]
    for held_out in _folds(images):
        model = _fit([np.delete(stack, held_out, axis=0) for stack in stacks])
        for i in held_out:
            values.append(np.concatenate(_region_values(model, stacks, i)))
            for into, scale, stack in zip(log_tails, model.scales, stacks, strict=True):
                into[i] = scale.tail.log10_tail(scale.levels(stack[i]))
    return _CrossFit(values, log_tails)


def _with_margin(model: NullModel, margin: float) -> NullModel:
    return replace(model, scales=tuple(replace(scale, counts=scale.counts + margin) for scale in model.scales))


def _region_values(model: NullModel, stacks: Sequence[FloatMap], image: int) -> list[NDArray[np.float64]]:
    """Per scale, log10 NFA of the surviving regions of one image."""
    return [
        scale.evidence(stack[image], len(stacks)).region_values(stack.shape[2])
        for scale, stack in zip(model.scales, stacks, strict=True)
    ]
