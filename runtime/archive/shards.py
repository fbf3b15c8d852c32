"""Workers of a Ray cluster process the shards of an archive, with Ray Data; each result is kept once, after any crash.

    shard numbers ─▶ Ray Data ─▶ actors, each with an engine ─▶ files of the shard ─▶ its mark ─▶ summary to the driver

Images never pass through Ray: a worker gets the number of a shard, reads the images from shared storage, and writes
the results there, so the object store does not grow with the archive. If a worker dies, Ray starts another one with the
same shard, whose files replace those of the first attempt.
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

_MOST_TRIES = 4  # per shard; if the worker dies each time, it is no coincidence
_MOST_BLOCKS = 4096


class ShardWork(Protocol):
    """The work on one shard, with the engine loaded."""

    def __call__(self, shard: int, items: Sequence[Item]) -> ShardSummary:
        """Write the results of a shard, completely or not at all, and replace earlier ones.

        Raises:
            UflowEdgeError: the run must end.
        """
        ...


class ShardJob(Protocol):
    """A job that is sent to every worker."""

    def open(self, run: RunFolder) -> ShardWork:
        """Load the engine.

        Raises:
            UflowEdgeError: the engine cannot be loaded on this machine.
        """
        ...


class WorkerFailed(UflowEdgeError):
    """A worker failed; the message gives the reason."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.BAD_INPUT) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def process_shards(run: RunFolder, job: ShardJob, cluster: ClusterOptions, workers: int) -> Iterator[ShardSummary]:
    """Process all shards that are not complete; yields a summary whenever a shard is complete.

    Args:
        cluster: the connected cluster, see `cluster.connected`.

    Raises:
        WorkerFailed: a worker failed, or died several times on the same shard. Complete shards are kept.
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
        # One shard waits at each worker, because Ray Data takes a fifth of a second to send the next one. With more,
        # shards would wait at a busy worker while another is idle.
        compute=data.ActorPoolStrategy(
            min_size=1, max_size=workers, initial_size=workers, max_tasks_in_flight_per_actor=2
        ),
        num_cpus=cluster.cores,
        num_gpus=cluster.gpus,
    )
    for row in summaries.iter_rows():
        if row["failure"]:
            raise WorkerFailed(row["failure"], ExitCode(row["exit_code"]))
        yield ShardSummary.from_json(row["summary"])


class _Worker:
    """Runs in an actor: opens the job once, then processes shards. Returns errors as rows instead of raising them."""

    def __init__(self, run: RunFolder, job: ShardJob) -> None:
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
        known = self._run.summary(shard)  # Ray repeats a block of several shards as a whole
        if known is not None:
            return known
        items = self._run.items(shard)
        before = self._run.claim(shard, worker_name())
        if len(before) >= _MOST_TRIES:
            raise BadInput(
                f"shard {shard} ({items[0]['path']} to {items[-1]['path']}): its workers died ({', '.join(before)}); "
                "see Ray's logs for the reason. Complete shards are kept, and the same command tries again"
            )
        if self._work is None:
            self._work = self._job.open(self._run)
        summary = self._work(shard, items)
        self._run.complete(shard, summary)
        return summary


def worker_name() -> str:
    """Host and process, for people."""
    return f"{socket.gethostname()}/{os.getpid()}"


def _silence(data: Any) -> None:
    """Switch off Ray Data's messages and progress bars; ours counts images."""
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
