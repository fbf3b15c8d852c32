"""Opens and decodes image files for all commands: formats, size limit and bit depth.

A command sets the `Reading` of its run once with `use`: bit depth and size limit are the same for all images that the
process reads.
"""

import argparse
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, ImageOps, UnidentifiedImageError
from PIL import Image as PillowImage

from uflow_edge.runtime.errors import BadInput, UsageError
from uflow_edge.runtime.images.png_rows import lacks_rows
from uflow_edge.runtime.numeric import Image

logger = logging.getLogger(__name__)

FORMATS: Final = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's formats that are read, whatever the suffix of the file: EPS would start Ghostscript. MPO counts as JPEG."""
_SUFFIXES: Final = "apng bmp dib gif jfif jpe jpeg jpg mpo pbm pgm png pnm ppm tif tiff webp"
IMAGE_SUFFIXES: Final = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())
MAX_MEGAPIXELS: Final = 256.0

_SIXTEEN_BIT: Final = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I"})
_DEPTHS: Final = (8, 10, 12, 14)
_TURNS: Final[dict[int, Callable[[NDArray[np.integer]], NDArray[np.integer]]]] = {  # by EXIF orientation
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored),
}
_KINDS: Final = (
    (stat.S_ISDIR, "is a folder"),
    (stat.S_ISFIFO, "is a named pipe"),
    (stat.S_ISSOCK, "is a socket"),
    (stat.S_ISCHR, "is a device"),
    (stat.S_ISBLK, "is a device"),
)


@dataclass(frozen=True, slots=True)
class Reading:
    """How all images of a run are read.

    Attributes:
        max_megapixels: limit of the size; the header is checked before anything is decoded.
        bits: number of bits, 8 to 16, that the camera used in a 16-bit file, the lower ones; None for 16.
    """

    max_megapixels: float = MAX_MEGAPIXELS
    bits: int | None = None

    @classmethod
    def of(cls, arguments: argparse.Namespace, model_bits: int | None = None) -> "Reading":
        """Make it from the options of `cli.options.add_reading_options`, or from the model's bit depth.

        Raises:
            UsageError: the bit depth differs from the model's, so that images would have another brightness.
        """
        bits = model_bits if arguments.bits is None else arguments.bits
        if model_bits is not None and bits != model_bits:
            raise UsageError(f"--bits {bits}: the model was trained with --bits {model_bits}; leave the option out")
        return cls(arguments.max_megapixels or MAX_MEGAPIXELS, bits)


@dataclass(slots=True)
class _Run:
    """The settings of this process, and which hints were given."""

    reading: Reading = Reading()
    said: set[str] = field(default_factory=set)


_run = _Run()
_opening = threading.Lock()


def use(reading: Reading) -> None:
    """Read all images like this from now on.

    The first file that has several pages, and the first that seems to use fewer than 16 bits, are logged.
    """
    _run.reading, _run.said = reading, set()


def in_use() -> Reading:
    """The current settings, as set by `use`."""
    return _run.reading


@contextmanager
def opened(path: Path) -> Iterator[PillowImage.Image]:
    """Open an image: read its header and check its size. Errors in the body become `BadInput` too.

    Raises:
        BadInput: the image is missing, forbidden, not a file, of another format, or too large, or the body failed.
    """
    try:
        require_file(path)
        with _open(path) as picture:
            megapixels, most = picture.width * picture.height / 1e6, _run.reading.max_megapixels
            if megapixels > most:
                raise BadInput(
                    f"{picture.width}x{picture.height} pixels are {megapixels:.0f} megapixels, but the limit is "
                    f"{most:g}; --max-megapixels changes it"
                )
            yield picture
    except BadInput as error:
        text = str(error)
        raise (error if text.startswith(f"{path}: ") else BadInput(f"{path}: {text}")) from error
    except PermissionError as error:
        raise BadInput(f"{path}: permission denied") from error
    except UnidentifiedImageError as error:
        raise BadInput(f"{path}: cannot be read as an image: its content is none of {', '.join(FORMATS)}") from error
    except Exception as error:  # Pillow's decoders raise many kinds of errors
        raise BadInput(f"{path}: cannot be read as an image ({error})") from error


