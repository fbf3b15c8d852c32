"""What is known of a run over an archive, in its results folder: enough to take it up again where it was stopped.

    _run.json              what was asked for; a repeated command must ask for the same
    _images.parquet        every image, in order; a row group is a shard
    _shards/000007.json    shard 7 is complete: how many images, which could not be read, who did it
    _shards/000008.tries   shard 8 is not: who has taken it up

Names begin with an underscore because programs that read a folder of Parquet leave such files out. The folder lies
where all workers reach it under the same path. Nothing in it is changed once it is complete, and every shard has names
of its own, so a shard that is worked on twice, after a worker was killed, ends as if it had been once.
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
"""What a worker must know of an image: its path, and what else it needs to find."""

_LARGEST_SHARD: Final = 256
_LONGEST: Final = 400  # characters of a value in a message
_SHARDS_A_WORKER: Final = 8
_RUN, _ITEMS, _SHARDS = "_run.json", "_images.parquet", "_shards"


@dataclass(frozen=True, slots=True)
class ShardSummary:
    """What became of a shard's images.

    Attributes:
        images: that were inspected.
        anomalous: of these.
        unreadable: a sentence for each of the others.
        engine: that ran them.
        worker: host and process.
    """

    images: int
    anomalous: int
    unreadable: tuple[str, ...]
    engine: str
    worker: str

    def to_json(self) -> str:
        """As `of_json` reads it."""
        return to_json(asdict(self))

    @classmethod
    def of_json(cls, text: str) -> "ShardSummary":
        """Read what `to_json` wrote."""
        return decode(parse_json(text), cls)


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run's folder; make it with `begin`, or find it with `take_up`.

    Attributes:
        folder: absolute.
        images: how many there are in all.
        shard_size: images a shard; the last one may have fewer.
    """

    folder: Path
    images: int
    shard_size: int

    @classmethod
    def take_up(cls, folder: Path, asked: Mapping[str, Any], items: Sequence[Item]) -> "RunFolder | None":
        """The run that was begun in a folder, with the shards it was cut into; None if there is none.

        Args:
            folder: of results.
            asked: all that decides the results, in plain types.
            items: every image.

        Raises:
            UsageError: the run was asked for something else, and the message says what; or the folder is no run's.
        """
        folder = folder.absolute()
        if not (folder / _RUN).is_file():
            if folder.is_dir() and any(path.name not in (_ITEMS, _SHARDS) for path in folder.iterdir()):
                raise UsageError(f"{folder}: is not empty, and holds no run to take up; name a new folder")
            return None
        begun = _read_run(folder / _RUN)
        for name, value in _identity(asked, items).items():
            if begun.get(name) != value:
                raise UsageError(
                    f"{folder}: holds a run with another {name.replace('_', ' ')} ({_shown(begun.get(name))} then, "
                    f"{_shown(value)} now); repeat that command to take it up, or name a new folder"
                )
        for tries in (folder / _SHARDS).glob("*.tries"):
            tries.unlink()
        return cls(folder, len(items), begun["shard_size"])

    @classmethod
    def begin(cls, folder: Path, asked: Mapping[str, Any], items: Sequence[Item], shard_size: int) -> "RunFolder":
        """Cut a new run into shards, in a folder where `take_up` has found none."""
        run = cls(folder.absolute(), len(items), shard_size)
        (run.folder / _SHARDS).mkdir(parents=True, exist_ok=True)
        run._write_items(items)
        with replacing(run.folder / _RUN) as temporary:  # the last: it says that the rest is there
            temporary.write_text(to_json({**_identity(asked, items), "shard_size": shard_size}, indent=1) + "\n")
        return run

    @property
    def shards(self) -> int:
        """How many there are."""
        return -(-self.images // self.shard_size)

    def items(self, shard: int) -> list[Item]:
        """Its images.

        Raises:
            BadInput: the folder is not to be seen from this machine.
        """
        if not (self.folder / _RUN).is_file():
            raise BadInput(f"{self.folder}: not there on this machine; name a folder on storage that all workers share")
        parquet = require("pyarrow.parquet", EXTRA)
        with parquet.ParquetFile(self.folder / _ITEMS) as file:
            found: list[Item] = file.read_row_group(shard).to_pylist()
        return found

    def pending(self) -> list[int]:
        """Shards that are not complete."""
        complete = {int(path.stem) for path in (self.folder / _SHARDS).glob("[0-9]*.json")}
        return [shard for shard in range(self.shards) if shard not in complete]

    def summary(self, shard: int) -> ShardSummary | None:
        """What became of a shard; None while it is not complete."""
        try:
            return ShardSummary.of_json(self._mark(shard).read_text())
        except FileNotFoundError:
            return None

    def summaries(self) -> Iterator[ShardSummary]:
        """Of all complete shards, in order."""
        for shard in range(self.shards):
            if (summary := self.summary(shard)) is not None:
                yield summary

    def reopen_unreadable(self) -> None:
        """Forget that shards are complete in which an image could not be read: the fault may have been mended."""
        for shard in range(self.shards):
            if (summary := self.summary(shard)) is not None and summary.unreadable:
                self._mark(shard).unlink()

    def claim(self, shard: int, worker: str) -> list[str]:
        """Say that a worker takes a shard up; returns those that did before and have not come to its end."""
        tries = self._tries(shard)
        before = tries.read_text().splitlines() if tries.exists() else []
        tries.write_text("".join(f"{name}\n" for name in (*before, worker)))
        return before

    def complete(self, shard: int, summary: ShardSummary) -> None:
        """Say that all results of a shard are there."""
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
    """As large as leaves each worker several, so that none waits long for the last one to end."""
    return min(max(images // (workers * _SHARDS_A_WORKER), 1), _LARGEST_SHARD)


def shard_name(shard: int) -> str:
    """As files of a shard are named."""
    return f"{shard:06d}"


def _read_run(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
        if not isinstance(found, dict) or type(found.get("shard_size")) is not int or found["shard_size"] < 1:
            raise ValueError("expected shard_size, 1 or more")
    except ValueError as error:
        raise BadInput(f"{path}: cannot be read ({error}); name a new folder for the results") from error
    return found


def _shown(value: object) -> str:
    """A line for people, whatever stands in the file."""
    text = printable(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _identity(asked: Mapping[str, Any], items: Sequence[Item]) -> dict[str, Any]:
    """What two commands must have in common to be one run, as JSON gives it back."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(to_json(item).encode() + b"\n")
    own = {DISTRIBUTION: version(DISTRIBUTION), "images": len(items), "list_of_images": digest.hexdigest()}
    identity: dict[str, Any] = parse_json(to_json({**asked, **own}))
    return identity
