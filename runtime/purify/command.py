"""``uflow-purify``: purify image files with a diffusion network, by Diff-CF or Diff-CFG."""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from uflow_edge.runtime.cli.command_line import (
    add_reading_options,
    command_parser,
    finite_float,
    natural_int,
    positive_int,
    progress,
    run_command,
    thread_count,
)
from uflow_edge.runtime.cli.logs import print_beside_bar
from uflow_edge.runtime.errors import ExitCode, UsageError
from uflow_edge.runtime.text import duration

if TYPE_CHECKING:
    from uflow_edge.runtime.diffusion.options import PurifyOptions
    from uflow_edge.runtime.purify.images import FilePurifier, Job, Outcome


def parser() -> argparse.ArgumentParser:
    """The command line of ``uflow-purify``."""
    parser = command_parser(
        "uflow-purify",
        "Take the traces of cameras, compression and edits out of pictures: noise them a little, and let a diffusion "
        "network take the noise away again. For testing forensic detectors and for preparing pictures for inspection; "
        "not for passing off a picture as an original. Results say in their own metadata what they are.",
        [
            "uflow-purify --images photos/ --out purified                     # the only *.uflow bundle in this folder",
            "uflow-purify --images photos/ --out purified --guide ssim --report purified.html",
            "uflow-purify --images large.png --out purified --sampler ddim --respacing 10    # four times faster",
        ],
    )
    _add_files(parser)
    _add_method(parser)
    _add_network(parser)
    return parser


def _add_files(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("files")
    group.add_argument(
        "--images", nargs="+", type=Path, required=True, metavar="PATH", help="image files, or folders of them"
    )
    group.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="folder for the results: PNG files, named after the images",
    )
    group.add_argument("--overwrite", action="store_true", help="replace results that were made with other settings")
    group.add_argument(
        "--keep-metadata",
        action="store_true",
        help="copy the ICC profile and EXIF data, except rotation, thumbnail and maker's notes",
    )
    add_reading_options(group)
    group.add_argument("--report", type=Path, metavar="FILE", help="write an HTML page with numbers and pictures")
    group.add_argument("--json", type=Path, metavar="FILE", help="write one line of JSON per picture")


def _add_method(parser: argparse.ArgumentParser) -> None:
    from uflow_edge.runtime.diffusion.options import DEFAULT_GUIDE_SCALES, GUIDANCES, SAMPLERS
    from uflow_edge.runtime.diffusion.patches import DEFAULT_OVERLAP, MOST_OVERLAP, PATCHINGS

    scales = ", ".join(f"{guide} {scale:g}" for guide, scale in DEFAULT_GUIDE_SCALES.items())
    group = parser.add_argument_group("method")
    group.add_argument(
        "--steps",
        type=positive_int,
        default=40,
        metavar="T",
        help="amount of noise, as a step of the network's schedule (default: 40 of 1000)",
    )
    group.add_argument(
        "--guide",
        choices=GUIDANCES,
        default="none",
        help="keep the result similar to the original by this measure (default: none)",
    )
    group.add_argument(
        "--guide-scale", type=finite_float, metavar="X", help=f"strength of the guide (default: {scales})"
    )
    group.add_argument(
        "--sampler", choices=SAMPLERS, default="ddpm", help="ddim draws no noise after the first (default: ddpm)"
    )
    group.add_argument(
        "--respacing", type=positive_int, metavar="N", help="runs of the network for each patch (default: as --steps)"
    )
    group.add_argument(
        "--patching",
        choices=PATCHINGS,
        default="blend",
        help="blend overlapping patches, or cut hard seams as upstream does (default: blend)",
    )
    group.add_argument(
        "--overlap",
        type=finite_float,
        metavar="X",
        help=f"overlap of the patches, as a fraction of their side up to {MOST_OVERLAP} (default: {DEFAULT_OVERLAP})",
    )
    group.add_argument("--seed", type=natural_int, default=0, metavar="N", help="of the noise (default: 0)")


def _add_network(parser: argparse.ArgumentParser) -> None:
    from uflow_edge.runtime.engines.selection import BACKENDS

    group = parser.add_argument_group("network")
    group.add_argument(
        "--bundle",
        type=Path,
        metavar="FOLDER",
        help="bundle of the network (default: the only bundle of a UNet in this folder)",
    )
    group.add_argument(
        "--batch", type=positive_int, default=4, metavar="N", help="patches per run of the network (default: 4)"
    )
    group.add_argument(
        "--backend",
        choices=("auto", *BACKENDS),
        default="auto",
        help="the engine that runs the model (default: the fastest one that works on this machine)",
    )
    group.add_argument(
        "--precision", choices=["fp32", "fp16"], help="of the computation (default: fp16 on a GPU, fp32 on a CPU)"
    )
    group.add_argument(
        "--threads", type=thread_count, metavar="N", help="CPU threads of the engine (default: one per core)"
    )


