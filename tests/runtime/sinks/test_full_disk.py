"""Logs and pictures after a SIGKILL, and on a disk that is full."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import cv2
import pytest

from sink_processes import CHANNELS, frames_in, in_subprocess, logged, names
from uflow_edge.runtime.sinks.overlays import OverlayFolder
from waiting import DEADLINE, wait_until


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
