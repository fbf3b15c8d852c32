"""An .npz from anywhere is arrays within bounds, or one error."""

import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uflow_edge.runtime.storage.npz import read_npz

LIMIT = 1 << 20


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode("latin-1")


def archive(path: Path, content: bytes, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("gain.npy", content)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back_as_they_were(tmp_path: Path, save) -> None:
    arrays = {
        "a": np.arange(12, dtype=np.float32).reshape(3, 4),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "one": np.array(7),
        "text": np.array("ü"),
        "none": np.zeros((0, 3)),
    }
    save(tmp_path / "a.npz", **arrays)
    found = read_npz(tmp_path / "a.npz", LIMIT)
    assert found.keys() == arrays.keys()
    for name, expected in arrays.items():
        np.testing.assert_array_equal(found[name], expected)
        assert found[name].dtype == expected.dtype
        assert found[name].flags.writeable


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (
            header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000)}\n"),
            "expected an array of shape",
        ),
        (header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n") + b"cposix\nsystem\n", "expected numbers"),
        (header("(" * 9000 + "\n"), "."),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}\n") + bytes(4), "."),
        (b"no array at all", "magic"),
        (bytes(2 << 20), "2,097,152 bytes, expected at most 1,048,576"),
    ],
)
def test_what_is_no_array_or_too_large_is_refused(tmp_path: Path, content: bytes, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_npz(archive(tmp_path / "a.npz", content), LIMIT)


def test_other_methods_and_encryption_are_refused(tmp_path: Path) -> None:
    good = header("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}\n") + bytes(4)
    with pytest.raises(ValueError, match="unknown method"):
        read_npz(archive(tmp_path / "a.npz", good, zipfile.ZIP_LZMA), LIMIT)
    content = archive(tmp_path / "a.npz", good).read_bytes()
    for change in ((6, b"\x01", 8), (8, b"\x63", 10)):  # offsets of flags and method in both of zip's headers
        changed, central = bytearray(content), content.index(b"PK\x01\x02")
        changed[change[0]] = changed[central + change[2]] = change[1][0]
        (tmp_path / "b.npz").write_bytes(changed)
        with pytest.raises(ValueError):
            read_npz(tmp_path / "b.npz", LIMIT)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="regular file"):
        read_npz(tmp_path / "a.npz", LIMIT)


def test_an_error_does_not_quote_the_whole_file(tmp_path: Path) -> None:
    content = bytearray(archive(tmp_path / "a.npz", os.urandom(5000)).read_bytes())
    content[26:28] = b"\xff\x0f"  # the length of the name in the header of the member
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match="File name in directory") as refused:
        read_npz(tmp_path / "a.npz", LIMIT)
    assert len(str(refused.value)) <= 200


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_files_raise_nothing_else(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    np.savez_compressed(path, a=np.arange(50, dtype=np.float32), b=np.array(3))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2]))])
    try:
        found = read_npz(path, LIMIT)
    except ValueError:
        return
    assert sum(array.nbytes for array in found.values()) <= LIMIT
