"""The boundary of every command: whatever happens inside, one line and an exit code say it."""

import argparse
import importlib
import io
import json
import os
import resource
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from uflow_edge.__main__ import COMMANDS
from uflow_edge.__main__ import main as script
from uflow_edge.runtime.cli import command_line
from uflow_edge.runtime.cli.command_line import progress, run_command
from uflow_edge.runtime.cli.interrupts import deferred_interrupts
from uflow_edge.runtime.cli.logs import logging_to, print_beside_bar
from uflow_edge.runtime.cli.parser import command_parser
from uflow_edge.runtime.engines import EngineFailed
from uflow_edge.runtime.errors import BadInput, ExitCode, MissingDependency, UsageError, require
from uflow_edge.runtime.infer import command as infer_command
from uflow_edge.runtime.text import printable

NEEDED = {  # the function that does the work, and the arguments that must be there
    "uflow-train": ("run", ["--data", "a", "--out", "b"]),
    "uflow-export": ("run", ["--ckpt", "a"]),
    "uflow-calibrate": ("run", ["--bundle", "a", "--good", "b"]),
    "uflow-infer": ("infer", ["a.png"]),
    "uflow-evaluate": ("_run_in_one_cluster", ["--data", "a"]),
    "uflow-bench": ("bench", ["--bundle", "a"]),
    "uflow-train-unet": ("run", ["--data", "a", "--out", "b"]),
    "uflow-purify": ("purify", ["--images", "a", "--out", "b"]),
}


@pytest.fixture(params=NEEDED)
def command(request) -> str:
    return request.param


@pytest.fixture
def module(command: str) -> ModuleType:
    return importlib.import_module(f"uflow_edge.{COMMANDS[command][0]}")


def main_of(run: Callable[[], object], *options: str) -> int:
    """The exit code of a command that does this."""

    def work(arguments: argparse.Namespace) -> ExitCode:
        run()
        return ExitCode.OK

    with pytest.raises(SystemExit) as ended:
        run_command(lambda: command_parser("uflow-x", "", []).parse_args(options), work)
    return int(ended.value.code or 0)


def raising(error: BaseException) -> Callable[..., None]:
    def run(*_: object) -> None:
        raise error

    return run


