"""The decorator of every function that numba compiles. numba is imported when one is first called: it takes long."""

from collections.abc import Callable
from functools import update_wrapper
from threading import Lock
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_IMPORTING = Lock()
"""Parts of numba import each other, which two threads must not do at once."""


class _Compiled:
    """A function that becomes numba's at its first call, or at the first compilation of one that calls it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        update_wrapper(self, function)
        self._dispatcher: Any = None

    @property
    def dispatcher(self) -> Any:
        """The function as numba has it.

        No lock is held here, because a thread that compiles holds numba's own when it asks for the functions that it
        calls. Two threads at once make two dispatchers, which does no harm.
        """
        if self._dispatcher is None:
            with _IMPORTING:
                from uflow_edge.runtime.compiled_cache import dispatcher_of
            self._dispatcher = dispatcher_of(self.__wrapped__)  # type: ignore[attr-defined] # set by update_wrapper
        return self._dispatcher

    @property
    def _numba_type_(self) -> Any:
        """By this attribute numba knows what its compiled functions may call."""
        return self.dispatcher._numba_type_

    def __call__(self, *arguments: Any) -> Any:
        return self.dispatcher(*arguments)


def compiled(function: F) -> F:
    """Compile a function when it is first called, and release the GIL while it runs."""
    return _Compiled(function)  # type: ignore[return-value]
