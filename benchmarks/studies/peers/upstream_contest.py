"""Picture to verdict: the authors' own code against our runtime, with the same weights, rule and pictures.

Contenders take turns in bursts of all pictures. A burst counts by its mean, not its median: every now and then their
graphs set off a collection of garbage, which is part of what they cost.
"""

import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import astuple
from pathlib import Path

from uflow_edge.benchmarks.studies.markdown import markdown_table
from uflow_edge.benchmarks.studies.peers.contenders import open_inspectors, over
from uflow_edge.benchmarks.studies.peers.eager_contest import OURS_HEADER, beside, compared
from uflow_edge.benchmarks.studies.peers.models import Model, in_rgb, pictures
from uflow_edge.benchmarks.studies.peers.settings import Settings
from uflow_edge.benchmarks.studies.peers.upstream_peer import REPOSITORY, UpstreamPeer, UpstreamSeconds
from uflow_edge.benchmarks.studies.timing import Took, burst, interleaved_medians
from uflow_edge.export.checkpoints.checkpoint import load_checkpoint
from uflow_edge.runtime.errors import MissingDependency

_AUTHORS_TAPS = (1, 2, 3)
_ONE, _ALL = "one at a time", "all at once"


def upstream_contest(
    models: Sequence[Model], settings: Settings, checkout: Path | None, python: Path | None = None
) -> str:
    """A table in Markdown, a row a model, of those that their code can build.

    Args:
        models: any.
        settings: of the run.
        checkout: of the authors' repository.
        python: interpreter that has what it needs; default, this one.

    Raises:
        MissingDependency: there is no checkout, or something that it needs is missing.
        AssertionError: results differ.
    """
    if checkout is None:
        raise MissingDependency(
            f"no checkout of the authors' code; clone {REPOSITORY} and name it with --upstream PATH"
        )
    theirs = [model for model in models if _is_theirs(model)]
    if not theirs:
        return "skipped: their network taps strides 4, 8 and 16 and does not whiten; none of --networks does so"
    header = (
        "network", "theirs: network", "theirs: tree NFA", "theirs: whole", f"theirs, {settings.pictures} at once",
        *OURS_HEADER, "scores differ at",
    )  # fmt: skip
    notes: list[str] = []
    with UpstreamPeer(checkout, settings.folder / "upstream", python) as peer:
        versions = ", ".join(f"{name} {number}" for name, number in peer.ask("versions").items())
        table = markdown_table(header, [_compete(peer, model, settings, notes) for model in theirs])
    return "\n\n".join([f"Theirs under {versions}", table, *notes])


def _is_theirs(model: Model) -> bool:
    architecture = load_checkpoint(model.checkpoint).architecture
    return architecture.taps == _AUTHORS_TAPS and architecture.pooling == 1 and not architecture.whitening


def _compete(peer: UpstreamPeer, model: Model, settings: Settings, notes: list[str]) -> list[str]:
    frames = pictures(settings.pictures, (settings.picture_size, settings.picture_size))
    peer.load(model.checkpoint, settings.threads)
    peer.take([in_rgb(frame) for frame in frames])
    everything = range(len(frames))
    bursts: list[UpstreamSeconds] = []
    contenders: dict[str, Callable[[], object]] = {
        _ONE: lambda: _one_at_a_time(peer, everything, bursts),
        _ALL: lambda: Took(peer.stages(everything).whole),
    }
    with ExitStack() as stack:
        inspectors, without = open_inspectors(model, settings.threads, stack)
        stray, changes = compared([peer.verdict(i) for i in everything], inspectors, frames)
        notes += [*without, *(f"{model.name}, {change}" for change in changes)]
        for name, inspector in inspectors.items():
            contenders[name] = burst(over(frames, inspector.inspect), len(frames), statistics.fmean)
        medians = interleaved_medians(contenders, settings.bursts)
    timed = bursts[1:]
    network = 1e3 * statistics.median(stages.network for stages in timed)
    tree = 1e3 * statistics.median(stages.tree for stages in timed)
    whole = medians[_ONE]
    cells = [model.name, *(f"{took:.1f} ms" for took in (network, tree, whole, medians[_ALL]))]
    return [*cells, *beside(whole, medians), f"{stray:.2%}"]


def _one_at_a_time(peer: UpstreamPeer, indices: Sequence[int], bursts: list[UpstreamSeconds]) -> Took:
    """A burst, by its mean, which is kept."""
    singly = [astuple(peer.stages([index])) for index in indices]
    bursts.append(UpstreamSeconds(*(statistics.fmean(seconds) for seconds in zip(*singly, strict=True))))
    return Took(bursts[-1].whole)
