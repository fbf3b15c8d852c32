"""Where the defects of a test image are: masks laid out like MVTec AD's, found by name and checked.

bottle/test/broken/000.png               a defective image
bottle/ground_truth/broken/000_mask.png  its mask, as large as the image: 0 is good, all else is the defect
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.images import IMAGE_SUFFIXES, read_image
from uflow_edge.runtime.numeric import Size
from uflow_edge.training.dataset import GOOD, TestImage, test_images

GROUND_TRUTH = "ground_truth"
_ENDINGS = ("_mask", "")


def labelled_images(data: Path, ground_truth: Path | None = None, *, masks: bool = True) -> list[TestImage]:
    """All test images by kind and name, every defective one with its mask.

    Args:
        data: a folder laid out like MVTec AD, with ``test/good`` and other kinds.
        ground_truth: of the masks; default, ``ground_truth`` in it.
        masks: without, all are left out: labels of images are all that is known.

    Raises:
        BadInput: no test images, none of them good or none defective, or a mask is missing.
    """
    if not (data / "test").is_dir():
        raise BadInput(f"{data}: has no folder test; expected test/{GOOD} and a folder for each kind of defect")
    folder = data / GROUND_TRUTH if ground_truth is None else ground_truth
    images = [
        replace(image, mask=None)
        if image.is_good or not masks
        else replace(image, mask=find_mask(image, data / "test" / image.kind, folder))
        for image in test_images(data)
    ]
    for is_good, name in ((True, f"no good images (test/{GOOD})"), (False, "no defective images (any other folder)")):
        if not any(image.is_good == is_good for image in images):
            raise BadInput(f"{data / 'test'}: {name}; the metrics compare defective images with good ones")
    return images


def find_mask(image: TestImage, folder: Path, masks: Path) -> Path:
    """The mask of a defective image: ``<name>_mask`` or ``<name>``, in any image format.

    Args:
        image: of some kind of defect.
        folder: of this kind; images may lie deeper.
        masks: the folder of masks, with a folder for each kind.

    Raises:
        BadInput: there is none.
    """
    beside = masks / image.kind / image.path.parent.relative_to(folder)
    for ending in _ENDINGS:
        for suffix in sorted(IMAGE_SUFFIXES):
            mask = beside / f"{image.path.stem}{ending}{suffix}"
            if mask.is_file():
                return mask
    raise BadInput(
        f"{image.path}: has no mask; expected {beside / f'{image.path.stem}_mask.png'} "
        "(or the name without _mask, or another image format), --ground-truth with another folder, or --no-masks"
    )


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
        height, width = mask.shape
        raise BadInput(
            f"{image.mask}: is {width}x{height} pixels, but {image.path} is {size[1]}x{size[0]}; save the mask in the "
            "size of its image"
        )
    if not mask.any():
        raise BadInput(f"{image.mask}: marks no pixel, but {image.path} is labelled {image.kind}; mark its defect")
    return mask
