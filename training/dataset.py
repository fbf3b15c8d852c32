"""Which images to learn from, and to test with: data sets laid out like MVTec AD; `layouts` has others to learn from.

bottle/train/good/*.png                      good images to learn from
bottle/test/<kind>/*.png                     images to test with; the kind "good" is good
bottle/ground_truth/<kind>/<name>_mask.png   where a defect is
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uflow_edge.runtime.cli.command_line import progress
from uflow_edge.runtime.errors import BadInput, refuse_faults
from uflow_edge.runtime.images.files import find_images, read_image
from uflow_edge.runtime.images.layouts import good_images, is_good
from uflow_edge.runtime.storage.files import content_hash

GOOD = "good"


@dataclass(frozen=True, slots=True)
class TestImage:
    """An image to test with.

    Attributes:
        path: of the image.
        kind: ``good`` (of folders ``ok`` and ``normal`` too), or the kind of defect.
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
    """The good images of a data set, or all images in a folder of good ones; see `layouts.good_images`.

    Raises:
        BadInput: no such folder, no images in it, or others than good ones.
    """
    return good_images(folder)


def test_images(folder: Path) -> list[TestImage]:
    """The images in ``test``, by kind and name, without masks; none if there is no such folder.

    Raises:
        BadInput: a kind's folder without images.
    """
    kinds = sorted(kind for kind in (folder / "test").glob("*") if kind.is_dir())
    return [
        TestImage(path, GOOD if is_good(kind.name) else kind.name) for kind in kinds for path in find_images([kind])
    ]


test_images.__test__ = False  # type: ignore[attr-defined]


def hold_out(paths: Sequence[Path], fraction: float, seed: int) -> tuple[list[Path], list[Path]]:
    """Split at random, repeatably: images to fit, and images to watch the fit with (at least one of each).

    Raises:
        BadInput: fewer than two images.
    """
    if len(paths) < 2:
        raise BadInput(f"{len(paths)} image: at least 2 are needed, one to fit and one to watch the fit with")
    order = np.random.default_rng(seed).permutation(len(paths))
    held = min(max(round(len(paths) * fraction), 1), len(paths) - 1)
    return [paths[i] for i in sorted(order[held:])], [paths[i] for i in sorted(order[:held])]


def checked_images(paths: Sequence[Path]) -> dict[Path, str]:
    """The `content_hash` of every image, once each of them has been read as it will be read later.

    Raises:
        BadInput: some cannot be read; the message names them all.
    """
    hashes: dict[Path, str] = {}
    faults: list[str] = []
    for path in progress(paths, "checking images"):
        try:
            read_image(path)
            hashes[path] = content_hash(path)
        except (BadInput, OSError) as error:
            faults.append(str(error))
    refuse_faults(faults, "Repair them or take them out of the folder")
    return hashes
