"""A real Ray cluster of two processes for all tests of archives, and an archive of gravel with some broken files."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uflow_edge.runtime.archive.cluster import ClusterOptions, connected
from uflow_edge.runtime.archive.recipe import InspectorRecipe
from uflow_edge.runtime.bundle import Bundle
from uflow_edge.runtime.uflow_manifest import UFlowManifest

SIDE = 96
DEADLINE = 60.0


@pytest.fixture(scope="package")
def cluster() -> Iterator[ClusterOptions]:
    """This process is connected to it; a command that is run here stays in it."""
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
    return lambda **options: InspectorRecipe.of(Bundle.load(exported, UFlowManifest), **options)


@pytest.fixture
def hold() -> Iterator[Callable[[Path], "Held"]]:
    """Make an image one that is `Held`."""
    with ExitStack() as stack:

        def hold(path: Path) -> Held:
            held = Held(path)
            stack.callback(held.close)
            return held

        yield hold


def wait_for_reader(fifo: Path) -> tuple[int, int]:
    """A writing end of a pipe that a worker has begun to read an image from, and that worker's process."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        try:
            end = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads yet
            time.sleep(0.01)
            continue
        for process in Path("/proc").glob("[0-9]*"):
            try:
                opened = {link.readlink() for link in (process / "fd").iterdir()}
            except OSError:  # ended meanwhile, or is another user's
                continue
            if fifo in opened and process.name != str(os.getpid()):
                return end, int(process.name)
        os.close(end)
    pytest.fail(f"nobody has opened {fifo}")


class Held:
    """An image of an archive that is a pipe until `release`: whoever reads it waits, and so is in the middle."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._picture = path.with_suffix(".held")
        path.rename(self._picture)
        os.mkfifo(path)
        self._end: int | None = None

    def reader(self) -> int:
        """Wait for a worker to read it; the worker's process."""
        self._end, process = wait_for_reader(self.path)
        return process

    def release(self) -> None:
        """Put the picture there, for whoever reads next."""
        self._picture.replace(self.path)

    def close(self) -> None:
        if self._end is not None:
            os.close(self._end)
