"""Where the defects of a test image are: masks laid out like MVTec AD's, found by name and checked.

bottle/test/broken/000.png               a defective image
bottle/ground_truth/broken/000_mask.png  its mask, as large as the image: 0 is good, all else is the defect
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.images import IMAGE_SUFFIXES, read_image
from uflow_edge.runtime.numeric import Size
from uflow_edge.training.dataset import GOOD, TestImage, test_images

GROUND_TRUTH = "ground_truth"
_ENDING = "_mask"
_RESIZE = "Save each mask in the size of its image"
_NAMED = 10
"""Of faulty masks, by name; the others are counted."""


def labelled_images(data: Path, ground_truth: Path | None = None, *, masks: bool = True) -> list[TestImage]:
    """All test images by kind and name, every defective one with its mask.

    Args:
        data: a folder laid out like MVTec AD, with ``test/good`` and other kinds.
        ground_truth: of the masks; default, ``ground_truth`` in it.
        masks: without, all are left out: labels of images are all that is known.

    Raises:
        BadInput: no test images, none of them good or none defective, or masks that are missing, cannot be read or are
            of another size than their image.
    """
    if not (data / "test").is_dir():
        raise BadInput(f"{data}: has no folder test; expected test/{GOOD} and a folder for each kind of defect")
    images = test_images(data)
    for is_good, name in ((True, f"no good images (test/{GOOD})"), (False, "no defective images (any other folder)")):
        if not any(image.is_good == is_good for image in images):
            raise BadInput(f"{data / 'test'}: {name}; the metrics compare defective images with good ones")
    if masks:
        images = _with_masks(images, data / "test", data / GROUND_TRUTH if ground_truth is None else ground_truth)
        _check_sizes(images)
    return images


def _with_masks(images: Sequence[TestImage], test: Path, ground_truth: Path) -> list[TestImage]:
    """Defective images get the mask that lies under their name where they lie in ``test``."""
    masks: dict[Path, dict[str, Path]] = {}
    found: list[TestImage] = []
    missing: list[str] = []
    for image in images:
        if not image.is_good:
            folder = ground_truth / image.path.parent.relative_to(test)
            if folder not in masks:
                masks[folder] = masks_in(folder)
            image = replace(image, mask=masks[folder].get(image.path.stem))
            if image.mask is None:
                missing.append(f"{image.path}: has no mask; expected {folder / image.path.stem}{_ENDING}.png")
        found.append(image)
    _refuse(missing, "Another image format, or no _mask, will do; else --ground-truth FOLDER, or --no-masks")
    return found


def masks_in(folder: Path) -> dict[str, Path]:
    """Masks by the name of their image: ``<name>_mask``, before ``<name>``, in any image format and case of letters."""
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    files.reverse()  # of several, the first stays
    marked = {path.stem[: -len(_ENDING)]: path for path in files if path.stem.lower().endswith(_ENDING)}
    return {path.stem: path for path in files} | marked


def _check_sizes(images: Sequence[TestImage]) -> None:
    """Compare every mask with its image by their headers, before minutes are spent on inspecting.

    Sides are compared in either order, for a picture may be stored turned; `read_truth` looks at the pixels themselves.
    Images that cannot be read are the evaluation's affair.
    """
    faults = []
    for image in images:
        stored = None if image.mask is None else _stored_size(image.path)
        if image.mask is None or stored is None:
            continue
        size = _stored_size(image.mask)
        if size is None:
            faults.append(f"{image.mask}: cannot be read as an image")
        elif sorted(size) != sorted(stored):
            faults.append(_size_fault(image, size, stored))
    _refuse(faults, _RESIZE)


def _stored_size(path: Path) -> Size | None:
    """(height, width) as the header says; None where it cannot be read."""
    try:
        with PillowImage.open(path) as opened:
            return opened.height, opened.width
    except Exception:  # Pillow's decoders raise whatever their format makes them
        return None


def _size_fault(image: TestImage, mask: Size, expected: Size) -> str:
    return f"{image.mask}: is {mask[1]}x{mask[0]} pixels, but {image.path} is {expected[1]}x{expected[0]}"


def _refuse(faults: Sequence[str], remedy: str) -> None:
    if faults:
        more = [f"and {len(faults) - _NAMED} more"] if len(faults) > _NAMED else []
        raise BadInput(f"{'; '.join([*faults[:_NAMED], *more])}. {remedy}")


def read_truth(image: TestImage, size: Size) -> NDArray[np.bool_]:
    """(height, width) bool, where the defects are; nowhere on a good image.

    Args:
        image: as `labelled_images` gives it.
        size: (height, width) of the image.

    Raises:
        BadInput: the mask cannot be read, is of another size, or marks nothing.
    """
    if image.mask is None:
        return np.zeros(size, np.bool_)
    mask = np.asarray(read_image(image.mask).any(axis=2))
    if mask.shape != size:
        _refuse([_size_fault(image, (mask.shape[0], mask.shape[1]), size)], _RESIZE)
    if not mask.any():
        raise BadInput(f"{image.mask}: marks no pixel, but {image.path} is labelled {image.kind}; mark its defect")
    return mask
