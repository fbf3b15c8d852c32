"""Images a second of ``uflow-infer --ray`` with one worker, two, and so on, beside the local pipeline, on one machine.

    python -m uflow_edge.benchmarks.studies.ray_scaling [--images 400] [--rounds 3] [--side 256] [--format bmp]

All contenders take turns in every round, write what they found, and must agree bit for bit. Rates are taken from the
time stamps in the results, so they are those of work: each worker's images over the time from its first to its last,
summed. A worker reads the next image while it inspects one, so where images take long to decode, as PNG does, one
worker keeps more than one core busy; BMP shows the engines. What starting takes, a process and an engine a worker, is
in the seconds. The processor's time an image is for machines on which others work too: while it does not grow with
the workers, they are not in each other's way.
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

from uflow_edge.benchmarks.studies.gravel import gravel_bundle, gravel_frames
from uflow_edge.runtime.archive.cluster import ClusterOptions, connected
from uflow_edge.runtime.archive.inference import Inference
from uflow_edge.runtime.archive.recipe import InspectorRecipe
from uflow_edge.runtime.archive.run import Run, execute
from uflow_edge.runtime.archive.run_folder import Item, RunFolder, ShardSummary
from uflow_edge.runtime.archive.shards import ShardWork
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.cli.command_line import table
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.line.capture import Feed
from uflow_edge.runtime.line.pipeline import Pipeline
from uflow_edge.runtime.sinks.json_lines import JsonLines
from uflow_edge.runtime.sources.folders import ImageFiles, image_files

Rows = Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class ScalingRun:
    """One run of a contender.

    Attributes:
        seconds: from the call to the end.
        rate: images a second, while working.
        cpu_ms: processor's time an image, of all threads, in milliseconds.
        scores: of the images, in order.
    """

    seconds: float
    rate: float
    cpu_ms: float
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class TimedInference:
    """The job of ``uflow-infer``, which also notes the processor's time of each shard."""

    job: Inference

    def open(self, run: RunFolder) -> ShardWork:
        """See `shards.ShardJob`."""
        work = self.job.open(run)

        def timed(shard: int, items: Sequence[Item]) -> ShardSummary:
            started = time.process_time()
            summary = work(shard, items)
            (run.folder / f"_cpu-{shard:06d}").write_text(str(time.process_time() - started))
            return summary

        return timed


def local(bundle: Path, images: Path, out: Path, threads: int | None) -> ScalingRun:
    """The pipeline of ``uflow-infer``, with this many threads of the engine, into lines of JSON."""
    started = time.perf_counter()
    inspector = Inspector.load(bundle, threads=threads)
    files, worked = image_files([images]), time.process_time()
    tally = Pipeline(inspector, [Feed(ImageFiles(files))], [JsonLines(out)]).run()
    assert tally.inspected == len(files), tally
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    return ScalingRun(seconds, _rate(rows), 1e3 * cpu / len(files), tuple(row["score"] for row in rows))


def on_ray(bundle: Path, images: Path, out: Path, workers: int) -> ScalingRun:
    """As many workers as given, into Parquet; this process is connected already."""
    recipe = InspectorRecipe.from_bundle(Bundle.load(bundle, UFlowManifest))
    items = [{"path": str(file.path)} for file in image_files([images])]
    started = time.perf_counter()
    options = ClusterOptions("local", workers)
    run = Run(out, recipe.facts(), items, TimedInference(Inference(recipe)))
    results, tally = execute(run, options)
    seconds = time.perf_counter() - started
    assert tally.inspected == len(items), tally
    rows = pyarrow.dataset.dataset(out, partitioning="hive").to_table().sort_by("frame").to_pylist()
    of_worker: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for shard, summary in enumerate(results.summaries()):
        of_worker[summary.worker] += rows[shard * results.shard_size : (shard + 1) * results.shard_size]
    cpu = sum(float(path.read_text()) for path in out.glob("_cpu-*"))
    rate = sum(map(_rate, of_worker.values()))
    return ScalingRun(seconds, rate, 1e3 * cpu / len(items), tuple(row["score"] for row in rows))


def _rate(rows: Rows) -> float:
    first = min(row["timestamps"]["started"] for row in rows)
    last = max(row["timestamps"]["thresholded"] for row in rows)
    return float(len(rows) / (last - first))


def compare(folder: Path, count: int, rounds: int, side: int, suffix: str) -> dict[str, list[ScalingRun]]:
    """Every contender, in every round."""
    (folder / "archive").mkdir()
    for i, frame in enumerate(gravel_frames(count, (480, 640))):
        cv2.imwrite(str(folder / "archive" / f"{i:05d}.{suffix}"), frame)
    bundle = gravel_bundle(folder, side)
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's workers otherwise give way to everything else
    cores, found = len(os.sched_getaffinity(0)), defaultdict[str, list[ScalingRun]](list)
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
    parser.add_argument("--format", choices=("png", "bmp"), default="png", help="of the images")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = compare(Path(folder), arguments.images, arguments.rounds, arguments.side, arguments.format)
    rates, cpu, seconds = (
        {name: statistics.median(getattr(run, field) for run in runs) for name, runs in found.items()}
        for field in ("rate", "cpu_ms", "seconds")
    )
    base = rates["ray, 1 worker"]
    rows = [
        [name, f"{rates[name]:.1f}", f"{rates[name] / base:.2f}", f"{cpu[name]:.1f}", f"{seconds[name]:.1f}"]
        for name in found
    ]
    print(f"{arguments.images} images of 640 x 480 ({arguments.format}), medians of {arguments.rounds} rounds")
    print("all scores equal bit for bit")
    print(table(["", "images / s", "of 1 worker", "CPU ms / image", "s in all"], rows, left={0}))


if __name__ == "__main__":
    main()
