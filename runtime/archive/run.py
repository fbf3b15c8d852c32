"""Starts or resumes a run over an archive, shows its progress, and counts the results."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from uflow_edge.runtime.archive.cluster import ClusterOptions, connected
from uflow_edge.runtime.archive.run_folder import Item, RunFolder, ShardSummary, fitting_shard_size
from uflow_edge.runtime.archive.shards import ShardJob, process_shards
from uflow_edge.runtime.cli.command_line import progress
from uflow_edge.runtime.tally import Tally

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Run:
    """A run over an archive.

    Attributes:
        folder: folder for the results, on storage that all workers share.
        parameters: everything that decides the results, in plain types.
        shard_size: images per shard; None chooses it by the number of workers. A resumed run keeps its shards.
        retry: repeat the shards in which an image could not be read.
    """

    folder: Path
    parameters: Mapping[str, Any]
    items: Sequence[Item]
    job: ShardJob
    shard_size: int | None = None
    retry: bool = False


def execute(run: Run, cluster: ClusterOptions) -> tuple[RunFolder, Tally]:
    """Process all shards that are not complete.

    Args:
        cluster: the cluster to use; not needed if all shards are complete.
    Returns:
        The complete run's folder, and the counts over all its images, earlier shards included.

    Raises:
        UsageError: see `RunFolder.resume`.
        MissingDependency, Unavailable: see `cluster.connected`.
        WorkerFailed: see `shards.process_shards`.
    """
    folder = RunFolder.resume(run.folder, run.parameters, run.items)
    if folder is not None and run.retry:
        folder.reopen_unreadable()
    if folder is not None and not folder.pending():
        with _RunProgress(folder) as shown:
            return folder, shown.tally
    with connected(cluster) as workers:
        if folder is None:
            size = run.shard_size or fitting_shard_size(len(run.items), workers)
            folder = RunFolder.create(run.folder, run.parameters, run.items, size)
        pending = len(folder.pending())
        before = "" if pending == folder.shards else f", {folder.shards - pending} complete already"
        logger.info(f"ray: {workers} workers, {folder.images} images in {folder.shards} shards{before}")
        with _RunProgress(folder) as shown:
            for summary in process_shards(folder, run.job, cluster, workers):
                shown.add(summary)
            return folder, shown.tally


class _RunProgress:
    """Counts images and moves the progress bar; starts with the shards that are complete already."""

    def __init__(self, folder: RunFolder) -> None:
        self.tally = Tally()
        self._engines = set[str]()
        self._bar = progress((), "inspecting", folder.images)
        for summary in folder.summaries():
            self.add(summary)

    def __enter__(self) -> "_RunProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def add(self, summary: ShardSummary) -> None:
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
