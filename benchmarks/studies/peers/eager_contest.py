"""Picture to verdict: PyTorch as it comes against our runtime, with the same weights, rule and pictures."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from uflow_edge.benchmarks.studies.markdown import markdown_table
from uflow_edge.benchmarks.studies.peers.contenders import OURS, open_inspectors, over
from uflow_edge.benchmarks.studies.peers.eager import EagerPipeline, EagerVerdict
from uflow_edge.benchmarks.studies.peers.models import Model, in_rgb, pictures
from uflow_edge.benchmarks.studies.peers.python_tree import tree_score
from uflow_edge.benchmarks.studies.peers.settings import Settings
from uflow_edge.benchmarks.studies.timing import interleaved_medians
from uflow_edge.export.checkpoints.checkpoint import load_checkpoint
from uflow_edge.export.graphs.parity import ENERGY_BOUNDS
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.nfa import likelihood_map
from uflow_edge.runtime.nfa.counts import log10_tests, pixels_of
from uflow_edge.runtime.numeric import FloatMap, Image
from uflow_edge.runtime.scoring import Scorer

OURS_HEADER = tuple(cell for name in OURS for cell in (f"ours, {name}", "times faster"))
LIKELIHOOD_TOLERANCE = 1e-4
ENERGY_TOLERANCE = ENERGY_BOUNDS["fp32"]
"""Relative. Usual is 1e-5; a pixel of little energy was off by 1.6e-4 where torch was restricted to AVX2."""


@dataclass(frozen=True, slots=True)
class EagerTimes:
    """Median milliseconds with one model.

    Attributes:
        model: that everybody ran.
        network, tree, whole: of the eager pipeline: its network and its tree NFA alone, and picture to verdict.
        ours: of our runtime, picture to verdict, by its name in `OURS`.
        stray: largest share of a picture's pixels whose scores differ; see `assert_same`.
        notes: on engines that are left out or not in FP32.
    """

    model: Model
    network: float
    tree: float
    whole: float
    ours: dict[str, float]
    stray: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> float:
        """Of ours, in FP32."""
        return min(took for name, took in self.ours.items() if OURS[name][1] == "fp32")

    @property
    def row(self) -> list[str]:
        """Of the table."""
        cells = [self.model.name, *(f"{took:.1f} ms" for took in (self.network, self.tree, self.whole))]
        cells += [*beside(self.whole, self.ours), f"{self.stray:.2%}"]
        published = self.model.published
        if published is None:
            return [*cells, "–", "–"]
        return [*cells, f"{published.whole_ms} ms", f"{published.whole_ms / self.best:.0f}"]

    @property
    def remark(self) -> str | None:
        """What the published figure would be on this machine, if all of it followed the time of the network."""
        published = self.model.published
        if published is None or published.network_ms is None:
            return None
        scaled = published.whole_ms * self.network / published.network_ms
        return (
            f"{self.model.name}: of the published {published.whole_ms} ms the network took {published.network_ms} ms; "
            f"here the eager one takes {self.network:.1f} ms. Scaled by that, the whole would take {scaled:.0f} ms "
            f"here, {scaled / self.best:.0f} times ours."
        )


def eager_contest(models: Sequence[Model], settings: Settings) -> str:
    """A table in Markdown, a row a model, and how far the published figures are those of this machine.

    Raises:
        AssertionError: results differ.
    """
    torch.set_num_threads(settings.threads)
    header = (
        "network", "eager: network", "eager: tree NFA", "eager: whole", *OURS_HEADER, "scores differ at",
        "authors' code, as published", "times ours, at best",
    )  # fmt: skip
    outcomes = [_compete(model, settings) for model in models]
    table = markdown_table(header, [outcome.row for outcome in outcomes])
    remarks = [outcome.remark for outcome in outcomes if outcome.remark]
    return "\n\n".join([table, *remarks, *(note for outcome in outcomes for note in outcome.notes)])


def _compete(model: Model, settings: Settings) -> EagerTimes:
    eager = EagerPipeline(load_checkpoint(model.checkpoint))
    frames = pictures(settings.pictures, (settings.picture_size, settings.picture_size))
    in_order = [in_rgb(frame) for frame in frames]
    tensor = eager.tensor(in_order[0])
    energies = [eager.energies(eager.latents(eager.tensor(picture))) for picture in in_order]
    contenders: dict[str, Callable[[], object]] = {
        "network": lambda: eager.latents(tensor),
        "tree": over(energies, lambda maps: tree_score(maps, eager.channels, eager.side)),
        "whole": over(in_order, eager.inspect),
    }
    with ExitStack() as stack:
        inspectors, notes = open_inspectors(model, settings.threads, stack)
        stray, changes = compared([eager.inspect(picture) for picture in in_order], inspectors, frames)
        contenders |= {name: over(frames, inspector.inspect) for name, inspector in inspectors.items()}
        medians = interleaved_medians(contenders, settings.rounds, settle=True)
    ours = {name: medians[name] for name in inspectors}
    notes += [f"{model.name}, {change}" for change in changes]
    return EagerTimes(model, medians["network"], medians["tree"], medians["whole"], ours, stray, tuple(notes))


def beside(whole: float, ours: Mapping[str, float]) -> list[str]:
    """Cells below `OURS_HEADER`: milliseconds of each of `OURS`, and how many times faster than ``whole`` that is."""
    times = [ours.get(name) for name in OURS]
    return [
        cell for took in times for cell in (("–", "–") if took is None else (f"{took:.1f} ms", f"{whole / took:.1f}"))
    ]


def compared(
    theirs: Sequence[EagerVerdict], inspectors: Mapping[str, Inspector], frames_bgr: Sequence[Image]
) -> tuple[float, list[str]]:
    """Compare our runtime with others on every picture.

    Returns:
        The largest share of stray pixels in FP32, see `assert_same`; and a line on how far each inspector is off.

    Raises:
        AssertionError: results in FP32 differ.
    """
    stray, changes = 0.0, []
    for name, inspector in inspectors.items():
        if inspector.engine.precision == "fp32":
            agreements = [assert_same(*pair, inspector) for pair in zip(theirs, frames_bgr, strict=True)]
            strays, errors = zip(*agreements, strict=True)
            stray = max(stray, *strays)
            changes.append(f"{name}: energies differ by up to {max(errors):.1e}.")
            continue
        found = [inspector.inspect(frame) for frame in frames_bgr]
        same = sum(ours.anomalous == verdict.anomalous for ours, verdict in zip(found, theirs, strict=True))
        off = max(abs(ours.score - verdict.score.max()) for ours, verdict in zip(found, theirs, strict=True))
        changes.append(f"{name}: {same} of {len(found)} verdicts are the same, scores differ by up to {off:.2g}.")
    return stray, changes


def assert_same(theirs: EagerVerdict, frame_bgr: Image, inspector: Inspector) -> tuple[float, float]:
    """Our runtime decides on a picture as others do.

    Likelihood maps within `LIKELIHOOD_TOLERANCE` and energies within `ENERGY_TOLERANCE`; of the same energies, the
    largest scores within 0.1 + 1e-3 · |log10 P|, which is what float32 allows, and the same regions; the same verdict.

    Regions need not have the same outline, because a near-tie between a region and its parent is decided by the last
    bit: on one of eight pictures of gravel, energies that differ by 5e-6 hand 1.4 % of the pixels to another region,
    and with the same energies it was 0.14 % on a processor with AVX2 and none with AVX-512.

    Returns:
        Share of the pixels whose scores, of the same energies, differ by more than float32 allows; and the largest
        relative difference of energies.
    """
    ours = inspector.examine(frame_bgr)
    likelihood = likelihood_map(ours.energies, inspector.manifest.channels, theirs.likelihood.shape)
    worst = float(np.abs(theirs.likelihood - likelihood).max())
    assert worst <= LIKELIHOOD_TOLERANCE, f"likelihood maps differ by {worst}"
    pairs = zip(theirs.energies, ours.energies, strict=True)
    error = max(float((np.abs(found - expected) / expected).max()) for expected, found in pairs)
    assert error <= ENERGY_TOLERANCE, f"energies differ by {error:.1e}"
    tests = log10_tests(pixels_of(ours.energies))
    score = Scorer(inspector.manifest).score(theirs.energies)
    allowed = 0.1 + 1e-3 * np.abs(theirs.score + tests)
    peak, expected_peak = float(score.max()), float(theirs.score.max())
    assert abs(peak - expected_peak) <= allowed.flat[theirs.score.argmax()], f"scores are {peak} and {expected_peak}"
    assert not (_missed(theirs.score, score, allowed) or _missed(score, theirs.score, allowed)), "regions differ"
    assert theirs.anomalous == ours.verdict.anomalous, "verdicts differ"
    return float((np.abs(theirs.score - score) > allowed).mean()), error


def _missed(score: FloatMap, other: FloatMap, allowed: FloatMap) -> bool:
    """Whether a region of one map that is clearly above the threshold, 0, has no pixel of one of the other."""
    _, regions = cv2.connectedComponents((score > 0).astype(np.uint8))
    return not set(regions[score > allowed]) <= set(regions[other > 0])
