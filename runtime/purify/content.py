"""Reads and writes the files of `uflow-purify`: which content is purified, kept, or dropped.

| in the file | becomes |
| --- | --- |
| size | kept, after a camera's EXIF rotation is applied |
| grey | grey; colour of any kind becomes RGB |
| 16 bits | the upper 8 bits (of those that ``--bits`` says), with a note; 32-bit pixels are refused |
| transparency | kept unchanged |
| several pages | the first, with a note |
| metadata | dropped; with ``--keep-metadata``, EXIF but rotation, thumbnail and maker's notes, and the ICC profile |
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags
from PIL import Image as PillowImage
from PIL.PngImagePlugin import PngInfo

from uflow_edge.runtime.images.decode import decode_upright, is_deep, opened
from uflow_edge.runtime.images.files import read_image
from uflow_edge.runtime.numeric import Image, Size
from uflow_edge.runtime.storage.files import replacing

_GREY = frozenset({"1", "L", "LA", "La"})
_OTHER_COLOURS = frozenset({"CMYK", "YCbCr", "LAB", "HSV"})
_MAKER_NOTE = 0x927C
_WIDTH, _HEIGHT = 0xA002, 0xA003


@dataclass(frozen=True, slots=True, eq=False)
class ImageContent:
    """The content of an image file.

    Attributes:
        values: (H, W, 1) grey or (H, W, 3) RGB, uint8; these are purified.
        alpha: (H, W) uint8; None for an opaque image.
        notes: remarks for people on how the file was read.
    """

    values: Image
    alpha: NDArray[np.uint8] | None = None
    exif: bytes = b""
    icc_profile: bytes = b""
    notes: tuple[str, ...] = ()


def read_content(path: Path, *, keep_metadata: bool = False) -> ImageContent:
    """Read an image file upright.

    Raises:
        BadInput: the file is missing, damaged, not an image, too large, or of a pixel type without a defined range.
    """
    with opened(path) as upright:
        notes = _notes(upright)
        if upright.mode == "F" or upright.mode.startswith("I"):
            return ImageContent(np.ascontiguousarray(read_image(path)[:, :, :1]), notes=notes)
        deep = is_deep(upright)
        decode_upright(upright, path)
        content = replace(_decoded(upright), notes=notes)
        if deep and content.values.shape[2] == 3:  # Pillow keeps the upper 8 of 16 bits and ignores --bits
            content = replace(content, values=np.ascontiguousarray(read_image(path)[:, :, ::-1]))
        return _with_metadata(content, upright) if keep_metadata else content


def stored_size(path: Path) -> Size:
    """(height, width) of an image as stored, before any rotation, read from the header.

    Raises:
        BadInput: as for `read_content`, as far as the header shows it.
    """
    with opened(path) as picture:
        return picture.height, picture.width


def write_content(path: Path, content: ImageContent, texts: Mapping[str, str]) -> None:
    """Write a PNG, completely or not at all."""
    planes = [*np.moveaxis(content.values, 2, 0), *([] if content.alpha is None else [content.alpha])]
    merged = PillowImage.merge({1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[len(planes)], [*map(_plane, planes)])
    chunks = PngInfo()
    for keyword, text in texts.items():
        chunks.add_text(keyword, text)
    with replacing(path) as temporary:
        merged.save(
            temporary, "PNG", pnginfo=chunks, exif=content.exif or None, icc_profile=content.icc_profile or None
        )


def read_texts(path: Path) -> Mapping[str, str]:
    """The PNG texts of a file, by keyword; none if the file is not a PNG."""
    try:
        with opened(path) as picture:
            return {key: text for key, text in picture.info.items() if isinstance(key, str) and isinstance(text, str)}
    except Exception:  # not a result of ours
        return {}


def _plane(values: NDArray[np.uint8]) -> PillowImage.Image:
    return PillowImage.fromarray(np.ascontiguousarray(values))


def _notes(picture: PillowImage.Image) -> tuple[str, ...]:
    notes = []
    if is_deep(picture):
        notes.append("only the upper 8 of 16 bits were purified")
    if picture.mode in _OTHER_COLOURS:
        notes.append(f"{picture.mode} was converted to RGB")
    if getattr(picture, "n_frames", 1) > 1:
        notes.append("only the first of several pages was purified")
    return tuple(notes)


def _decoded(upright: PillowImage.Image) -> ImageContent:
    transparent = "transparency" in upright.info or upright.mode in ("LA", "La", "PA", "RGBA", "RGBa")
    base = "L" if upright.mode in _GREY else "RGB"
    if not transparent:
        values = np.asarray(upright.convert(base))
        return ImageContent(values.reshape(*values.shape[:2], -1))
    values = np.asarray(upright.convert("RGBA"))  # works for every kind of transparency
    colour = values[:, :, :1] if base == "L" else values[:, :, :3]
    return ImageContent(np.ascontiguousarray(colour), values[:, :, 3].copy())


def _with_metadata(content: ImageContent, upright: PillowImage.Image) -> ImageContent:
    exif = upright.getexif()
    details = exif.get_ifd(ExifTags.IFD.Exif)
    details.pop(_MAKER_NOTE, None)  # it holds previews, and offsets that would be wrong in the new file
    if _WIDTH in details or _HEIGHT in details:
        details[_WIDTH], details[_HEIGHT] = upright.size
    # A profile describes the colours of the file, so it is wrong after a conversion.
    profile = upright.info.get("icc_profile") if upright.mode in ("L", "LA", "RGB", "RGBA", "P", "PA") else None
    return replace(content, exif=exif.tobytes() if exif else b"", icc_profile=profile or b"")
