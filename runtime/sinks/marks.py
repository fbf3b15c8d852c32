"""PNG and JPEG files marked as made by this program, so that a quota never deletes other files."""

import zlib
from pathlib import Path
from typing import Final, Literal

import cv2

from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.sinks import Undeliverable

PictureFormat = Literal["png", "jpeg"]
SUFFIXES: Final[dict[PictureFormat, str]] = {"png": ".png", "jpeg": ".jpg"}

_LONGEST_COMMENT = 65_000  # bytes; a JPEG segment holds no more


def _png_text(key: bytes, text: bytes) -> bytes:
    chunk = b"tEXt" + key + b"\0" + text
    return (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")


def _jpeg_comment(text: bytes) -> bytes:
    return b"\xff\xfe" + (2 + len(text)).to_bytes(2, "big") + text


_PNG_MARK, _AFTER_PNG_HEADER = _png_text(b"Software", b"uflow-edge"), 33
_JPEG_MARK, _AFTER_JPEG_START = _jpeg_comment(b"uflow-edge"), 2


def encode(picture_bgr: Image, picture_format: PictureFormat, comment: str = "") -> bytes:
    """Encode a picture as a PNG or JPEG file with this program's mark.

    Args:
        picture_bgr: (H, W, 3) uint8.
        comment: ASCII text for people; image viewers show it as description or comment.

    Raises:
        Undeliverable, cv2.error: the picture is too large for the format.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, 90] if picture_format == "jpeg" else []
    ok, encoded = cv2.imencode(SUFFIXES[picture_format], picture_bgr, options)
    if not ok:
        raise Undeliverable(
            f"a picture of {picture_bgr.shape[1]} x {picture_bgr.shape[0]} pixels is too large for {picture_format}"
        )
    plain, text = encoded.tobytes(), comment.encode("ascii", "replace")[:_LONGEST_COMMENT]
    if picture_format == "png":
        mark, at = _PNG_MARK + (_png_text(b"Description", text) if text else b""), _AFTER_PNG_HEADER
    else:
        mark, at = _JPEG_MARK + (_jpeg_comment(text) if text else b""), _AFTER_JPEG_START
    return plain[:at] + mark + plain[at:]


def is_ours(path: Path) -> bool:
    """Whether the file has this program's mark; False if it cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(_AFTER_PNG_HEADER + len(_PNG_MARK))
    except OSError:
        return False
    return start[_AFTER_PNG_HEADER:] == _PNG_MARK or start[_AFTER_JPEG_START:].startswith(_JPEG_MARK)
