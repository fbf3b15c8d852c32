"""The log and the pictures: whole after a SIGKILL, within their bounds, patient with a full disk."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factories import result
from uflow_edge.runtime.errors import BadInput, ExitCode, UsageError
from uflow_edge.runtime.sinks.json_lines import JsonLines, ReaderLeft, json_line, open_json_lines
from uflow_edge.runtime.sinks.overlays import OverlayFolder, is_ours
from waiting import DEADLINE, wait_until

CHANNELS = (4,)


def frames_in(path: Path) -> list[int]:
    text = path.read_text() if path.exists() else ""
    assert not text or text.endswith("\n")
    return [json.loads(line)["frame"] for line in text.splitlines()]


def logged(log: Path) -> list[int]:
    """Frames in a log and in the files it was rotated to, the oldest first."""
    files = [log.with_name(f"{log.name}.{number}") for number in range(20, 0, -1)]
    return [frame for path in [*files, log] for frame in frames_in(path)]


def in_subprocess(script: str, *arguments: object, prefix: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
    """A script that can use what this file imports."""
    folders = [str(folder) for folder in Path(__file__).parents[:3]]
    preamble = f"import sys; sys.path[:0] = {folders}; from test_sinks import *\n"
    command = [*prefix, sys.executable, "-c", preamble + script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# The log ------------------------------------------------------------------------------------------------------------


def test_lines_are_appended_with_all_of_a_verdict(tmp_path) -> None:
    log = tmp_path / "new" / "seen.jsonl"
    JsonLines(log).put(*result(0))
    JsonLines(log).put(*result(1, 7.5))  # a second run goes on where the first ended
    first, second = map(json.loads, log.read_text().splitlines())
    assert first == result(0)[1].verdict.as_json() | {"timestamps": first["timestamps"]}
    assert second["score"] == 7.5
    assert sum(second["mask"]["counts"][1::2]) == 300


def test_the_mask_survives_the_buffer_and_the_picture_does_not(tmp_path) -> None:
    frame, inspection = JsonLines(tmp_path / "seen.jsonl").needed(*result(0, 7.5))
    assert inspection.verdict.mask.sum() == 300
    assert frame.image_bgr.size == inspection.score.size == len(inspection.energies) == 0


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 3000), st.integers(1, 4), st.integers(0, 25))
def test_rotation_loses_nothing_below_the_bound(tmp_path_factory, max_bytes: int, files: int, count: int) -> None:
    folder = tmp_path_factory.mktemp("log")
    log = folder / "seen.jsonl"
    longest = 0
    for index in range(count):
        if index % 7 == 0:
            sink = JsonLines(log, max_bytes=max_bytes, files=files)  # as after a restart
        one = result(index)
        longest = max(longest, len(json_line(one[1].verdict)))
        sink.put(*one)
        sizes = [path.stat().st_size for path in folder.iterdir()]
        assert len(sizes) <= files
        assert sum(sizes) <= files * max(max_bytes, longest)
    kept = logged(log)
    assert kept == list(range(count - len(kept), count))
    if count * longest <= max_bytes:
        assert kept == frames_in(log) == list(range(count))


def test_a_rotation_that_was_killed_half_way_loses_nothing(tmp_path) -> None:
    """Killed between two renames: the name .1 is free, .2 is not."""
    log = tmp_path / "seen.jsonl"
    sink = JsonLines(log, max_bytes=1, files=4)
    for index in range(4):
        sink.put(*result(index))
    assert [frames_in(tmp_path / f"seen.jsonl.{n}") for n in (3, 2, 1)] == [[0], [1], [2]]
    (tmp_path / "seen.jsonl.3").unlink()
    (tmp_path / "seen.jsonl.2").rename(tmp_path / "seen.jsonl.3")
    (tmp_path / "seen.jsonl.1").rename(tmp_path / "seen.jsonl.2")
    JsonLines(log, max_bytes=1, files=4).put(*result(4))
    assert [frames_in(path) for path in (log, *(tmp_path / f"seen.jsonl.{n}" for n in (1, 2, 3)))] == [
        [4],
        [3],
        [2],
        [1],
    ]


def test_fewer_files_than_before_are_kept(tmp_path) -> None:
    log = tmp_path / "seen.jsonl"
    for files, first in ((5, 0), (2, 6)):
        sink = JsonLines(log, max_bytes=1, files=files)
        for index in range(first, first + 6):
            sink.put(*result(index))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["seen.jsonl", "seen.jsonl.1"]
    assert frames_in(log) == [11]


@pytest.mark.parametrize(
    ("tail", "kept"),
    [
        pytest.param(b'{"frame": 7, "sou', [0], id="torn"),
        pytest.param(b'{"frame": 7}', [0, 7], id="only the newline is missing"),
        pytest.param(b"\0" * 100, [0], id="zeros after a power cut"),
        pytest.param(b"", [0], id="whole"),
    ],
)
def test_a_half_line_is_mended_on_opening(tmp_path, tail: bytes, kept: list[int]) -> None:
    log = tmp_path / "seen.jsonl"
    log.write_bytes(b'{"frame": 0}\n' + tail)
    sink = JsonLines(log)
    assert frames_in(log) == kept
    sink.put(*result(9))
    assert frames_in(log) == [*kept, 9]


def test_a_file_that_is_no_log_stays_as_it_is(tmp_path) -> None:
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("Chapter 1\nIt was")
    with pytest.raises(BadInput, match="not a log of verdicts, for it ends in b'It was'"):
        JsonLines(thesis)
    assert thesis.read_text() == "Chapter 1\nIt was"


def test_what_a_log_cannot_be(tmp_path) -> None:
    with pytest.raises(BadInput, match="cannot be written"):
        JsonLines(tmp_path)
    for bounds in ({"max_bytes": 0}, {"files": 0}):
        with pytest.raises(UsageError, match="at least 1 byte and 1 file"):
            JsonLines(tmp_path / "seen.jsonl", **bounds)


def test_a_log_that_others_take_away_begins_anew(tmp_path) -> None:
    log = tmp_path / "logs" / "seen.jsonl"
    sink = JsonLines(log)
    sink.put(*result(0))
    log.unlink()
    sink.put(*result(1))
    assert frames_in(log) == [1]
    shutil.rmtree(log.parent)
    with pytest.raises(FileNotFoundError):  # an unplugged disk: do not fill the one below its mount point
        sink.put(*result(2))
    log.parent.mkdir()
    sink.put(*result(2))
    assert frames_in(log) == [2]


def test_standard_output(capfdbinary) -> None:
    sink = open_json_lines("-")
    sink.put(*result(3))
    assert json.loads(capfdbinary.readouterr().out)["frame"] == 3


def test_a_reader_that_leaves_is_no_error(tmp_path) -> None:
    process = in_subprocess(
        """
