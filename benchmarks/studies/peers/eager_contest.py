"""Picture to verdict: PyTorch as it comes against our runtime, with the same weights, rule and pictures."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import numpy as np
import torch

from uflow_edge.benchmarks.studies.markdown import markdown_table
from uflow_edge.benchmarks.studies.peers.contenders import open_inspector, over
from uflow_edge.benchmarks.studies.peers.eager import EagerPipeline, EagerVerdict
from uflow_edge.benchmarks.studies.peers.models import Model, in_rgb, pictures
from uflow_edge.benchmarks.studies.peers.python_tree import tree_score
from uflow_edge.benchmarks.studies.peers.settings import Settings
from uflow_edge.benchmarks.studies.timing import interleaved_medians
from uflow_edge.export.checkpoints.checkpoint import load_checkpoint
from uflow_edge.runtime.engines.selection import NamedBackend
from uflow_edge.runtime.errors import MissingDependency
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.nfa import likelihood_map
from uflow_edge.runtime.nfa.counts import log10_tests, pixels_of
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.scoring import Scorer

LIKELIHOOD_TOLERANCE = 1e-4
ENERGY_TOLERANCE = 1e-4
"""Relative. Sums of up to hundreds of squares in float32 differ by 7e-6 from one library and processor to another."""
STRAY_PIXELS = 1e-3
"""Share of pixels that a near-tie between two regions may hand from one to the other."""

BACKENDS: tuple[NamedBackend, ...] = ("onnxruntime", "openvino")


@dataclass(frozen=True, slots=True)
class EagerTimes:
    """Median milliseconds with one model.

    Attributes:
        model: that everybody ran.
        network, tree, whole: of the eager pipeline: its network and its tree NFA alone, and picture to verdict.
        ours: of our runtime, picture to verdict, by backend.
    """

    model: Model
    network: float
    tree: float
    whole: float
    ours: dict[NamedBackend, float]

    @property
    def best(self) -> float:
        """Of ours."""
        return min(self.ours.values())

    @property
    def row(self) -> list[str]:
        """Of the table."""
        cells = [self.model.name, *(f"{took:.1f} ms" for took in (self.network, self.tree, self.whole))]
        for backend in BACKENDS:
            took = self.ours.get(backend)
            cells += ["–", "–"] if took is None else [f"{took:.1f} ms", f"{self.whole / took:.1f}"]
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
        "network", "eager: network", "eager: tree NFA", "eager: whole", "ours, onnxruntime", "times faster",
        "ours, OpenVINO", "times faster", "authors' code, as published", "times ours, at best",
    )  # fmt: skip
    outcomes = [_compete(model, settings) for model in models]
    table = markdown_table(header, [outcome.row for outcome in outcomes])
    return "\n\n".join([table, *(outcome.remark for outcome in outcomes if outcome.remark)])


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
        for backend in BACKENDS:
            with suppress(MissingDependency):
                inspector = open_inspector(model, backend, settings.threads, stack)
                assert_agreement(eager, inspector, frames)
                contenders[backend] = over(frames, inspector.inspect)
        medians = interleaved_medians(contenders, settings.rounds, settle=True)
    ours = {backend: medians[backend] for backend in BACKENDS if backend in medians}
    return EagerTimes(model, medians["network"], medians["tree"], medians["whole"], ours)


def assert_agreement(eager: EagerPipeline, inspector: Inspector, frames_bgr: Sequence[Image]) -> None:
    """Both say the same of every picture; see `assert_same`."""
    for frame in frames_bgr:
        assert_same(eager.inspect(in_rgb(frame)), inspector, frame)


def assert_same(theirs: EagerVerdict, inspector: Inspector, frame_bgr: Image) -> None:
    """Our runtime says of a picture what others do.

    Likelihood maps within `LIKELIHOOD_TOLERANCE` and energies within `ENERGY_TOLERANCE`; of the same energies, scores
    within 0.1 + 1e-3 · |log10 P|, which is what float32 allows, but for `STRAY_PIXELS`; the same verdict.

    Scores are compared on the same energies because a near-tie between a region and its parent is decided by the last
    bit of these: on one of eight pictures of gravel, energies that differ by 5e-6 hand 1.4 % of the pixels to another
    region, on some processors and not on others, while both trees agree on every pixel if they are given the same.
    """
    ours = inspector.examine(frame_bgr)
    likelihood = likelihood_map(ours.energies, inspector.manifest.channels, theirs.likelihood.shape)
    worst = float(np.abs(theirs.likelihood - likelihood).max())
    assert worst <= LIKELIHOOD_TOLERANCE, f"likelihood maps differ by {worst}"
    for expected, found in zip(theirs.energies, ours.energies, strict=True):
        worst = float((np.abs(found - expected) / expected).max())
        assert worst <= ENERGY_TOLERANCE, f"energies differ by {worst:.1e}"
    tests = log10_tests(pixels_of(ours.energies))
    score = Scorer(inspector.manifest).score(theirs.energies)
    off = np.abs(theirs.score - score) > 0.1 + 1e-3 * np.abs(theirs.score + tests)
    assert off.mean() <= STRAY_PIXELS, f"scores differ at {off.mean():.2%} of the pixels"
    assert theirs.anomalous == ours.verdict.anomalous, "verdicts differ"
