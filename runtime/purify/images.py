"""The work of `uflow-purify`: many files, each purified once, whatever happens to the others.

A result is a PNG that says in its own text what it was made from and how. So one that is finished is known for what it
is and left alone, no list of results can be lost, and nobody who looks takes it for an original.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from uflow_edge.runtime.diffusion.noise import NoiseField
from uflow_edge.runtime.diffusion.options import PurifyOptions
from uflow_edge.runtime.diffusion.purifier import Purifier
from uflow_edge.runtime.errors import DISTRIBUTION, BadInput, UsageError
from uflow_edge.runtime.images.decode import in_use, require_file
from uflow_edge.runtime.images.files import find_images
from uflow_edge.runtime.images.search import refuse_results_inside
from uflow_edge.runtime.numeric import Image, Size
from uflow_edge.runtime.purify.pictures import picture_size, read_picture, read_texts, write_picture
from uflow_edge.runtime.purify.quality import psnr, structural_similarity
from uflow_edge.runtime.storage.files import ERRORS_OF_ONE_FILE, sha256
from uflow_edge.runtime.storage.strict_json import parse_json, to_json

RECORD = "uflow-purify"
"""Keyword of the PNG text that says how a result was made."""

_QUICK_S = 2.0

Status = Literal["purified", "finished before", "failed"]


@dataclass(frozen=True, slots=True)
class Job:
    """One picture to purify: where it is, and where the result goes."""

    source: Path
    result: Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one picture.

    Attributes:
        job: the files.
        status: ``finished before`` if the result was there already, made in the same way.
        size: (height, width), upright.
        psnr: of the result against the source, in dB.
        ssim: likewise.
        seconds: that purifying took.
        notes: what people should know about how the source was read.
        error: why it failed.
    """

    job: Job
    status: Status
    size: Size | None = None
    psnr: float | None = None
    ssim: float | None = None
    seconds: float | None = None
    notes: tuple[str, ...] = ()
    error: str = ""

    def to_json(self) -> str:
        """As one line; equal pictures, whose PSNR is infinite, have none."""
        values = asdict(self)
        del values["job"]
        values["psnr"] = None if self.psnr is None or np.isinf(self.psnr) else self.psnr
        return to_json({"source": str(self.job.source), "result": str(self.job.result), **values})


