"""Images a second of ``uflow-infer --ray`` with one worker, two, and so on, beside the local pipeline, on one machine.

    python -m uflow_edge.benchmarks.ray_scaling [--images 400] [--rounds 3] [--side 256]

All contenders take turns in every round, write what they found, and must agree bit for bit. Rates are taken from the
time stamps in the results, so they are those of work: each worker's images over the time from its first to its last,
summed. What starting takes, a process and an engine a worker, is in the seconds.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import pyarrow.dataset

from uflow_edge.benchmarks.gravel import gravel_bundle, gravel_frames
from uflow_edge.runtime.archive.cluster import ClusterOptions, connected
from uflow_edge.runtime.archive.inference import Inference
from uflow_edge.runtime.archive.order import Order, carry_out
from uflow_edge.runtime.archive.recipe import InspectorRecipe
from uflow_edge.runtime.bundle import Bundle
from uflow_edge.runtime.command_line import table
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.pipeline import Feed, Pipeline
from uflow_edge.runtime.sinks.json_lines import JsonLines
from uflow_edge.runtime.sources.folders import ImageFiles, image_files
from uflow_edge.runtime.uflow_manifest import UFlowManifest

Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of a contender.

    Attributes:
        seconds: from the call to the end.
        rate: images a second, while working.
        scores: of the images, in order.
    """

    seconds: float
    rate: float
    scores: tuple[float, ...]


def local(bundle: Path, images: Path, out: Path, threads: int | None) -> Measured:
    """The pipeline of ``uflow-infer``, with this many threads of the engine, into lines of JSON."""

    def refuse(error: BadInput) -> None:
        raise error

    started = time.perf_counter()
    inspector = Inspector.load(bundle, threads=threads)
    files = image_files([images])
    Pipeline(inspector, [Feed(ImageFiles(files, refuse))], [JsonLines(out)]).run()
    seconds = time.perf_counter() - started
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    return Measured(seconds, _rate(rows), tuple(row["score"] for row in rows))


def on_ray(bundle: Path, images: Path, out: Path, workers: int) -> Measured:
    """As many workers as given, into Parquet; this process is connected already."""
    recipe = InspectorRecipe.of(Bundle.load(bundle, UFlowManifest))
    items = [{"path": str(file.path)} for file in image_files([images])]
    started = time.perf_counter()
    options = ClusterOptions("local", workers)
    run, tally = carry_out(Order(out, recipe.facts(), items, Inference(recipe)), options, lambda line: None)
    seconds = time.perf_counter() - started
    assert tally.inspected == len(items), tally
    rows = pyarrow.dataset.dataset(out, partitioning="hive").to_table().sort_by("frame").to_pylist()
    of_worker: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for shard, summary in enumerate(run.summaries()):
        of_worker[summary.worker] += rows[shard * run.shard_size : (shard + 1) * run.shard_size]
    return Measured(seconds, sum(map(_rate, of_worker.values())), tuple(row["score"] for row in rows))


def _rate(rows: Rows) -> float:
    first = min(row["timestamps"]["started"] for row in rows)
    last = max(row["timestamps"]["thresholded"] for row in rows)
    return float(len(rows) / (last - first))


def compare(folder: Path, count: int, rounds: int, side: int) -> dict[str, list[Measured]]:
    """Every contender, in every round."""
    (folder / "archive").mkdir()
    for i, frame in enumerate(gravel_frames(count, (480, 640))):
        cv2.imwrite(str(folder / "archive" / f"{i:05d}.png"), frame)
    bundle = gravel_bundle(folder, side)
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's workers otherwise give way to everything else
    cores, found = len(os.sched_getaffinity(0)), defaultdict[str, list[Measured]](list)
    with connected(ClusterOptions("local", workers=cores)):
        for i in range(rounds):
            outs = iter(folder / f"out-{i}-{k}" for k in range(cores + 2))
            found["local, 1 thread"].append(local(bundle, folder / "archive", next(outs), 1))
            found[f"local, {cores} threads"].append(local(bundle, folder / "archive", next(outs), None))
            for workers in range(1, cores + 1):
                name = f"ray, {workers} worker{'s' * (workers > 1)}"
                found[name].append(on_ray(bundle, folder / "archive", next(outs), workers))
    assert len({run.scores for runs in found.values() for run in runs}) == 1, "the contenders disagree"
    return found


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=256, help="of the model's input, in pixels")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = compare(Path(folder), arguments.images, arguments.rounds, arguments.side)
    rates = {name: statistics.median(run.rate for run in runs) for name, runs in found.items()}
    base = rates["ray, 1 worker"]
    rows = [
        [name, f"{rate:.1f}", f"{rate / base:.2f}", f"{statistics.median(run.seconds for run in found[name]):.1f}"]
        for name, rate in rates.items()
    ]
    print(f"{arguments.images} images of 640 x 480, medians of {arguments.rounds} rounds; all scores equal bit for bit")
    print(table(["", "images / s", "of 1 worker", "s in all"], rows, left={0}))


if __name__ == "__main__":
    main()
