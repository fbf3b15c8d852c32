"""``uflow-evaluate``: compute the paper's metrics on labelled images, for one model or one model per category."""

import argparse
import logging
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from uflow_edge.runtime.archive.arguments import add_ray_options, check_ray_options, cluster_options
from uflow_edge.runtime.bundle.folder import Bundle, find_bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.cli.command_line import progress, run_command
from uflow_edge.runtime.cli.options import (
    add_bundle_option,
    add_engine_options,
    add_heat_map_option,
    add_json_option,
    add_reading_options,
    add_report_option,
    add_rule_option,
    require_option,
)
from uflow_edge.runtime.cli.parser import command_parser
from uflow_edge.runtime.cli.values import positive_int
from uflow_edge.runtime.engines.selection import open_engine
from uflow_edge.runtime.errors import BadInput, ExitCode, UflowEdgeError, UsageError, refuse_faults
from uflow_edge.runtime.images.decode import Reading, use
from uflow_edge.runtime.images.files import read_image
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.scoring import with_rule
from uflow_edge.runtime.storage.files import check_writable
from uflow_edge.training.dataset import TestImage
from uflow_edge.training.evaluation.evaluate import Evaluation, evaluate
from uflow_edge.training.evaluation.ground_truth import labelled_images
from uflow_edge.training.evaluation.models import models_of, opened
from uflow_edge.training.evaluation.results import EvaluationResults

logger = logging.getLogger(__name__)


def parser() -> argparse.ArgumentParser:
    """The command line of ``uflow-evaluate``."""
    parser = command_parser(
        "uflow-evaluate",
        "Measure how well a model finds and outlines defects, on images and masks in the layout of MVTec AD.",
        [
            "uflow-evaluate --bundle bottle.uflow --data mvtec/bottle --report bottle.html",
            "uflow-evaluate --all --bundles bundles/ --data mvtec/ --json results.json",
            "uflow-evaluate --ckpt bottle.ckpt --data mvtec/bottle   # needs the extra train",
            "uflow-evaluate --all --ckpt checkpoints/ --data mvtec/ --rule upstream --metric-size 256   # as the paper",
            "uflow-evaluate --bundle bottle.uflow --data mvtec/bottle --ray local --ray-state measured",
        ],
    )
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="data set with test/good, test/<kind>, …; with --all, a folder of data sets",
    )
    add_bundle_option(parser)
    add(
        "--ckpt",
        type=Path,
        metavar="FILE",
        help="U-Flow checkpoint; takes the place of a bundle; with --all, a folder of <category>.ckpt",
    )
    add(
        "--ground-truth",
        type=Path,
        metavar="FOLDER",
        help="folder of the masks, <kind>/<name>_mask.png (default: ground_truth in --data)",
    )
    add(
        "--no-masks",
        action="store_true",
        help="label images by their folder only, and omit the metrics that need masks",
    )
    add(
        "--metric-size",
        type=positive_int,
        metavar="N",
        help="compare masks and score maps at N x N pixels; the paper does at 256 (default: the size of each image)",
    )
    add("--all", action="store_true", help="evaluate every folder below --data that has a folder named test")
    add("--bundles", type=Path, metavar="FOLDER", help="with --all: folder of <category>.uflow (default: this folder)")
    add_json_option(parser)
    add_report_option(parser, "with curves and images of the worst cases")
    add_heat_map_option(parser)
    model = parser.add_argument_group("model")
    add_engine_options(model, precision_default="fp16 on a GPU, fp32 on a CPU and with --ckpt")
    add_rule_option(model)
    add_reading_options(parser)
    add_ray_options(parser).add_argument(
        "--ray-state",
        type=Path,
        metavar="FOLDER",
        help="folder for the measurements so far, on storage that all workers share",
    )
    return parser


@dataclass(frozen=True, slots=True)
class Job:
    """One category to evaluate: its name, where the bundle or checkpoint is, and the labelled images."""

    category: str
    model: Path
    images: list[TestImage]


