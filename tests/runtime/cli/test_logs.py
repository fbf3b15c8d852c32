"""The log of a command, as people and as programs read it."""

import argparse
import json
import logging
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest

from uflow_edge.runtime.cli.command_line import run_command
from uflow_edge.runtime.cli.logs import logging_to
from uflow_edge.runtime.cli.parser import command_parser
from uflow_edge.runtime.errors import BadInput, ExitCode

logger = logging.getLogger("uflow_edge.test")


def log(capsys, *options: str, fail: bool = False) -> tuple[str, str]:
    """What a command prints that logs at every level."""

    def run(_: argparse.Namespace) -> ExitCode:
        logger.debug("a detail")
        logger.info("engine: %(engine)s", {"engine": "onnxruntime"})
        logger.warning("warning: %(camera)s\x1b[2J has no light", {"camera": "a\udce9b"})
        if fail:
            raise BadInput("x.png: rtsp://me:secret@host is not there")
        return ExitCode.OK

    parser = command_parser("test", "", [])
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: parser.parse_args(options), run)
    assert ended.value.code == (ExitCode.BAD_INPUT if fail else ExitCode.OK)
    return capsys.readouterr()


def test_people_read_plain_lines_and_errors_on_stderr(capsys) -> None:
    out, err = log(capsys, fail=True)
    assert out.splitlines() == ["engine: onnxruntime", "warning: a\\udce9b\\x1b[2J has no light"]
    assert err.splitlines() == ["error: x.png: rtsp://me:***@host is not there"]


def test_verbose_adds_debug_lines_and_the_traceback(capsys) -> None:
    out, err = log(capsys, "--verbose", fail=True)
    assert out.splitlines()[0] == "a detail"
    assert "Traceback" in err and "secret" not in err


def test_programs_read_one_object_per_line(capsys) -> None:
    out, err = log(capsys, "--log-format", "json", fail=True)
    assert out == ""
    engine, warning, error = (json.loads(line) for line in err.splitlines())
    assert abs(datetime.fromisoformat(engine.pop("time")) - datetime.now(timezone.utc)) < timedelta(minutes=5)
    expected = {"level": "info", "logger": "uflow_edge.test", "message": "engine: onnxruntime", "engine": "onnxruntime"}
    assert engine == expected
    assert (warning["level"], warning["message"]) == ("warning", "a\\udce9b\\x1b[2J has no light")
    assert warning["camera"] == "a\\udce9b"
    assert (error["level"], error["message"]) == ("error", "x.png: rtsp://me:***@host is not there")


def test_programs_read_a_traceback_in_the_same_object(capsys) -> None:
    _, err = log(capsys, "--log-format", "json", "--verbose", fail=True)
    *_, last = (json.loads(line) for line in err.splitlines())
    assert last["traceback"].startswith("Traceback") and "secret" not in last["traceback"]


def test_other_programs_keep_their_logging(capsys) -> None:
    before = logging.getLogger("uflow_edge")
    handlers = list(before.handlers)
    with logging_to("stderr"):
        logger.info("inside")
    logger.info("outside")
    assert before.handlers == handlers and before.propagate
    assert capsys.readouterr().err == "inside\n"


def test_a_library_prints_nothing() -> None:
    code = "import uflow_edge, logging; logging.getLogger('uflow_edge.runtime').error('nobody asked')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_a_reader_that_has_left_ends_nothing() -> None:
    code = (
        "import logging, os, sys\n"
        "from uflow_edge.runtime.cli.logs import logging_to\n"
        "read, write = os.pipe(); os.close(read); os.dup2(write, 1)\n"
        "with logging_to('stdout'):\n"
        "    for _ in range(3): logging.getLogger('uflow_edge').info('a line')\n"
        "print('done', file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "done\n"
