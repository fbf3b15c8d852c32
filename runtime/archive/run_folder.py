"""The state of a run over an archive, stored in its results folder, so that the run can be resumed.

    _run.json              the run's parameters; a repeated command must have the same
    _images.parquet        every image, in order; a row group is a shard
    _shards/000007.json    shard 7 is complete: number of images, unreadable ones, engine, worker
    _shards/000008.tries   shard 8 is not complete: the workers that have started it

Names begin with an underscore because programs that read a folder of Parquet files ignore such files. All workers must
reach the folder under the same path. Complete files never change, and each shard has files of its own; so a shard that
is processed twice, because a worker was killed, gives the same result as one processed once.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, TypeAlias

from uflow_edge.runtime.archive.cluster import EXTRA
from uflow_edge.runtime.errors import DISTRIBUTION, BadInput, UsageError, require
from uflow_edge.runtime.storage.files import replacing
from uflow_edge.runtime.storage.strict_json import decode, parse_json, read_json, to_json
from uflow_edge.runtime.text import printable

Item: TypeAlias = Mapping[str, str | None]
"""An image for a worker: its ``path``, and further fields that the job needs."""

_LARGEST_SHARD: Final = 256
_LONGEST: Final = 400  # characters of a value in a message
_SHARDS_PER_WORKER: Final = 8
_RUN, _ITEMS, _SHARDS = "_run.json", "_images.parquet", "_shards"


@dataclass(frozen=True, slots=True)
class ShardSummary:
    """The results of a shard, counted.

    Attributes:
        images: number of images inspected.
        anomalous: number of them that are anomalous.
        unreadable: one message for each of the other images.
        worker: host and process.
    """

    images: int
    anomalous: int
    unreadable: tuple[str, ...]
    engine: str
    worker: str

    def to_json(self) -> str:
        return to_json(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "ShardSummary":
        return decode(parse_json(text), cls)


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run's folder; made with `create` or `resume`.

    Attributes:
        folder: absolute path.
        images: number of images in the run.
        shard_size: images per shard; the last shard may have fewer.
    """

    folder: Path
    images: int
    shard_size: int

    @classmethod
    def resume(cls, folder: Path, parameters: Mapping[str, Any], items: Sequence[Item]) -> "RunFolder | None":
        """The run that was started in this folder, with its shards; None if there is none.

        Args:
            parameters: everything that decides the results, in plain types.

        Raises:
            UsageError: the run has other parameters or images, which the message names; or the folder holds no run.
        """
        folder = folder.absolute()
        if not (folder / _RUN).is_file():
            if folder.is_dir() and any(path.name not in (_ITEMS, _SHARDS) for path in folder.iterdir()):
                raise UsageError(f"{folder}: is not empty, but holds no run to resume; choose a new folder")
            return None
        stored = _read_run(folder / _RUN)
        for name, value in _identity(parameters, items).items():
            if stored.get(name) != value:
                raise UsageError(
                    f"{folder}: holds a run with another {name.replace('_', ' ')} ({_shown(stored.get(name))} then, "
                    f"{_shown(value)} now); repeat that command to resume it, or choose a new folder"
                )
        for tries in (folder / _SHARDS).glob("*.tries"):
            tries.unlink()
        return cls(folder, len(items), stored["shard_size"])

    @classmethod
    def create(cls, folder: Path, parameters: Mapping[str, Any], items: Sequence[Item], shard_size: int) -> "RunFolder":
        """Start a new run and divide it into shards, in a folder where `resume` found no run."""
        run = cls(folder.absolute(), len(items), shard_size)
        (run.folder / _SHARDS).mkdir(parents=True, exist_ok=True)
        run._write_items(items)
        with replacing(run.folder / _RUN) as temporary:  # written last, when the rest is complete
            temporary.write_text(to_json({**_identity(parameters, items), "shard_size": shard_size}, indent=1) + "\n")
        return run

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.images // self.shard_size)

    def items(self, shard: int) -> list[Item]:
        """The images of a shard.

        Raises:
            BadInput: this machine cannot see the folder.
        """
        if not (self.folder / _RUN).is_file():
            raise BadInput(f"{self.folder}: missing on this machine; choose a folder on storage that all workers share")
        parquet = require("pyarrow.parquet", EXTRA)
        with parquet.ParquetFile(self.folder / _ITEMS) as file:
            found: list[Item] = file.read_row_group(shard).to_pylist()
        return found

    def pending(self) -> list[int]:
        """Numbers of the shards that are not complete, in order."""
        complete = {int(path.stem) for path in (self.folder / _SHARDS).glob("[0-9]*.json")}
        return [shard for shard in range(self.shards) if shard not in complete]

    def summary(self, shard: int) -> ShardSummary | None:
        """The summary of a shard; None while it is not complete."""
        try:
            return ShardSummary.from_json(self._mark(shard).read_text())
        except FileNotFoundError:
            return None

    def summaries(self) -> Iterator[ShardSummary]:
        """The summaries of all complete shards, in order."""
        for shard in range(self.shards):
            if (summary := self.summary(shard)) is not None:
                yield summary

    def reopen_unreadable(self) -> None:
        """Process shards with unreadable images again; the images may have been repaired."""
        for shard in range(self.shards):
            if (summary := self.summary(shard)) is not None and summary.unreadable:
                self._mark(shard).unlink()

    def claim(self, shard: int, worker: str) -> list[str]:
        """Record that a worker starts a shard; returns the workers that started it before and did not complete it."""
        tries = self._tries(shard)
        before = tries.read_text().splitlines() if tries.exists() else []
        tries.write_text("".join(f"{name}\n" for name in (*before, worker)))
        return before

    def complete(self, shard: int, summary: ShardSummary) -> None:
        """Record that all results of a shard are written."""
        with replacing(self._mark(shard)) as temporary:
            temporary.write_text(summary.to_json() + "\n")
        self._tries(shard).unlink(missing_ok=True)

    def _mark(self, shard: int) -> Path:
        return self.folder / _SHARDS / f"{shard_name(shard)}.json"

    def _tries(self, shard: int) -> Path:
        return self._mark(shard).with_suffix(".tries")

    def _write_items(self, items: Sequence[Item]) -> None:
        arrow, parquet = require("pyarrow", EXTRA), require("pyarrow.parquet", EXTRA)
        schema = arrow.schema([(name, arrow.string()) for name in items[0]])
        with replacing(self.folder / _ITEMS) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
            for first in range(0, len(items), self.shard_size):
                rows = list(items[first : first + self.shard_size])
                writer.write_table(arrow.Table.from_pylist(rows, schema))


def fitting_shard_size(images: int, workers: int) -> int:
    """A shard size that gives each worker several shards, so that all workers finish at about the same time."""
    return min(max(images // (workers * _SHARDS_PER_WORKER), 1), _LARGEST_SHARD)


def shard_name(shard: int) -> str:
    """The number of a shard as in the names of its files."""
    return f"{shard:06d}"


def _read_run(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
        if not isinstance(found, dict) or type(found.get("shard_size")) is not int or found["shard_size"] < 1:
            raise ValueError("expected shard_size, 1 or more")
    except ValueError as error:
        raise BadInput(f"{path}: cannot be read ({error}); choose a new folder for the results") from error
    return found


def _shown(value: object) -> str:
    """The value on one line, shortened."""
    text = printable(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _identity(parameters: Mapping[str, Any], items: Sequence[Item]) -> dict[str, Any]:
    """Everything that must be equal for two commands to belong to the same run, as read back from JSON."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(to_json(item).encode() + b"\n")
    own = {DISTRIBUTION: version(DISTRIBUTION), "images": len(items), "list_of_images": digest.hexdigest()}
    identity: dict[str, Any] = parse_json(to_json({**parameters, **own}))
    return identity
