"""File names for pictures of frames: valid on any file system, with one folder per camera."""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

_SEPARATORS = "/\\" if os.name == "posix" else '/\\:*?"<>|'
_LONGEST = 100  # bytes of a shortened name; some file systems take no more than 143


def safe_path(path: Path) -> Path:
    """The relative path with ``_`` in place of control characters, separators and hidden or parent folders."""
    return Path(*map(_safe, path.parts))


def short_name(path: Path) -> str:
    """A file name of at most 100 bytes for a path that cannot be used; it contains a digest and so is unique."""
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    return f"{_start(_safe(path.name), _LONGEST - len(digest) - 1)}~{digest}"


def camera_folders(names: Sequence[str]) -> tuple[Path, ...]:
    """One folder per source, all different; a single source needs no folder and gets the empty path."""
    if len(names) == 1:
        return (Path(),)
    plain = [_start(re.sub(r"[^\w.@=-]+", "-", name).strip("-."), _LONGEST) or "source" for name in names]
    return tuple(Path(name if plain.count(name) == 1 else f"{name}-{i + 1}") for i, name in enumerate(plain))


def _safe(part: str) -> str:
    kept = "".join(one if one.isprintable() and one not in _SEPARATORS else "_" for one in part).rstrip(". ")
    return f"_{kept[1:]}" if not kept or kept.startswith(".") else kept


def _start(text: str, size: int) -> str:
    """The longest prefix that fits into ``size`` bytes of UTF-8."""
    return text.encode()[:size].decode(errors="ignore")
