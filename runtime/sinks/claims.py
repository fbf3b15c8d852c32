"""Locks that let only one process write a log or keep a quota; a lock ends with its process, even after a crash."""

import os
import stat
from pathlib import Path
from weakref import WeakValueDictionary

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.storage.files import lock


class Claim:
    """A lock on a file or folder against other processes; within this process it may be taken many times."""

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        """Lock the file or folder, which must exist.

        Args:
            path: devices and pipes are not locked.
            shared: allow other processes a shared lock.

        Raises:
            BadInput: another process holds the lock.
            OSError: it cannot be opened.
        """
        self._path = path
        self._shared = shared
        self._held: _Lock | None = None
        self.renew()

    def renew(self) -> bool:
        """Lock the file or folder that is at the path now, if another one was there before.

        Returns:
            Whether no other process holds a lock on it.

        Raises:
            BadInput, OSError: as on construction.
        """
        while True:
            about = self._path.stat()
            if not (stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)):
                return True
            key = about.st_dev, about.st_ino
            if self._held is None or self._held.key != key:
                self._held = _LOCKS.get(key) or _Lock(self._path)
                _LOCKS[self._held.key] = self._held
            alone = lock(self._held.descriptor)
            if not (lock(self._held.descriptor, shared=True) if self._shared else alone):
                self._held = None
                raise BadInput(
                    f"{self._path}: another process writes there; wait until it has ended, or choose another place"
                )
            if self._held.key == key:  # otherwise the file was replaced before it was locked
                return alone


class _Lock:
    """An open file whose lock is shared within this process."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        about = os.fstat(self.descriptor)
        self.key = about.st_dev, about.st_ino

    def __del__(self) -> None:
        os.close(self.descriptor)


_LOCKS: WeakValueDictionary[tuple[int, int], _Lock] = WeakValueDictionary()
