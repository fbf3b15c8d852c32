"""Reads arrays from an untrusted file: sizes are checked before anything is unpacked, and no code is executed."""

import math
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.storage.files import read_bounded

_LONGEST_REASON = 200  # characters: zipfile may quote most of the file


def read_npz(path: Path, limit: int) -> dict[str, NDArray[Any]]:
    """Read a file of ``numpy.savez`` or ``savez_compressed``; returns its arrays by name.

    Args:
        limit: maximum size in bytes, of the file and of all its arrays together.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is damaged, too large, or holds anything but arrays of numbers and texts.
    """
    content = read_bounded(path, limit)
    try:
        with ZipFile(BytesIO(content)) as archive:
            members = archive.infolist()
            if (size := sum(member.file_size for member in members)) > limit:
                raise ValueError(f"arrays of {size:,} bytes, expected at most {limit:,}")
            return {member.filename.removesuffix(".npy"): _array(archive, member) for member in members}
    except Exception as error:  # zipfile, zlib and NumPy raise a dozen kinds for a damaged file
        raise ValueError((str(error) or type(error).__name__)[:_LONGEST_REASON]) from error


def _array(archive: ZipFile, member: ZipInfo) -> NDArray[Any]:
    if member.flag_bits & 1 or member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ValueError(f"{member.filename!r} is encrypted, or compressed by an unknown method")
    data = BytesIO(archive.read(member))
    if np.lib.format.read_magic(data) != (1, 0):
        raise ValueError(f"{member.filename!r}: expected version 1.0 of NumPy's format")
    shape, in_columns, dtype = np.lib.format.read_array_header_1_0(data)
    if dtype.kind not in "biufU":
        raise ValueError(f"{member.filename!r}: expected numbers, got {dtype}")
    values = np.frombuffer(data.read(), dtype)
    if values.size != math.prod(shape):
        raise ValueError(f"{member.filename!r}: expected an array of shape {shape}, got {values.size} numbers")
    return np.array(values.reshape(shape, order="F" if in_columns else "C"))
