"""Image files, folders of images, and folders watched for new images."""

import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeAlias

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.images.files import find_images, read_image
from uflow_edge.runtime.images.layouts import good_images
from uflow_edge.runtime.images.search import search
from uflow_edge.runtime.sources.source import Frame, SourceLost

logger = logging.getLogger(__name__)

_UNREADABLE_POLLS: Final = 5  # an unreadable file may become readable within so many polls
_TAIL: Final = 64  # bytes at the end of a file

_Stamp: TypeAlias = tuple[int, int]
"""Modification time in nanoseconds, size in bytes."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image file.

    Attributes:
        name: name for its results: a path relative to the folder of the search, without suffix, unique in the list.
    """

    path: Path
    name: Path


def image_files(paths: Sequence[Path], *, good: bool = False) -> list[ImageFile]:
    """List image files, those in folders recursively; see `images.files.find_images`.

    Args:
        good: take good images only: each folder holds good images, or is a data set; see `images.layouts`.

    Raises:
        BadInput: a path does not exist, or a folder has no images, or with ``good`` also other images.
    """
    files = []
    for given in paths:
        for path in good_images(given) if good and given.is_dir() else find_images([given]):
            name = path.relative_to(given) if given.is_dir() else Path(path.name)
            files.append(ImageFile(path, name.with_suffix("")))
    return _with_unique_names(files, set(paths))


def _with_unique_names(files: list[ImageFile], given: Collection[Path]) -> list[ImageFile]:
    """Add folders, and if necessary suffixes, to the names of images in folders that would share a name."""
    found = [file for file in files if file.path not in given]
    common = os.path.commonpath([file.path.absolute().parent for file in found] or [Path()])
    folders = _ambiguous_names(found, lambda file: file.path.parent)
    longer = {
        file.path: file.path.absolute().relative_to(common).with_suffix("") for file in found if file.name in folders
    }
    found = [replace(file, name=longer.get(file.path, file.name)) for file in found]
    suffixes = _ambiguous_names(found, lambda file: file.path)
    names = {file.path: file.name.with_name(file.path.name) if file.name in suffixes else file.name for file in found}
    return [replace(file, name=names.get(file.path, file.name)) for file in files]


def _ambiguous_names(files: list[ImageFile], part: Callable[[ImageFile], Path]) -> set[Path]:
    """Names that several images share although the given part of their paths differs."""
    parts: dict[Path, set[Path]] = {}
    for file in files:
        parts.setdefault(file.name, set()).add(part(file))
    return {name for name, those in parts.items() if len(those) > 1}


class ImageFiles:
    """Image files one by one. An unreadable file is logged and counted in ``unreadable``; its number is not reused."""

    live: Final = False

    def __init__(self, files: Sequence[ImageFile]) -> None:
        self._files = files
        self.unreadable = 0

    @property
    def name(self) -> str:
        return str(self._files[0].path) if len(self._files) == 1 else f"{len(self._files)} images"

    def __len__(self) -> int:
        return len(self._files)

    def frames(self, stop: threading.Event, first: int = 0) -> Iterator[Frame]:
        """All images, in order; the capture time is the time of reading."""
        for index, file in enumerate(self._files, first):
            if stop.is_set():
                return
            try:
                image = read_image(file.path)
            except BadInput as error:
                self.unreadable += 1
                logger.warning("unreadable: %(error)s", {"error": error})
                continue
            yield Frame(image, index, str(file.path), file.name, time.time())


