"""Checks that a PNG holds all of its rows; Pillow accepts one whose compressed data ends early."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_SIGNATURE: Final = 8
_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_BLOCK: Final = 1 << 20
_PASSES: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Passes of an interlaced PNG: first column and row, step to the next column and row (PNG specification, 8.2)."""


def lacks_rows(path: Path) -> bool:
    """Decompress a PNG, and compare the number of bytes with the size in its header."""
    chunks = _chunks(path)
    header = next(chunks)
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    bits = header[8] * _CHANNELS[header[9]]
    expected = 0
    for left, top, right, down in _PASSES if header[12] else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // right), -(-(height - top) // down)
        expected += rows * (1 + (columns * bits + 7) // 8) if columns > 0 and rows > 0 else 0
    stream, found = zlib.decompressobj(), 0
    for data in chunks:
        while data and found < expected:
            found += len(stream.decompress(data, _BLOCK))
            data = stream.unconsumed_tail
    return found + len(stream.flush()) < expected


def _chunks(path: Path) -> Iterator[bytes]:
    """The content of the header chunk, then of each data chunk."""
    with path.open("rb") as file:
        file.seek(_SIGNATURE)
        while len(head := file.read(8)) == 8:
            length = int.from_bytes(head[:4], "big")
            if head[4:] in (b"IHDR", b"IDAT"):
                yield file.read(length)
                file.seek(4, 1)
            else:
                file.seek(length + 4, 1)
