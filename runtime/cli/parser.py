"""The parser of every ``uflow-…`` command: one style of help, configuration files, completion, errors in one line."""

import argparse
import sys
import textwrap
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from uflow_edge.runtime.cli.aliases import with_current_names
from uflow_edge.runtime.cli.values import nonempty
from uflow_edge.runtime.errors import DISTRIBUTION, ExitCode, require
from uflow_edge.runtime.text import printable, redacted

_EXIT_CODES = (
    "exit codes: 0 success, 1 anomaly found (with --fail-on-anomaly), 2 usage, 3 bad input, "
    "4 missing package or device, 70 internal error, 130 interrupted"
)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Wraps descriptions, keeps the lines of examples, and adds the default to the help of each option."""

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
    """Accepts configuration files and earlier names of options, refuses empty values, reports errors in one line."""

    shipped: Mapping[str, Mapping[str, object]] = {}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.register("type", None, nonempty)
        self.register("type", Path, lambda text: Path(nonempty(text)))

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        typed = with_current_names(self.prog, sys.argv[1:] if args is None else args, self._option_string_actions)
        if any(text.startswith("--c") for text in typed):  # --config, perhaps abbreviated
            self._configure(typed)
        if any(text.startswith("--print-con") for text in typed):
            self._print_config(typed)
        return super().parse_known_args(typed, namespace)

    def _configure(self, typed: Sequence[str]) -> None:
        from uflow_edge.runtime.cli.config import apply_config, nothing_required

        with nothing_required(self):
            unset = argparse.Namespace(**{action.dest: None for action in self._actions})
            given, _ = super().parse_known_args(typed, unset)
        if given.config is not None:
            apply_config(self, given.config, given, self.shipped)

    def _print_config(self, typed: Sequence[str]) -> None:
        from uflow_edge.runtime.cli.config import config_text, nothing_required

        with nothing_required(self):
            arguments, unknown = super().parse_known_args(typed)
        if not unknown:
            print(config_text(self, arguments), end="")
            self.exit()

    def error(self, message: str) -> NoReturn:
        self.exit(ExitCode.USAGE, f"{self.prog}: error: {redacted(printable(message))} (--help lists all options)\n")


class _PrintCompletion(argparse.Action):
    """Prints a completion script and exits."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: object, values: Any, *_: object) -> None:
        shtab = require("shtab", "completion")
        for action in parser._actions:
            if action.type is Path:
                vars(action)["complete"] = shtab.DIRECTORY if action.metavar == "FOLDER" else shtab.FILE
        print(shtab.complete(parser, values))
        parser.exit()


def command_parser(
    command: str, description: str, examples: Sequence[str], shipped: Mapping[str, Mapping[str, object]] | None = None
) -> argparse.ArgumentParser:
    """A parser with the options of every command.

    Args:
        description: purpose of the command, at the beginning of ``--help``.
        shipped: configurations that ``--config`` accepts by name: values by option.
    """
    listed = "\n".join(f"  {example}" for example in examples)
    parser = _Parser(
        prog=command,
        description=description,
        epilog=f"examples:\n{listed}\n\n{_EXIT_CODES}",
        formatter_class=_Formatter,
    )
    parser.shipped = shipped or {}
    add = parser.add_argument
    add("--version", action="version", version=f"{DISTRIBUTION} {version(DISTRIBUTION)}", help="show the version")
    add("--verbose", action="store_true", help="show debug messages, and the traceback of an error")
    add(
        "--log-format",
        choices=["text", "json"],
        default="text",
        help="format of the log; json writes one object per line to stderr",
    )
    names = f"; or one of {', '.join(shipped)}" if shipped else ""
    add("--config", metavar="FILE.toml", help=f"read options from a file; the command line overrides it{names}")
    add("--print-config", action="store_true", help="print the options as such a file, without secrets, and exit")
    add(
        "--print-completion",
        action=_PrintCompletion,
        choices=["bash", "zsh"],
        help="print a completion script for this shell, and exit",
    )
    return parser
