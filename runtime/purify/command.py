"""``uflow-purify``: purify image files with a diffusion network, by Diff-CF or Diff-CFG."""

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from uflow_edge.runtime.cli.command_line import progress, run_command
from uflow_edge.runtime.cli.logs import print_beside_bar
from uflow_edge.runtime.errors import ExitCode
from uflow_edge.runtime.purify.arguments import options_of, parser
from uflow_edge.runtime.text import duration

if TYPE_CHECKING:
    from uflow_edge.runtime.purify.images import FilePurifier, PurifyOutcome
    from uflow_edge.runtime.purify.jobs import PurifyJob

logger = logging.getLogger(__name__)


def purify(arguments: argparse.Namespace) -> ExitCode:
    """Purify the images that the command line names, and return the exit code."""
    from uflow_edge.runtime.bundle.folder import Bundle, find_bundle
    from uflow_edge.runtime.bundle.unet import UNetManifest
    from uflow_edge.runtime.diffusion.purifier import Purifier
    from uflow_edge.runtime.engines.selection import open_engine
    from uflow_edge.runtime.images.decode import Reading, use
    from uflow_edge.runtime.purify.images import FilePurifier
    from uflow_edge.runtime.purify.jobs import plan_jobs
    from uflow_edge.runtime.storage.files import check_writable

    use(Reading.of(arguments))
    options, jobs = options_of(arguments), plan_jobs(arguments.images, arguments.out)
    for path in filter(None, (arguments.out / "result.png", arguments.report, arguments.jsonl)):
        check_writable(path)
    with ExitStack() as stack:
        bundle = Bundle.load(arguments.bundle or find_bundle(Path.cwd(), UNetManifest), UNetManifest)
        manifest = bundle.manifest
        engine = open_engine(bundle, arguments.backend, arguments.precision, arguments.threads)
        stack.callback(engine.close)
        work = FilePurifier(
            Purifier.of(engine.run, manifest, options),
            manifest.channels,
            manifest.source.sha256,
            keep_metadata=arguments.keep_metadata,
            overwrite=arguments.overwrite,
        )
        return purify_images(work, jobs, report=arguments.report, jsonl=arguments.jsonl)


def purify_images(
    work: "FilePurifier", jobs: "Sequence[PurifyJob]", *, report: Path | None = None, jsonl: Path | None = None
) -> ExitCode:
    """Purify images, and print how it goes.

    Args:
        report: HTML page to write, even if the run is interrupted.
        jsonl: file that gets one line per image, as soon as it is done.

    Returns:
        ``BAD_INPUT`` if any image failed.
    """
    outcomes: list[PurifyOutcome] = []
    remaining = work.evaluations(jobs)
    if remaining:
        logger.info(forecast(work, remaining))
    try:
        with progress((), "purify", remaining, "patch step") as bar, _lines(jsonl) as write:
            for outcome in work.run(jobs, bar.update):
                outcomes.append(outcome)
                write(outcome.to_json())
                _say(_outcome_line(outcome))
    finally:
        if report is not None:
            _write_report(report, outcomes, work)
    failed = sum(outcome.status == "failed" for outcome in outcomes)
    purified = sum(outcome.status == "purified" for outcome in outcomes)
    _say(f"{purified} purified, {len(outcomes) - purified - failed} finished before, {failed} failed")
    return ExitCode.BAD_INPUT if failed else ExitCode.OK


def forecast(work: "FilePurifier", remaining: int) -> str:
    """The amount of work, and an estimate of its duration."""
    seconds = work.seconds_per_evaluation()
    steps = work.purifier.options.evaluations
    megapixel = work.purifier.evaluations((1000, 1000)) * seconds
    return (
        f"{remaining // steps} patches of {work.purifier.image_size} pixels x {steps} steps: "
        f"about {duration(remaining * seconds)} ({duration(megapixel)} per megapixel)"
    )


def _outcome_line(outcome: "PurifyOutcome") -> str:
    if outcome.status == "failed":
        return f"failed: {outcome.error}"
    notes = "".join(f"; {note}" for note in outcome.notes)
    return (
        f"{outcome.job.result}: {outcome.status}, PSNR {outcome.psnr:.2f} dB, SSIM {outcome.ssim:.4f}, "
        f"{outcome.seconds:.1f} s{notes}"
    )


@contextmanager
def _lines(path: Path | None) -> Iterator[Callable[[str], None]]:
    """A function that writes a line to the file, if there is one, and flushes it."""
    if path is None:
        yield lambda line: None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        yield lambda line: print(line, file=file, flush=True)


def _write_report(path: Path, outcomes: "Sequence[PurifyOutcome]", work: "FilePurifier") -> None:
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
