"""A real Ray cluster of two processes for all tests of archives, and an archive of gravel with some broken files."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from extras import extra
from uflow_edge.runtime.archive.cluster import ClusterOptions, connected
from uflow_edge.runtime.archive.recipe import InspectorRecipe
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from waiting import DEADLINE

SIDE = 96


@pytest.fixture(scope="package")
def cluster() -> Iterator[ClusterOptions]:
    """This process is connected to it; a command that is run here stays in it."""
    extra("ray")
    options = ClusterOptions("local", workers=2)
    with connected(options):
        yield options


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 pictures in two folders, a third of them with a hole, and two files that are none. Read only."""
    from skimage import data

    folder, gravel = tmp_path_factory.mktemp("archive"), data.gravel()
    places = np.random.default_rng(0).integers(0, 512 - SIDE, (20, 2))
    for i, (y, x) in enumerate(places):
        piece = gravel[y : y + SIDE, x : x + SIDE].copy()
        if i % 3 == 0:
            piece[30:60, 20 : 40 + i] = 0
        path = folder / ("monday" if i < 12 else "tuesday") / f"{i:03d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(piece).save(path)
    for broken in ("monday/005.png", "tuesday/019.png"):
        (folder / broken).write_bytes(b"not a picture")
    return folder


@pytest.fixture
def own_archive(archive: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(archive, tmp_path / "archive")


@pytest.fixture
def recipe(exported: Path) -> Callable[..., InspectorRecipe]:
    """The recipe of the exported bundle, with options."""
    return lambda **options: InspectorRecipe.from_bundle(Bundle.load(exported, UFlowManifest), **options)


@pytest.fixture
def hold() -> Callable[[Path], "Held"]:
    """Make an image one that is `Held`."""
    return Held


def wait_for_reader(picture: Path) -> int:
    """The process of the worker that has begun to read an image."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                opened = {link.readlink() for link in (process / "fd").iterdir()}
            except OSError:  # ended meanwhile, or is another user's
                continue
            if picture in opened and process.name != str(os.getpid()):
                return int(process.name)
    pytest.fail(f"nobody has opened {picture}")


@cache
def slow_picture() -> bytes:
    """A PNG that takes seconds to read and to inspect."""
    stored = BytesIO()
    Image.new("L", (15000, 15000)).save(stored, "PNG", compress_level=1)
    return stored.getvalue()


class Held:
    """An image of an archive that is a huge one until `release`: whoever reads it is in the middle of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._picture = path.with_suffix(".held")
        path.rename(self._picture)
        path.write_bytes(slow_picture())

    def reader(self) -> int:
        """Wait for a worker to read it; the worker's process."""
        return wait_for_reader(self.path)

    def release(self) -> None:
        """Put the picture there, for whoever reads next."""
        self._picture.replace(self.path)