sink = open_json_lines("-")
try:
    for index in range(10**6):
        sink.put(*result(index % 3))
except ReaderLeft as error:
    assert error.exit_code == ExitCode.OK and isinstance(error, BrokenPipeError)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    print(error, file=sys.stderr)
"""
    )
    assert json.loads(process.stdout.readline())["frame"] == 0
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(DEADLINE) == 0
    assert errors == "nobody reads standard output any more\n"
    assert issubclass(ReaderLeft, BrokenPipeError)
    assert ReaderLeft.exit_code == ExitCode.OK


# Pictures -----------------------------------------------------------------------------------------------------------


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(("picture_format", "suffix"), [("png", ".png"), ("jpeg", ".jpg")])
def test_pictures_can_be_read_and_are_marked_as_ours(tmp_path, picture_format, suffix: str) -> None:
    sink = OverlayFolder(tmp_path / "seen", CHANNELS, picture_format=picture_format)
    sink.put(*result(0, 7.5, name="belt/part"))
    path = tmp_path / "seen" / "belt" / f"part{suffix}"
    assert names(tmp_path / "seen") == [f"belt/part{suffix}"]
    assert cv2.imread(str(path)).shape == (84, 400, 3)
    assert is_ours(path)
    plain = tmp_path / f"photo{suffix}"
    cv2.imwrite(str(plain), cv2.imread(str(path)))
    assert not is_ours(plain)


def test_png_is_exact(tmp_path) -> None:
    from uflow_edge.runtime.overlay import draw_overlay

    frame, inspection = result(5, 7.5)
    OverlayFolder(tmp_path, CHANNELS).put(frame, inspection)
    saved = cv2.imread(str(tmp_path / "frame-000005.png"))
    np.testing.assert_array_equal(saved, draw_overlay(frame.image_bgr, inspection, CHANNELS))


def test_only_anomalies(tmp_path) -> None:
    sink = OverlayFolder(tmp_path, CHANNELS, anomalies_only=True)
    for index in range(4):
        frame, inspection = result(index, 7.5 if index == 2 else -3.25)
        assert (sink.needed(frame, inspection) is not None) == (index == 2)
        sink.put(frame, inspection)
    assert names(tmp_path) == ["frame-000002.png"]


def test_never_two_frames_under_one_name(tmp_path) -> None:
    for index in range(3):  # three runs
        sink = OverlayFolder(tmp_path, CHANNELS)
        sink.put(*result(index, name="part"))
    sink.put(*result(3, name="part"))
    assert names(tmp_path) == ["part-2.png", "part-3.png", "part-4.png", "part.png"]


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 6), st.lists(st.booleans(), min_size=1, max_size=12))
def test_the_quota_holds_and_the_newest_stay(tmp_path_factory, pictures: int, restarts: list[bool]) -> None:
    folder = tmp_path_factory.mktemp("seen")
    (folder / "photo.png").write_bytes(b"somebody else's")
    trial = tmp_path_factory.mktemp("trial")
    OverlayFolder(trial, CHANNELS).put(*result(0))
    size = (trial / "frame-000000.png").stat().st_size
    quota = size * pictures + size // 2  # noise compresses alike: so many pictures fit
    sink = OverlayFolder(folder, CHANNELS, quota=quota)
    for index, restart in enumerate(restarts):
        if restart:
            sink = OverlayFolder(folder, CHANNELS, quota=quota)
        sink.put(*result(index))
        os.utime(folder / f"frame-{index:06d}.png", ns=(index, index))  # a clock without ties
        ours = [path for path in folder.iterdir() if path.name != "photo.png"]
        assert sum(path.stat().st_size for path in ours) <= quota
        newest = range(max(0, index + 1 - pictures), index + 1)
        assert sorted(path.name for path in ours) == [f"frame-{i:06d}.png" for i in newest]
    assert (folder / "photo.png").read_bytes() == b"somebody else's"


def test_pictures_that_others_delete_do_not_disturb_the_quota(tmp_path) -> None:
    sink = OverlayFolder(tmp_path, CHANNELS, quota=200_000)
    for index in range(2):
        sink.put(*result(index))
    (tmp_path / "frame-000000.png").unlink()
    for index in range(2, 12):
        sink.put(*result(index))
    assert "frame-000011.png" in names(tmp_path)


def test_a_quota_below_one_picture_is_a_mistake(tmp_path) -> None:
    with pytest.raises(BadInput, match="exceeds the quota of 100: raise it"):
        OverlayFolder(tmp_path, CHANNELS, quota=100).put(*result(0))
    assert names(tmp_path) == []


def test_what_an_overlay_folder_cannot_be(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        OverlayFolder(tmp_path / "file", CHANNELS)


# Bad days -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("attempt", range(3))
def test_a_killed_run_leaves_whole_lines_and_whole_pictures(tmp_path, attempt: int) -> None:
    log, seen = tmp_path / "seen.jsonl", tmp_path / "seen"
    process = in_subprocess(
        """
