"""Which images to learn from: a folder laid out like MVTec AD, or a plain folder of good images.

bottle/train/good/*.png                      good images to learn from
bottle/test/<kind>/*.png                     images to test with; the kind "good" is good
bottle/ground_truth/<kind>/<name>_mask.png   where a defect is
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.images import find_images

GOOD = "good"


@dataclass(frozen=True, slots=True)
class TestImage:
    """An image to test with.

    Attributes:
        path: of the image.
        kind: ``good``, or the kind of defect.
        mask: picture of where the defect is, once it was looked for (`evaluation.ground_truth`).
    """

    __test__ = False  # not a test case, whatever pytest makes of the name

    path: Path
    kind: str
    mask: Path | None = None

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong with it."""
        return self.kind == GOOD


def training_images(folder: Path) -> list[Path]:
    """The good images in ``train/good``, or, without a ``train`` folder, all images in the folder.

    Raises:
        BadInput: no such folder, or no images in it.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; expected good images, or an MVTec layout (train/good)")
    if (folder / "train").is_dir():
        if not (folder / "train" / GOOD).is_dir():
            raise BadInput(f"{folder}: has a train folder, but no train/good in it")
        folder = folder / "train" / GOOD
    return list(find_images([folder]))


def test_images(folder: Path) -> list[TestImage]:
    """The images in ``test``, by kind and name, without masks; none if there is no such folder.

    Raises:
        BadInput: a kind's folder without images.
    """
    kinds = sorted(kind for kind in (folder / "test").glob("*") if kind.is_dir())
    return [TestImage(path, kind.name) for kind in kinds for path in find_images([kind])]


test_images.__test__ = False  # type: ignore[attr-defined]


def hold_out(paths: Sequence[Path], fraction: float, seed: int) -> tuple[list[Path], list[Path]]:
    """Split at random, repeatably: images to fit, and images to watch the fit with (at least one of each).

    Raises:
        BadInput: fewer than two images.
    """
    if len(paths) < 2:
        raise BadInput(f"{len(paths)} good image: at least 2 are needed, and 50 or more make a detector")
    order = np.random.default_rng(seed).permutation(len(paths))
    held = min(max(round(len(paths) * fraction), 1), len(paths) - 1)
    return [paths[i] for i in sorted(order[held:])], [paths[i] for i in sorted(order[:held])]


def fingerprint(paths: Sequence[Path]) -> str:
    """Changes when any of the files does, judged by name, size and time of change."""
    digest = hashlib.sha256()
    for path in paths:
        status = path.stat()
        digest.update(f"{path.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
