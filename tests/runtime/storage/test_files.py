"""Files and folders: whole or not there, in a place that is tried first, and nothing of a killed run stays."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.storage.files import check_writable, replacing, replacing_folder, scratch_folder

_WRITER = """
import sys, time
from pathlib import Path
from uflow_edge.runtime.storage.files import {function}
with {function}(Path(sys.argv[1])) as temporary:
    print(temporary, flush=True)
    time.sleep(600)
"""


@contextmanager
def writing(function: str, path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process that is in the middle of writing, and its temporary sibling."""
    command = [sys.executable, "-c", _WRITER.format(function=function), str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, Path(process.stdout.readline().strip())
    finally:
        process.kill()
        process.communicate()


def inside(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_what_a_killed_run_has_left_goes_and_what_others_are_writing_stays(tmp_path: Path) -> None:
    with (
        writing("replacing", tmp_path / "a.npz") as (killed, file),
        writing("replacing_folder", tmp_path / "b.uflow") as (terminated, folder),
        writing("scratch_folder", tmp_path) as (_, alive),
    ):
        (folder / "weights").write_bytes(b"0" * 100)
        check_writable(tmp_path / "c.ckpt")
        assert file.is_file() and (folder / "weights").is_file() and alive.is_dir()
        for process in (killed, terminated):
            process.send_signal(signal.SIGKILL)
            process.wait()
        check_writable(tmp_path / "c.ckpt")
        assert list(tmp_path.iterdir()) == [alive]


def test_a_killed_folder_is_made_anew(tmp_path: Path) -> None:
    with writing("replacing_folder", tmp_path / "b.uflow") as (process, folder):
        (folder / "half").touch()
        with pytest.raises(BadInput, match=r"b\.uflow: another process is writing it"):
            replacing_folder(tmp_path / "b.uflow").__enter__()
        process.kill()
        process.wait()
        with replacing_folder(tmp_path / "b.uflow") as temporary:
            (temporary / "whole").touch()
    assert inside(tmp_path) == [
        "b.uflow",
        "b.uflow/whole",
    ]


def test_a_folder_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    place = tmp_path / "b.uflow"
    with pytest.raises(OSError, match="not empty"), replacing_folder(place, overwrite=False):
        place.mkdir()
        (place / "other").touch()
    with pytest.raises(BadInput, match="exists already"), replacing_folder(place, overwrite=False):
        pass
    assert [path.name for path in place.iterdir()] == ["other"]
    assert [path.name for path in tmp_path.iterdir()] == ["b.uflow"]


def test_a_run_killed_between_its_renames_loses_nothing(tmp_path: Path) -> None:
    place = tmp_path / "b.uflow"
    with pytest.raises(RuntimeError), replacing_folder(place) as temporary:
        old = temporary.with_name(temporary.name.replace(".partial", "-old"))
        raise RuntimeError
    old.mkdir()
    (old / "kept").touch()
    with pytest.raises(RuntimeError), replacing_folder(place):
        assert (place / "kept").is_file()
        raise RuntimeError
    assert inside(tmp_path) == [
        "b.uflow",
        "b.uflow/kept",
    ]


def test_names_as_long_as_there_can_be(tmp_path: Path) -> None:
    for path in (tmp_path / ("a" * 251 + ".png"), tmp_path / ("a." + "b" * 253)):
        check_writable(path)
        with replacing(path) as temporary:
            temporary.write_bytes(b"1")
        assert path.read_bytes() == b"1"
    with replacing_folder(tmp_path / ("c" * 255)) as folder:
        (folder / "file").touch()
    with pytest.raises(BadInput, match="too long"):
        check_writable(tmp_path / ("a" * 256))


def test_the_place_is_tried(tmp_path: Path) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.touch()
    folder.mkdir()
    os.mkfifo(tmp_path / "pipe")
    check_writable(file)
    check_writable(folder, "folder")
    check_writable(tmp_path / "new" / "deep" / "x.ckpt")
    assert not (tmp_path / "new").exists()
    for path, kind, complaint in (
        (folder, "file", "is a folder; expected the name of a file"),
        (file, "folder", "expected the name of a folder"),
        (tmp_path / "pipe", "file", "expected the name of a file"),
        (file / "x.ckpt", "file", "cannot be written .*Not a directory"),
        (Path("/proc/x.ckpt"), "file", "cannot be written"),
    ):
        with pytest.raises(BadInput, match=complaint):
            check_writable(path, kind)
    with pytest.raises(BadInput, match=r"needs 1000000000 MB, but .* make room"):
        check_writable(file, size=10**15)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_must_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(BadInput, match="Permission denied"):
        check_writable(tmp_path / "x.ckpt")


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As if the disk were full behind that many bytes of any file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_known_before(tmp_path: Path) -> None:
    with largest_file(0), pytest.raises(BadInput, match="cannot be written"):
        check_writable(tmp_path / "x.ckpt")


def test_an_error_of_a_full_disk_names_the_result(tmp_path: Path) -> None:
    with largest_file(0):
        with pytest.raises(OSError, match=r"too large: '.*/x\.json'"), replacing(tmp_path / "x.json") as temporary:
            temporary.write_text("{}")
        with pytest.raises(OSError, match=r"too large: '.*/bundle'"), replacing_folder(tmp_path / "bundle") as folder:
            (folder / "model.onnx").write_bytes(b"graph")
        with pytest.raises(OSError, match=f"too large: '{tmp_path}'"), scratch_folder(tmp_path) as folder:
            (folder / "model.onnx").write_bytes(b"graph")
    assert not list(tmp_path.iterdir())