def plan_jobs(paths: Iterable[Path], out: Path) -> list[Job]:
    """Decide where results go: ``out``, in the folders that the sources are in below those that were named, as PNG.

    Two sources of one name (``a.jpg`` and ``a.tif``) keep their suffix before that of the result (``a.jpg.png``).

    Raises:
        BadInput: a path that does not exist, or a folder without images.
        UsageError: a result would replace an original or another result, or be taken for an original in the next run.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file; --out is the folder that results go to")
    paths, found = list(paths), dict[Path, Path]()
    refuse_results_inside(paths, {"--out": out})
    for path in paths:
        for image in find_images([path]):
            source = image.resolve() if image.exists() else image.absolute()  # a link to nothing is named itself
            found.setdefault(source, image.relative_to(path) if path.is_dir() else Path(image.name))
    short = [str(name.with_suffix("")).lower() for name in found.values()]
    names = [
        name.with_suffix(".png") if short.count(alike) == 1 else name.with_name(f"{name.name}.png")
        for name, alike in zip(found.values(), short, strict=True)
    ]
    jobs = [Job(source, out / name) for source, name in zip(found, names, strict=True)]
    results: dict[str, Path] = {}
    for job in jobs:
        if job.result.resolve() in found:
            raise UsageError(f"{job.result}: would replace an original; choose another folder for --out")
        if (other := results.setdefault(str(job.result).lower(), job.source)) != job.source:
            raise UsageError(f"{other} and {job.source} would both become {job.result}; purify them in two runs")
    return jobs


@dataclass(frozen=True, slots=True)
class FilePurifier:
    """Purifies files with one purifier.

    Attributes:
        purifier: what purifies them.
        channels: of its network: 3 (RGB), or 1 (grey).
        network: what tells its weights from others, such as their SHA-256.
        keep_metadata: copy EXIF and ICC profile.
        overwrite: replace results that were made in another way.
    """

    purifier: Purifier
    channels: int
    network: str
    keep_metadata: bool = False
    overwrite: bool = False

    def is_finished(self, job: Job) -> bool:
        """Whether the result is there, made from the same file in the same way.

        Raises:
            BadInput: there is a file in its place that is something else, and may not be replaced.
        """
        if not job.result.exists():
            return False
        if _recipe_of(job.result) == self._recipe(job):
            return True
        if self.overwrite:
            return False
        raise BadInput(
            f"{job.result}: is there, and was not made from {job.source} in this way; --overwrite replaces it"
        )

    def evaluations(self, jobs: Iterable[Job]) -> int:
        """Of the network, in patches, that are still to do; files that cannot be read count for nothing."""
        total = 0
        for job in jobs:
            try:
                if not self.is_finished(job):
                    total += self.purifier.evaluations(picture_size(job.source))
            except (BadInput, OSError):  # is reported when its turn comes
                continue
        return total

    def seconds_per_evaluation(self) -> float:
        """Of one patch in a whole batch, measured; a quick network, whose first run says little, is run twice."""
        options, side = self.purifier.options, self.purifier.image_size
        blank = np.zeros((options.batch, self.channels, side, side), np.float32)

        def measured() -> float:
            started = time.perf_counter()
            next(self.purifier.trajectory(blank, ((0, 0),) * options.batch, NoiseField(0)))
            return time.perf_counter() - started

        first = measured()
        return (measured() if first < _QUICK_S else first) / options.batch

    def run(self, jobs: Sequence[Job], on_step: Callable[[int], None] | None = None) -> Iterator[Outcome]:
        """Purify one picture after the other; what is wrong with one does not stop the rest.

        Args:
            jobs: the files.
            on_step: called after each run of the network with the number of patches in it.
        """
        for job in jobs:
            try:
                yield self._outcome(job, on_step)
            except BadInput as error:  # what would fail for all, an engine or a full disk, ends the run
                yield Outcome(job, "failed", error=str(error))
            except OSError as error:
                if error.errno not in ERRORS_OF_ONE_FILE:
                    raise
                yield Outcome(job, "failed", error=f"{job.result}: cannot be written ({error.strerror})")

    def _outcome(self, job: Job, on_step: Callable[[int], None] | None) -> Outcome:
        if self.is_finished(job):
            return _measured(Outcome(job, "finished before"), parse_json(read_texts(job.result)[RECORD])["measured"])
        recipe, started = self._recipe(job), time.perf_counter()
        picture = read_picture(job.source, keep_metadata=self.keep_metadata)
        if picture.values.shape[2] > self.channels:
            raise BadInput(f"{job.source}: is in colour, and the network purifies grey pictures only; convert it first")
        values = self._purified(picture.values, seed_of(recipe), on_step)
        seconds = time.perf_counter() - started
        quality = psnr(picture.values, values)
        measured = {
            "size": picture.values.shape[:2],
            "psnr": None if np.isinf(quality) else round(quality, 3),
            "ssim": round(structural_similarity(picture.values, values), 5),
            "seconds": round(seconds, 3),
            "notes": picture.notes,
        }
        texts = {
            "Software": f"{DISTRIBUTION} {version(DISTRIBUTION)}; purified by a diffusion network",
            RECORD: to_json({"recipe": recipe, "measured": measured}),
        }
        write_picture(job.result, replace(picture, values=values), texts)
        return _measured(Outcome(job, "purified"), measured)

    def _purified(self, values: Image, seed: int, on_step: Callable[[int], None] | None) -> Image:
        if values.shape[2] == self.channels:
            return self.purifier.purify(values, seed, on_step)
        coloured = self.purifier.purify(np.repeat(values, self.channels, axis=2), seed, on_step)
        return np.asarray(np.rint(coloured.mean(axis=2, keepdims=True)), np.uint8)

    def _recipe(self, job: Job) -> dict[str, Any]:
        """All that decides what the result is."""
        return {
            "source": _digest(job.source),
            "network": self.network,
            "metadata": self.keep_metadata,
            **settings(self.purifier.options),
            **({} if in_use().bits is None else {"bits": in_use().bits}),
        }


def settings(options: PurifyOptions) -> dict[str, Any]:
    """What decides a result, by name, with defaults filled in."""
    values = {**asdict(options), "guide_scale": options.scale, "respacing": options.evaluations}
    del values["batch"]  # changes how long it takes, not what comes out
    return values


def _digest(source: Path) -> str:
    require_file(source)
    try:
        return sha256(source)
    except OSError as error:
        raise BadInput(f"{source}: cannot be read ({error})") from error


def seed_of(recipe: Mapping[str, Any]) -> int:
    """Pictures have noise of their own, the same in every run."""
    return int.from_bytes(hashlib.sha256(f"{recipe['seed']} {recipe['source']}".encode()).digest()[:8], "big")


def _recipe_of(result: Path) -> Any:
    try:
        return parse_json(read_texts(result)[RECORD])["recipe"]
    except (KeyError, TypeError, ValueError):
        return None


def _measured(outcome: Outcome, values: Mapping[str, Any]) -> Outcome:
    height, width = values["size"]
    return replace(
        outcome,
        size=(height, width),
        psnr=np.inf if values["psnr"] is None else values["psnr"],
        ssim=values["ssim"],
        seconds=values["seconds"],
        notes=tuple(values["notes"]),
    )
