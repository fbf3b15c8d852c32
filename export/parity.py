"""The exported graph against the network it was traced from, in the numbers a user cares about."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from uflow_edge.export.network import EnergyGraph
from uflow_edge.runtime.engines import Engine, LatentStatistics
from uflow_edge.runtime.nfa.tree import Rule, tree_score
from uflow_edge.runtime.numeric import Image

FP32_BOUND = 1e-3
_NOISE_IMAGES = 4


@dataclass(frozen=True, slots=True)
class Parity:
    """How far a variant is from the torch network, worst case over the images.

    Attributes:
        engine: what ran the variant.
        images: how many images were compared.
        energy_error: per scale, finest first, largest |difference| / |value| of any pixel's energy.
        exceedance_error: per scale, mean |difference| of the counts, as a fraction of the channels.
        score_change: largest change of an image's score, in decades of NFA.
        mask_iou: smallest intersection over union of the masks at log-NFA 0; 1 where both are empty.
        bound: what no energy error may exceed.
    """

    engine: str
    images: int
    energy_error: tuple[float, ...]
    exceedance_error: tuple[float, ...]
    score_change: float
    mask_iou: float
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the variant may be shipped."""
        return max(self.energy_error) <= self.bound and max(self.exceedance_error) <= self.bound

    def __str__(self) -> str:
        return (
            f"{self.engine}: energies within {max(self.energy_error):.1e} of torch (bound {self.bound:.0e}), "
            f"score within {self.score_change:.2g}, mask IoU {self.mask_iou:.4f} on {self.images} images"
        )


def noise_images(side: int, seed: int = 0) -> list[Image]:
    """Seeded pictures with the spectrum of photographs, 1/f (Field, JOSA A 1987), (S, S, 3) uint8."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.rfftfreq(side), np.fft.fftfreq(side)))
    amplitude = 1 / np.maximum(frequency, 1 / side)
    images = []
    for _ in range(_NOISE_IMAGES):
        spectrum = np.fft.rfft2(random.standard_normal((3, side, side))) * amplitude
        noise = np.fft.irfft2(spectrum, s=(side, side)).transpose(1, 2, 0)
        images.append(np.clip(128 + 48 * noise / noise.std(), 0, 255).astype(np.uint8))
    return images


def measure(
    graph: EnergyGraph, engine: Engine, images: Sequence[Image], rule: Rule, bound: float = FP32_BOUND
) -> Parity:
    """Run both on the same pictures and compare everything that leaves the engine, and what follows from it.

    Args:
        graph: the torch reference, in evaluation mode.
        engine: runs the exported variant.
        images: (S, S, 3) uint8 RGB, at the model's input size.
        rule: of the tree NFA.
        bound: for `Parity.holds`.
    """
    architecture = graph.network.architecture
    scales = len(architecture.latents)
    channels = [scale.channels for scale in architecture.latents]
    energy_error, exceedance_error = np.zeros(scales), np.zeros(scales)
    score_change, mask_iou = 0.0, 1.0
    for image in images:
        expected, found = _reference(graph, image, scales), engine.run(image[np.newaxis])
        for i in range(scales):
            energy_error[i] = max(energy_error[i], _relative(expected.energies[i], found.energies[i]))
            difference = np.abs(expected.exceedances[i] - found.exceedances[i]).mean() / channels[i]
            exceedance_error[i] = max(exceedance_error[i], float(difference))
        size = (architecture.input_size,) * 2
        scores = [tree_score([e[0] for e in s.energies], channels, size, rule=rule) for s in (expected, found)]
        score_change = max(score_change, abs(float(scores[0].max() - scores[1].max())))
        mask_iou = min(mask_iou, _iou(scores[0] > 0, scores[1] > 0))
    return Parity(
        engine.name,
        len(images),
        tuple(float(e) for e in energy_error),
        tuple(float(e) for e in exceedance_error),
        score_change,
        mask_iou,
        bound,
    )


def to_json(parities: dict[str, Parity]) -> str:
    """``parity.json``: one entry a variant, by file name."""
    return (
        json.dumps({name: {**asdict(parity), "holds": parity.holds} for name, parity in parities.items()}, indent=2)
        + "\n"
    )


def _reference(graph: EnergyGraph, image: Image, scales: int) -> LatentStatistics:
    with torch.no_grad():
        outputs = [output.numpy() for output in graph(torch.from_numpy(image[np.newaxis]))]
    return LatentStatistics(tuple(outputs[:scales]), tuple(outputs[scales:]))


def _relative(expected: np.ndarray, found: np.ndarray) -> float:
    if not np.isfinite(found).all():
        return float("inf")
    return float((np.abs(found - expected) / np.maximum(np.abs(expected), np.finfo(np.float32).tiny)).max())


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0