def options_of(arguments: argparse.Namespace) -> "PurifyOptions":
    """How to purify, from the command line.

    Raises:
        UsageError: options that cannot be meant.
    """
    from uflow_edge.runtime.diffusion.options import PurifyOptions
    from uflow_edge.runtime.diffusion.patches import DEFAULT_OVERLAP

    if arguments.overlap is not None and arguments.patching == "upstream":
        raise UsageError("--overlap needs --patching blend: upstream's patches do not overlap")
    return PurifyOptions(
        steps=arguments.steps,
        guide=arguments.guide,
        guide_scale=arguments.guide_scale,
        sampler=arguments.sampler,
        respacing=arguments.respacing,
        patching=arguments.patching,
        overlap=DEFAULT_OVERLAP if arguments.overlap is None else arguments.overlap,
        batch=arguments.batch,
        seed=arguments.seed,
    )


def purify(arguments: argparse.Namespace) -> ExitCode:
    """Purify the images that the command line names."""
    from uflow_edge.runtime.bundle.folder import find_bundle
    from uflow_edge.runtime.bundle.unet import UNetManifest
    from uflow_edge.runtime.diffusion.purifier import Purifier
    from uflow_edge.runtime.images.decode import Reading, use
    from uflow_edge.runtime.purify.images import FilePurifier, plan_jobs
    from uflow_edge.runtime.purify.network import open_network
    from uflow_edge.runtime.storage.files import check_writable

    use(Reading.of(arguments), _say)
    options, jobs = options_of(arguments), plan_jobs(arguments.images, arguments.out, _say)
    for path in filter(None, (arguments.out / "result.png", arguments.report, arguments.json)):
        check_writable(path)
    with ExitStack() as stack:
        network = open_network(
            arguments.bundle or find_bundle(Path.cwd(), UNetManifest),
            arguments.backend,
            arguments.precision,
            arguments.threads,
            _say,
        )
        stack.callback(network.close)
        work = FilePurifier(
            Purifier(network.predict, network.schedule, network.image_size, options, network.noisiest_step),
            network.channels,
            network.identity,
            keep_metadata=arguments.keep_metadata,
            overwrite=arguments.overwrite,
        )
        return purify_images(work, jobs, report=arguments.report, json=arguments.json)


def purify_images(
    work: "FilePurifier", jobs: "Sequence[Job]", *, report: Path | None = None, json: Path | None = None
) -> ExitCode:
    """Purify pictures, and tell people how it goes.

    Args:
        work: what purifies them.
        jobs: the files.
        report: HTML page to write, also when the run is interrupted.
        json: file to write a line a picture to, as soon as it is done.

    Returns:
        ``BAD_INPUT`` if any picture failed.
    """
    outcomes: list[Outcome] = []
    remaining = work.evaluations(jobs)
    if remaining:
        _say(forecast(work, remaining))
    try:
        with progress((), "purify", remaining, "patch step") as bar, _lines(json) as write:
            for outcome in work.run(jobs, bar.update):
                outcomes.append(outcome)
                write(outcome.to_json())
                _say(_told(outcome))
    finally:
        if report is not None:
            _write_report(report, outcomes, work)
    failed = sum(outcome.status == "failed" for outcome in outcomes)
    purified = sum(outcome.status == "purified" for outcome in outcomes)
    _say(f"{purified} purified, {len(outcomes) - purified - failed} finished before, {failed} failed")
    return ExitCode.BAD_INPUT if failed else ExitCode.OK


def forecast(work: "FilePurifier", remaining: int) -> str:
    """What is to be done, and how long it will take."""
    seconds = work.seconds_per_evaluation()
    steps = work.purifier.options.evaluations
    megapixel = work.purifier.evaluations((1000, 1000)) * seconds
    return (
        f"{remaining // steps} patches of {work.purifier.image_size} pixels x {steps} steps: "
        f"about {duration(remaining * seconds)} ({duration(megapixel)} a megapixel)"
    )


def _told(outcome: "Outcome") -> str:
    if outcome.status == "failed":
        return f"failed: {outcome.error}"
    notes = "".join(f"; {note}" for note in outcome.notes)
    return (
        f"{outcome.job.result}: {outcome.status}, PSNR {outcome.psnr:.2f} dB, SSIM {outcome.ssim:.4f}, "
        f"{outcome.seconds:.1f} s{notes}"
    )


@contextmanager
def _lines(path: Path | None) -> Iterator[Callable[[str], None]]:
    """Writes lines to a file, if there is one, each for others to see at once."""
    if path is None:
        yield lambda line: None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        yield lambda line: print(line, file=file, flush=True)


def _write_report(path: Path, outcomes: "Sequence[Outcome]", work: "FilePurifier") -> None:
    from uflow_edge.runtime.purify.images import settings
    from uflow_edge.runtime.purify.report import write_report

    values: Mapping[str, object] = {"network": work.network, **settings(work.purifier.options)}
    write_report(path, outcomes, {name.replace("_", " "): str(value) for name, value in values.items()})


def _say(line: str) -> None:
    print_beside_bar(line, sys.stdout)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``uflow-purify``."""
    run_command(lambda: parser().parse_args(argv), purify)


if __name__ == "__main__":
    main()