def require_file(path: Path) -> None:
    """Check that a path is a regular file: opening a pipe could block for ever, and a device could do anything.

    Raises:
        BadInput: there is nothing at the path, or it is not a regular file or may not be read.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        link = f" (a link to {path.readlink()})" if path.is_symlink() else ""
        raise BadInput(f"{path}: no such file{link}") from None
    except PermissionError:
        raise BadInput(f"{path}: permission denied") from None
    if stat.S_ISDIR(status.st_mode):
        try:
            os.scandir(path).close()
        except PermissionError:
            raise BadInput(f"{path}: permission denied; the content of this folder is unknown") from None
    for is_kind, words in _KINDS:
        if is_kind(status.st_mode):
            raise BadInput(f"{path}: {words}, not a file")


def _open(path: Path) -> PillowImage.Image:
    """Read the header, without Pillow's own limit. That limit is global, hence the lock."""
    with _opening:
        before, PillowImage.MAX_IMAGE_PIXELS = PillowImage.MAX_IMAGE_PIXELS, None
        try:
            return PillowImage.open(path, formats=FORMATS)
        finally:
            PillowImage.MAX_IMAGE_PIXELS = before


def decode_upright(picture: PillowImage.Image, path: Path) -> None:
    """Decode an open image completely, and rotate it by its EXIF orientation.

    Raises:
        BadInput: a PNG ends before its last row, which Pillow does not notice.
    """
    pages = _pages(picture)
    if pages > 1:
        say_once("pages", f"{path}: has {pages} pages; only the first page of such files is read")
    picture.load()
    last_row = picture.crop((0, picture.height - 1, *picture.size))  # zeros, if the file does not contain it
    if picture.format == "PNG" and not np.asarray(last_row).any() and lacks_rows(path):
        raise BadInput("cannot be read as an image (it ends before the last row)")
    ImageOps.exif_transpose(picture, in_place=True)


def _pages(picture: PillowImage.Image) -> int:
    if picture.format == "MPO" or "pages" in _run.said:  # the other pages in a phone's MPO are previews and depth maps
        return 1
    try:
        return int(getattr(picture, "n_frames", 1))
    except Exception:  # a later page is damaged; the first may be intact
        return 1


def say_once(what: str, line: str) -> None:
    """Log a hint on one image that holds for others of the run too."""
    if what not in _run.said:
        _run.said.add(what)
        logger.info(line)


def is_deep(picture: PillowImage.Image) -> bool:
    """Whether an image, not decoded yet, has more than 8 bits per channel."""
    return picture.mode in _SIXTEEN_BIT or any(";16" in str(tile[3]) for tile in getattr(picture, "tile", ()))


def deep_values(picture: PillowImage.Image, path: Path) -> NDArray[np.integer] | None:
    """All bits of an image with more than 8 bits per channel, upright; None for other images.

    Args:
        picture: opened, but not decoded yet.
        path: the image's file. Pillow keeps only 8 bits of colour, so OpenCV reads colour, if it can.

    Returns:
        (H, W) grey, or (H, W, C) in OpenCV's order: blue, green, red, alpha.
    """
    if picture.mode in _SIXTEEN_BIT:
        decode_upright(picture, path)
        return np.asarray(picture)
    if not is_deep(picture):
        return None
    values = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.shape[:2] != (picture.height, picture.width):
        return None
    return np.asarray(_TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1), np.asarray)(values))


def eight_bits(picture: PillowImage.Image, path: Path) -> Image | None:
    """The upper 8 of the bits in use (see `Reading`) of `deep_values`, uint8 of the same shape; None as there.

    Raises:
        BadInput: a value exceeds the bits in use.
    """
    codec = next((tile[0] for tile in getattr(picture, "tile", ())), "")
    full_range = picture.format == "PPM" and codec != "raw"  # Pillow has scaled the values to 16 bits
    values = deep_values(picture, path)
    if values is None:
        return None
    bits, least, most = 16 if full_range else _run.reading.bits or 16, int(values.min()), int(values.max())
    if least < 0 or most > 0xFFFF:
        raise BadInput("32-bit pixels have no defined range; save it with 8 or 16 bits")
    if most >> bits:
        raise BadInput(f"has values up to {most}, but {bits} bits hold at most {(1 << bits) - 1}; correct --bits")
    if _run.reading.bits is None and not full_range and 0 < most < 1 << _DEPTHS[-1]:
        likely = next(depth for depth in _DEPTHS if most < 1 << depth)
        say_once(
            "bits",
            f"{path}: no value of its 16 bits exceeds {most}, so only {(most >> 8) + 1} of 256 grey levels are used; "
            f"if the camera has {likely} bits, use --bits {likely}",
        )
    return (values >> (bits - 8)).astype(np.uint8)
