"""Compiles functions with numba: cached on disk where that works, else compiled at each start.

numba's own cache raises where no folder can be written (a read-only installation without a home) and where a file ends
early, as a power cut can leave it; machine code with other bytes in it crashes the interpreter. A cache only saves
time, so none of this may end a run: every file ends with a digest, and any failure to load means compiling again.
"""

import pickle
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache, IndexDataCacheFile

_DIGEST = sha256().digest_size


class _CheckedFiles(IndexDataCacheFile):
    """numba's cache files, each with the SHA-256 of its pickle behind it, where unpickling does not look."""

    def _dump(self, obj: Any) -> bytes:
        data: bytes = super()._dump(obj)
        return data + sha256(data).digest()

    def _load_index(self) -> Any:
        with suppress(FileNotFoundError), Path(self._index_path).open("rb") as file:
            pickle.load(file)  # numba's version
            _check(file.read())
        return super()._load_index()

    def _load_data(self, name: str) -> Any:
        _check(Path(self._data_path(name)).read_bytes())
        return super()._load_data(name)


def _check(data: bytes) -> None:
    if sha256(data[:-_DIGEST]).digest() != data[-_DIGEST:]:
        raise ValueError("damaged cache file")


class _Cache(FunctionCache):
    """numba's cache of one function; a file that cannot be loaded means compiling again."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        implementation = self._impl
        self._cache_file = _CheckedFiles(
            self._cache_path, implementation.filename_base, implementation.locator.get_source_stamp()
        )

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # a wrong digest, or whatever unpickling half a file raises
            with suppress(Exception):
                self.flush()  # or saving would read the damaged index again
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(Exception):  # such as a disk that is full
            super().save_overload(sig, data)


def dispatcher_of(function: Callable[..., Any]) -> Any:
    """The function as numba compiles it when it is first called, releasing the GIL while it runs."""
    dispatcher: Any = njit(nogil=True)(function)
    with suppress(RuntimeError):  # numba finds no folder that can be written
        dispatcher._cache = _Cache(function)  # as its enable_caching() does
    return dispatcher
