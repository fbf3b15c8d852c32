"""Files that are whole or not there at all, and folders likewise."""

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary sibling to write; it takes the place of ``path`` in one rename, or vanishes on any error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A temporary sibling folder to fill; it takes the place of ``path`` when all went well, or vanishes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    old = temporary.with_name(temporary.name + "-old")
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if path.exists():
            path.rename(old)
        temporary.rename(path)
    except BaseException:
        if old.exists():
            old.rename(path)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def read_bounded(path: Path, limit: int) -> bytes:
    """The content of a regular file that may come from anywhere; a FIFO or device is refused and never waited for.

    Args:
        path: of the file.
        limit: bytes that it may have.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file, or larger.
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


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def content_hash(path: Path) -> str:
    """The first 16 hexadecimal digits of a file's SHA-256: enough to know a picture again, whatever its name."""
    return sha256(path)[:16]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
