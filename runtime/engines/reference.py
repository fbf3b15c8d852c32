"""A few pictures and their FP32 outputs; every engine is compared with them when it is opened."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.engines import Outputs
from uflow_edge.runtime.engines.deviation import Deviation
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.inspection import LatentStatistics
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.storage.npz import read_npz

REFERENCE = "reference.npz"
INT8_REFERENCE = "reference.int8.npz"
"""An INT8 graph has its own pictures, from the line: others exceed the ranges that it was calibrated for."""
STORED_PICTURES = 3
"""Each costs one run at every start."""
_NOISE_IMAGES = 4
_LIMIT = 256 << 20


@dataclass(frozen=True, slots=True, eq=False)
class StoredReference:
    """Pictures, and the statistics that an engine must give for each.

    Attributes:
        pictures: (S, S, 3) uint8 RGB each, at the model's input size.
        statistics: one per picture, maps of (1, H_i, W_i).
    """

    pictures: tuple[Image, ...]
    statistics: tuple[LatentStatistics, ...]

    @classmethod
    def of(cls, run: Callable[[Image], Outputs], pictures: Sequence[Image], scales: int) -> "StoredReference":
        """Run an engine on pictures, one at a time, and keep the outputs."""
        found = (LatentStatistics.of(run(picture[np.newaxis]), scales) for picture in pictures)
        return cls(tuple(pictures), tuple(found))

    def photographs_bgr(self) -> list[Image]:
        """The pictures that are photographs, (S, S, 3) uint8 BGR; an export without images stores `noise_images`."""
        noise = noise_images(self.pictures[0].shape[0])
        return [
            np.ascontiguousarray(picture[:, :, ::-1])
            for picture in self.pictures
            if not any(np.allclose(picture.astype(np.int16), one, atol=2) for one in noise)
        ]

    def deviation(self, found: Sequence[Outputs], channels: Sequence[int]) -> Deviation:
        """Compare the outputs of an engine for each picture; ``channels`` are those of every scale, finest first."""
        return Deviation.between(
            self.statistics, [LatentStatistics.of(outputs, len(channels)) for outputs in found], channels
        )

    def save(self, path: Path, manifest: UFlowManifest) -> None:
        """Write the arrays, named like the graph's input and outputs."""
        tensors = (*manifest.signature.inputs, *manifest.signature.outputs)
        maps = zip(*((*found.energies, *found.exceedances) for found in self.statistics), strict=True)
        arrays: dict[str, Any] = dict(
            zip(
                (tensor.name for tensor in tensors),
                (np.stack(self.pictures), *(np.concatenate(one) for one in maps)),
                strict=True,
            )
        )
        with path.open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path, manifest: UFlowManifest) -> "StoredReference":
        """Read what `save` wrote.

        Raises:
            BadInput: the file is missing or damaged, or does not fit the signature in the manifest.
        """
        (image,), maps = manifest.signature.inputs, manifest.signature.outputs
        try:
            stored = read_npz(path, _LIMIT)
            pictures, *outputs = (stored[tensor.name] for tensor in (image, *maps))
            for tensor, values in zip((image, *maps), (pictures, *outputs), strict=True):
                _check(values, (len(pictures), *tensor.shape), tensor.dtype)
        except (OSError, ValueError, KeyError) as error:
            raise BadInput(f"{path}: this is no reference for the bundle ({error}); export the bundle again") from error
        each = (
            LatentStatistics.of([one[i : i + 1] for one in outputs], len(manifest.scales)) for i in range(len(pictures))
        )
        return cls(tuple(pictures), tuple(each))


def noise_images(side: int, seed: int = 0) -> list[Image]:
    """Seeded pictures with the spectrum of photographs, (S, S, 3) uint8."""
    random = np.random.default_rng(seed)
    images = []
    for _ in range(_NOISE_IMAGES):
        noise = one_over_f_noise(random, 3, side).transpose(1, 2, 0)
        images.append(np.clip(128 + 48 * noise / noise.std(), 0, 255).astype(np.uint8))
    return images


def one_over_f_noise(random: np.random.Generator, planes: int, side: int) -> NDArray[np.float64]:
    """Noise whose amplitude falls as 1/f, as in photographs (Field, JOSA A 1987): (planes, S, S), arbitrary units."""
    frequency = np.hypot(*np.meshgrid(np.fft.rfftfreq(side), np.fft.fftfreq(side)))
    amplitude = 1 / np.maximum(frequency, 1 / side)
    spectrum = np.fft.rfft2(random.standard_normal((planes, side, side))) * amplitude
    return np.asarray(np.fft.irfft2(spectrum, s=(side, side)))


def _check(values: NDArray[Any], shape: tuple[int, ...], dtype: str) -> None:
    if values.shape != shape or values.dtype != dtype or not len(values):
        raise ValueError(f"{values.dtype} of {values.shape}, expected {dtype} of {shape}")
    if not np.isfinite(values).all():
        raise ValueError("some numbers are not finite")
