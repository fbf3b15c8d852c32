"""Searches a folder for image files; files that look like images but are left out are counted, to be reported."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from uflow_edge.runtime.errors import UsageError
from uflow_edge.runtime.images.decode import IMAGE_SUFFIXES

_OTHERS: Final = (
    "3fr ai arw avif cr2 cr3 crw dcm dcr dds djvu dng emf eps erf exr fit fits flif fts hdp hdr heic heif hif icns ico "
    "iiq j2c j2k jng jp2 jpc jpf jpm jpx jxl jxr kdc mef mng mos mrw nef nrw orf pam pcx pef pfm pic psb psd qoi raf "
    "ras raw rw2 rwl sgi sr2 srw svg svgz tga wdp wmf x3f xbm xcf xpm"
)
_OTHER_PICTURES: Final = frozenset(f".{suffix}" for suffix in _OTHERS.split())
_UNFINISHED: Final = frozenset({".crdownload", ".download", ".filepart", ".part", ".partial", ".tmp"})
_LISTED: Final = 10


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a search.

    Attributes:
        images: in alphabetical order, including paths that look like images but cannot be read: broken links, folders
            that may not be listed, pipes.
        hidden: images and folders whose names begin with a full stop.
        others: by suffix, the number of images in formats that are not read, or that are still being written.
    """

    folder: Path
    images: list[Path] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)

    def notes(self) -> Iterator[str]:
        """Sentences on the files left out, and on the number of images per folder if there are several folders."""
        left_out = [f"{count} {suffix}" for suffix, count in sorted(self.others.items())]
        if self.hidden:
            left_out.append(f"{len(self.hidden)} hidden, such as {self.hidden[0].name}")
        if left_out:
            yield f"{self.folder}: left out {', '.join(left_out)}"
        folders = Counter(image.parent for image in self.images)
        if len(folders) > 1:
            listed = [f"{count} in {folder}" for folder, count in list(folders.items())[:_LISTED]]
            more = [f"{len(folders) - _LISTED} more folders"] * (len(folders) > _LISTED)
            yield f"{self.folder}: {len(self.images)} images, {', '.join([*listed, *more])}"


def search(folder: Path) -> Found:
    """Search a folder and its subfolders, links included, each folder once.

    Raises:
        FileNotFoundError: a folder vanished while it was listed.
    """
    found = Found(folder)
    for inside, folders, names in _walk(folder, found.images):
        found.hidden.extend(inside / name for name in folders if name.startswith("."))
        for name in names:
            path, suffix = inside / name, Path(name).suffix.lower()
            if suffix in IMAGE_SUFFIXES:
                (found.hidden if name.startswith(".") else found.images).append(path)
            elif name.startswith("."):
                continue
            elif suffix in _OTHER_PICTURES or (suffix in _UNFINISHED and Path(path.stem).suffix in IMAGE_SUFFIXES):
                found.others[suffix] += 1
            elif not suffix and path.is_symlink() and not path.exists():  # perhaps a link to a folder of images
                found.images.append(path)
    found.images.sort()
    return found


def _walk(folder: Path, forbidden: list[Path]) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield every visible folder with its subfolders and files; linked folders come last, under the link's name.

    A link to a folder that was visited already, or that contains ``folder``, is not followed. Folders that cannot be
    listed are added to ``forbidden``.
    """

    def note(error: OSError) -> None:
        if isinstance(error, FileNotFoundError):
            raise error
        forbidden.append(Path(error.filename))

    seen = {_identity(place) for place in folder.resolve().parents}
    roots = [folder]
    for root in roots:
        for inside, folders, names in os.walk(root, onerror=note):
            here = Path(inside)
            visible: list[Path] = []
            if _identity(here) in seen:
                folders.clear()
                continue
            seen.add(_identity(here))
            yield here, list(folders), names
            for name in sorted(folders):
                if not name.startswith("."):
                    (roots if (here / name).is_symlink() else visible).append(here / name)
            folders[:] = [path.name for path in visible]


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def refuse_results_inside(inputs: Iterable[Path], results: Mapping[str, Path]) -> None:
    """Check that no results are written into a folder of inputs, links included.

    Args:
        results: paths of the results, by the name of the option.

    Raises:
        UsageError: a result lies in a folder that is searched.
    """
    for folder in (path for path in inputs if path.is_dir()):
        searched = {_identity(inside) for inside, _, _ in _walk(folder, [])}
        for option, result in results.items():
            places = (result.resolve(), *result.resolve().parents)
            if any(_identity(place) in searched for place in places if place.exists()):
                raise UsageError(
                    f"{option} {result}: lies in {folder}, where results would be taken for input images; choose "
                    "another folder"
                )
