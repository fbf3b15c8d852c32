"""Atomic writing of files and folders: complete or absent, never partial.

A result is first written beside its place under a hidden name, locked by its process. A killed process loses the lock,
so a later run can tell leftovers from files that another process is writing.
"""

import fcntl
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from uflow_edge.runtime.errors import BadInput

_HIDDEN = ".uflow-"
_PARTIAL = ".partial"
_LONGEST_SUFFIX = 16


def check_writable(path: Path, kind: Literal["file", "folder"] = "file", size: int = 0) -> None:
    """Check before the work that its result can be written, and remove leftovers of killed runs there.

    Args:
        path: path of the result. Missing parent folders are allowed; they are not created here.
        size: size of the result in bytes.

    Raises:
        BadInput: the path is something else, cannot be written, or lacks space.
    """
    try:
        with suppress(FileNotFoundError):
            path.lstat()  # refuses names that are too long, and parents that are files
        if path.exists() and not (path.is_file() if kind == "file" else path.is_dir()):
            found = "a folder" if path.is_dir() else "something else"
            raise BadInput(f"{path}: is {found}; expected the name of a {kind} to write")
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        clear_away(folder)
        with tempfile.TemporaryFile(dir=folder) as trial:
            trial.write(b"?")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror}); choose another place") from error
    if free < size:
        raise BadInput(f"{path}: needs {size / 1e6:.0f} MB, but {folder} has only {free / 1e6:.0f} MB left; make room")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file to write; it replaces ``path`` in one rename, or is removed on any error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = _locked_file(path)
    try:
        with _named(path):
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(descriptor)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the result in errors that name no file, as that of a full disk does."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def replacing_folder(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary folder to fill; it replaces ``path`` on success, or is removed on any error.

    Raises:
        BadInput: another process is writing this folder, or it exists already and may not be replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name = _HIDDEN + hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    old = path.with_name(f"{name}-old")
    with _locked_folder(path.with_name(name + _PARTIAL), path) as temporary:
        if old.exists() and not path.exists():
            old.rename(path)  # a run was killed between the two renames below
        shutil.rmtree(old, ignore_errors=True)
        if path.exists() and not overwrite:
            raise BadInput(f"{path}: exists already; choose another place, or replace it with --overwrite")
        try:
            yield temporary
            temporary.chmod(0o777 & ~_umask())
            if path.exists() and overwrite:
                path.rename(old)
            temporary.rename(path)
        except BaseException:
            if old.exists():
                old.rename(path)
            raise
    shutil.rmtree(old, ignore_errors=True)


def read_bounded(path: Path, limit: int) -> bytes:
    """Read an untrusted regular file; pipes and devices are refused without blocking.

    Args:
        limit: maximum size in bytes.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a regular file, or exceeds the limit.
    """
    with os.fdopen(
        os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb"
    ) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("expected a regular file, found a folder, device or pipe")
        if about.st_size > limit:
            raise ValueError(f"{about.st_size:,} bytes; expected at most {limit:,}")
        return file.read(limit)


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Yield a hidden temporary folder; if this process is killed, `check_writable` removes the folder later."""
    with _locked_folder(parent / f"{_HIDDEN}{secrets.token_hex(8)}{_PARTIAL}", parent) as folder:
        yield folder


@contextmanager
def _locked_folder(folder: Path, result: Path) -> Iterator[Path]:
    """Yield an empty locked folder, and remove it at the end."""
    while True:
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        if not lock(descriptor):
            os.close(descriptor)
            raise BadInput(f"{result}: another process is writing it; wait until it has finished")
        if _is_open_at(descriptor, folder):
            break
        os.close(descriptor)
    try:
        for left in folder.iterdir():
            _remove(left)
        with _named(result):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _locked_file(path: Path) -> tuple[int, Path]:
    """Create a locked temporary file with the suffix of ``path``, as some writers choose their format by it."""
    suffix = path.suffix if len(path.suffix) <= _LONGEST_SUFFIX else ""
    while True:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=_HIDDEN, suffix=_PARTIAL + suffix)
        if lock(descriptor) and _is_open_at(descriptor, Path(name)):
            return descriptor, Path(name)
        os.close(descriptor)


def clear_away(folder: Path) -> None:
    """Remove the leftovers of killed runs: temporary files and folders without a lock."""
    for left in folder.glob(f"{_HIDDEN}*{_PARTIAL}*"):
        with suppress(OSError):
            descriptor = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if lock(descriptor, without_locks=False):
                    _remove(left)
            finally:
                os.close(descriptor)


@contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder, for which others wait; without effect on a file system without locks.

    Raises:
        OSError: there is no such folder.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def lock(descriptor: int, *, shared: bool = False, without_locks: bool = True) -> bool:
    """Lock an open file or folder until it is closed, unless another process has locked it.

    Args:
        without_locks: the return value on a file system without locks.

    Returns:
        Whether this process holds the lock now.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return without_locks
    return True


def _is_open_at(descriptor: int, path: Path) -> bool:
    """Whether the path still leads to this file; before the lock, another process may have removed it as a leftover."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def content_hash(path: Path) -> str:
    """The first 16 hexadecimal digits of a file's SHA-256: enough to recognise an image under any name."""
    return sha256(path)[:16]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
