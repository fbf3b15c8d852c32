"""Names for files that are made from frames: any file system takes them, and they say which camera they are of."""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

_SEPARATORS = "/\\" if os.name == "posix" else '/\\:*?"<>|'
_LONGEST = 100  # bytes of a shortened name; some file systems take no more than 143


def safe_path(path: Path) -> Path:
    """The same relative path without what steers terminals, leaves the folder or is no text: ``_`` in its place."""
    return Path(*map(_safe, path.parts))


def short_name(path: Path) -> str:
    """A name of at most 100 bytes for a path that cannot be used; different paths have different ones."""
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    return f"{_start(_safe(path.name), _LONGEST - len(digest) - 1)}~{digest}"


def camera_folders(names: Sequence[str]) -> tuple[Path, ...]:
    """A folder for the frames of each of several sources, all different; none where there is only one source.

    Args:
        names: of the sources, for people.
    """
    if len(names) == 1:
        return (Path(),)
    plain = [_start(re.sub(r"[^\w.@=-]+", "-", name).strip("-."), _LONGEST) or "source" for name in names]
    return tuple(Path(name if plain.count(name) == 1 else f"{name}-{i + 1}") for i, name in enumerate(plain))


def _safe(part: str) -> str:
    kept = "".join(one if one.isprintable() and one not in _SEPARATORS else "_" for one in part).rstrip(". ")
    return f"_{kept[1:]}" if not kept or kept.startswith(".") else kept


def _start(text: str, size: int) -> str:
    """As much of it as fits into so many bytes."""
    return text.encode()[:size].decode(errors="ignore")
