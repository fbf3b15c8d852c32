"""Shards of an archive through workers of a Ray cluster, with Ray Data; each result is kept once, whoever is killed.

    shard numbers ─▶ Ray Data ─▶ actors, each with an engine ─▶ files of the shard ─▶ its mark ─▶ summary to the driver

Pictures never pass through Ray: a worker is told the number of a shard, reads its images from storage that all share,
and writes the results there; so the object store does not grow with the archive. When a worker dies, Ray starts another
and gives it the same shard, whose files replace what was left of the first attempt.
"""

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from uflow_edge.runtime.archive.cluster import EXTRA, ClusterOptions
from uflow_edge.runtime.archive.run_folder import Item, RunFolder, ShardSummary
from uflow_edge.runtime.errors import BadInput, ExitCode, UflowEdgeError, require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_MOST_TRIES = 4  # of a shard whose worker dies each time, which is then not by chance
_MOST_BLOCKS = 4096


class ShardWork(Protocol):
    """What a worker does, its engine loaded."""

    def __call__(self, shard: int, items: Sequence[Item]) -> ShardSummary:
        """Write the results of a shard, whole or not at all, over what is there of it.

        Raises:
            UflowEdgeError: the run must end.
        """
        ...


class Job(Protocol):
    """What is sent to every worker."""

    def open(self, run: RunFolder) -> ShardWork:
        """Load the engine.

        Raises:
            UflowEdgeError: it cannot be loaded on this machine.
        """
        ...


class WorkerFailed(UflowEdgeError):
    """A worker cannot do its work, and says why."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.BAD_INPUT) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def work_through(run: RunFolder, job: Job, cluster: ClusterOptions, workers: int) -> Iterator[ShardSummary]:
    """Do all shards that are not complete; summaries come as shards are.

    Args:
        run: to take up.
        job: for each worker.
        cluster: connected, see `cluster.connected`.
        workers: how many.

    Raises:
        WorkerFailed: one cannot do its work, or dies over and over on one shard. What is complete stays.
    """
    pending = run.pending()
    if not pending:
        return
    data = require("ray.data", EXTRA)
    _silence(data)
    numbers = data.from_items(
        [{"shard": shard} for shard in pending], override_num_blocks=min(len(pending), _MOST_BLOCKS)
    )
    summaries = numbers.map_batches(
        _Worker,
        fn_constructor_args=(run, job),
        batch_size=1,
        # The next shard waits at the worker, for Ray Data takes a fifth of a second to hand one out. More than
        # one would wait behind a worker while another has nothing to do.
        compute=data.ActorPoolStrategy(
            min_size=1, max_size=workers, initial_size=workers, max_tasks_in_flight_per_actor=2
        ),
        num_cpus=cluster.cores,
        num_gpus=cluster.gpus,
    )
    for row in summaries.iter_rows():
        if row["failure"]:
            raise WorkerFailed(row["failure"], ExitCode(row["exit_code"]))
        yield ShardSummary.of_json(row["summary"])


class _Worker:
    """Lives in an actor: opens the job once, does shards. Errors meant for people return as rows, not as tracebacks."""

    def __init__(self, run: RunFolder, job: Job) -> None:
        self._run = run
        self._job = job
        self._work: ShardWork | None = None

    def __call__(self, batch: "Mapping[str, NDArray[Any]]") -> dict[str, list[Any]]:
        summary, failure, code = "", "", ExitCode.OK
        try:
            summary = self._summary(int(batch["shard"][0])).to_json()
        except UflowEdgeError as error:
            failure, code = f"worker {worker_name()}: {error}", error.exit_code
        except OSError as error:
            failure, code = f"worker {worker_name()}: {error}", ExitCode.BAD_INPUT
        return {"summary": [summary], "failure": [failure], "exit_code": [int(code)]}

    def _summary(self, shard: int) -> ShardSummary:
        known = self._run.summary(shard)  # a block of several shards is repeated as a whole
        if known is not None:
            return known
        items = self._run.items(shard)
        before = self._run.claim(shard, worker_name())
        if len(before) >= _MOST_TRIES:
            raise BadInput(
                f"shard {shard} ({items[0]['path']} to {items[-1]['path']}) was the end of {', '.join(before)}; Ray's "
                "logs may say what killed them. Complete shards are kept, and the same command tries again"
            )
        if self._work is None:
            self._work = self._job.open(self._run)
        summary = self._work(shard, items)
        self._run.complete(shard, summary)
        return summary


def worker_name() -> str:
    """Of this process, for people."""
    return f"{socket.gethostname()}/{os.getpid()}"


def _silence(data: Any) -> None:
    """Ray Data tells each step and draws bars of its own; ours is over images."""
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