# All commands


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ZeroDivisionError("a\nb"), 70, "internal error: ZeroDivisionError: a\\nb; please report it"),
        (RecursionError(), 70, "internal error: RecursionError: "),
        (UnicodeEncodeError("ascii", "ü", 0, 1, "no"), 70, "internal error: UnicodeEncodeError: "),
        (EngineFailed("the GPU is gone"), 4, "error: the GPU is gone"),
        (BadInput("caf\udce9\x1b[2J.png: broken"), 3, "error: caf\\udce9\\x1b[2J.png: broken"),
        (UsageError("no"), 2, "error: no"),
        (OSError(28, "No space left on device", "out"), 3, "error: [Errno 28] No space left on device: 'out'"),
        (MemoryError(), 4, "error: out of memory"),
        (ImportError("libx.so: cannot open"), 4, "error: a package is missing or damaged: libx.so: cannot open"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_whatever_is_raised_is_one_line_and_a_code(
    command: str, module: ModuleType, exit_code, monkeypatch, capsys, error: BaseException, code: int, line: str
) -> None:
    work, needed = NEEDED[command]
    monkeypatch.setattr(module, work, raising(error))
    assert exit_code(module.main, *needed) == code
    told = capsys.readouterr().err
    assert told.startswith(line)
    assert told.count("\n") == 1
    assert exit_code(module.main, *needed, "--verbose") == code
    told = capsys.readouterr().err
    assert "Traceback (most recent call last)" in told
    assert "in raising" not in told


def test_a_bad_option_is_one_line(command: str, module: ModuleType, exit_code, capsys) -> None:
    assert exit_code(module.main, *NEEDED[command][1], "--no-such-option") == 2
    told = capsys.readouterr().err
    assert told == f"{command}: error: unrecognized arguments: --no-such-option (--help lists all options)\n"


def test_an_empty_path_is_not_this_folder(command: str, module: ModuleType, exit_code, capsys) -> None:
    *_, needed = NEEDED[command]
    assert exit_code(module.main, *needed[:-1], "") == 2
    assert "expected a value, got an empty text" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_every_command_is_a_module_too(command: str, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", [command, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"uflow_edge.{COMMANDS[command][0]}", run_name="__main__")
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert told.startswith(f"usage: {command} ")
    assert "70 internal error" in told


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_the_package_lists_its_commands(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["__main__.py"])
    runpy.run_module("uflow_edge", run_name="__main__")
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[:8]] == list(NEEDED)


# Text


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


NAMES = [
    "plain.png",
    "部品.png",
    "Prüfling.png",
    "line\ngood       -0.50  forged.png",
    "\x1b[2Jred.png",
    "caf\udce9.png",
]


@pytest.fixture
def parts(texture_folder: Path, tmp_path: Path) -> Path:
    """One good part under many names."""
    folder = tmp_path / "parts"
    folder.mkdir()
    for name in NAMES:
        shutil.copy(texture_folder / "test" / "good" / "00.png", folder / name)
    return folder


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
    assert verdicts(log) == sorted(NAMES)
    lines = shown.getvalue().decode(encoding).splitlines()
    assert sum(line.startswith("good ") for line in lines) == len(NAMES)
    assert not [line for line in lines if line.startswith("good       -0.50  forged")]
    assert not [line for line in lines if "\x1b" in line]


def test_a_closed_output_ends_no_run(exported: Path, parts: Path, tmp_path: Path, exit_code, monkeypatch) -> None:
    log = tmp_path / "seen.jsonl"
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    arguments = (parts, "--bundle", exported, "--jsonl", log, "--threshold=-1e9", "--fail-on-anomaly")
    assert exit_code(infer_command.main, *arguments) == 1
    assert verdicts(log) == sorted(NAMES)
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
    assert verdicts(log) == sorted(NAMES)


def test_a_reader_that_leaves_before_the_work_is_done_is_not_success(monkeypatch) -> None:
    with unread_output(monkeypatch):
        assert main_of(lambda: print("x", flush=True)) == 130
    with unread_output(monkeypatch):
        assert main_of(lambda: print("x")) == 0  # all was done; only the last lines are lost


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_signal_to_end_interrupts(number: signal.Signals, capsys) -> None:
    before = signal.getsignal(number)
    assert main_of(lambda: os.kill(os.getpid(), number)) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_stays_ignored(monkeypatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        assert main_of(lambda: os.kill(os.getpid(), signal.SIGHUP)) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_error_that_an_interrupt_causes_is_an_interrupt(capsys) -> None:
    def importing() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:  # as native modules do
            raise MissingDependency("onnxruntime is not installed") from None

    assert main_of(importing) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_the_first_signal_may_be_deferred_and_the_second_may_not() -> None:
    asked: list[str] = []

    def work() -> None:
        with deferred_interrupts(lambda: asked.append("stop")) as interrupted:
            assert not interrupted()
            os.kill(os.getpid(), signal.SIGTERM)
            assert interrupted()
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("not reached")

    assert main_of(work) == 130
    assert asked == ["stop"]


def test_a_run_whose_engine_hangs_ends_by_a_signal(exported: Path, parts: Path) -> None:
    code = """
import os, signal, threading
from uflow_edge.runtime.line import stage
from uflow_edge.runtime.infer.command import main
from uflow_edge.runtime.inspector import Inspector

def hanging(self, prepared):
    if prepared.size == (96, 96):  # not that of the warm-up
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait()
    return infer(self, prepared)

infer, Inspector.infer, stage.HUNG_AT_THE_END = Inspector.infer, hanging, 0.1
main()
"""
    command = [sys.executable, "-c", code, str(parts / "plain.png"), "--bundle", str(exported)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 4
    assert f"error: engine has not returned; the run ends without a result for {parts / 'plain.png'} #0" in done.stderr
    assert "0 inspected" in done.stdout


# Packages


@pytest.mark.parametrize(
    ("source", "expected", "told"),
    [
        ("import uflow_absent", MissingDependency, r"uflow_absent is not installed.*pip install '\.\[x\]'"),
        ("raise ImportError('libx.so: not found')", MissingDependency, "is installed, but cannot be loaded: libx.so"),
        ("raise KeyboardInterrupt", KeyboardInterrupt, None),
        ("try:\n    raise KeyboardInterrupt\nexcept KeyboardInterrupt:\n    raise ImportError('initialization failed')",
         KeyboardInterrupt, None),
    ],
)  # fmt: skip
def test_what_keeps_a_package_from_being_loaded(
    tmp_path: Path, monkeypatch, source: str, expected: type[BaseException], told: str | None
) -> None:
    (tmp_path / "uflow_needed_module.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(expected, match=told):
        require("uflow_needed_module", "x")


# Progress


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


# Help


def test_help_wraps_descriptions_and_keeps_examples(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    example = "command " + "--option " * 10
    parser = command_parser("command", "One sentence after the other. " * 10, [example])
    lines = parser.format_help().splitlines()
    assert [line for line in lines if len(line) > 60] == [f"  {example}"]


def test_the_package_as_a_module_refuses_arguments(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["__main__.py", "infer", "--images", "parts"])
    with pytest.raises(SystemExit) as ended:
        script()
    assert ended.value.code == ExitCode.USAGE
    assert "takes no arguments" in capsys.readouterr().err


# uflow-infer's own


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--camera", "0", "--trigger", "software"], "--trigger software needs --serve"),
        (["a.png", "--camera-fps", "5"], "--camera-fps needs --camera"),
        (["a.png", "--gain", "0"], "--gain needs --camera"),
        (["a.png", "--camera", "0"], "not allowed with"),
        (["a.png", "--threads", "100000"], "threads on this machine"),
        (["a.png", "--jsonl", ""], "expected a value"),
        (["a.png", "--mqtt", ""], "argument --mqtt: expected a value"),
        (
            ["--camera", "rtspx://me:secret@host/"],
            "rtspx://me:***@host/ is unknown: expected 0, /dev/video0, csi://0, rtsp://…, http://…",
        ),
        (["a.png", "--token", "a token without a page"], "--token needs --serve"),
        (["--camera", "synthetic:16384x16384"], "at most 32 megapixels"),
        ([], "one of the arguments --camera PATH --images --watch --video is required"),
    ],
)
def test_bad_requests_are_usage(arguments: list[str], told: str, exit_code, capsys) -> None:
    assert exit_code(infer_command.main, *arguments) == 2
    assert told in capsys.readouterr().err


def test_a_token_in_the_environment_is_for_runs_that_serve(exported: Path, parts: Path, exit_code, monkeypatch) -> None:
    monkeypatch.setenv("UFLOW_EDGE_TOKEN", "a token of many characters")
    assert exit_code(infer_command.main, parts / "plain.png", "--bundle", exported) == 0


def test_a_frame_that_is_not_judged_is_not_good(
    exported: Path, texture_folder: Path, tmp_path: Path, exit_code, monkeypatch, capsys
) -> None:
    from uflow_edge.runtime.inspector import Inspector

    Image.new("RGB", (50, 40)).save(tmp_path / "small.png")
    real = Inspector.infer

    def sometimes(self: Inspector, prepared):
        if prepared.size == (40, 50):
            raise EngineFailed("energies are not finite")
        return real(self, prepared)

    monkeypatch.setattr(Inspector, "infer", sometimes)
    pictures = (tmp_path / "small.png", texture_folder / "test" / "good" / "00.png")
    assert exit_code(infer_command.main, *pictures, "--bundle", exported, "--threshold=1e9") == 3
    told = capsys.readouterr()
    assert f"not judged: {pictures[0]} #0: energies are not finite" in told.err
    assert "1 inspected, 0 anomalous, 0 unreadable, 1 not judged" in told.out


# Before a command begins


def test_a_package_that_fails_while_a_command_is_imported_is_one_line(command: str, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", [f"/usr/bin/{command}"])
    monkeypatch.setitem(sys.modules, f"uflow_edge.{COMMANDS[command][0]}", None)
    with pytest.raises(SystemExit) as ended:
        script()
    assert ended.value.code == 4
    told = capsys.readouterr().err
    assert told.startswith("error: a package is missing or damaged: ")
    assert told.count("\n") == 1


def test_a_script_runs_its_command(command: str, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", [f"/usr/bin/{command}", "--help"])
    with pytest.raises(SystemExit) as ended:
        script()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: {command} ")


def test_too_little_address_space_is_said(monkeypatch, capsys) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (800_000 << 10, resource.RLIM_INFINITY))
    assert main_of(lambda: None) == 4
    assert "limited to 781 MiB (ulimit -v), but the libraries alone need 950" in capsys.readouterr().err
