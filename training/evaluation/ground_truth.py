"""The masks of test images, laid out like MVTec AD's: found by name, and checked.

bottle/test/broken/000.png               a defective image
bottle/ground_truth/broken/000_mask.png  its mask, as large as the image: 0 is good, all else is the defect

See `masks` for the files that can be read.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.errors import BadInput, refuse_faults
from uflow_edge.runtime.images.decode import IMAGE_SUFFIXES, opened
from uflow_edge.runtime.numeric import Size
from uflow_edge.training.dataset import GOOD, TestImage, test_images
from uflow_edge.training.evaluation.masks import read_mask

GROUND_TRUTH = "ground_truth"
_ENDING = "_mask"
_RESIZE = "Save each mask in the size of its image, without losses, and mark its defect"


def labelled_images(data: Path, ground_truth: Path | None = None, *, masks: bool = True) -> list[TestImage]:
    """All test images by kind and name, every defective one with its mask.

    Args:
        data: a folder laid out like MVTec AD, with ``test/good`` and other kinds.
        ground_truth: folder of the masks; default, ``ground_truth`` in ``data``.
        masks: whether to look for masks; without, only the labels of images are known.

    Raises:
        BadInput: no test images, none of them good or none defective; or masks that are missing, shared by two images,
            cannot be read, mark nothing, or are of another size than their image. All faulty ones are named at once.
    """
    if not (data / "test").is_dir():
        hint = "; it holds categories that have: add --all" if any(data.glob("*/test")) else ""
        raise BadInput(f"{data}: has no folder test; expected test/{GOOD} and a folder for each kind of defect{hint}")
    images = test_images(data)
    for is_good, name in ((True, f"no good images (test/{GOOD})"), (False, "no defective images (any other folder)")):
        if not any(image.is_good == is_good for image in images):
            raise BadInput(f"{data / 'test'}: {name}; the metrics compare defective images with good ones")
    if masks:
        images = _with_masks(images, data / "test", data / GROUND_TRUTH if ground_truth is None else ground_truth)
        _check_masks(images)
    return images


def _with_masks(images: Sequence[TestImage], test: Path, ground_truth: Path) -> list[TestImage]:
    """Defective images get the mask that lies under their name where they lie in ``test``."""
    masks: dict[Path, dict[str, list[Path]]] = {}
    found: list[TestImage] = []
    faults: list[str] = []
    image_of: dict[Path, Path] = {}
    for image in images:
        if not image.is_good:
            folder = ground_truth / image.path.parent.relative_to(test)
            if folder not in masks:
                masks[folder] = masks_in(folder)
            of_it = masks[folder].get(image.path.stem, [])
            if not of_it:
                faults.append(f"{image.path}: has no mask; expected {folder / image.path.stem}{_ENDING}.png")
            elif len(of_it) > 1:
                faults.append(f"{image.path}: has {len(of_it)} masks: {', '.join(mask.name for mask in of_it)}")
            else:
                image = replace(image, mask=of_it[0])
                other = image_of.setdefault(of_it[0], image.path)
                if other != image.path:
                    faults.append(f"{other} and {image.path}: have one mask, {of_it[0]}")
        found.append(image)
    refuse_faults(
        faults,
        "Every defective image needs one of its own; another image format, or no _mask, will do; else --ground-truth "
        "FOLDER, or --no-masks",
    )
    return found


def masks_in(folder: Path) -> dict[str, list[Path]]:
    """Masks by the name of their image: ``<name>_mask``, before ``<name>``, in any image format and case of letters."""
    plain: dict[str, list[Path]] = {}
    marked: dict[str, list[Path]] = {}
    for path in sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES):
        plain.setdefault(path.stem, []).append(path)
        if path.stem.lower().endswith(_ENDING):
            marked.setdefault(path.stem[: -len(_ENDING)], []).append(path)
    return plain | marked


def _check_masks(images: Sequence[TestImage]) -> None:
    """Read every mask and compare its size with the header of its image, before minutes are spent on inspecting.

    Sides are compared in either order, for a picture may be stored turned; `read_truth` looks at the pixels themselves.
    Images that cannot be read are the evaluation's affair.
    """
    faults = []
    for image in images:
        if image.mask is None:
            continue
        try:
            height, width = read_mask(image.mask).shape
        except BadInput as error:
            faults.append(str(error))
            continue
        stored = _stored_size(image.path)
        if stored is not None and sorted(stored) != sorted((height, width)):
            faults.append(_size_fault(image, (height, width), stored))
    refuse_faults(faults, _RESIZE)


def _stored_size(path: Path) -> Size | None:
    """(height, width) as the header says; None where it cannot be read."""
    try:
        with opened(path) as picture:
            return picture.height, picture.width
    except BadInput:
        return None


def _size_fault(image: TestImage, mask: Size, expected: Size) -> str:
    return f"{image.mask}: is {mask[1]}x{mask[0]} pixels, but {image.path} is {expected[1]}x{expected[0]}"


def read_truth(image: TestImage, size: Size) -> NDArray[np.bool_]:
    """(height, width) bool, where the defects are; nowhere on a good image.

    Args:
        size: (height, width) of the image.

    Raises:
        BadInput: the mask cannot be read, is of another size, or marks nothing.
    """
    if image.mask is None:
        return np.zeros(size, np.bool_)
    mask = read_mask(image.mask)
    if mask.shape != size:
        refuse_faults([_size_fault(image, (mask.shape[0], mask.shape[1]), size)], _RESIZE)
    return mask
