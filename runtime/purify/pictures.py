"""Pictures in and out of `uflow-purify`: what of a file is purified, what is kept beside it, and what is dropped.

| in the file | becomes |
| --- | --- |
| size | kept, after a camera's EXIF rotation is applied |
| grey | grey; colour of any kind becomes RGB |
| 16 bits | 8 bits, the upper ones (of as many as ``--bits`` says), with a note; 32 bits, without a range, are refused |
| transparency | kept aside and put back as it was |
| several pages | the first, with a note |
| metadata | dropped; or, if asked for, EXIF without rotation, thumbnail and maker's notes, and the ICC profile |
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
class Picture:
    """A picture as it is purified, and what goes with it.

    Attributes:
        values: (H, W, 1) grey or (H, W, 3) RGB, uint8.
        alpha: (H, W) uint8, or None if it is opaque.
        exif: metadata to save with it, or nothing.
        icc_profile: likewise.
        notes: what people should know about how it was read.
    """

    values: Image
    alpha: NDArray[np.uint8] | None = None
    exif: bytes = b""
    icc_profile: bytes = b""
    notes: tuple[str, ...] = ()


def read_picture(path: Path, *, keep_metadata: bool = False) -> Picture:
    """Read a picture upright.

    Raises:
        BadInput: missing, damaged, not an image, of a pixel type without a defined range, or larger than
            `reading.use` allows.
    """
    with opened(path) as upright:
        notes = _notes(upright)
        if upright.mode == "F" or upright.mode.startswith("I"):
            return Picture(np.ascontiguousarray(read_image(path)[:, :, :1]), notes=notes)
        deep = is_deep(upright)
        decode_upright(upright, path)
        picture = replace(_decoded(upright), notes=notes)
        if deep and picture.values.shape[2] == 3:  # Pillow keeps the upper eight bits of 16, whatever --bits says
            picture = replace(picture, values=np.ascontiguousarray(read_image(path)[:, :, ::-1]))
        return _with_metadata(picture, upright) if keep_metadata else picture


def picture_size(path: Path) -> Size:
    """(height, width) of a picture as it is stored, before any rotation, without decoding it.

    Raises:
        BadInput: as `read_picture`, as far as a file's head tells.
    """
    with opened(path) as picture:
        return picture.height, picture.width


def write_picture(path: Path, picture: Picture, texts: Mapping[str, str]) -> None:
    """Write a PNG, whole or not at all.

    Args:
        path: of the file.
        picture: with the metadata to save.
        texts: to say in the file what it is, as PNG text by keyword.
    """
    planes = [*np.moveaxis(picture.values, 2, 0), *([] if picture.alpha is None else [picture.alpha])]
    merged = PillowImage.merge({1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[len(planes)], [*map(_plane, planes)])
    chunks = PngInfo()
    for keyword, text in texts.items():
        chunks.add_text(keyword, text)
    with replacing(path) as temporary:
        merged.save(
            temporary,
            "PNG",
            pnginfo=chunks,
            exif=picture.exif or None,
            icc_profile=picture.icc_profile or None,
        )


def read_texts(path: Path) -> Mapping[str, str]:
    """What `write_picture` said in a file; nothing, if it is not a PNG."""
    try:
        with opened(path) as picture:
            return {key: text for key, text in picture.info.items() if isinstance(key, str) and isinstance(text, str)}
    except Exception:  # whatever it is, it is not ours
        return {}


def _plane(values: NDArray[np.uint8]) -> PillowImage.Image:
    return PillowImage.fromarray(np.ascontiguousarray(values))


def _notes(picture: PillowImage.Image) -> tuple[str, ...]:
    notes = []
    if is_deep(picture):
        notes.append("of 16 bits the upper 8 were purified")
    if picture.mode in _OTHER_COLOURS:
        notes.append(f"{picture.mode} became RGB")
    if getattr(picture, "n_frames", 1) > 1:
        notes.append("of several pages the first was purified")
    return tuple(notes)


def _decoded(upright: PillowImage.Image) -> Picture:
    transparent = "transparency" in upright.info or upright.mode in ("LA", "La", "PA", "RGBA", "RGBa")
    base = "L" if upright.mode in _GREY else "RGB"
    if not transparent:
        values = np.asarray(upright.convert(base))
        return Picture(values.reshape(*values.shape[:2], -1))
    values = np.asarray(upright.convert("RGBA"))  # the one stop on the way from every kind of transparency
    colour = values[:, :, :1] if base == "L" else values[:, :, :3]
    return Picture(np.ascontiguousarray(colour), values[:, :, 3].copy())


def _with_metadata(picture: Picture, upright: PillowImage.Image) -> Picture:
    exif = upright.getexif()
    details = exif.get_ifd(ExifTags.IFD.Exif)
    details.pop(_MAKER_NOTE, None)  # its inner addresses break when it is moved, and it holds previews
    if _WIDTH in details or _HEIGHT in details:
        details[_WIDTH], details[_HEIGHT] = upright.size
    # A profile speaks of the colours of the file, which are others after a conversion.
    profile = upright.info.get("icc_profile") if upright.mode in ("L", "LA", "RGB", "RGBA", "P", "PA") else None
    return replace(picture, exif=exif.tobytes() if exif else b"", icc_profile=profile or b"")