lines, pictures = JsonLines(Path(sys.argv[1]), max_bytes=5_000, files=20), OverlayFolder(Path(sys.argv[2]), CHANNELS)
for index in range(10**9):
    lines.put(*result(index, 7.5))
    pictures.put(*result(index))
""",
        log,
        seen,
    )
    wait_until(lambda: len(list(seen.glob("*.png"))) > 20 + attempt, process=process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    seen_frames = logged(log)
    assert seen_frames == list(range(len(seen_frames)))
    pictures = sorted(seen.glob("*.png"))
    assert len(seen_frames) - len(pictures) in (0, 1)
    for path in pictures:
        assert cv2.imread(str(path)) is not None
        assert path.read_bytes().endswith(b"IEND\xaeB`\x82")


def test_leftovers_of_a_killed_run_are_removed(tmp_path) -> None:
    (tmp_path / ".partial-12345").write_bytes(b"\x89PNG, half of one")
    (tmp_path / ".hidden").write_text("somebody else's")
    OverlayFolder(tmp_path, CHANNELS)
    assert names(tmp_path) == [".hidden"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits on the size of files are POSIX")
def test_a_line_that_does_not_fit_on_the_disk_leaves_no_trace(tmp_path) -> None:
    """A limit on the size of files stands in for the end of the disk: in both cases a write is cut short."""
    log = tmp_path / "seen.jsonl"
    process = in_subprocess(
        """
