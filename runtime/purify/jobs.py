"""The images that `uflow-purify` purifies, and the files of the results."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from uflow_edge.runtime.errors import UsageError
from uflow_edge.runtime.images.files import find_images
from uflow_edge.runtime.images.search import refuse_results_inside


@dataclass(frozen=True, slots=True)
class PurifyJob:
    """One image to purify: its file and the file of the result."""

    source: Path
    result: Path


def plan_jobs(paths: Iterable[Path], out: Path) -> list[PurifyJob]:
    """Choose the file of each result: a PNG in ``out``, in the same subfolder as the image in its folder.

    Two images of one name (``a.jpg`` and ``a.tif``) keep their suffix before that of the result (``a.jpg.png``).

    Raises:
        BadInput: a path does not exist, or a folder has no images.
        UsageError: a result would replace an original or another result, or be taken for an original in the next run.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file; expected the folder for the results in --out")
    paths, found = list(paths), dict[Path, Path]()
    refuse_results_inside(paths, {"--out": out})
    for path in paths:
        for image in find_images([path]):
            source = (
                image.resolve() if image.exists() else image.absolute()
            )  # a broken link is reported by its own name
            found.setdefault(source, image.relative_to(path) if path.is_dir() else Path(image.name))
    short = [str(name.with_suffix("")).lower() for name in found.values()]
    names = [
        name.with_suffix(".png") if short.count(alike) == 1 else name.with_name(f"{name.name}.png")
        for name, alike in zip(found.values(), short, strict=True)
    ]
    jobs = [PurifyJob(source, out / name) for source, name in zip(found, names, strict=True)]
    results: dict[str, Path] = {}
    for job in jobs:
        if job.result.resolve() in found:
            raise UsageError(f"{job.result}: would replace an original; choose another folder for --out")
        if (other := results.setdefault(str(job.result).lower(), job.source)) != job.source:
            raise UsageError(f"{other} and {job.source} would both become {job.result}; purify them in two runs")
    return jobs
