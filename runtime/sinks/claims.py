"""One process at a time writes a log or keeps a quota: a claim that ends with the process, however that ends."""

import os
import stat
from pathlib import Path
from weakref import WeakValueDictionary

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.storage.files import lock


class Claim:
    """A lock on what lies at a path. It keeps other processes away, not other objects of this one."""

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        """Claim the file or folder, which must exist.

        Args:
            path: devices and pipes cannot be claimed, and need not be.
            shared: with others that claim it likewise.

        Raises:
            BadInput: another process has claimed it.
            OSError: it cannot be opened.
        """
        self._path = path
        self._shared = shared
        self._held: _Lock | None = None
        self.renew()

    def renew(self) -> bool:
        """Claim what lies at the path now, if it is not what was claimed before; whether nobody else has a claim.

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
                    f"{self._path}: another process writes there; wait until it has ended, or name another place"
                )
            if self._held.key == key:  # or else it was replaced before it was locked
                return alone


class _Lock:
    """An open file whose lock all objects of this process share."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        about = os.fstat(self.descriptor)
        self.key = about.st_dev, about.st_ino

    def __del__(self) -> None:
        os.close(self.descriptor)


_LOCKS: WeakValueDictionary[tuple[int, int], _Lock] = WeakValueDictionary()
