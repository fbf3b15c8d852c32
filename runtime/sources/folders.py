"""Image files and folders of them: once, or watched for new ones."""

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

_PATIENCE: Final = 5  # polls that an unreadable file may still take to become readable
_TAIL: Final = 64  # bytes at the end of a file

_Stamp: TypeAlias = tuple[int, int]
"""Time of modification in nanoseconds, size in bytes."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image file and the name, relative to the folder it was found in, for what is made from it."""

    path: Path
    name: Path


def image_files(
    paths: Sequence[Path], say: Callable[[str], None] = lambda line: None, *, good: bool = False
) -> list[ImageFile]:
    """List image files as `images.find_images` finds them, those in folders recursively.

    Args:
        paths: of files and folders.
        say: gets what there is to say of the folders.
        good: the folders hold good images, or are data sets of which those are taken: see `layouts`.

    Raises:
        BadInput: a path that does not exist, a folder without images, or with others than good ones.
    """
    files = []
    for given in paths:
        for path in good_images(given, say) if good and given.is_dir() else find_images([given], say):
            name = path.relative_to(given) if given.is_dir() else Path(path.name)
            files.append(ImageFile(path, name.with_suffix("")))
    return _told_apart(files, set(paths))


def _told_apart(files: list[ImageFile], given: Collection[Path]) -> list[ImageFile]:
    """Give images of folders that have one name the folders, and if need be the suffixes, that they differ in."""
    found = [file for file in files if file.path not in given]
    common = os.path.commonpath([file.path.absolute().parent for file in found] or [Path()])
    folders = _that_differ(found, lambda file: file.path.parent)
    longer = {
        file.path: file.path.absolute().relative_to(common).with_suffix("") for file in found if file.name in folders
    }
    found = [replace(file, name=longer.get(file.path, file.name)) for file in found]
    suffixes = _that_differ(found, lambda file: file.path)
    names = {file.path: file.name.with_name(file.path.name) if file.name in suffixes else file.name for file in found}
    return [replace(file, name=names.get(file.path, file.name)) for file in files]


def _that_differ(files: list[ImageFile], part: Callable[[ImageFile], Path]) -> set[Path]:
    """Names of images that differ in a part of their paths."""
    parts: dict[Path, set[Path]] = {}
    for file in files:
        parts.setdefault(file.name, set()).add(part(file))
    return {name for name, those in parts.items() if len(those) > 1}


class ImageFiles:
    """Image files one by one; what cannot be read is reported and skipped, and keeps its number."""

    live: Final = False

    def __init__(self, files: Sequence[ImageFile], on_unreadable: Callable[[BadInput], None]) -> None:
        self._files = files
        self._on_unreadable = on_unreadable

    @property
    def name(self) -> str:
        """The file, or how many there are."""
        return str(self._files[0].path) if len(self._files) == 1 else f"{len(self._files)} images"

    def __len__(self) -> int:
        return len(self._files)

    def frames(self, stop: threading.Event, first: int = 0) -> Iterator[Frame]:
        """All images, in order, stamped when they were read."""
        for index, file in enumerate(self._files, first):
            if stop.is_set():
                return
            try:
                image = read_image(file.path)
            except BadInput as error:
                self._on_unreadable(error)
                continue
            yield Frame(image, index, str(file.path), file.name, time.time())


class WatchedFolder:
    """A folder into which another program writes images; each is delivered once, when it is complete.

    An image counts as complete when it did not change from one look at the folder to the next, and can be decoded. One
    that ends in zeros may be a file of full size that is still being filled, so it must not change for longer. An image
    is stamped with its time of modification. An image that is written again is delivered again. Files whose name
    begins with a full stop are left alone: programs write to such names before they rename.
    """

    live: Final = False  # it never ends by itself, but no image may be dropped

    def __init__(
        self,
        folder: Path,
        on_unreadable: Callable[[BadInput], None],
        *,
        interval_s: float = 0.5,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Nothing is read yet.

        Args:
            folder: searched to the bottom.
            on_unreadable: told of files that stay as they are and still cannot be decoded.
            interval_s: seconds between two looks at the folder.
            say: gets a line when a picture of a format appears that is not read.
        """
        self._folder = folder
        self._on_unreadable = on_unreadable
        self._interval_s = interval_s
        self._say = say
        self._left_out: set[str] = set()
        self._began = False
        self._done: dict[Path, _Stamp] = {}
        self._waiting: dict[Path, tuple[_Stamp, int]] = {}

    @property
    def name(self) -> str:
        """The folder as it was given."""
        return str(self._folder)

    def frames(self, stop: threading.Event, first: int = 0) -> Iterator[Frame]:
        """Images until ``stop``, the oldest first.

        Raises:
            BadInput: no such folder.
            SourceLost: the folder has vanished; when it returns, what was delivered is not delivered again.
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
            except FileNotFoundError:  # a folder vanished while it was listed: look again
                found = None
            if not self._folder.is_dir():
                raise SourceLost(f"{self._folder}: this folder has vanished")
            if found is not None:
                return found

    def _listed(self) -> dict[Path, _Stamp]:
        listing = search(self._folder)
        if new := sorted(listing.others.keys() - self._left_out):
            self._left_out.update(new)
            self._say(f"{self._folder}: leaves out {', '.join(new)}: not read, or not finished")
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
        """Files that did not change since the last look, the oldest first; those that have vanished are forgotten."""
        self._done = {path: stamp for path, stamp in self._done.items() if path in found}
        before, self._waiting = self._waiting, {}
        settled = []
        for path, stamp in found.items():
            if self._done.get(path) == stamp:
                continue
            last_stamp, looks = before.get(path, (stamp, -1))
            looks = looks + 1 if last_stamp == stamp else 0
            self._waiting[path] = (stamp, looks)
            if looks > _PATIENCE or (looks and not _ends_in_zeros(path)):
                settled.append((path, stamp))
        return sorted(settled, key=lambda file: (file[1][0], file[0]))

    def _finish(self, path: Path) -> None:
        self._done[path], _ = self._waiting.pop(path)

    def _give_up(self, path: Path, error: BadInput) -> int:
        """Report a file that had its time, and say how many numbers it takes: none while it may still be written."""
        _, looks = self._waiting[path]
        if looks <= _PATIENCE:
            return 0
        self._finish(path)
        self._on_unreadable(error)
        return 1


def _ends_in_zeros(path: Path) -> bool:
    """Whether the last bytes of a file are zeros, as where room was made for it and it is not filled yet."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            file.seek(-min(_TAIL, path.stat().st_size), os.SEEK_END)
            return not any(file.read(_TAIL))
    except OSError:  # the reader will say what is wrong
        return False
