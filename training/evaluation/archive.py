"""``uflow-evaluate --ray``: workers of a Ray cluster measure shards of the test images; their results are merged.

Counts are integers, and scores are merged in the order of the images. So the metrics equal those of a local run, bit
for bit, whatever the number of workers and whichever of them died.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from uflow_edge.runtime.archive.cluster import ClusterOptions
from uflow_edge.runtime.archive.recipe import InspectorRecipe
from uflow_edge.runtime.archive.run import Run, execute
from uflow_edge.runtime.archive.run_folder import Item, RunFolder, ShardSummary, shard_name
from uflow_edge.runtime.archive.shards import worker_name
from uflow_edge.training.dataset import TestImage
from uflow_edge.training.evaluation.accumulators import Accumulators
from uflow_edge.training.evaluation.evaluate import Evaluation, conclude, masks_are_known

if TYPE_CHECKING:
    from uflow_edge.runtime.inspector import Inspector


def evaluate_archive(
    category: str,
    images: Sequence[TestImage],
    recipe: InspectorRecipe,
    folder: Path,
    cluster: ClusterOptions,
    shard_size: int | None = None,
    *,
    metric_size: int | None = None,
    retry: bool = False,
) -> Evaluation:
    """Like `evaluate.evaluate`, on a cluster.

    Args:
        images: see `ground_truth.labelled_images`; on storage that all workers share.
        metric_size: see `evaluate.evaluate`.
        folder: for the accumulators, on shared storage; a repeated call continues from them.
        shard_size, retry: see `archive.run.Run`.

    Raises:
        BadInput: see `evaluate.evaluate`.
        UsageError, MissingDependency, WorkerFailed: see `run.execute`.
    """
    started = time.perf_counter()
    masks = masks_are_known(images)
    parameters = {"job": "evaluation", "category": category, "masks": masks, **recipe.facts()}
    if metric_size is not None:
        parameters["metric_size"] = metric_size
    items = [
        replace(image, path=image.path.absolute(), mask=image.mask and image.mask.absolute()).as_json()
        for image in images
    ]
    run = Run(folder, parameters, items, Measurement(recipe, masks, metric_size), shard_size, retry)
    results, _ = execute(run, cluster)
    threshold = recipe.bundle.manifest.operating_point.threshold
    measured = Accumulators(threshold, metric_size)
    for shard in range(results.shards):
        measured.merge(Accumulators.load(_accumulators(results, shard), threshold, metric_size))
    engines = sorted({summary.engine for summary in results.summaries()})
    return conclude(category, measured, recipe.bundle.manifest, "; ".join(engines), time.perf_counter() - started)


@dataclass(frozen=True, slots=True)
class Measurement:
    """The job: measure every image, and its pixels if there are masks."""

    recipe: InspectorRecipe
    masks: bool
    metric_size: int | None

    def open(self, run: RunFolder) -> "MeasurementWork":
        return MeasurementWork(run, self.recipe.open(), masks=self.masks, metric_size=self.metric_size)


class MeasurementWork:
    """Runs in a worker: measures a shard, and saves its accumulators."""

    def __init__(self, run: RunFolder, inspector: "Inspector", *, masks: bool, metric_size: int | None) -> None:
        self._run = run
        self._inspector = inspector
        self._masks = masks
        self._metric_size = metric_size

    def __call__(self, shard: int, items: Sequence[Item]) -> ShardSummary:
        measured = Accumulators(self._inspector.operating_point.threshold, self._metric_size)
        measured.inspect(map(TestImage.from_json, items), self._inspector, masks=self._masks)
        measured.save(_accumulators(self._run, shard))
        return ShardSummary(
            images=len(measured.is_defective),
            anomalous=measured.at_operating_point.flagged,
            unreadable=tuple(measured.unreadable),
            engine=self._inspector.engine.name,
            worker=worker_name(),
        )


def _accumulators(run: RunFolder, shard: int) -> Path:
    return run.folder / "measured" / f"{shard_name(shard)}.npz"
