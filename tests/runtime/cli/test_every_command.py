"""The boundary of every command: whatever happens inside, one line and an exit code say it."""

import importlib
import resource
import runpy
import sys
from collections.abc import Callable
from types import ModuleType

import pytest

from uflow_edge.__main__ import COMMANDS
from uflow_edge.__main__ import main as script
from uflow_edge.runtime.engines import EngineFailed
from uflow_edge.runtime.errors import BadInput, ExitCode, UsageError

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


def raising(error: BaseException) -> Callable[..., None]:
    def run(*_: object) -> None:
        raise error

    return run


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


def test_the_package_as_a_module_refuses_arguments(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["__main__.py", "infer", "--images", "parts"])
    with pytest.raises(SystemExit) as ended:
        script()
    assert ended.value.code == ExitCode.USAGE
    assert "takes no arguments" in capsys.readouterr().err


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


def test_too_little_address_space_is_said(main_of, monkeypatch, capsys) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (800_000 << 10, resource.RLIM_INFINITY))
    assert main_of(lambda: None) == 4
    assert "limited to 781 MiB (ulimit -v), but the libraries alone need 950" in capsys.readouterr().err
