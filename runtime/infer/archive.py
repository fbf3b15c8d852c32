"""``uflow-infer --ray``: inspect an archive on a cluster."""

import argparse
from pathlib import Path

from uflow_edge.runtime.archive.arguments import cluster_options
from uflow_edge.runtime.archive.inference import Inference
from uflow_edge.runtime.archive.recipe import InspectorRecipe
from uflow_edge.runtime.archive.records import PARTITION
from uflow_edge.runtime.archive.run import Run, execute
from uflow_edge.runtime.bundle.folder import Bundle, find_bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.errors import ExitCode, UsageError
from uflow_edge.runtime.images.decode import Reading, use
from uflow_edge.runtime.infer import choices as cli
from uflow_edge.runtime.scoring import with_rule
from uflow_edge.runtime.sources.folders import image_files


def infer_archive(arguments: argparse.Namespace) -> ExitCode:
    """Inspect ``--images`` on a cluster, and write the verdicts to ``--parquet``."""
    _check_archive_options(arguments)
    cluster = cluster_options(arguments)
    files = image_files([path.absolute() for path in arguments.images])[: arguments.max_frames]
    bundle = Bundle.load(arguments.bundle or find_bundle(Path.cwd()), UFlowManifest)
    if arguments.rule:
        bundle = with_rule(bundle, arguments.rule)
    use(Reading.of(arguments, bundle.manifest.bits))
    recipe = InspectorRecipe.from_bundle(
        bundle,
        threshold=arguments.threshold,
        backend=arguments.backend,
        precision=arguments.precision,
        threads=arguments.threads,
        views=cli.views(arguments),
    )
    point = recipe.bundle.manifest.operating_point
    print(f"threshold: {point.threshold:.2f} ({point.origin})", flush=True)
    run = Run(
        arguments.parquet,
        {"job": "inference", **recipe.facts()},
        [{"path": str(file.path)} for file in files],
        Inference(recipe),
        retry=arguments.ray_retry,
    )
    results, tally = execute(run, cluster)
    print(f"{tally.inspected} inspected, {tally.anomalous} anomalous, {tally.unreadable} unreadable: {results.folder}")
    if tally.unreadable:
        print(f"unreadable files are listed in {results.folder / f'{PARTITION}=unreadable'}")
        return ExitCode.BAD_INPUT
    return ExitCode.ANOMALY if arguments.fail_on_anomaly and tally.anomalous else ExitCode.OK


_UNSUPPORTED = {
    "save_dir": "select images with a query of --parquet, and save their pictures in a run without --ray",
    **dict.fromkeys(("jsonl", "mqtt", "serve", "metrics", "modbus"), "verdicts of an archive go to --parquet"),
}
"""Options that do not work with archives, and the alternative."""


def _check_archive_options(arguments: argparse.Namespace) -> None:
    """Refuse options that have no effect with ``--ray``, and require ``--images`` and ``--parquet``."""
    if not arguments.images:
        raise UsageError("--ray works with --images only: cameras and videos are inspected on their own machine")
    if not arguments.parquet:
        raise UsageError("--ray needs --parquet FOLDER, on storage that all workers share")
    for name, instead in _UNSUPPORTED.items():
        if getattr(arguments, name):
            raise UsageError(f"--{name.replace('_', '-')} does not work with --ray: {instead}")
    if arguments.trigger != "free":
        raise UsageError("--trigger does not work with --ray: every image of an archive is inspected")
