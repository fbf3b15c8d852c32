"""One vocabulary: an option means, takes and is called the same in every command that has it."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from parsers import NEEDED, parser_of
from uflow_edge.__main__ import COMMANDS
from uflow_edge.runtime.cli.aliases import ALIASES

OWN = {  # options whose value is not the same thing in every command
    "--data": "each command expects other folders in it",
    "--out": "a checkpoint, a bundle, or a folder of results",
}
OTHER_VALUES = {("uflow-export", "--batch"), ("uflow-export", "--precision")}
"""These take other values: a range, several precisions."""
VALUES = {"--steps": "30", "--json": "a.json", "--plan": None, "--report": None, "--triton-plan": "a.plan"}
VALUES |= {"--backends": "onnxruntime", "--precisions": "fp32"}


def options(command: str) -> Iterator[tuple[str, argparse.Action]]:
    for action in parser_of(command)._actions:
        for name in action.option_strings:
            if name.startswith("--") and action.help != argparse.SUPPRESS:
                yield name, action


def concept(text: str) -> str:
    """What a help text says first: details follow a semicolon, the default follows in brackets."""
    return re.split(r";| \((?:default|without)", text)[0]


EVERY = [(command, name, action) for command in COMMANDS for name, action in options(command)]
SHARED = sorted({name for _, name, _ in EVERY if sum(other == name for _, other, _ in EVERY) > 1} - OWN.keys())


@pytest.mark.parametrize("name", SHARED)
def test_an_option_is_the_same_in_every_command(name: str) -> None:
    found = [(command, action) for command, other, action in EVERY if other == name]
    assert len({concept(action.help or "") for _, action in found}) == 1
    usual = [action for command, action in found if (command, name) not in OTHER_VALUES]
    assert len({action.type for action in usual}) == 1
    assert len({action.metavar for action in usual}) == 1
    assert len({type(action) for action in usual}) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_complete_and_fits(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    parser = parser_of(command)
    formatter = parser._get_formatter()
    for name, action in options(command):
        text = formatter._expand_help(action)
        assert text.strip() == text and "  " not in text and not text.endswith("."), name
        assert text == action.help or text.startswith(f"{action.help} (default: "), name
        assert len(re.findall("default:", text)) == len(re.findall(r"\(default: ", text)), name
        if isinstance(action.default, int | float | str) and not isinstance(action.default, bool) and name != "--help":
            assert action.default == argparse.SUPPRESS or "(default: " in text, name
    epilog = parser.format_help().split("exit codes:")[1]
    assert [len(line) > 60 for line in epilog.splitlines()] == [True, True]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_the_common_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert {"--version", "--verbose", "--config", "--print-config", "--print-completion"} <= dict(
        options(command)
    ).keys()
    with pytest.raises(SystemExit) as ended:
        parser_of(command).parse_args(["--version"])
    assert ended.value.code == 0
    assert re.fullmatch(r"uflow-edge \d+\.\d+\S*\n", capsys.readouterr().out)


OLD = [(command, old, new) for command, aliases in ALIASES.items() for old, new in aliases.items()]


@pytest.mark.parametrize(("command", "old", "new"), OLD)
def test_an_earlier_name_still_works(command: str, old: str, new: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser, value = parser_of(command), VALUES.get(old, "4")
    values = [] if value is None else [value]
    today = parser.parse_args([*NEEDED[command], *([new, *values] if new else [])])
    assert capsys.readouterr().err == ""
    spellings = [[old, *values], [f"{old}={value}"] if values else [old]]
    if not any(name.startswith(old[:-1]) for name, _ in options(command)):
        spellings.append([old[:-1], *values])  # an abbreviation
    for typed in spellings:
        assert parser.parse_args([*NEEDED[command], *typed]) == today
        told = capsys.readouterr().err
        assert told.startswith(f"{command}: {old} is ") and told.count("\n") == 1
        assert new in told
    assert not re.search(rf"{old}(?![a-z-])", parser.format_help())


def test_values_are_no_names_of_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser_of("uflow-export").parse_args(["--ckpt", "a", "--", "--plan"])
    assert "is called" not in capsys.readouterr().err
    assert parser_of("uflow-infer").parse_args(["--token=--json", "a.png"]).token == "--json"
    with pytest.raises(SystemExit):
        parser_of("uflow-calibrate").parse_args(["--good", "a", "--report=page.html"])
    assert "unrecognized arguments: --report=page.html" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize("command", COMMANDS)
def test_completion_knows_the_options(command: str, shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit) as ended:
        parser_of(command).parse_args(["--print-completion", shell])
    assert ended.value.code == 0
    script = capsys.readouterr().out
    assert all(name in script for name, _ in options(command))


def test_the_page_about_commands_lists_every_earlier_name() -> None:
    page = (Path(__file__).parents[3] / "docs" / "commands.md").read_text()
    row = r"^\| `(uflow-[a-z-]+)` \| `(--[a-z0-9-]+)` \| (?:`(--[a-z0-9-]+)`|the default) \|$"
    assert sorted(re.findall(row, page, re.MULTILINE)) == sorted(OLD)
