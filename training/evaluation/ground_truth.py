"""Finds the masks of test images by name, in the layout of MVTec AD, and checks them.

bottle/test/broken/000.png               a defective image
bottle/ground_truth/broken/000_mask.png  its mask, as large as the image: 0 is good, any other value is a defect

`masks` describes the accepted files.
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
_RESIZE = "Save each mask without lossy compression, in the size of its image, with its defect marked"


def labelled_images(data: Path, ground_truth: Path | None = None, *, masks: bool = True) -> list[TestImage]:
    """All test images by kind and name, every defective one with its mask.

    Args:
        data: a folder in the layout of MVTec AD, with ``test/good`` and other kinds.
        ground_truth: folder of the masks; by default, ``ground_truth`` in ``data``.
        masks: whether to look for masks; without them only the labels of images are known.

    Raises:
        BadInput: there are no good or no defective images; or masks are missing, shared by two images, unreadable,
            empty, or differ in size from their image. The message names all of them.
    """
    if not (data / "test").is_dir():
        hint = "; its subfolders have one: add --all" if any(data.glob("*/test")) else ""
        raise BadInput(f"{data}: it has no folder test; expected test/{GOOD} and one folder per kind of defect{hint}")
    images = test_images(data)
    for is_good, name in ((True, f"no good images (test/{GOOD})"), (False, "no defective images (any other folder)")):
        if not any(image.is_good == is_good for image in images):
            raise BadInput(f"{data / 'test'}: {name}; the metrics need both")
    if masks:
        images = _with_masks(images, data / "test", data / GROUND_TRUTH if ground_truth is None else ground_truth)
        _check_masks(images)
    return images


def _with_masks(images: Sequence[TestImage], test: Path, ground_truth: Path) -> list[TestImage]:
    """Give each defective image the mask with its name, from the same subfolder of ``ground_truth`` as of ``test``."""
    masks: dict[Path, dict[str, list[Path]]] = {}
    found: list[TestImage] = []
    faults: list[str] = []
    image_of: dict[Path, Path] = {}
    for image in images:
        if not image.is_good:
            folder = ground_truth / image.path.parent.relative_to(test)
            if folder not in masks:
                masks[folder] = masks_in(folder)
            own = masks[folder].get(image.path.stem, [])
            if not own:
                faults.append(f"{image.path}: it has no mask; expected {folder / image.path.stem}{_ENDING}.png")
            elif len(own) > 1:
                faults.append(f"{image.path}: it has {len(own)} masks: {', '.join(mask.name for mask in own)}")
            else:
                image = replace(image, mask=own[0])
                other = image_of.setdefault(own[0], image.path)
                if other != image.path:
                    faults.append(f"{other} and {image.path}: they share the mask {own[0]}")
        found.append(image)
    refuse_faults(
        faults,
        "Every defective image needs its own mask, NAME_mask or NAME in any image format. Use --ground-truth FOLDER "
        "for another folder, or --no-masks to evaluate without masks",
    )
    return found


def masks_in(folder: Path) -> dict[str, list[Path]]:
    """Masks by the name of their image: ``<name>_mask`` or else ``<name>``, in any image format and letter case."""
    plain: dict[str, list[Path]] = {}
    marked: dict[str, list[Path]] = {}
    for path in sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES):
        plain.setdefault(path.stem, []).append(path)
        if path.stem.lower().endswith(_ENDING):
            marked.setdefault(path.stem[: -len(_ENDING)], []).append(path)
    return plain | marked


def _check_masks(images: Sequence[TestImage]) -> None:
    """Read every mask and compare its size with the header of its image, before the long inspection.

    Width and height may be swapped, as images may be stored rotated; `read_truth` compares the decoded image.
    Unreadable images are ignored here, as the evaluation reports them.
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
    """(height, width) from the header; None if it cannot be read."""
    try:
        with opened(path) as picture:
            return picture.height, picture.width
    except BadInput:
        return None


def _size_fault(image: TestImage, mask: Size, expected: Size) -> str:
    return f"{image.mask}: the mask has {mask[1]}x{mask[0]} pixels, but {image.path} has {expected[1]}x{expected[0]}"


def read_truth(image: TestImage, size: Size) -> NDArray[np.bool_]:
    """The (height, width) bool mask of the defects; all False for a good image.

    Args:
        size: (height, width) of the image.

    Raises:
        BadInput: the mask is unreadable or empty, or has another size.
    """
    if image.mask is None:
        return np.zeros(size, np.bool_)
    mask = read_mask(image.mask)
    if mask.shape != size:
        refuse_faults([_size_fault(image, (mask.shape[0], mask.shape[1]), size)], _RESIZE)
    return mask
