"""The calibrated null model: the energies of good parts on *this* line, and the NFA that follows from them.

Energies are averaged over a window first: the noise of neighbours averages out, defects do not. A good pixel's mean
is modelled as the product of a gain of its place, a gain of the image and a random factor, whose tail is a `TailLaw`.

Neighbouring pixels repeat each other, so a region of n pixels is not n independent tests. How many regions of at least
n pixels a good image shows above a level is therefore counted on good images, and kept as a line in that tail p:

    log10 E[regions of at least n pixels above x] = count(n) + repeats(n) · log10 p(x)

(On independent pixels the paper's polyomino bound has the same form, with n for ``repeats``.) Sizes are tested in
classes 1, 2, 4, …, K a scale, and each of the K classes of each of the k scales may raise 1/(kK) false alarms an image:

    log10 NFA(region) = log10(k K) + count(n) + repeats(n) · log10 p(lowest level)

so that fewer than one region with log-NFA ≤ 0 is expected on a good image. ``calibration/null_model/fit.py`` fits it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.nfa.maps import averaged, checked_maps
from uflow_edge.runtime.nfa.null_tail import TailLaw
from uflow_edge.runtime.nfa.tree import Evidence, lowest_value
from uflow_edge.runtime.numeric import FloatMap, Size
from uflow_edge.runtime.storage.files import replacing
from uflow_edge.runtime.storage.npz import read_npz

__all__ = ["ImageGain", "NullModel", "NullScale", "TailLaw"]

FORMAT = 2  # of the files that are written; format 1 lacks the window, which was 1
LARGEST_WINDOW = 31
_LIMIT = 64 << 20
_LARGEST = 1e6  # of gains of images, repeats and counts; on real lines all are near 1, or a few hundred


@dataclass(frozen=True, slots=True)
class ImageGain:
    """How much brighter or calmer than usual an image may be as a whole before that counts as evidence.

    The gain of an image is the median of its energies over their places' gains. Only a power of it is divided out, and
    it is cut off where good images end, so that a large defect cannot explain itself away.

    Attributes:
        exponent: 0, the image's gain is ignored, to 1, it is divided out.
        lowest, highest: range of gains of good images; the typical one is 1.
    """

    exponent: float
    lowest: float
    highest: float

    def __post_init__(self) -> None:
        if not (0 <= self.exponent <= 1 and 1 / _LARGEST <= self.lowest <= self.highest <= _LARGEST):
            raise ValueError(f"expected 0 <= exponent <= 1 and 0 < lowest <= highest up to {_LARGEST:g}, got {self}")

    def of(self, ratios: FloatMap) -> float:
        """The divisor of an image, from its energies over the gains of their places."""
        if self.exponent == 0:
            return 1.0
        middle = ratios.size // 2
        median = float(np.partition(ratios.ravel(), middle)[middle])  # a third of the time of np.median
        return float(min(max(median, self.lowest), self.highest) ** self.exponent)


@dataclass(frozen=True, slots=True, eq=False)
class NullScale:
    """One scale of the null model.

    Attributes:
        pixel_gain: (H, W) float32 > 0, median energy of good images at each place.
        image_gain: what is divided out beside it.
        tail: of energies over both gains.
        repeats: (K,) float64 > 0, not falling; entry j, at most 2ʲ, is for regions of 2ʲ pixels and more.
        counts: (K,) float64, likewise, log10.
    """

    pixel_gain: FloatMap
    image_gain: ImageGain
    tail: TailLaw
    repeats: NDArray[np.float64]
    counts: NDArray[np.float64]

    def __post_init__(self) -> None:
        gain, repeats, counts = self.pixel_gain, self.repeats, self.counts
        if gain.ndim != 2 or gain.dtype != np.float32 or not (np.isfinite(gain).all() and gain.min() > 0):
            raise ValueError(f"pixel gain: expected finite positive float32 [H, W], got {gain.dtype} {gain.shape}")
        if repeats.ndim != 1 or repeats.shape != counts.shape or not 1 <= len(repeats) <= gain.size.bit_length():
            raise ValueError(f"size classes: expected 1 to {gain.size.bit_length()}, got {repeats.shape, counts.shape}")
        if not (np.abs(counts).max() <= _LARGEST and 0 < repeats[0] <= repeats[-1] <= _LARGEST) or not (
            np.diff(repeats).min(initial=0) >= 0
        ):
            raise ValueError(f"size classes: expected counts and rising repeats > 0 up to {_LARGEST:g}, got {repeats}")
        if (repeats > 2.0 ** np.arange(len(repeats)) * (1 + 1e-6)).any():
            raise ValueError(f"size classes: expected repeats of at most the pixels of a region, got {repeats}")

    def levels(self, energy: FloatMap) -> FloatMap:
        """Energy over both gains, (H*W,) float32: what level sets are taken of.

        Args:
            energy: (H, W) float32, not negative.
        """
        return self.normalised(energy, self.pixel_gain, self.image_gain)

    @staticmethod
    def normalised(energy: FloatMap, pixel_gain: FloatMap, image_gain: ImageGain) -> FloatMap:
        """The same, for gains without a fitted tail."""
        with np.errstate(over="ignore"):
            ratios = np.abs(energy / pixel_gain).ravel()  # the sort by bit patterns needs -0.0 to be 0.0
            levels = ratios / np.float32(image_gain.of(ratios))
        return np.asarray(np.minimum(levels, np.finfo(np.float32).max, out=levels), np.float32)

    def log10_tail(self, energy: FloatMap) -> NDArray[np.float64]:
        """log10 of the probability that a good pixel reaches its energy, (H, W), by the gain of its place alone.

        The gain of the image is left in: pixels of a calm image are calmer than those of an unusual one.

        Args:
            energy: (H, W) float32, finite and not negative.
        """
        with np.errstate(over="ignore"):
            return self.tail.log10_tail(np.minimum(energy / self.pixel_gain, np.finfo(np.float32).max))

    def evidence(self, energy: FloatMap, scales: int) -> Evidence:
        """The evidence of one map; values are log10 NFA.

        Args:
            energy: (H, W) float32, not negative.
            scales: k, how many scales are tested.
        """
        levels = self.levels(energy)
        repeats, log_tests = _by_size(self, levels.size, scales)
        return Evidence(levels, self.tail.log10_tail(levels), repeats, log_tests, outside=float(log_tests[1]))


@lru_cache(maxsize=64)
def _by_size(scale: NullScale, pixels: int, scales: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Repeats and log tests for regions of 0 to S pixels: of n, the class of the largest power of 2 in it."""
    classes = np.floor(np.log2(np.maximum(np.arange(pixels + 1), 1))).astype(np.intp)
    classes = np.minimum(classes, len(scale.repeats) - 1)
    log_tests = scale.counts[classes] + np.log10(scales * len(scale.counts))
    return scale.repeats[classes], log_tests


