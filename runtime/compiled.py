"""The decorator of every function that numba compiles: kept on disk where that works, compiled at each start elsewhere.

numba's own cache raises where no folder can be written (a read-only installation without a home), and where one of its
files is damaged, as a power cut can leave it. A cache only saves time, so neither may end a run.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from numba import njit
from numba.core.caching import FunctionCache

F = TypeVar("F", bound=Callable[..., Any])


class _Cache(FunctionCache):
    """numba's cache of one function, of which every failure means: compile."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # whatever unpickling half a file raises
            with suppress(Exception):
                self.flush()  # or saving would read the damaged index again
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(Exception):  # such as a disk that is full
            super().save_overload(sig, data)


def compiled(function: F) -> F:
    """Compile a function when it is first called, and release the GIL while it runs."""
    dispatcher: Any = njit(nogil=True)(function)
    with suppress(RuntimeError):  # numba finds no folder that can be written
        dispatcher._cache = _Cache(function)  # as its enable_caching() does
    return dispatcher  # type: ignore[no-any-return]
