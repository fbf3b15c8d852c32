"""What several tests of the command line share: a command made for the test, and good parts under awkward names."""

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from uflow_edge.runtime.cli.command_line import run_command
from uflow_edge.runtime.cli.parser import command_parser
from uflow_edge.runtime.errors import ExitCode


@pytest.fixture
def main_of() -> Callable[..., int]:
    """Run a command that does this, and give its exit code."""

    def main(run: Callable[[], object], *options: str) -> int:
        def work(arguments: argparse.Namespace) -> ExitCode:
            run()
            return ExitCode.OK

        with pytest.raises(SystemExit) as ended:
            run_command(lambda: command_parser("uflow-x", "", []).parse_args(options), work)
        return int(ended.value.code or 0)

    return main


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
