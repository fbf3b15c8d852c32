"""Training and test images of data sets in the layout of MVTec AD; for training, `images.layouts` knows others too.

bottle/train/good/*.png                      good images to learn from
bottle/test/<kind>/*.png                     images to test with; the kind "good" is good
bottle/ground_truth/<kind>/<name>_mask.png   where a defect is
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uflow_edge.runtime.cli.command_line import progress
from uflow_edge.runtime.errors import BadInput, refuse_faults
from uflow_edge.runtime.images.files import find_images, read_image
from uflow_edge.runtime.images.layouts import is_good
from uflow_edge.runtime.storage.files import content_hash

GOOD = "good"


@dataclass(frozen=True, slots=True)
class TestImage:
    """A test image.

    Attributes:
        kind: ``good`` (also for folders ``ok`` and ``normal``), or the kind of defect.
        mask: file of the defect's mask, set by `evaluation.ground_truth`.
    """

    __test__ = False  # for pytest: not a test case

    path: Path
    kind: str
    mask: Path | None = None

    @property
    def is_good(self) -> bool:
        return self.kind == GOOD

    def as_json(self) -> dict[str, str | None]:
        return {"path": str(self.path), "kind": self.kind, "mask": None if self.mask is None else str(self.mask)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TestImage":
        return cls(Path(values["path"]), values["kind"], None if values["mask"] is None else Path(values["mask"]))


def test_images(folder: Path) -> list[TestImage]:
    """The images in ``test``, sorted by kind and name, without masks; empty without such a folder.

    Raises:
        BadInput: the folder of a kind has no images.
    """
    kinds = sorted(kind for kind in (folder / "test").glob("*") if kind.is_dir())
    return [
        TestImage(path, GOOD if is_good(kind.name) else kind.name) for kind in kinds for path in find_images([kind])
    ]


test_images.__test__ = False  # type: ignore[attr-defined]


def hold_out(paths: Sequence[Path], fraction: float, seed: int) -> tuple[list[Path], list[Path]]:
    """Split the images at random by a seed: images to fit, and held-out images (at least one of each).

    Raises:
        BadInput: fewer than two images.
    """
    if len(paths) < 2:
        raise BadInput(f"{len(paths)} image: expected at least 2, one to fit and one to hold out")
    order = np.random.default_rng(seed).permutation(len(paths))
    held = min(max(round(len(paths) * fraction), 1), len(paths) - 1)
    return [paths[i] for i in sorted(order[held:])], [paths[i] for i in sorted(order[:held])]


def checked_images(paths: Sequence[Path]) -> dict[Path, str]:
    """Read every image as a check, and return their `content_hash`es.

    Raises:
        BadInput: some images cannot be read; the message names them.
    """
    hashes: dict[Path, str] = {}
    faults: list[str] = []
    for path in progress(paths, "checking images"):
        try:
            read_image(path)
            hashes[path] = content_hash(path)
        except (BadInput, OSError) as error:
            faults.append(str(error))
    refuse_faults(faults, "Repair them or remove them from the folder")
    return hashes
