"""A run's folder, and what a worker does with its shards; no cluster needed."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from extras import needs
from uflow_edge.runtime.archive.cluster import ClusterOptions
from uflow_edge.runtime.archive.run_folder import Item, RunFolder, ShardSummary, fitting_shard_size
from uflow_edge.runtime.archive.shards import _Worker
from uflow_edge.runtime.errors import UsageError

ITEMS = [{"path": f"{i}.png"} for i in range(10)]
SUMMARY = ShardSummary(3, 1, ("2.png: torn",), "engine", "host/1")


@dataclass
class Recorder:
    """A job that notes the shards it is given."""

    seen: list[tuple[int, list[Item]]]

    def open(self, run: RunFolder) -> "Recorder":
        return self

    def __call__(self, shard: int, items: Sequence[Item]) -> ShardSummary:
        self.seen.append((shard, list(items)))
        return SUMMARY


def batch_of(shard: int) -> dict[str, np.ndarray]:
    return {"shard": np.array([shard])}


@needs("pyarrow")
def test_a_run_is_taken_up_with_the_shards_it_has(tmp_path: Path) -> None:
    assert RunFolder.resume(tmp_path / "new", {}, ITEMS) is None
    run = RunFolder.create(tmp_path, {"job": "inference"}, ITEMS, 4)
    assert [run.items(shard) for shard in range(run.shards)] == [ITEMS[:4], ITEMS[4:8], ITEMS[8:]]
    run.complete(1, SUMMARY)
    found = RunFolder.resume(tmp_path, {"job": "inference"}, ITEMS)
    assert found == run
    assert found.pending() == [0, 2]
    assert list(found.summaries()) == [SUMMARY]


@needs("pyarrow")
def test_a_beginning_that_was_interrupted_is_begun_again(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, {}, ITEMS, 4)
    (tmp_path / "_run.json").unlink()  # the last that is written
    assert RunFolder.resume(tmp_path, {}, ITEMS) is None
    assert RunFolder.create(tmp_path, {}, ITEMS, 4) == run


@needs("pyarrow")
def test_a_worker_leaves_complete_shards_alone(tmp_path: Path) -> None:
    run, job = RunFolder.create(tmp_path, {}, ITEMS, 4), Recorder([])
    worker = _Worker(run, job)
    for shard in (2, 0, 2):
        answer = worker(batch_of(shard))
        assert ShardSummary.from_json(answer["summary"][0]) == SUMMARY
        assert answer["failure"] == [""]
    assert job.seen == [(2, ITEMS[8:]), (0, ITEMS[:4])]


@needs("pyarrow")
def test_a_shard_that_kills_its_workers_is_given_up_and_named(tmp_path: Path) -> None:
    run, job = RunFolder.create(tmp_path, {}, ITEMS, 4), Recorder([])
    for i in range(4):
        assert run.claim(1, f"host/{i}") == [f"host/{j}" for j in range(i)]
    answer = _Worker(run, job)(batch_of(1))
    (failure,) = answer["failure"]
    assert f"worker {socket.gethostname()}/" in failure
    assert "shard 1 (4.png to 7.png): its workers died (host/0, host/1, host/2, host/3)" in failure
    assert answer["exit_code"] == [3]
    assert job.seen == []
    again = RunFolder.resume(tmp_path, {}, ITEMS)
    assert _Worker(again, job)(batch_of(1))["failure"] == [""]
    assert job.seen == [(1, ITEMS[4:8])]


def test_a_machine_that_does_not_share_the_folder_is_named(tmp_path: Path) -> None:
    elsewhere = RunFolder(tmp_path / "absent", 10, 4)
    (failure,) = _Worker(elsewhere, Recorder([]))(batch_of(0))["failure"]
    assert f"worker {socket.gethostname()}/" in failure
    assert "choose a folder on storage that all workers share" in failure


@pytest.mark.parametrize(
    ("images", "workers", "size"), [(1, 2, 1), (500, 2, 31), (4096, 2, 256), (10**6, 100, 256), (3000, 100, 3)]
)
def test_every_worker_gets_several_shards_where_there_are_enough_images(images: int, workers: int, size: int) -> None:
    assert fitting_shard_size(images, workers) == size


@pytest.mark.parametrize("options", [{"workers": 0}, {"cores": 0}, {"gpus": -1.0}, {"address": "ray://head:10001"}])
def test_clusters_that_cannot_be_meant(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        ClusterOptions(**options)