def jobs(arguments: argparse.Namespace) -> list[Job]:
    """The jobs of the command line; all images and masks are found before the first image is inspected.

    Raises:
        UsageError: some options exclude each other.
        BadInput: there are no categories, or one has no model, test images or masks.
    """
    if arguments.bundle and arguments.all:
        raise UsageError("--all reads its bundles from --bundles FOLDER; it does not work with --bundle")
    if arguments.bundles and not arguments.all:
        raise UsageError("--bundles needs --all; for a single bundle use --bundle FOLDER")
    if arguments.ckpt and (arguments.bundle or arguments.bundles):
        raise UsageError("--ckpt replaces the bundle; give only one of them")
    if arguments.ground_truth and arguments.no_masks:
        raise UsageError("--ground-truth names the folder of masks; it does not work with --no-masks")
    if arguments.metric_size and arguments.no_masks:
        raise UsageError("--metric-size is the size at which masks are compared; it does not work with --no-masks")
    require_option(arguments, "report", "heat_map")
    check_ray_options(arguments, "ray_state")
    if arguments.ray and not arguments.ray_state:
        raise UsageError("--ray needs --ray-state FOLDER, on storage that all workers share")
    if arguments.ckpt and arguments.ray not in (None, "local"):
        raise UsageError("--ckpt makes a bundle that only this machine can read; export it first, or use --ray local")
    data, truth, masks = arguments.data, arguments.ground_truth, not arguments.no_masks
    if not data.is_dir():
        raise BadInput(f"{data}: no such folder; expected test images in the layout of MVTec AD")
    if not arguments.all:
        if arguments.ckpt and not arguments.ckpt.is_file():
            raise BadInput(f"{arguments.ckpt}: no such checkpoint file; a folder of checkpoints needs --all")
        model = arguments.ckpt or arguments.bundle or find_bundle(Path.cwd())
        return [Job(data.resolve().name, model, labelled_images(data, truth, masks=masks))]
    categories = sorted(folder.parent for folder in data.glob("*/test") if folder.is_dir())
    if not categories:
        raise BadInput(f"{data}: it contains no categories; expected <category>/test/<kind>/")
    folder = arguments.ckpt or arguments.bundles or Path.cwd()
    models = models_of([category.name for category in categories], folder, checkpoints=arguments.ckpt is not None)
    found: list[Job] = []
    faults: list[str] = []
    for category, model in zip(categories, models, strict=True):
        try:
            images = labelled_images(category, truth and truth / category.name, masks=masks)
            found.append(Job(category.name, model, images))
        except BadInput as error:
            faults.append(str(error))
    refuse_faults(faults, "Nothing was inspected")
    return found


def run(arguments: argparse.Namespace) -> ExitCode:
    """Run all jobs; the results so far are written even if a later category fails."""
    for path in filter(None, (arguments.json, arguments.report)):
        check_writable(path)
    use(Reading.of(arguments, arguments.bits or 16))  # gives no hint on bits before the model's bit depth is known
    pending = jobs(arguments)
    if not arguments.ray:
        _name_unreadable(pending)
    results = EvaluationResults()
    try:
        for job in pending:
            try:
                _evaluate(arguments, job, results)
            except (UflowEdgeError, OSError) as error:
                if not arguments.all:
                    raise
                results.failed[job.category] = str(error)
                logger.error("error: %(category)s: %(error)s", {"category": job.category, "error": error})
    finally:
        if results.evaluations:
            results.write(arguments.json, arguments.report)
    faulty = results.failed or any(evaluation.unreadable for evaluation in results.evaluations)
    return ExitCode.BAD_INPUT if faulty else ExitCode.OK


def _name_unreadable(pending: Sequence[Job]) -> None:
    """Log unreadable images before the long evaluation of the others; they are excluded from all numbers."""
    for image in progress([image for job in pending for image in job.images], "checking images"):
        try:
            read_image(image.path)
        except BadInput as error:
            logger.warning("unreadable: %(error)s", {"error": error})


def _evaluate(arguments: argparse.Namespace, job: Job, results: EvaluationResults) -> None:
    with ExitStack() as stack:
        bundle = stack.enter_context(opened(job.model, arguments.precision, block_nfa=arguments.rule == "block"))
        use(Reading.of(arguments, bundle.manifest.bits))
        if arguments.rule:
            bundle = with_rule(bundle, arguments.rule)
        evaluation = _on_a_cluster(arguments, job, bundle) if arguments.ray else None
        if evaluation is None or arguments.report:
            engine = open_engine(bundle, arguments.backend, arguments.precision, arguments.threads)
            inspector = Inspector.from_bundle(bundle, stack.enter_context(closing(engine)))
            evaluation = evaluation or evaluate(job.category, job.images, inspector, arguments.metric_size)
            if arguments.report:
                from uflow_edge.training.evaluation.report import category_section

                results.sections.append(category_section(evaluation, inspector, arguments.heat_map or "nfa"))
        results.evaluations.append(evaluation)


def _on_a_cluster(arguments: argparse.Namespace, job: Job, bundle: Bundle[UFlowManifest]) -> Evaluation:
    from uflow_edge.runtime.archive.recipe import InspectorRecipe
    from uflow_edge.training.evaluation.archive import evaluate_archive

    recipe = InspectorRecipe.from_bundle(
        bundle, backend=arguments.backend, precision=arguments.precision, threads=arguments.threads
    )
    folder = arguments.ray_state / job.category if arguments.all else arguments.ray_state
    cluster, size, retry = cluster_options(arguments), arguments.metric_size, arguments.ray_retry
    return evaluate_archive(job.category, job.images, recipe, folder, cluster, metric_size=size, retry=retry)


def _run_in_one_cluster(arguments: argparse.Namespace) -> ExitCode:
    """Start one cluster for all categories, because its start takes longer than many a category."""
    if not (arguments.ray and arguments.all):
        return run(arguments)
    from uflow_edge.runtime.archive.cluster import connected

    with connected(cluster_options(arguments)):
        return run(arguments)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``uflow-evaluate``."""
    run_command(lambda: parser().parse_args(argv), _run_in_one_cluster)


if __name__ == "__main__":
    main()
