"""``uflow-bench``: measure every engine of a bundle on this machine, or compare two bundles."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from uflow_edge.runtime.bundle.manifest import RUN_PRECISIONS
from uflow_edge.runtime.cli.command_line import run_command
from uflow_edge.runtime.cli.options import (
    add_bundle_option,
    add_images_option,
    add_json_option,
    add_report_option,
    add_threads_option,
)
from uflow_edge.runtime.cli.parser import command_parser
from uflow_edge.runtime.cli.values import PixelSize, natural_int, pixel_size, positive_int
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
        "Measure how fast a bundle is on this machine: each engine, stage by stage, after a proof that it computes "
        "correctly.",
        [
            "uflow-bench                                                # the only *.uflow bundle in this folder",
            "uflow-bench --bundle bottle.uflow --images good/ --report latency.html --json today.json",
            "uflow-bench --bundle bottle.uflow --images good/ --against other.uflow",
        ],
    )
    add_bundle_option(parser)
    what = parser.add_argument_group("what to measure")
    what.add_argument(
        "--against",
        type=Path,
        metavar="FOLDER",
        help="another bundle to measure in turn with this one (default: compare engines with the first one measured)",
    )
    what.add_argument(
        "--backend",
        nargs="+",
        choices=BACKENDS,
        help="engine that runs the model; several are measured in turn (default: all that run on this machine)",
    )
    what.add_argument(
        "--precision",
        nargs="+",
        choices=RUN_PRECISIONS,
        help="precision of the computation; several are measured in turn (default: all in the bundle)",
    )
    what.add_argument(
        "--batch",
        nargs="+",
        type=positive_int,
        default=[1, 2, 4],
        metavar="N",
        help="batch size; throughput is measured at each",
    )
    add_images_option(what, "the frames to measure with (default: seeded noise)")
    what.add_argument(
        "--frame-size", type=pixel_size, default=PixelSize(640, 480), metavar="WxH", help="size of the frames"
    )
    add_threads_option(what)
    what.add_argument("--rounds", type=positive_int, default=100, metavar="N", help="timed frames per engine")
    what.add_argument(
        "--starts", type=natural_int, default=5, metavar="N", help="process starts to time per engine, 0 for none"
    )
    outputs = parser.add_argument_group("results")
    add_json_option(outputs)
    add_report_option(outputs)
    # Still parsed, so that the refusal can name their successor.
    outputs.add_argument("--compare", type=Path, help=argparse.SUPPRESS)
    outputs.add_argument("--other-machine", action="store_true", help=argparse.SUPPRESS)
    return parser


def bench(arguments: argparse.Namespace) -> ExitCode:
    """Measure, print the results and write them."""
    from uflow_edge.benchmarks.latency.console import results_text
    from uflow_edge.benchmarks.latency.instruments import open_instruments
    from uflow_edge.benchmarks.latency.results import write_results
    from uflow_edge.benchmarks.latency.run import measure_bundle
    from uflow_edge.runtime.bundle.folder import find_bundle

    if arguments.compare or arguments.other_machine:
        raise UsageError(
            "--compare and --other-machine were removed: two runs also differ in what else the machine did. "
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
        from uflow_edge.benchmarks.latency.report import write_report

        write_report(arguments.report, results)
    for name, reason in results.refused.items():
        print(f"refused: {name}: {reason}", file=sys.stderr)
    return ExitCode.BAD_INPUT if results.refused else ExitCode.OK


def _options(arguments: argparse.Namespace) -> "Options":
    from uflow_edge.benchmarks.latency.contenders import Choice
    from uflow_edge.benchmarks.latency.run import Options

    return Options(
        against=arguments.against,
        choice=Choice(_once(arguments.backend), _once(arguments.precision), arguments.threads),
        batches=_once(arguments.batch) or (),
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


if __name__ == "__main__":
    main()
