"""``uflow-bench``: measure every engine of a bundle on this machine, beside those of another bundle if wanted."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from uflow_edge.runtime.bundle.manifest import PRECISIONS
from uflow_edge.runtime.cli.command_line import (
    command_parser,
    positive_int,
    run_command,
    thread_count,
    width_and_height,
)
from uflow_edge.runtime.engines.selection import BACKENDS
from uflow_edge.runtime.errors import ExitCode, UsageError
from uflow_edge.runtime.storage.files import check_writable

if TYPE_CHECKING:
    from uflow_edge.benchmarks.latency.run import Options

T = TypeVar("T")


def parser() -> argparse.ArgumentParser:
    """The command line of ``uflow-bench``."""
    parser = command_parser(
        "uflow-bench",
        "Measure how fast a bundle is on this machine: each engine, stage by stage, after proving that it computes "
        "what it should.",
        [
            "uflow-bench                                                # the only *.uflow bundle in this folder",
            "uflow-bench --bundle bottle.uflow --images good/ --report latency.html --json today.json",
            "uflow-bench --bundle bottle.uflow --images good/ --against other.uflow",
        ],
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        metavar="FOLDER",
        help="bundle of the model (default: the only *.uflow bundle in this folder)",
    )
    what = parser.add_argument_group("what is measured")
    what.add_argument(
        "--against",
        type=Path,
        metavar="FOLDER",
        help="another bundle to measure in turn with this one (default: compare engines with the first one measured)",
    )
    what.add_argument(
        "--backends", nargs="+", choices=BACKENDS, help="engines to measure (default: all that run on this machine)"
    )
    what.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, help="precisions to measure (default: all in the bundle)"
    )
    what.add_argument(
        "--batches",
        nargs="+",
        type=positive_int,
        default=[1, 2, 4],
        metavar="N",
        help="batch sizes for throughput (default: 1 2 4)",
    )
    what.add_argument(
        "--images", nargs="+", type=Path, metavar="PATH", help="frames to measure with (default: seeded noise)"
    )
    what.add_argument(
        "--frame-size",
        type=width_and_height,
        default=(640, 480),
        metavar="WxH",
        help="size of the frames (default: 640x480)",
    )
    what.add_argument(
        "--threads", type=thread_count, metavar="N", help="threads of CPU engines (default: one per core)"
    )
    what.add_argument(
        "--rounds", type=positive_int, default=100, metavar="N", help="timed frames per engine (default: 100)"
    )
    what.add_argument(
        "--starts",
        type=_count,
        default=5,
        metavar="N",
        help="process starts to time per engine, 0 for none (default: 5)",
    )
    outputs = parser.add_argument_group("results")
    outputs.add_argument("--json", type=Path, metavar="FILE", help="write every sample")
    outputs.add_argument("--report", type=Path, metavar="FILE", help="write an HTML page with plots")
    # Still parsed, so that the refusal can name their successor.
    outputs.add_argument("--compare", type=Path, help=argparse.SUPPRESS)
    outputs.add_argument("--other-machine", action="store_true", help=argparse.SUPPRESS)
    return parser


def bench(arguments: argparse.Namespace) -> ExitCode:
    """Do what the command line asks for."""
    from uflow_edge.benchmarks.latency.console import results_text
    from uflow_edge.benchmarks.latency.instruments import open_instruments
    from uflow_edge.benchmarks.latency.report import write_report
    from uflow_edge.benchmarks.latency.results import write_results
    from uflow_edge.benchmarks.latency.run import measure_bundle
    from uflow_edge.runtime.bundle.folder import find_bundle

    if arguments.compare or arguments.other_machine:
        raise UsageError(
            "--compare and --other-machine are gone: two runs differ by what else the machine did. "
            "Measure both bundles in one run: --bundle NEW.uflow --against OLD.uflow"
        )
    for path in filter(None, (arguments.json, arguments.report)):
        check_writable(path)
    with open_instruments() as instruments:
        results = measure_bundle(arguments.bundle or find_bundle(Path.cwd()), _options(arguments), instruments)
    print(results_text(results))
    if arguments.json:
        write_results(arguments.json, results)
    if arguments.report:
        write_report(arguments.report, results)
    for name, reason in results.refused.items():
        print(f"refused: {name}: {reason}", file=sys.stderr)
    return ExitCode.BAD_INPUT if results.refused else ExitCode.OK


def _options(arguments: argparse.Namespace) -> "Options":
    from uflow_edge.benchmarks.latency.contenders import Choice
    from uflow_edge.benchmarks.latency.run import Options

    return Options(
        against=arguments.against,
        choice=Choice(_once(arguments.backends), _once(arguments.precisions), arguments.threads),
        batches=_once(arguments.batches) or (),
        images=tuple(arguments.images or ()),
        frame=arguments.frame_size,
        rounds=arguments.rounds,
        starts=arguments.starts,
    )


def _once(values: Sequence[T] | None) -> tuple[T, ...] | None:
    """Without repetitions."""
    return None if values is None else tuple(dict.fromkeys(values))


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``uflow-bench``."""
    run_command(lambda: parser().parse_args(argv), bench, log_to="stderr")


def _count(text: str) -> int:
    return 0 if text == "0" else positive_int(text)


if __name__ == "__main__":
    main()
