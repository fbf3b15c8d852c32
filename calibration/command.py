"""``uflow-calibrate``: fit the null model and the threshold of a bundle to good images of the line."""

import argparse
import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from uflow_edge.calibration.calibrate import Calibration, calibrate
from uflow_edge.calibration.operating_point import Promise, TooFewImages
from uflow_edge.calibration.saving import save_calibration
from uflow_edge.calibration.split import CalibrationOptions, Split
from uflow_edge.calibration.summary import alarm_rows, notices
from uflow_edge.runtime.bundle.calibration_record import REPORT
from uflow_edge.runtime.bundle.folder import MANIFEST, Bundle, find_bundle
from uflow_edge.runtime.bundle.training_record import TrainingRecord
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.cli.command_line import run_command, table
from uflow_edge.runtime.cli.options import (
    add_bundle_option,
    add_engine_options,
    add_reading_options,
    add_seed_option,
    add_view_options,
    require_option,
)
from uflow_edge.runtime.cli.parser import command_parser
from uflow_edge.runtime.cli.values import finite_float
from uflow_edge.runtime.engines import Engine
from uflow_edge.runtime.engines.proof import likely_cause
from uflow_edge.runtime.engines.selection import open_engine
from uflow_edge.runtime.errors import ExitCode, UsageError, require
from uflow_edge.runtime.images.decode import Reading, in_use, use
from uflow_edge.runtime.infer.choices import views
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.sources.admission import Admission, admit
from uflow_edge.runtime.sources.folders import ImageFile, image_files
from uflow_edge.runtime.storage.files import check_writable

logger = logging.getLogger(__name__)

_AVERAGE = "average"
_LISTED = 20


def parser() -> argparse.ArgumentParser:
    """The command line of ``uflow-calibrate``."""
    usual = Promise()
    parser = command_parser(
        "uflow-calibrate",
        "Learn the distribution of latents from good images of the line, and take the threshold from other good "
        "images, so that it keeps a promise about false alarms. Both are written into the bundle, with a report. The "
        "images must be new to the training, and each must show a different part.",
        [
            "uflow-calibrate --good parts/good/                         # the only *.uflow bundle in this folder",
            "uflow-calibrate --bundle bottle.uflow --good parts/good/ --max-false-alarms 0.05",
            "uflow-calibrate --good parts/good/ --exclude scratched.png # this one is not good",
            "uflow-calibrate --good parts/good/ --max-false-alarms 0.05 --confidence average --null-model none",
        ],
    )
    parser.add_argument(
        "--good", nargs="+", type=Path, metavar="PATH", required=True, help="good images, or folders of them"
    )
    parser.add_argument(
        "--exclude", nargs="+", default=[], metavar="FILE", help="names or paths of images in --good to leave out"
    )
    promise = parser.add_argument_group("promise")
    promise.add_argument(
        "--max-false-alarms",
        type=finite_float,
        metavar="X",
        help="largest share of good images that may be called anomalous; too few images for it are an error "
        f"(default: the best promise that the images allow; with --confidence, {usual.false_alarm_rate})",
    )
    promise.add_argument(
        "--confidence",
        type=_confidence,
        metavar=f"X|{_AVERAGE}",
        help=f"probability that this holds; {_AVERAGE}: it holds on average over calibrations, and needs fewer images "
        f"(default: the best promise that the images allow; with --max-false-alarms, {usual.confidence})",
    )
    promise.add_argument(
        "--null-model",
        choices=["auto", "none"],
        default="auto",
        help="auto learns it from the images that the threshold does not need; none takes latents as N(0, 1)",
    )
    add_seed_option(promise)
    model = parser.add_argument_group("model", "The threshold holds for a line that is run with the same options.")
    add_bundle_option(model)
    add_engine_options(model)
    add_view_options(model)
    add_reading_options(model)
    parser.add_argument(
        "--int8",
        action="store_true",
        help="first write an INT8 graph, made with the images of the null model; --precision int8 runs it",
    )
    parser.add_argument(
        "--int8-rest",
        choices=("fp32", "fp16"),
        help="with --int8: precision of what is not INT8 in that graph; fp32 suits CPUs, fp16 suits TensorRT, which "
        "fuses INT8 with FP16 (default: fp32)",
    )
    parser.add_argument(
        "--no-report", action="store_true", help=f"write no {REPORT} into the bundle; it contains some of the images"
    )
    return parser


