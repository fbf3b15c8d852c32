"""``uflow-bench``: measure every engine of a bundle on this machine, report it, and hold it against an earlier run."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from uflow_edge.runtime.command_line import command_parser, positive_int, run_command, thread_count, width_and_height
from uflow_edge.runtime.engines.selection import BACKENDS
from uflow_edge.runtime.errors import ExitCode
from uflow_edge.runtime.files import check_writable
from uflow_edge.runtime.manifest import PRECISIONS

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
            "uflow-bench --bundle bottle.uflow --images good/ --compare yesterday.json",
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
    outputs.add_argument("--json", type=Path, metavar="FILE", help="write every sample, for --compare")
    outputs.add_argument("--report", type=Path, metavar="FILE", help="write an HTML page with plots")
    outputs.add_argument(
        "--compare", type=Path, metavar="FILE", help="file of an earlier --json: say what has changed since"
    )
    outputs.add_argument(
        "--other-machine", action="store_true", help="compare even if --compare comes from another machine"
    )
    return parser


def bench(arguments: argparse.Namespace) -> ExitCode:
    """Do what the command line asks for."""
    from uflow_edge.benchmarks.latency.compare import check_comparable, compare
    from uflow_edge.benchmarks.latency.console import comparison_text, results_text
    from uflow_edge.benchmarks.latency.instruments import open_instruments
    from uflow_edge.benchmarks.latency.report import write_report
    from uflow_edge.benchmarks.latency.results import read_results, write_results
    from uflow_edge.benchmarks.latency.run import Run

    for path in filter(None, (arguments.json, arguments.report)):
        check_writable(path)
    from uflow_edge.runtime.bundle import find_bundle

    before = read_results(arguments.compare) if arguments.compare else None
    with open_instruments() as instruments:
        run = Run(arguments.bundle or find_bundle(Path.cwd()), _options(arguments), instruments)
        if before is not None:  # said now, not after minutes of measuring
            check_comparable(before, run.machine, run.workload, other_machine=arguments.other_machine)
        results = run.measure()
    comparison = None if before is None else compare(before, results, other_machine=arguments.other_machine)
    print(results_text(results))
    if comparison is not None:
        print("\n" + comparison_text(comparison))
    if arguments.json:
        write_results(arguments.json, results)
    if arguments.report:
        write_report(arguments.report, results, comparison)
    for name, reason in results.refused.items():
        print(f"refused: {name}: {reason}", file=sys.stderr)
    return ExitCode.BAD_INPUT if results.refused else ExitCode.OK


def _options(arguments: argparse.Namespace) -> "Options":
    from uflow_edge.benchmarks.latency.contenders import Choice
    from uflow_edge.benchmarks.latency.run import Options

    return Options(
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
    run_command(lambda: parser().parse_args(argv), bench)


def _count(text: str) -> int:
    return 0 if text == "0" else positive_int(text)


if __name__ == "__main__":
    main()
