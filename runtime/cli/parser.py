"""The parser of every ``uflow-…`` command: one style of help, and errors in one line."""

import argparse
import sys
import textwrap
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from uflow_edge.runtime.cli.aliases import with_current_names
from uflow_edge.runtime.cli.values import nonempty
from uflow_edge.runtime.errors import DISTRIBUTION, ExitCode
from uflow_edge.runtime.text import printable, redacted

_EXIT_CODES = (
    "exit codes: 0 success, 1 anomaly found (with --fail-on-anomaly), 2 usage, 3 bad input, "
    "4 missing package or device, 70 internal error, 130 interrupted"
)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Wraps descriptions, keeps the lines of examples, and ends the help of an option with its default."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(
            line
            if line.startswith(" ")
            else textwrap.fill(line, width, initial_indent=indent, subsequent_indent=indent)
            for line in text.splitlines()
        )

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        if "(default:" in text or default is None or isinstance(default, bool) or default in (argparse.SUPPRESS, []):
            return text
        shown = " ".join(map(str, default)) if isinstance(default, list) else str(default)
        return f"{text} (default: {shown.replace('%', '%%')})"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, where argparse prints the whole usage before it; refuses empty values."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.register("type", None, nonempty)
        self.register("type", Path, lambda text: Path(nonempty(text)))

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        argv = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(with_current_names(self.prog, argv, self._option_string_actions), namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(ExitCode.USAGE, f"{self.prog}: error: {redacted(printable(message))} (--help lists all options)\n")


def command_parser(command: str, description: str, examples: Sequence[str]) -> argparse.ArgumentParser:
    """A parser whose ``--help`` starts with what the command is for and ends with lines to copy."""
    listed = "\n".join(f"  {example}" for example in examples)
    parser = _Parser(
        prog=command,
        description=description,
        epilog=f"examples:\n{listed}\n\n{_EXIT_CODES}",
        formatter_class=_Formatter,
    )
    parser.add_argument("--version", action="version", version=f"{DISTRIBUTION} {version(DISTRIBUTION)}")
    parser.add_argument("--verbose", action="store_true", help="show debug lines, and the traceback of an error")
    parser.add_argument(
        "--log-format",
        choices=["text", "json"],
        default="text",
        help="how log lines look; json writes one object per line to stderr",
    )
    return parser
