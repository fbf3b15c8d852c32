"""``uflow-infer --ray``: verdicts on every image of an archive, as a folder of Parquet files."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from uflow_edge.runtime.archive.recipe import InspectorRecipe
from uflow_edge.runtime.archive.records import Row, unreadable_row, verdict_row, write_rows
from uflow_edge.runtime.archive.run_folder import Item, RunFolder, ShardSummary
from uflow_edge.runtime.archive.shards import worker_name
from uflow_edge.runtime.engines import MOST_FAILURES_IN_A_ROW, EngineFailed
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.images.files import read_image
from uflow_edge.runtime.numeric import Image

if TYPE_CHECKING:
    from uflow_edge.runtime.inspector import Inspector


@dataclass(frozen=True, slots=True)
class Inference:
    """The job: inspect every image with the recipe's inspector."""

    recipe: InspectorRecipe

    def open(self, run: RunFolder) -> "InferenceWork":
        return InferenceWork(run, self.recipe.open(), self.recipe.bundle_sha256)


class InferenceWork:
    """Runs in a worker: inspects a shard, image by image, and writes its rows."""

    def __init__(self, run: RunFolder, inspector: "Inspector", bundle_sha256: str) -> None:
        self._run = run
        self._inspector = inspector
        self._failures_in_a_row = 0
        self._provenance: Row = {"bundle_sha256": bundle_sha256, "engine": inspector.engine.name}

    def __call__(self, shard: int, items: Sequence[Item]) -> ShardSummary:
        sources = [item["path"] or "" for item in items]
        first = shard * self._run.shard_size
        images = read_ahead(map(Path, sources))
        rows = [self._row(i, *pair) for i, pair in enumerate(zip(sources, images, strict=True), first)]
        write_rows(self._run.folder, shard, rows)
        errors = tuple(row["error"] for row in rows if row["error"] is not None)
        return ShardSummary(
            images=len(rows) - len(errors),
            anomalous=sum(bool(row.get("anomalous")) for row in rows),
            unreadable=errors,
            engine=self._inspector.engine.name,
            worker=worker_name(),
        )

    def _row(self, frame: int, source: str, image: Image | BadInput) -> Row:
        if isinstance(image, BadInput):
            return unreadable_row(frame, source, str(image), self._provenance)
        try:
            verdict = self._inspector.inspect(image, frame=frame, source=source)
        except BadInput as error:  # a region of interest reaches beyond the image
            return unreadable_row(frame, source, f"{source}: {error}", self._provenance)
        except EngineFailed as error:
            self._failures_in_a_row += 1
            if self._failures_in_a_row >= MOST_FAILURES_IN_A_ROW:
                raise
            return unreadable_row(frame, source, f"{source}: not judged: {error}", self._provenance)
        self._failures_in_a_row = 0
        return verdict_row(verdict, self._provenance)


def read_ahead(paths: Iterable[Path]) -> Iterator[Image | BadInput]:
    """Images, or errors for those that cannot be read; the next image is read while the current one is inspected."""
    with ThreadPoolExecutor(1) as reader:
        waiting: deque[Future[Image | BadInput]] = deque()
        for path in paths:
            waiting.append(reader.submit(_read, path))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _read(path: Path) -> Image | BadInput:
    try:
        return read_image(path)
    except BadInput as error:
        return error
