"""Configuration files: the options of a command by their long names, in TOML.

A value is checked as on the command line and replaces the option's default; typed options override it. Relative paths
are relative to the working directory, as on the command line.
"""

import argparse
import difflib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from uflow_edge.runtime.cli.aliases import ALIASES
from uflow_edge.runtime.errors import BadInput, UsageError
from uflow_edge.runtime.text import redacted

_NOT_IN_FILES = frozenset({"help", "version", "config", "print-config", "print-completion"})
_SECRETS = frozenset({"token"})


def options_of(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """The options that a file may contain, by their long names without the dashes."""
    named = {
        string[2:]: action
        for action in parser._actions
        for string in action.option_strings
        if string.startswith("--") and action.help != argparse.SUPPRESS
    }
    return {name: action for name, action in named.items() if name not in _NOT_IN_FILES}


@contextmanager
def nothing_required(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Accept an incomplete command line."""
    needed: list[Any] = [one for one in parser._actions if one.required]
    needed += [group for group in parser._mutually_exclusive_groups if group.required]
    for one in needed:
        one.required = False
    try:
        yield
    finally:
        for one in needed:
            one.required = True


def apply_config(
    parser: argparse.ArgumentParser, source: str, given: argparse.Namespace, shipped: Mapping[str, Mapping[str, object]]
) -> None:
    """Make the values of a configuration the defaults of a parser.

    Args:
        source: a ``.toml`` file, or the name of a configuration that is shipped with the command.
        given: values of the typed options; None for every other option. Values of the configuration that exclude a
            typed option are dropped.
        shipped: values by option, by name of the configuration.

    Raises:
        UsageError: ``source`` is neither.
        BadInput: the file cannot be read, or contains an unknown option or a wrong value.
    """
    values = shipped[source] if source in shipped else _read(source, shipped)
    options = options_of(parser)
    actions: dict[argparse.Action, object] = {}
    for name, value in values.items():
        if name not in options:
            raise BadInput(f"{source}: {name}: unknown option; {_remedy(parser.prog, name, list(options))}")
        actions[options[name]] = _checked(parser, options[name], value, f"{source}: {name}")
    for group in parser._mutually_exclusive_groups:
        members = [action for action in group._group_actions if action in actions]
        if len(members) > 1:
            names = " and ".join(action.option_strings[0][2:] for action in members)
            raise BadInput(f"{source}: {names}: only one of them can be given")
        if any(getattr(given, action.dest) is not None for action in group._group_actions):
            actions = {action: value for action, value in actions.items() if action not in members}
        elif members:
            group.required = False
    for action, value in actions.items():
        action.required = False
        if getattr(given, action.dest) is None:  # else argparse would append typed values to those of the file
            action.default = value


def _read(source: str, shipped: Mapping[str, object]) -> Mapping[str, object]:
    if not source.endswith(".toml"):
        names = f", or one of {', '.join(shipped)}" if shipped else ""
        raise UsageError(f"--config {source}: expected a file that ends in .toml{names}")
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(Path(source).read_text(encoding="utf-8-sig"))  # Windows editors add a mark
    except OSError as error:
        raise BadInput(f"{source}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{source}: is not a TOML file: {error}") from error


def _remedy(command: str, name: str, options: Sequence[str]) -> str:
    renamed = ALIASES.get(command, {}).get(f"--{name}")
    if renamed == "":
        return "it is the default now and can be left out"
    near = [renamed.removeprefix("--")] if renamed else difflib.get_close_matches(name, options, 1)
    return f"did you mean {near[0]}?" if near else f"{command} --help lists all options"


def _checked(parser: argparse.ArgumentParser, action: argparse.Action, value: object, where: str) -> object:
    if action.nargs == 0 or (action.nargs == "?" and isinstance(value, bool)):
        if not isinstance(value, bool):
            raise BadInput(f"{where}: expected true or false, found {_shown(value)}")
        return value if action.nargs == 0 else action.const if value else None
    many = action.nargs in ("+", "*") or isinstance(action, argparse._AppendAction)
    if isinstance(value, list) and not (many and value):
        raise BadInput(f"{where}: expected {'one value or more' if many else 'one value'}, found {_shown(value)}")
    found = [_one(parser, action, one, where) for one in (value if isinstance(value, list) else [value])]
    return found if many else found[0]


def _one(parser: argparse.ArgumentParser, action: argparse.Action, value: object, where: str) -> object:
    """Convert one value as if it were typed. Numbers need no quotes; only whole ones are accepted as text."""
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise BadInput(f"{where}: expected a number or a text, found {_shown(value)}")
        converted = parser._get_value(action, str(value))
        parser._check_value(action, converted)
    except argparse.ArgumentError as error:
        raise BadInput(f"{where}: {error.message}") from error
    number = isinstance(converted, int | float)
    if number and isinstance(value, str):
        raise BadInput(f"{where}: expected a number without quotes, found {_shown(value)}")
    if not number and isinstance(value, float):
        raise BadInput(f"{where}: expected a text in quotes, found {_shown(value)}")
    return converted


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a table"
    return _toml(value) if isinstance(value, str | bool) else str(value)


def _toml(value: object) -> str:
    """Strings, numbers, booleans and arrays look the same in TOML and JSON, except for the character DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def config_text(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> str:
    """The options of a command line in TOML; a secret becomes a comment with ``***``.

    Raises:
        UsageError: a value, such as the name of a file, is not valid Unicode.
    """
    lines = []
    for name, action in options_of(parser).items():
        value = getattr(arguments, action.dest)
        if value is None or value == []:
            continue
        values = [_plain(one) for one in (value if isinstance(value, list) else [value])]
        if name in _SECRETS or any(redacted(one) != str(one) for one in values):
            lines.append(f"# {name} = ***  # a secret, which is not printed\n")
        else:
            lines.append(f"{name} = {_toml(values if isinstance(value, list) else values[0])}\n")
    text = "".join(lines)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"--print-config: TOML needs valid Unicode, and a value is not: {error}") from error
    return text


def _plain(value: object) -> object:
    return value if isinstance(value, bool | int | float | str) else str(value)
