"""A run from what was asked for to what became of it: taken up or begun, worked through behind a bar, counted."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from uflow_edge.runtime.archive.cluster import ClusterOptions, connected
from uflow_edge.runtime.archive.run_folder import Item, RunFolder, ShardSummary, fitting_shard_size
from uflow_edge.runtime.archive.shards import Job, work_through
from uflow_edge.runtime.cli.command_line import progress
from uflow_edge.runtime.line.tally import Tally

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done.

    Attributes:
        folder: for the results, on storage that all workers share.
        asked: all that decides the results, in plain types.
        items: every image.
        job: for the workers.
        shard_size: images; None: as fits the workers. A run that is taken up keeps its own.
        retry: also do shards again in which an image could not be read.
    """

    folder: Path
    asked: Mapping[str, Any]
    items: Sequence[Item]
    job: Job
    shard_size: int | None = None
    retry: bool = False


def carry_out(order: Order, cluster: ClusterOptions) -> tuple[RunFolder, Tally]:
    """Do what is not done yet; the run, complete, and what became of all its images, earlier shards included.

    Args:
        order: what to do.
        cluster: where; not needed when nothing is left to do.

    Raises:
        UsageError: see `RunFolder.take_up`.
        MissingDependency: see `cluster.connected`.
        WorkerFailed: see `shards.work_through`.
    """
    run = RunFolder.take_up(order.folder, order.asked, order.items)
    if run is not None and order.retry:
        run.reopen_unreadable()
    if run is not None and not run.pending():
        with _Counts(run) as counts:
            return run, counts.tally
    with connected(cluster) as workers:
        if run is None:
            size = order.shard_size or fitting_shard_size(len(order.items), workers)
            run = RunFolder.begin(order.folder, order.asked, order.items, size)
        pending = len(run.pending())
        before = "" if pending == run.shards else f", {run.shards - pending} complete already"
        logger.info(f"ray: {workers} workers, {run.images} images in {run.shards} shards{before}")
        with _Counts(run) as counts:
            for summary in work_through(run, order.job, cluster, workers):
                counts.add(summary)
            return run, counts.tally


class _Counts:
    """Counts images and moves the bar; begins with the shards that are complete already."""

    def __init__(self, run: RunFolder) -> None:
        self.tally = Tally()
        self._engines = set[str]()
        self._bar = progress((), "inspecting", run.images)
        for summary in run.summaries():
            self.add(summary)

    def __enter__(self) -> "_Counts":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def add(self, summary: ShardSummary) -> None:
        """A shard is complete."""
        failed, tally = len(summary.unreadable), self.tally
        if summary.engine not in self._engines:
            self._engines.add(summary.engine)
            logger.info("engine: %(engine)s", {"engine": summary.engine})
        for line in summary.unreadable:
            logger.warning("unreadable: %(error)s", {"error": line})
        self.tally = replace(
            tally,
            captured=tally.captured + summary.images + failed,
            inspected=tally.inspected + summary.images,
            anomalous=tally.anomalous + summary.anomalous,
            unreadable=tally.unreadable + failed,
        )
        self._bar.update(summary.images + failed)
