"""Purifies many files, each one once and independently of the others.

A result is a PNG with a text that says how it was made and from what. So finished results are recognised without a
separate list, and nobody can mistake a result for an original.
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
from uflow_edge.runtime.errors import DISTRIBUTION, ERRORS_OF_ONE_FILE, BadInput
from uflow_edge.runtime.images.decode import in_use, require_file
from uflow_edge.runtime.numeric import Image, Size
from uflow_edge.runtime.purify.content import read_content, read_texts, stored_size, write_content
from uflow_edge.runtime.purify.jobs import PurifyJob
from uflow_edge.runtime.purify.quality import psnr, structural_similarity
from uflow_edge.runtime.storage.files import sha256
from uflow_edge.runtime.storage.strict_json import parse_json, to_json

RECORD = "uflow-purify"
"""Keyword of the PNG text that records how a result was made."""

_QUICK_S = 2.0

Status = Literal["purified", "finished before", "failed"]


@dataclass(frozen=True, slots=True)
class PurifyOutcome:
    """The outcome for one image.

    Attributes:
        status: ``finished before`` if the same result existed already.
        size: (height, width), upright.
        psnr: PSNR of the result against the source, in dB.
        notes: remarks for people on how the source was read.
    """

    job: PurifyJob
    status: Status
    size: Size | None = None
    psnr: float | None = None
    ssim: float | None = None
    seconds: float | None = None
    notes: tuple[str, ...] = ()
    error: str = ""

    def to_json(self) -> str:
        """One line of JSON; an infinite PSNR, of equal images, becomes null."""
        values = asdict(self)
        del values["job"]
        values["psnr"] = None if self.psnr is None or np.isinf(self.psnr) else self.psnr
        return to_json({"source": str(self.job.source), "result": str(self.job.result), **values})


@dataclass(frozen=True, slots=True)
class FilePurifier:
    """Purifies files.

    Attributes:
        channels: channels of its network: 3 (RGB) or 1 (grey).
        network: identity of its weights, such as their SHA-256.
        overwrite: replace results that were made differently.
    """

    purifier: Purifier
    channels: int
    network: str
    keep_metadata: bool = False
    overwrite: bool = False

    def is_finished(self, job: PurifyJob) -> bool:
        """Whether the result exists, made from the same file with the same settings.

        Raises:
            BadInput: the file of the result is something else, and may not be replaced.
        """
        if not job.result.exists():
            return False
        if _recipe_of(job.result) == self._recipe(job):
            return True
        if self.overwrite:
            return False
        raise BadInput(
            f"{job.result}: exists, but was not made from {job.source} with these settings; --overwrite replaces it"
        )

    def evaluations(self, jobs: Iterable[PurifyJob]) -> int:
        """Remaining evaluations of the network, counted in patches; unreadable files are not counted."""
        total = 0
        for job in jobs:
            try:
                if not self.is_finished(job):
                    total += self.purifier.evaluations(stored_size(job.source))
            except (BadInput, OSError):  # `run` reports the error
                continue
        return total

    def seconds_per_evaluation(self) -> float:
        """Measured duration per patch, in a full batch; a fast network runs twice, as its first run is slower."""
        options, side = self.purifier.options, self.purifier.image_size
        blank = np.zeros((options.batch, self.channels, side, side), np.float32)

        def measured() -> float:
            started = time.perf_counter()
            next(self.purifier.trajectory(blank, ((0, 0),) * options.batch, NoiseField(0)))
            return time.perf_counter() - started

        first = measured()
        return (measured() if first < _QUICK_S else first) / options.batch

    def run(self, jobs: Sequence[PurifyJob], on_step: Callable[[int], None] | None = None) -> Iterator[PurifyOutcome]:
        """Purify the images one by one; an image that fails does not stop the others.

        Args:
            on_step: called after each run of the network with the number of patches in it.
        """
        for job in jobs:
            try:
                yield self._outcome(job, on_step)
            except BadInput as error:  # errors that concern all images, such as a full disk, end the run
                yield PurifyOutcome(job, "failed", error=str(error))
            except OSError as error:
                if error.errno not in ERRORS_OF_ONE_FILE:
                    raise
                yield PurifyOutcome(job, "failed", error=f"{job.result}: cannot be written ({error.strerror})")

    def _outcome(self, job: PurifyJob, on_step: Callable[[int], None] | None) -> PurifyOutcome:
        if self.is_finished(job):
            return _measured(
                PurifyOutcome(job, "finished before"), parse_json(read_texts(job.result)[RECORD])["measured"]
            )
        recipe, started = self._recipe(job), time.perf_counter()
        content = read_content(job.source, keep_metadata=self.keep_metadata)
        if content.values.shape[2] > self.channels:
            raise BadInput(f"{job.source}: is in colour, but the network purifies grey images only; convert it first")
        values = self._purified(content.values, seed_of(recipe), on_step)
        seconds = time.perf_counter() - started
        quality = psnr(content.values, values)
        measured = {
            "size": content.values.shape[:2],
            "psnr": None if np.isinf(quality) else round(quality, 3),
            "ssim": round(structural_similarity(content.values, values), 5),
            "seconds": round(seconds, 3),
            "notes": content.notes,
        }
        texts = {
            "Software": f"{DISTRIBUTION} {version(DISTRIBUTION)}; purified by a diffusion network",
            RECORD: to_json({"recipe": recipe, "measured": measured}),
        }
        write_content(job.result, replace(content, values=values), texts)
        return _measured(PurifyOutcome(job, "purified"), measured)

    def _purified(self, values: Image, seed: int, on_step: Callable[[int], None] | None) -> Image:
        if values.shape[2] == self.channels:
            return self.purifier.purify(values, seed, on_step)
        coloured = self.purifier.purify(np.repeat(values, self.channels, axis=2), seed, on_step)
        return np.asarray(np.rint(coloured.mean(axis=2, keepdims=True)), np.uint8)

    def _recipe(self, job: PurifyJob) -> dict[str, Any]:
        """Everything that decides the result."""
        return {
            "source": _digest(job.source),
            "network": self.network,
            "metadata": self.keep_metadata,
            **settings(self.purifier.options),
            **({} if in_use().bits is None else {"bits": in_use().bits}),
        }


def settings(options: PurifyOptions) -> dict[str, Any]:
    """The options that decide a result, by name, with their defaults."""
    values = {**asdict(options), "guide_scale": options.scale, "respacing": options.evaluations}
    del values["batch"]  # changes the duration only
    return values


def _digest(source: Path) -> str:
    require_file(source)
    try:
        return sha256(source)
    except OSError as error:
        raise BadInput(f"{source}: cannot be read ({error})") from error


def seed_of(recipe: Mapping[str, Any]) -> int:
    """The seed of an image's noise: different for each image, the same in every run."""
    return int.from_bytes(hashlib.sha256(f"{recipe['seed']} {recipe['source']}".encode()).digest()[:8], "big")


def _record(result: Path) -> Any:
    return parse_json(read_texts(result)[RECORD])


def _recipe_of(result: Path) -> Any:
    try:
        return _record(result)["recipe"]
    except (KeyError, TypeError, ValueError):
        return None


def _measured(outcome: PurifyOutcome, values: Mapping[str, Any]) -> PurifyOutcome:
    height, width = values["size"]
    return replace(
        outcome,
        size=(height, width),
        psnr=np.inf if values["psnr"] is None else values["psnr"],
        ssim=values["ssim"],
        seconds=values["seconds"],
        notes=tuple(values["notes"]),
    )
