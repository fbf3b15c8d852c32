"""The log of verdicts: rotated within its bound, mended, and begun anew when others take it away."""

import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factories import result
from sink_processes import frames_in, in_subprocess, logged
from uflow_edge.runtime.errors import BadInput, ExitCode, UsageError
from uflow_edge.runtime.sinks.json_lines import JsonLines, ReaderLeft, json_line, open_json_lines
from waiting import DEADLINE


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
    with pytest.raises(BadInput, match="not a log of verdicts, because it ends with b'It was'"):
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
    assert errors == "the reader of standard output has closed it\n"
    assert issubclass(ReaderLeft, BrokenPipeError)
    assert ReaderLeft.exit_code == ExitCode.OK