class WatchedFolder:
    """A folder into which another program writes images; each image is delivered once, when it is complete.

    An image counts as complete when it can be decoded and did not change between two polls. A file that ends in zeros
    may have its full size and still be incomplete, so it must not change for longer. The capture time is the file's
    modification time. An image that is written again is delivered again. Files whose names begin with a full stop are
    ignored, because programs write to such names before they rename.
    """

    live: Final = False  # it never ends by itself, but no image may be dropped

    def __init__(self, folder: Path, *, interval_s: float = 0.5) -> None:
        """Prepare the source without reading.

        Args:
            interval_s: seconds between two polls of the folder.
        """
        self.unreadable = 0  # files that stay as they are and still cannot be decoded
        self._folder = folder
        self._interval_s = interval_s
        self._left_out: set[str] = set()
        self._began = False
        self._done: dict[Path, _Stamp] = {}
        self._waiting: dict[Path, tuple[_Stamp, int]] = {}

    @property
    def name(self) -> str:
        return str(self._folder)

    def frames(self, stop: threading.Event, first: int = 0) -> Iterator[Frame]:
        """Images until ``stop``, oldest first.

        Raises:
            BadInput: the folder does not exist.
            SourceLost: the folder has vanished. When it is back, images that were delivered are not delivered again.
        """
        if not self._began and not self._folder.is_dir():
            raise BadInput(f"{self._folder}: no such folder")
        self._began, index = True, first
        while True:
            for path, stamp in self._settled(self._look()):
                if stop.is_set():
                    return
                try:
                    image = read_image(path)
                except BadInput as error:
                    index += self._give_up(path, error)
                    continue
                self._finish(path)
                name = path.relative_to(self._folder).with_suffix("")
                yield Frame(image, index, str(path), name, stamp[0] / 1e9)
                index += 1
            if stop.wait(self._interval_s):
                return

    def _look(self) -> dict[Path, _Stamp]:
        while True:
            try:
                found = self._listed()
            except FileNotFoundError:  # a subfolder vanished meanwhile: poll again
                found = None
            if not self._folder.is_dir():
                raise SourceLost(f"{self._folder}: this folder has vanished")
            if found is not None:
                return found

    def _listed(self) -> dict[Path, _Stamp]:
        listing = search(self._folder)
        if new := sorted(listing.others.keys() - self._left_out):
            self._left_out.update(new)
            logger.warning(f"{self._folder}: ignores {', '.join(new)}: format not supported, or file not finished")
        found = {}
        for path in listing.images:
            try:
                status = path.stat()
            except FileNotFoundError:
                if not path.is_symlink():  # renamed or deleted since it was listed
                    continue
                status = path.lstat()
            found[path] = (status.st_mtime_ns, status.st_size)
        return found

    def _settled(self, found: dict[Path, _Stamp]) -> list[tuple[Path, _Stamp]]:
        """Files that did not change since the last poll, oldest first. Forgets files that have vanished."""
        self._done = {path: stamp for path, stamp in self._done.items() if path in found}
        before, self._waiting = self._waiting, {}
        settled = []
        for path, stamp in found.items():
            if self._done.get(path) == stamp:
                continue
            last_stamp, looks = before.get(path, (stamp, -1))
            looks = looks + 1 if last_stamp == stamp else 0
            self._waiting[path] = (stamp, looks)
            if looks > _UNREADABLE_POLLS or (looks and not _ends_in_zeros(path)):
                settled.append((path, stamp))
        return sorted(settled, key=lambda file: (file[1][0], file[0]))

    def _finish(self, path: Path) -> None:
        self._done[path], _ = self._waiting.pop(path)

    def _give_up(self, path: Path, error: BadInput) -> int:
        """Report a file after `_UNREADABLE_POLLS`; returns how many frame numbers it uses: 1, or 0 before that."""
        _, looks = self._waiting[path]
        if looks <= _UNREADABLE_POLLS:
            return 0
        self._finish(path)
        self.unreadable += 1
        logger.warning("unreadable: %(error)s", {"error": error})
        return 1


def _ends_in_zeros(path: Path) -> bool:
    """Whether the last bytes of a file are zeros, as in a file that was preallocated and not filled yet."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            file.seek(-min(_TAIL, path.stat().st_size), os.SEEK_END)
            return not any(file.read(_TAIL))
    except OSError:  # reading the image will report the error
        return False
