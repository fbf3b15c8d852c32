"""Our runtime beside others, on the same pictures, in the same run: ``python -m uflow_edge.benchmarks.studies.peers``.

Prints the tables of docs/peers.md.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from uflow_edge.benchmarks.latency.machine import describe_machine, usable_cores
from uflow_edge.benchmarks.studies.peers.models import RECIPES, Model, make_model
from uflow_edge.benchmarks.studies.peers.settings import BURSTS, ROUNDS, Settings
from uflow_edge.runtime.cli.command_line import progress, run_command
from uflow_edge.runtime.cli.values import positive_int
from uflow_edge.runtime.errors import ExitCode, MissingDependency

CONTESTS = ("eager", "upstream", "engines", "anomalib", "roofline")
_FOR_ANOMALIB = "resnet18"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m uflow_edge.benchmarks.studies.peers", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--contests", nargs="+", choices=CONTESTS, default=CONTESTS, help="default: all")
    parser.add_argument("--networks", nargs="+", choices=RECIPES, default=tuple(RECIPES), help="default: all")
    parser.add_argument("--anomalib-python", type=Path, metavar="PATH", help="an interpreter that has anomalib")
    parser.add_argument("--upstream", type=Path, metavar="PATH", help="a checkout of the authors' repository")
    parser.add_argument("--upstream-python", type=Path, metavar="PATH", help="an interpreter that has what it needs")
    parser.add_argument("--threads", type=positive_int, default=usable_cores(), help="default: one a core")
    parser.add_argument("--input-size", type=positive_int, default=256, help="of the networks; default: 256")
    parser.add_argument("--rounds", type=positive_int, default=ROUNDS)
    parser.add_argument("--bursts", type=positive_int, default=BURSTS)
    return parser


def measure(arguments: argparse.Namespace) -> ExitCode:
    """Make the models, and let them compete."""
    machine = describe_machine()
    libraries = machine.libraries | {name: version(name) for name in ("torch", "timm", "FrEIA", "scikit-image")}
    versions = ", ".join(f"{name} {number}" for name, number in libraries.items())
    print(f"{machine.cpu}, {arguments.threads} of {machine.cores} cores; Python {machine.python}, {versions}\n")
    with TemporaryDirectory() as name:
        settings = Settings(
            Path(name),
            arguments.input_size,
            threads=arguments.threads,
            rounds=arguments.rounds,
            bursts=arguments.bursts,
        )
        keys = progress(arguments.networks, "making models", unit="model")
        models = {key: make_model(RECIPES[key], settings.input_size, settings.folder / key, int8=True) for key in keys}
        for title, contest in _contests(models, settings, arguments).items():
            if title not in arguments.contests:
                continue
            print(f"## {title}\n")
            try:
                print(contest() + "\n", flush=True)
            except MissingDependency as error:
                print(f"skipped: {error}\n", flush=True)
    return ExitCode.OK


def _contests(
    models: dict[str, Model], settings: Settings, arguments: argparse.Namespace
) -> dict[str, Callable[[], str]]:
    from uflow_edge.benchmarks.studies.peers.anomalib_contest import anomalib_contest
    from uflow_edge.benchmarks.studies.peers.eager_contest import eager_contest
    from uflow_edge.benchmarks.studies.peers.engine_contest import engine_contest
    from uflow_edge.benchmarks.studies.peers.upstream_contest import upstream_contest

    def against_anomalib() -> str:
        if _FOR_ANOMALIB not in models:
            return f"skipped: it needs --networks {_FOR_ANOMALIB}"
        return anomalib_contest(models[_FOR_ANOMALIB], settings, arguments.anomalib_python)

    return {
        "eager": lambda: eager_contest(list(models.values()), settings),
        "upstream": lambda: upstream_contest(
            list(models.values()), settings, arguments.upstream, arguments.upstream_python
        ),
        "engines": lambda: engine_contest(list(models.values()), settings),
        "anomalib": against_anomalib,
        "roofline": lambda: _rooflines(list(models.values()), settings),
    }


def _rooflines(models: Sequence[Model], settings: Settings) -> str:
    from uflow_edge.benchmarks.studies.peers.models import pictures
    from uflow_edge.benchmarks.studies.roofline import measure, roofline_table

    frames = pictures(1, (settings.picture_size, settings.picture_size))
    return "\n\n".join(
        f"{model.name}:\n\n{roofline_table(measure(model.bundle, frames, settings.threads, settings.rounds))}"
        for model in models
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_command(lambda: parser().parse_args(argv), measure, log_to="stderr")  # stdout holds the tables


if __name__ == "__main__":
    main(sys.argv[1:])
