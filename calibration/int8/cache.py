"""What pictures have shown of a graph's activations, kept for the next time.

Known by the SHA-256 of the graph and of the pictures as the network sees them, never by names. One file, written in one
rename, read as a whole or not at all.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from uflow_edge.calibration.int8.ranges import BINS, Magnitudes
from uflow_edge.runtime.errors import DISTRIBUTION
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.storage.files import replacing

Measurement = Mapping[str, Magnitudes]
_LARGEST, _COUNTS = "largest/", "counts/"
_FORMAT = "1"  # to be raised with whatever changes the meaning of a kept measurement


def cache_folder() -> Path:
    """The user's own, as bundles may be read-only."""
    base = os.environ.get("LOCALAPPDATA") if os.name == "nt" else os.environ.get("XDG_CACHE_HOME")
    return Path(base or Path.home() / ".cache") / DISTRIBUTION / "int8"


def cache_file(folder: Path, graph_sha256: str, what: str, pictures: Sequence[Image]) -> Path:
    """Where a measurement of this graph on these pictures, (S, S, 3) uint8 each, is kept.

    Args:
        folder: of all measurements.
        graph_sha256: of the graph in the bundle.
        what: is measured of it.
        pictures: in any order.
    """
    digest = hashlib.sha256("\n".join((_FORMAT, graph_sha256, what)).encode())
    for one in sorted(hashlib.sha256(picture.tobytes()).hexdigest() for picture in pictures):
        digest.update(one.encode())
    return folder / f"{digest.hexdigest()}.npz"


def cached(path: Path, measure: Callable[[], Measurement]) -> Measurement:
    """What is kept there, or else what is measured now, and is kept from then on."""
    found = _read(path)
    if found is None:
        found = measure()
        _write(path, found)
    return found


def _read(path: Path) -> Measurement | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            names = [name.removeprefix(_COUNTS) for name in kept.files if name.startswith(_COUNTS)]
            found = {name: Magnitudes(kept[_LARGEST + name], kept[_COUNTS + name]) for name in names}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):  # none, or not whole
        return None
    return found if found and all(m.counts.shape == (BINS,) for m in found.values()) else None


def _write(path: Path, found: Measurement) -> None:
    arrays: dict[str, Any] = {}
    for name, magnitudes in found.items():
        arrays |= {_LARGEST + name: magnitudes.by_channel, _COUNTS + name: magnitudes.counts}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