import resource
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, resource.RLIM_INFINITY))
sink = JsonLines(Path(sys.argv[1]))
count = 0
try:
    while True:
        sink.put(*result(count))
        count += 1
except OSError as error:
    print(count, Path(sys.argv[1]).read_bytes()[-1:] == b"\\n", type(error).__name__)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
sink.put(*result(count))
""",
        log,
    )
    output, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, errors
    count = int(output.split()[0])
    assert output.split()[1:] == ["True", "OSError"]
    assert frames_in(log) == list(range(count + 1))
    assert count > 0


def on_tiny_disk(tmp_path: Path, script: str) -> str:
    """Run a script with a disk of 128 KiB mounted at argv[1], in namespaces of its own; skip where Linux forbids it."""
    mount = f'mount -t tmpfs -o size=128k tiny "{tmp_path}" && '
    prefix = ("unshare", "-Urm", "sh", "-c", mount + 'exec "$@"', "sh")
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-Urm", "sh", "-c", mount + "true"]).returncode:
        pytest.skip("this machine lets nobody mount a disk of his own")
    process = in_subprocess(script, tmp_path, prefix=prefix)
    output, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, errors
    return output


def test_a_full_disk_without_a_quota_waits_for_room(tmp_path) -> None:
    output = on_tiny_disk(
        tmp_path,
        """
import errno
folder = Path(sys.argv[1])
(folder / "other").write_bytes(bytes(40_000))
sink = OverlayFolder(folder, CHANNELS)
count = 0
try:
    while True:
        sink.put(*result(count))
        count += 1
except OSError as error:
    assert error.errno == errno.ENOSPC
assert len(names(folder)) == 1 + count > 0, names(folder)   # no half picture, none deleted
(folder / "other").unlink()
sink.put(*result(count))
print(count, len(names(folder)))
""",
    )
    count, saved = map(int, output.split())
    assert saved == count + 1


def test_a_full_disk_with_a_quota_makes_room_for_the_next_attempt(tmp_path) -> None:
    output = on_tiny_disk(
        tmp_path,
        """
folder = Path(sys.argv[1])
sink = OverlayFolder(folder, CHANNELS, quota=10**6)   # more than the disk has
failures = 0
for index in range(12):
    while True:
        try:
            sink.put(*result(index))
            break
        except OSError:
            failures += 1
            assert failures < 100
print(failures, *names(folder))
""",
    )
    failures, *pictures = output.split()
    assert int(failures) > 0
    assert pictures == [f"frame-{i:06d}.png" for i in range(12 - len(pictures), 12)]


def test_a_full_disk_keeps_the_log_whole(tmp_path) -> None:
    output = on_tiny_disk(
        tmp_path,
        """
folder = Path(sys.argv[1])
sink = JsonLines(folder / "seen.jsonl")
(folder / "other").write_bytes(bytes(100_000))
count = 0
try:
    while True:
        sink.put(*result(count))
        count += 1
except OSError as error:
    print(error.strerror)
assert frames_in(folder / "seen.jsonl") == list(range(count))
(folder / "other").unlink()
sink.put(*result(count))
assert frames_in(folder / "seen.jsonl") == list(range(count + 1))
print(count)
""",
    )
    message, count = output.splitlines()
    assert message == "No space left on device"
    assert int(count) > 0
