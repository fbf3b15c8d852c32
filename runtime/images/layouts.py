"""Finds the good images in common layouts of data sets; folders with defects or masks are refused.

| layout | good images to learn from |
| --- | --- |
| MVTec AD, MVTec AD 2, MVTec LOCO, MPDD, VisA by its split | ``train/good`` |
| BTAD | ``train/ok`` |
| VisA as published | ``Data/Images/Normal`` |
| good images beside bad ones | ``good``, ``ok`` or ``normal`` |
| a folder that holds no such folder, and no defects or masks by their names | all of it |
"""

import logging
import re
from collections import Counter
from pathlib import Path
from typing import Final

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.images.files import find_images

logger = logging.getLogger(__name__)

_GOOD: Final = frozenset({"good", "ok", "normal"})
_BAD: Final = re.compile(
    r"test(ing|set|data|images|public.*|private.*)?|bad|ko|ng|nok|notok|notgood|nongood|anomal(y|ies|ous)|abnormal"
    r"|defects?|defective|defected|faulty|faults?|rejects?|rejected|scrap|masks?|groundtruths?|gt"
)
"""Matches names in lower case, without separators between words."""
_MASK: Final = re.compile(r"(.+)[_-](mask|gt|ground_?truth|label|seg(mentation)?)", re.IGNORECASE)
_LISTED: Final = 5


def is_good(name: str) -> bool:
    """Whether a folder of this name holds good images."""
    return _plain(name) in _GOOD


def good_images(folder: Path) -> list[Path]:
    """The good images to learn from in a folder or a data set.

    Raises:
        BadInput: no such folder, no images, several data sets, or a folder with defects or masks in it.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; expected good images, or a data set with train/good")
    chosen = _good_part(folder)
    if chosen != folder:
        logger.info(f"{folder}: a data set; the good images are those in {chosen}")
    elif _is_bad(folder.resolve().name):
        raise BadInput(f"{folder}: its name says defects, masks or test images; expected a folder of good images")
    images = list(find_images([chosen]))
    _require_good(chosen, images)
    return images


def _good_part(folder: Path) -> Path:
    inside = {_plain(path.name): path for path in sorted(folder.iterdir()) if path.is_dir()}
    if "train" in inside:
        return _good_folder(inside["train"]) or _no_good(inside["train"])
    if not _is_bad(folder.resolve().name):
        for images in (folder, folder / "Images", folder / "Data" / "Images"):  # VisA as published
            good = _good_folder(images) if images.is_dir() else None
            if good is not None and not is_good(folder.resolve().name):
                return good
    return folder


def _good_folder(folder: Path) -> Path | None:
    """The first subfolder whose name says that it holds good images."""
    return next((path for path in sorted(folder.iterdir()) if path.is_dir() and is_good(path.name)), None)


def _no_good(train: Path) -> Path:
    raise BadInput(f"{train.parent}: has a train folder, but no train/good (nor train/ok or train/normal) in it")


def _require_good(folder: Path, images: list[Path]) -> None:
    """Check the names of the subfolders and images in the folder that was chosen."""
    categories, suspects = set[Path](), Counter[Path]()
    stems = {image.parent / image.stem for image in images}
    for image in images:
        *above, name = image.relative_to(folder).parts
        for depth, part in enumerate(above):
            place = folder.joinpath(*above[: depth + 1])
            if _plain(part) == "train" or (_plain(part) == "data" and (place / "Images").is_dir()):
                categories.add(place.parent)
            if _is_bad(part):
                suspects[place] += 1
                break
        else:
            mask = _MASK.fullmatch(Path(name).stem)
            if mask and (mask[2].lower() == "mask" or image.parent / mask[1] in stems):
                suspects[image.parent / f"*{image.suffix}"] += 1
    categories.discard(folder)
    if categories:
        raise BadInput(f"{folder}: holds {len(categories)} data sets; choose one of them: {_listed(categories)}")
    if suspects:
        raise BadInput(
            f"{folder}: holds files whose names say defects, masks or test images: {_listed(suspects)}; expected a "
            "folder of good images only"
        )


def _listed(places: "set[Path] | Counter[Path]") -> str:
    names = [f"{place} ({places[place]})" if isinstance(places, Counter) else str(place) for place in sorted(places)]
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def _plain(name: str) -> str:
    return re.sub(r"[\s_.-]+", "", name.lower())


def _is_bad(name: str) -> bool:
    return _BAD.fullmatch(_plain(name)) is not None