def run(arguments: argparse.Namespace) -> ExitCode:
    """Calibrate a bundle. Only an INT8 graph is written before the calibration is complete, and it stays."""
    require_option(arguments, "int8", "int8_rest")
    usual = Promise()
    rate, confidence = arguments.max_false_alarms, arguments.confidence
    options = CalibrationOptions(
        promise=Promise(
            usual.false_alarm_rate if rate is None else rate,
            {None: usual.confidence, _AVERAGE: None}.get(confidence, confidence),
        ),
        null_model=arguments.null_model == "auto",
        seed=arguments.seed,
        views=views(arguments),
    )
    bundle = Bundle.load(arguments.bundle or find_bundle(Path.cwd()), UFlowManifest)
    check_writable(bundle.folder / MANIFEST)
    use(Reading.of(arguments, bundle.manifest.bits))
    bundle = replace(bundle, manifest=replace(bundle.manifest, bits=in_use().bits))
    admission = admit(chosen_images(arguments.good, arguments.exclude), TrainingRecord.load(bundle))
    options = _with_promise(options, admission, asked=(rate, confidence) != (None, None))
    if arguments.int8:
        bundle = _with_int8(bundle, admission.images, options, arguments.int8_rest or "fp32")
    with closing(open_engine(bundle, arguments.backend, arguments.precision, arguments.threads)) as engine:
        calibration = calibrate(bundle, admission, engine, options)
        page = None if arguments.no_report else _page(bundle, calibration, engine)
    written = save_calibration(bundle, calibration, page)
    _print_summary(calibration)
    print(f"wrote {written.folder}/" + (f"; see {written.folder / REPORT}" if page else ""))
    doubtful = calibration.admission.unreadable or calibration.unlike
    return ExitCode.BAD_INPUT if doubtful else ExitCode.OK


def _with_promise(options: CalibrationOptions, admission: Admission, *, asked: bool) -> CalibrationOptions:
    """The given promise, or the best one that the images allow.

    Raises:
        TooFewImages: the message says what was left out, and what to do.
    """
    images = len(admission.images)
    try:
        if not asked:
            options = options.with_best_promise(images)
            logger.info(
                f"promise: {options.promise}, the strictest of the usual ones that {images} images allow"
                + ("" if options.null_model else "; no null model")
            )
        Split.of(admission.images, options)
    except TooFewImages as error:
        raise TooFewImages(" ".join([f"{error}.", *admission.left_out_and_remedy]).rstrip(".")) from error
    return options


def _with_int8(
    bundle: Bundle[UFlowManifest],
    images: Sequence[ImageFile],
    options: CalibrationOptions,
    rest: Literal["fp32", "fp16"],
) -> Bundle[UFlowManifest]:
    """The bundle with an INT8 graph. Held-out images are not used for it, or the promise would not hold."""
    if not options.null_model:
        raise UsageError(
            "--int8 needs images for a null model, and the threshold leaves none: give at least 39 good images, and "
            "do not use --null-model none"
        )
    for module in ("onnx", "onnx_ir"):
        require(module, "calibrate")
    from uflow_edge.calibration.int8.quantize_bundle import Int8Options, quantize_bundle

    fitted = Split.of(images, options).fitted
    bundle, result = quantize_bundle(bundle, [image.path for image in fitted], Int8Options(rest=rest))
    logger.info(f"int8: {result.quantized_work:.0%} of the work")
    for parity in result.parities:
        note = "" if parity.holds else f": too far, this engine is not used{likely_cause('int8')}"
        logger.info(f"int8: {parity}{note}")
    return bundle


def chosen_images(good: Sequence[Path], exclude: Sequence[str]) -> list[ImageFile]:
    """Image files, each once, without those that are excluded by name or path.

    Raises:
        BadInput: a path does not exist, or a folder holds no images.
        UsageError: an excluded image is not among the good ones.
    """
    images = list({image.path.resolve(): image for image in image_files(good, good=True)}.values())
    for name in exclude:
        left = [image for image in images if image.path.name != name and image.path.resolve() != Path(name).resolve()]
        if len(left) == len(images):
            raise UsageError(f"--exclude {name}: no such image among the {len(images)} good ones")
        images = left
    return images


def _page(bundle: Bundle[UFlowManifest], calibration: Calibration, engine: Engine) -> str:
    from uflow_edge.calibration.latency import latencies_ms
    from uflow_edge.calibration.report import draw_pictures, report_page

    inspector = Inspector(bundle.manifest, engine, calibration.options.views, null_model=calibration.null_model)
    inspector.operating_point = calibration.operating_point
    pictures = draw_pictures(calibration, inspector)
    return report_page(bundle, calibration, pictures, latencies_ms(bundle), datetime.now().astimezone())


def _print_summary(calibration: Calibration) -> None:
    point = calibration.operating_point
    print(table(["good images above", "flagged", "share", "95 % interval"], alarm_rows(calibration), left={0}))
    for judged in (*calibration.suspicious_held_out, *calibration.suspicious_fitted)[:_LISTED]:
        print(f"looks anomalous: {judged.score:10.2f}  {judged.image.path}")
    for notice in notices(calibration):
        print(f"note: {notice}")
    print(f"threshold: {point.threshold:.2f}; {point.promise}")


def _confidence(text: str) -> float | str:
    return _AVERAGE if text == _AVERAGE else finite_float(text)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``uflow-calibrate``."""
    run_command(lambda: parser().parse_args(argv), run)


if __name__ == "__main__":
    main()