@dataclass(frozen=True, slots=True, eq=False)
class NullModel:
    """The null model of all scales.

    Attributes:
        scales: finest first.
        good_images: N, the number of images that it was learned from.
        window: side in pixels of the windows over which energies are averaged, odd.
    """

    scales: tuple[NullScale, ...]
    good_images: int
    window: int = 1

    def __post_init__(self) -> None:
        if not (self.window % 2 == 1 and 1 <= self.window <= LARGEST_WINDOW):
            raise ValueError(f"window {self.window}: expected an odd number up to {LARGEST_WINDOW}")
        if not self.scales or not 1 <= self.good_images <= 10**9:
            raise ValueError(f"expected at least one scale and one image, got {len(self.scales)}, {self.good_images}")

    def score(self, energies: Sequence[ArrayLike], size: Size) -> FloatMap:
        """Map of −log10 NFA of the most significant region that each pixel lies in, as `nfa.tree_score` gives it.

        Args:
            energies: per scale, finest first, (H_i, W_i), finite and not negative.
            size: (height, width) of the result.

        Returns:
            (height, width) float32, higher is more anomalous; above 0, fewer than one detection expected on a good
            image.

        Raises:
            ValueError: maps that cannot be energies, or of another number or size than was calibrated.
        """
        maps = checked_maps("energy", energies, [1] * len(energies), size)
        found, expected = [one.shape for one in maps], [scale.pixel_gain.shape for scale in self.scales]
        if found != expected:
            raise ValueError(
                f"the null model was calibrated on energy maps of {expected}, got {found}; calibrate again"
            )
        values = [
            scale.evidence(averaged(one, self.window), len(maps)).value_map((one.shape[0], one.shape[1]))
            for scale, one in zip(self.scales, maps, strict=True)
        ]
        lowest = lowest_value(values, size)
        return np.negative(lowest, out=lowest)

    def save(self, path: Path) -> None:
        """Write one ``.npz`` without pickles, whole or not at all."""
        arrays: dict[str, Any] = {
            name: value for i, scale in enumerate(self.scales) for name, value in _arrays(i, scale)
        }
        arrays |= {"format": FORMAT, "good_images": self.good_images, "scales": len(self.scales)}
        arrays["window"] = self.window
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> "NullModel":
        """Read what `save` wrote.

        Raises:
            BadInput: missing, damaged, of another format, or values that make no null model.
        """
        try:
            stored = read_npz(path, _LIMIT)
            if not 1 <= (found := _whole(stored, "format")) <= FORMAT:
                raise ValueError(f"format {found}, this version reads 1 to {FORMAT}")
            scales = tuple(_scale(i, stored) for i in range(min(_whole(stored, "scales"), len(stored))))
            return cls(scales, _whole(stored, "good_images"), _whole(stored, "window") if found > 1 else 1)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise BadInput(f"{path}: not a null model ({error}); calibrate the bundle again") from error


def _whole(stored: Mapping[str, NDArray[Any]], name: str) -> int:
    value = stored[name]
    if value.shape != () or value.dtype.kind not in "iu":
        raise ValueError(f"{name}: expected a whole number, got {value.dtype} {value.shape}")
    return int(value)


def _arrays(index: int, scale: NullScale) -> Iterator[tuple[str, NDArray[Any]]]:
    yield f"pixel_gain_{index}", scale.pixel_gain
    for name in ("image_gain", "tail"):
        part = getattr(scale, name)
        yield f"{name}_{index}", np.array([getattr(part, field.name) for field in fields(part)], np.float64)
    yield f"repeats_{index}", scale.repeats
    yield f"counts_{index}", scale.counts


def _scale(index: int, stored: Mapping[str, NDArray[Any]]) -> NullScale:
    return NullScale(
        pixel_gain=stored[f"pixel_gain_{index}"],
        image_gain=ImageGain(*map(float, stored[f"image_gain_{index}"])),
        tail=TailLaw(*map(float, stored[f"tail_{index}"])),
        repeats=stored[f"repeats_{index}"],
        counts=stored[f"counts_{index}"],
    )
