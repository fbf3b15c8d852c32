"""Tries the normal laws that a flow can start at, and judges them, and the flow, by the pseudo-defects they find."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uflow_edge.export.network.architecture import Architecture
from uflow_edge.export.network.extractors import FeatureExtractor
from uflow_edge.export.network.joint import JointExtractor
from uflow_edge.export.network.uflow import UFlow, build_extractor
from uflow_edge.runtime.cli.command_line import progress
from uflow_edge.runtime.nfa.chi_square import chi_square_log10_tail
from uflow_edge.runtime.nfa.maps import averaged
from uflow_edge.runtime.numeric import FloatMap
from uflow_edge.training.features import Features
from uflow_edge.training.fit import standardized
from uflow_edge.training.judge.judge import Judgement, judge
from uflow_edge.training.options import Standardization, StandardizationChoice
from uflow_edge.training.standardize import Normal, normal_laws, standardize_taps

_BATCH = 16

Energies: TypeAlias = Sequence[FloatMap]
"""Per scale, finest first, (N, H_i, W_i)."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Features of held-out good images, followed by those of the same images with each kind of pseudo-defect.

    Attributes:
        counts: number of images of each kind, in the order of the features; the first are good.
    """

    features: Features
    counts: Mapping[str, int]

    def judge(self, maps: Iterator[Sequence[Tensor]], window: int) -> Judgement:
        """What is found.

        Args:
            maps: latents of all images in batches, per scale.
            window: see `energy_scorer`.
        """
        scales = zip(*([z.square().sum(dim=1).cpu().numpy() for z in batch] for batch in maps), strict=True)
        ends = np.cumsum(list(self.counts.values()))[:-1]
        parts = zip(*(np.split(np.concatenate(scale), ends) for scale in scales), strict=True)
        good, *drawn = parts
        return judge(energy_scorer(good, window), good, dict(zip(list(self.counts)[1:], drawn, strict=True)))


@dataclass(frozen=True, slots=True)
class Trial:
    """A normal law that was tried.

    Attributes:
        aurocs: see `Judgement`.
    """

    joint: bool
    pooling: int
    window: int
    standardization: Standardization
    aurocs: Mapping[str, float]

    @property
    def found(self) -> float:
        return Judgement(self.aurocs).found

    def applied_to(self, architecture: Architecture) -> Architecture:
        """The architecture with the features and the window of this trial."""
        return replace(architecture, joint=self.joint, pooling=self.pooling, window=self.window)

    def record(self) -> dict[str, Any]:
        """Plain types only, for a checkpoint."""
        return asdict(self)


def try_laws(
    architectures: Sequence[Architecture], fit: Features, held_out: HeldOut, choice: StandardizationChoice
) -> list[Trial]:
    """Judge every law that ``choice`` allows, on the features of every architecture.

    Args:
        architectures: with the same taps.
        fit: features of the images that give the moments.
    """
    trials = []
    for architecture in progress(architectures, "trying features"):
        with torch.random.fork_rng(devices=[]):  # initial weights of a backbone that nothing runs
            extractor = build_extractor(architecture)
        if isinstance(extractor, JointExtractor):
            standardize_taps(extractor, fit)
        for name, laws in normal_laws(extractor, architecture, fit, choice):
            found = held_out.judge(standard_scores(extractor, laws, held_out.features), architecture.window)
            trials.append(
                Trial(architecture.joint, architecture.pooling, architecture.window, name, dict(found.aurocs))
            )
    return trials


def standard_scores(
    extractor: FeatureExtractor, laws: Sequence[Normal], features: Features
) -> Iterator[Sequence[Tensor]]:
    """Features under normal laws, per scale, in batches: the latents of a flow that has not been trained."""
    with torch.no_grad():
        for batch in map(extractor.prepare, _batches(features)):
            yield [law.scores(f) for law, f in zip(laws, batch, strict=True)]


def judged_network(network: UFlow, held_out: HeldOut) -> Judgement:
    """What a network finds with its present weights."""
    with torch.no_grad():
        maps = (network.latents(standardized(network, f), jac=False)[0] for f in _batches(held_out.features))
        return held_out.judge(maps, network.architecture.window)


def energy_scorer(good: Energies, window: int) -> Callable[[Energies], NDArray[np.float64]]:
    """A function from energies to image scores: −log10 of how probable the largest energy of each image is.

    The law of a scale is the multiple of χ² with the moments of the good images; of several scales, the least probable
    counts, as for an NFA.

    Args:
        window: side in pixels of the windows over which energies are averaged.
    """
    smooth = [np.stack([averaged(one, window) for one in maps]) for maps in good]
    moments = [(float(maps.mean()), float(maps.var())) for maps in smooth]

    def score(energies: Energies) -> NDArray[np.float64]:
        tails = []
        for maps, (mean, variance) in zip(energies, moments, strict=True):
            largest = np.array([averaged(one, window).max() for one in maps], np.float64)
            tails.append(-chi_square_log10_tail(2 * mean / variance * largest, 2 * mean**2 / variance))
        return np.asarray(np.max(tails, axis=0), np.float64)

    return score


def _batches(features: Features) -> Iterator[tuple[Tensor, ...]]:
    for start in range(0, len(features), _BATCH):
        yield features.batch(np.arange(start, min(start + _BATCH, len(features))), epoch=0)
