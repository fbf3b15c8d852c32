"""Options that several commands share: each has one name, one type and one help text, defined here.

Every help text begins with the same words in all commands; a command may add a detail after a semicolon.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from uflow_edge.runtime.cli.values import (
    bit_depth,
    finite_float,
    natural_int,
    positive_float,
    positive_int,
    thread_count,
)
from uflow_edge.runtime.errors import UsageError

Group: TypeAlias = "argparse.ArgumentParser | argparse._ArgumentGroup | argparse._MutuallyExclusiveGroup"


def _more(text: str, detail: str) -> str:
    return f"{text}; {detail}" if detail else text


def add_bundle_option(group: Group, detail: str = "", default: str = "the only *.uflow bundle in this folder") -> None:
    """Add ``--bundle``; ``default`` is only shown in the help, the command applies it."""
    text = _more("bundle of the model", detail) + (f" (default: {default})" if default else "")
    group.add_argument("--bundle", type=Path, metavar="FOLDER", help=text)


def add_engine_options(group: Group, precisions: Sequence[str] = (), precision_default: str = "") -> None:
    """Add ``--backend``, ``--precision`` and ``--threads`` for a command that runs one engine."""
    from uflow_edge.runtime.bundle.manifest import RUN_PRECISIONS
    from uflow_edge.runtime.engines.selection import BACKENDS

    group.add_argument(
        "--backend",
        choices=("auto", *BACKENDS),
        default="auto",
        help="engine that runs the model (default: auto, the fastest one that works on this machine)",
    )
    group.add_argument(
        "--precision",
        choices=precisions or RUN_PRECISIONS,
        help=f"precision of the computation (default: {precision_default or 'fp16 on a GPU, fp32 on a CPU'})",
    )
    add_threads_option(group)


def add_rule_option(group: Group) -> None:
    """Add ``--rule``."""
    from uflow_edge.runtime.nfa import RULES

    group.add_argument(
        "--rule",
        choices=RULES,
        help="score by this rule at log-NFA 0 instead of the calibration; upstream is the rule of the paper, and block "
        "its older variant, for bundles exported with --block-nfa (default: as the bundle says)",
    )


def add_heat_map_option(group: Group) -> None:
    """Add ``--heat-map``; it is None if it is not given."""
    from uflow_edge.runtime.heat import HEAT_MAPS

    group.add_argument(
        "--heat-map",
        choices=HEAT_MAPS,
        help="meaning of the colours on pictures: nfa, the scores above the threshold; evidence, how unusual every "
        "inspected pixel is, from 2 where it is detected; likelihood, the likelihood map (default: nfa)",
    )


def add_threads_option(group: Group) -> None:
    """Add ``--threads``."""
    group.add_argument(
        "--threads", type=thread_count, metavar="N", help="CPU threads of the engine (default: one per core)"
    )


def add_images_option(group: Group, detail: str = "", *, required: bool = False) -> None:
    """Add ``--images``."""
    text = _more("image files, or folders of them", detail)
    if required:
        group.add_argument("--images", nargs="+", type=Path, required=True, metavar="PATH", help=text)
    else:  # a mutually exclusive group does not accept `required`
        group.add_argument("--images", nargs="+", type=Path, metavar="PATH", help=text)


def add_reading_options(group: Group) -> None:
    """Add ``--max-megapixels`` and ``--bits``, which `images.decode.Reading.of` reads."""
    group.add_argument(
        "--max-megapixels",
        type=positive_int,
        metavar="N",
        help="refuse larger images without decoding them (default: 256)",
    )
    group.add_argument(
        "--bits",
        type=bit_depth,
        metavar="N",
        help="bits that the camera uses of the 16 in an image file, such as 12 (default: as in training, or 16)",
    )


def add_view_options(group: Group) -> None:
    """Add ``--roi``, ``--tile`` and ``--overlap``, which `infer.choices.views` reads."""
    group.add_argument(
        "--roi", action="append", metavar="X,Y,W,H", help="region of interest in pixels; repeat it for more regions"
    )
    group.add_argument(
        "--tile", type=positive_int, metavar="N", help="cut each region into overlapping squares of N pixels"
    )
    add_overlap_option(group)


def add_overlap_option(group: Group, detail: str = "", default: float = 0.25) -> None:
    """Add ``--overlap``; ``default`` is only shown in the help."""
    text = _more("overlap of neighbouring squares, as a fraction of their side", detail)
    group.add_argument("--overlap", type=finite_float, metavar="X", help=f"{text} (default: {default:g})")


def add_batch_option(group: Group, default: int, detail: str) -> None:
    """Add ``--batch``, one batch size."""
    group.add_argument("--batch", type=positive_int, default=default, metavar="N", help=f"batch size; {detail}")


def add_learning_rate_option(group: Group, default: float, detail: str) -> None:
    """Add ``--learning-rate``."""
    group.add_argument(
        "--learning-rate", type=positive_float, default=default, metavar="X", help=f"learning rate of Adam; {detail}"
    )


def add_seed_option(group: Group) -> None:
    """Add ``--seed``."""
    group.add_argument(
        "--seed",
        type=natural_int,
        default=0,
        metavar="N",
        help="seed of all random numbers; the same seed gives the same result",
    )


def add_device_option(group: Group) -> None:
    """Add ``--device``, for commands that train."""
    group.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="device to train on (default: auto, CUDA if torch can use it)",
    )


def add_restart_option(group: Group) -> None:
    """Add ``--restart``."""
    group.add_argument("--restart", action="store_true", help="start again instead of continuing an interrupted run")


def add_overwrite_option(group: Group, detail: str = "") -> None:
    """Add ``--overwrite``."""
    group.add_argument("--overwrite", action="store_true", help=_more("replace existing results", detail))


def add_json_option(group: Group) -> None:
    """Add ``--json``: one document."""
    group.add_argument("--json", type=Path, metavar="FILE", help="write all numbers as one JSON document")


def add_jsonl_option(group: Group, detail: str = "") -> None:
    """Add ``--jsonl``: one JSON object per line."""
    text = _more("write one line of JSON per image", detail)
    group.add_argument("--jsonl", type=Path, metavar="FILE", help=text)


def add_report_option(group: Group, detail: str = "") -> None:
    """Add ``--report``: an HTML page."""
    group.add_argument("--report", type=Path, metavar="FILE", help=_more("write an HTML report", detail))


def given(arguments: argparse.Namespace, *names: str) -> list[str]:
    """The options among ``names`` that were given, as they are typed."""
    values = {name: getattr(arguments, name, None) for name in names}
    return [
        f"--{name.replace('_', '-')}"
        for name, value in values.items()
        if not (value is None or value is False or value == [])
    ]


def require_option(arguments: argparse.Namespace, needed: str, *names: str) -> None:
    """Refuse options that have no effect without another one.

    Raises:
        UsageError: one of ``names`` is given without ``needed``; the message names both.
    """
    found = given(arguments, *names)
    if found and not given(arguments, needed):
        raise UsageError(f"{', '.join(found)} needs --{needed.replace('_', '-')}")
