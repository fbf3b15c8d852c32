"""Compares what engines and the network predict for noised pictures; needs no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.bundle.manifest import Precision
from uflow_edge.runtime.cli.command_line import progress
from uflow_edge.runtime.diffusion.sampling import NoisePredictor
from uflow_edge.runtime.engines import Engine
from uflow_edge.runtime.engines.reference import noise_images
from uflow_edge.runtime.numeric import Image

FloatBatch: TypeAlias = NDArray[np.float32]

NOISINESS = (0.005, 0.04, 0.3, 0.9)
"""Steps to compare at, as fractions of the schedule; purification runs through the first 4 %."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Between two outputs: of the noise, whose standard deviation is 1, or of the variance, from -1 to 1.

    Attributes:
        maximum: largest |difference| of any value.
        rms: root of the mean squared difference, for the worst picture.
    """

    maximum: float
    rms: float

    @classmethod
    def between(cls, expected: FloatBatch, found: FloatBatch) -> "Difference":
        """The difference; infinite if a value that was found is not finite."""
        if not np.isfinite(found).all():
            return cls(np.inf, np.inf)
        squares = np.square(found.astype(np.float64) - expected)
        return cls(float(np.sqrt(squares.max())), float(np.sqrt(squares.mean(axis=(1, 2, 3)).max())))

    def worst(self, other: "Difference") -> "Difference":
        """The larger value of each number."""
        return Difference(max(self.maximum, other.maximum), max(self.rms, other.rms))

    def __str__(self) -> str:
        return f"{self.maximum:.1e}, {self.rms:.1e}"

    def within(self, bound: "Difference") -> bool:
        """Whether neither number is above its bound."""
        return self.maximum <= bound.maximum and self.rms <= bound.rms


UNET_BOUNDS: Mapping[Precision, Difference] = {"fp32": Difference(1e-3, 1e-4), "fp16": Difference(0.1, 5e-3)}
"""Largest allowed differences. For FP16, those of the authors' own half precision on the reference network."""


@dataclass(frozen=True, slots=True)
class UNetParity:
    """How far an engine is from its reference, worst case over pictures and steps.

    Attributes:
        timesteps: that were compared, with one picture each.
        variance: difference of the variance; None if it is not learned.
        bound: on both.
    """

    engine: str
    reference: str
    timesteps: tuple[int, ...]
    noise: Difference
    variance: Difference | None
    bound: Difference

    @property
    def holds(self) -> bool:
        """Whether every error lies within the bound."""
        return all(found.within(self.bound) for found in (self.noise, self.variance) if found is not None)

    def __str__(self) -> str:
        return (
            f"{self.engine}: noise within {self.noise.maximum:.1e} of {self.reference}, {self.noise.rms:.1e} rms "
            f"(bounds {self.bound.maximum:.0e}, {self.bound.rms:.0e}) at steps {', '.join(map(str, self.timesteps))}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class UNetReference:
    """Exact predictions for some noised pictures, computed once for all engines.

    Attributes:
        samples: noised pictures, (1, C, S, S) each.
        timesteps: one per picture.
        outputs: noise and, if it is learned, variance of each picture.
    """

    name: str
    samples: tuple[FloatBatch, ...]
    timesteps: tuple[int, ...]
    outputs: tuple[tuple[FloatBatch, ...], ...]

    @classmethod
    def of(
        cls, name: str, predict: NoisePredictor, samples: Sequence[FloatBatch], timesteps: Sequence[int]
    ) -> "UNetReference":
        """Run the network on one picture after the other, for a large network takes gigabytes per picture."""
        pairs = list(zip(samples, timesteps, strict=True))
        outputs = tuple(predict(sample, _batch(step)) for sample, step in progress(pairs, name))
        return cls(name, tuple(samples), tuple(timesteps), outputs)

    def compare(self, engine: Engine, bound: Difference) -> UNetParity:
        """Run an engine on the same pictures and compare."""
        worst = [Difference(0.0, 0.0) for _ in self.outputs[0]]
        cases = zip(self.samples, self.timesteps, self.outputs, strict=True)
        for sample, step, expected in progress(cases, engine.name, len(self.samples)):
            found = engine.run(sample, _batch(step))
            differences = map(Difference.between, expected, found)
            worst = [old.worst(new) for old, new in zip(worst, differences, strict=True)]
        noise, *variance = worst
        return UNetParity(engine.name, self.name, self.timesteps, noise, variance[0] if variance else None, bound)


def parity_samples(
    alphas_cumprod: NDArray[np.float64], side: int, channels: int = 3, pictures: Sequence[Image] = ()
) -> tuple[list[FloatBatch], list[int]]:
    """Noised pictures for the comparison, and the step of each.

    Args:
        alphas_cumprod: ᾱ of every step of the schedule.
        side: S.
        channels: C.
        pictures: (S, S, 3) uint8 RGB; default, seeded ones with the spectrum of photographs.

    Returns:
        One (1, C, S, S) float32 for each of `NOISINESS`, and its step.
    """
    random = np.random.default_rng(0)
    pictures = pictures or noise_images(side)
    steps = [int(fraction * len(alphas_cumprod)) for fraction in NOISINESS]
    samples = []
    for i, step in enumerate(steps):
        planes = pictures[i % len(pictures)].transpose(2, 0, 1)
        clean = np.resize(planes / 127.5 - 1, (channels, side, side))
        noise = random.standard_normal(clean.shape)
        noised = np.sqrt(alphas_cumprod[step]) * clean + np.sqrt(1 - alphas_cumprod[step]) * noise
        samples.append(noised[np.newaxis].astype(np.float32))
    return samples, steps


def _batch(step: int) -> FloatBatch:
    return np.array([step], np.float32)
