"""The errors of this package, their exit codes, and checks that raise them."""

import errno
from collections.abc import Sequence
from enum import IntEnum
from importlib import import_module
from types import ModuleType

DISTRIBUTION = "uflow-edge"

ERRORS_OF_ONE_FILE = frozenset(
    {
        *(errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR, errno.ELOOP),
        *(errno.EINVAL, errno.EILSEQ, errno.EACCES, errno.EPERM),
    }
)
"""Errors that concern a single file, unlike those of a full or failing disk."""


class ExitCode(IntEnum):
    """The exit codes of all ``uflow-…`` commands."""

    OK = 0
    ANOMALY = 1
    USAGE = 2
    BAD_INPUT = 3
    MISSING = 4
    INTERNAL = 70  # EX_SOFTWARE of sysexits.h
    INTERRUPTED = 130


class UflowEdgeError(Exception):
    """Base of errors with a complete message: what was expected, what was found, what to do."""

    exit_code = ExitCode.BAD_INPUT


class UsageError(UflowEdgeError):
    """The command line is invalid or contradicts itself."""

    exit_code = ExitCode.USAGE


class BadInput(UflowEdgeError):
    """A file, folder or frame cannot be used."""


class Unavailable(UflowEdgeError):
    """A required package or device is missing or in use."""

    exit_code = ExitCode.MISSING


class MissingDependency(Unavailable):
    """A required package, library or driver is missing."""


class Stuck(UflowEdgeError):
    """A thread does not return from native code: the process must end without releasing what that thread uses."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.MISSING) -> None:
        super().__init__(message)
        self.exit_code = exit_code


_NAMED = 50


def refuse_faults(faults: Sequence[str], remedy: str) -> None:
    """Refuse input if it has faults, and name all of them at once.

    Raises:
        BadInput: there are faults; the message names up to 50 of them and counts the others.
    """
    if faults:
        more = [f"and {len(faults) - _NAMED} more"] if len(faults) > _NAMED else []
        raise BadInput(f"{'; '.join([*faults[:_NAMED], *more])}. {remedy}")


def install_command(extra: str) -> str:
    """The command that installs an extra, from a checkout, as the distribution is on no package index."""
    return f"pip install '.[{extra}]' (in a checkout of {DISTRIBUTION})"


def require(module: str, extra: str = "") -> ModuleType:
    """Import an optional module.

    Raises:
        MissingDependency: the module, or one that it imports, is missing or broken; the message says what to install.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        name = error.name or module
        command = install_command(extra) if extra else f"pip install {name}"
        raise MissingDependency(f"{name} is not installed. Install it with: {command}") from error
    except ImportError as error:
        if _is_interrupt(error):
            raise KeyboardInterrupt from error
        raise MissingDependency(f"{module} is installed, but cannot be loaded: {error}") from error


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether an interrupt caused this error: native modules turn it into an ImportError."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
