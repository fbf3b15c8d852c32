"""What a command writes: names of any kind, in any encoding, to readers that leave; progress; help."""

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uflow_edge.runtime.cli import command_line
from uflow_edge.runtime.cli.command_line import progress
from uflow_edge.runtime.cli.logs import logging_to, print_beside_bar
from uflow_edge.runtime.cli.parser import command_parser
from uflow_edge.runtime.infer import command as infer_command
from uflow_edge.runtime.text import printable


@given(st.text(st.characters()))  # surrogates too
def test_printable_text_is_one_line_in_every_encoding(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    assert shown == text or not text.isprintable()
    shown.encode("utf-8")


def test_what_is_escaped_can_be_told_apart() -> None:
    assert printable("a\nb\x1b[1m\udce9\u202e\t") == "a\\nb\\x1b[1m\\udce9\\u202e\\t"
    assert printable("Prüfling 部品 高.png") == "Prüfling 部品 高.png"


def verdicts(log: Path) -> list[str]:
    return sorted(Path(json.loads(line)["source"]).name for line in log.read_text().splitlines())


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252", "cp932"])
def test_no_name_ends_a_run_or_forges_a_line(
    exported: Path, parts: Path, tmp_path: Path, exit_code, monkeypatch, encoding: str
) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding, errors="strict"))
    log = tmp_path / "seen.jsonl"
    assert exit_code(infer_command.main, parts, "--bundle", exported, "--threshold=1e9", "--jsonl", log) == 0
    assert verdicts(log) == sorted(path.name for path in parts.iterdir())
    lines = shown.getvalue().decode(encoding).splitlines()
    assert sum(line.startswith("good ") for line in lines) == len(list(parts.iterdir()))
    assert not [line for line in lines if line.startswith("good       -0.50  forged")]
    assert not [line for line in lines if "\x1b" in line]


def test_a_closed_output_ends_no_run(exported: Path, parts: Path, tmp_path: Path, exit_code, monkeypatch) -> None:
    log = tmp_path / "seen.jsonl"
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    arguments = (parts, "--bundle", exported, "--jsonl", log, "--threshold=-1e9", "--fail-on-anomaly")
    assert exit_code(infer_command.main, *arguments) == 1
    assert verdicts(log) == sorted(path.name for path in parts.iterdir())
    sys.stdout.close()
    sys.stderr.close()


@contextmanager
def unread_output(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Standard output is a pipe whose reader has left."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        yield


def test_a_reader_that_leaves_ends_no_inspection(
    exported: Path, parts: Path, tmp_path: Path, exit_code, monkeypatch
) -> None:
    log = tmp_path / "seen.jsonl"
    arguments = (parts, "--bundle", exported, "--jsonl", log, "--threshold=-1e9", "--fail-on-anomaly")
    with unread_output(monkeypatch):
        assert exit_code(infer_command.main, *arguments) == 1
    assert verdicts(log) == sorted(path.name for path in parts.iterdir())


def test_a_reader_that_leaves_before_the_work_is_done_is_not_success(main_of, monkeypatch) -> None:
    with unread_output(monkeypatch):
        assert main_of(lambda: print("x", flush=True)) == 130
    with unread_output(monkeypatch):
        assert main_of(lambda: print("x")) == 0  # all was done; only the last lines are lost


def test_progress_without_a_terminal_is_whole_lines_with_the_time_left(monkeypatch, capsys) -> None:
    monkeypatch.setattr(command_line, "_SECONDS_BETWEEN_LINES", 0.0)
    with logging_to("stdout"):
        for number in progress(range(3), "reading"):
            print_beside_bar(f"line\n{number}", sys.stderr)
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("line")] == ["line\\n0", "line\\n1", "line\\n2"]
    told = [line for line in lines if line.startswith("reading: image ")]
    assert len(told) + 3 == len(lines)
    assert told[-1].startswith("reading: image 3 of 3, ")
    assert all("so far" in line and "left" in line for line in told)


def test_progress_without_a_terminal_or_an_end_says_nothing(monkeypatch, capsys) -> None:
    monkeypatch.setattr(command_line, "_SECONDS_BETWEEN_LINES", 0.0)
    with logging_to("stderr"):
        assert list(progress((i for i in range(3)), "reading")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_progress_without_a_terminal_says_nothing_twice(monkeypatch, capsys) -> None:
    monkeypatch.setattr(command_line, "_SECONDS_BETWEEN_LINES", 0.0)
    with logging_to("stdout"):
        bar = progress((), "reading", 2)
        bar.update(0)
        bar.update()
        bar.refresh()
    lines = capsys.readouterr().err.splitlines()
    assert lines and len(lines) == len(set(lines))


def test_help_wraps_descriptions_and_keeps_examples(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    example = "command " + "--option " * 10
    parser = command_parser("command", "One sentence after the other. " * 10, [example])
    lines = parser.format_help().splitlines()
    assert [line for line in lines if len(line) > 60] == [f"  {example}"]
