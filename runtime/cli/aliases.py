"""Earlier names of options. They keep working: the command line is rewritten to the new names before it is parsed."""

import sys
from collections.abc import Collection, Sequence

ALIASES: dict[str, dict[str, str]] = {
    "uflow-bench": {"--backends": "--backend", "--batches": "--batch", "--precisions": "--precision"},
    "uflow-calibrate": {"--report": ""},
    "uflow-export": {"--plan": "--dry-run", "--triton-plan": "--triton-engine"},
    "uflow-infer": {"--json": "--jsonl", "--json-files": "--jsonl-files", "--json-size": "--jsonl-size"},
    "uflow-purify": {"--json": "--jsonl", "--steps": "--noise"},
    "uflow-train": {"--batch-size": "--batch"},
    "uflow-train-unet": {"--batch-size": "--batch"},
}
"""Current names by command and earlier name; empty if the option has become the default."""


def with_current_names(command: str, arguments: Sequence[str], options: Collection[str]) -> list[str]:
    """Replace earlier names of options, and say so in one line on stderr for each.

    Args:
        options: current names. An unambiguous abbreviation of an earlier name is replaced too, unless it also
            abbreviates a current name.
    """
    aliases = ALIASES.get(command, {})
    end = arguments.index("--") if "--" in arguments else len(arguments)
    current: list[str] = []
    notes: dict[str, None] = {}
    for argument in arguments[:end]:
        typed, equals, value = argument.partition("=")
        old = _earlier_name(typed, aliases, options)
        if old is None or (equals and not aliases[old]):
            current.append(argument)
        elif aliases[old]:
            current.append(aliases[old] + equals + value)
            notes[f"{old} is called {aliases[old]} now"] = None
        else:
            notes[f"{old} is the default now and can be left out"] = None
    for note in notes:
        print(f"{command}: {note}", file=sys.stderr)
    return [*current, *arguments[end:]]


def _earlier_name(typed: str, aliases: Collection[str], options: Collection[str]) -> str | None:
    if typed in aliases:
        return typed
    if not typed.startswith("--") or any(option.startswith(typed) for option in options):
        return None
    old = [alias for alias in aliases if alias.startswith(typed)]
    return old[0] if len(old) == 1 else None
