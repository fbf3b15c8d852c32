"""``uflow-infer``: inspect cameras, images or a video with a bundle."""

import argparse
import math
import sys
from collections.abc import Sequence, Sized
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from uflow_edge.runtime.cli.command_line import run_command
from uflow_edge.runtime.cli.interrupts import deferred_interrupts
from uflow_edge.runtime.cli.logs import print_beside_bar
from uflow_edge.runtime.errors import ExitCode, Stuck, UsageError
from uflow_edge.runtime.infer import choices as cli
from uflow_edge.runtime.infer.arguments import parser

if TYPE_CHECKING:
    from uflow_edge.runtime.bundle.folder import Bundle
    from uflow_edge.runtime.bundle.uflow import UFlowManifest
    from uflow_edge.runtime.inspector import Inspector
    from uflow_edge.runtime.line.capture import Feed
    from uflow_edge.runtime.line.pipeline import PipelineOptions
    from uflow_edge.runtime.sources import Source


def infer(arguments: argparse.Namespace) -> ExitCode:
    """Inspect the sources of the command line; returns the exit code."""
    import cv2

    from uflow_edge.runtime.bundle.folder import Bundle, find_bundle
    from uflow_edge.runtime.bundle.uflow import UFlowManifest
    from uflow_edge.runtime.images.decode import Reading, use
    from uflow_edge.runtime.infer.console import Console
    from uflow_edge.runtime.infer.receivers import connect_receivers
    from uflow_edge.runtime.line.pipeline import Pipeline
    from uflow_edge.runtime.scoring import with_rule
    from uflow_edge.runtime.sinks.hints import Hints
    from uflow_edge.runtime.sinks.json_lines import STANDARD_OUTPUT

    cv2.setNumThreads(1)  # its workers would spin between short jobs, on cores that the engine needs
    cli.check_option_combinations(arguments)
    if arguments.ray:
        from uflow_edge.runtime.infer.archive import infer_archive

        return infer_archive(arguments)
    lines_on_stdout = str(arguments.jsonl) == STANDARD_OUTPUT
    stream = sys.stderr if lines_on_stdout else sys.stdout
    with ExitStack() as engines, ExitStack() as stack:
        sources = cli.sources(arguments)
        feeds = _feeds(arguments, sources, stack)
        bundle = Bundle.load(arguments.bundle or find_bundle(Path.cwd()), UFlowManifest)
        _show_own_pictures(sources, bundle)
        if arguments.rule:
            bundle = with_rule(bundle, arguments.rule)
        use(Reading.of(arguments, bundle.manifest.bits))
        inspector = engines.enter_context(_inspector(arguments, bundle))
        point = inspector.operating_point
        print_beside_bar(f"threshold: {point.threshold:.2f} ({point.origin}); {point.promise}", stream)
        pipeline = Pipeline(inspector, feeds, options=_options(arguments))
        connect_receivers(arguments, bundle, pipeline, feeds, stack)
        console = Console(
            stream, line_per_frame=not arguments.quiet and not lines_on_stdout, total=_expected(arguments, sources)
        )
        pipeline.connect(console)
        pipeline.connect(Hints(bundle.manifest.calibration, sources[0].name if len(sources) == 1 else None))
        try:
            with deferred_interrupts(pipeline.stop) as interrupted:
                pipeline.run()
        except Stuck:
            engines.pop_all()  # closing an engine during a run would abort the process
            raise
        finally:
            stack.close()  # sinks deliver their waiting results
            console.close()
            tally = pipeline.tally()
            print_beside_bar(console.summary(tally), stream)
    if interrupted() and not (arguments.camera or arguments.watch):  # these runs always end with a signal
        return ExitCode.INTERRUPTED
    lost = any(tally.undelivered.values()) and not arguments.camera
    if tally.unreadable or tally.not_judged or lost:
        return ExitCode.BAD_INPUT
    return ExitCode.ANOMALY if arguments.fail_on_anomaly and tally.anomalous else ExitCode.OK


def _feeds(arguments: argparse.Namespace, sources: "Sequence[Source]", stack: ExitStack) -> "list[Feed]":
    from uflow_edge.runtime.line.capture import Feed
    from uflow_edge.runtime.line.triggers import parse_trigger

    if arguments.trigger.startswith(("software", "gpio")) and not all(source.live for source in sources):
        raise UsageError(f"--trigger {arguments.trigger} works with cameras only, not with files")
    feeds = []
    for source in sources:
        trigger = parse_trigger(arguments.trigger)
        stack.callback(trigger.close)
        feeds.append(Feed(source, trigger, arguments.policy))
    return feeds


def _inspector(arguments: argparse.Namespace, bundle: "Bundle[UFlowManifest]") -> "Inspector":
    from uflow_edge.runtime.inspector import Inspector

    return Inspector.load(
        bundle,
        backend=arguments.backend,
        precision=arguments.precision,
        threshold=arguments.threshold,
        threads=arguments.threads,
        views=cli.views(arguments),
    )


def _show_own_pictures(sources: "Sequence[Source]", bundle: "Bundle[UFlowManifest]") -> None:
    """Let synthetic cameras show images from the bundle, if it has any: all other scenes would be anomalous."""
    from uflow_edge.runtime.engines.reference import REFERENCE, StoredReference
    from uflow_edge.runtime.sources.synthetic import SyntheticCamera

    cameras = [source for source in sources if isinstance(source, SyntheticCamera)]
    if not cameras or REFERENCE not in bundle.manifest.files:
        return
    manifest = bundle.manifest
    pictures = StoredReference.load(bundle.folder / REFERENCE, manifest).photographs_bgr()
    side, record = manifest.input_size, manifest.calibration
    for camera in cameras:
        camera.show(pictures, (side, side) if record is None else record.usual_size)


def _options(arguments: argparse.Namespace) -> "PipelineOptions":
    from uflow_edge.runtime.line.capture import ReconnectOptions
    from uflow_edge.runtime.line.pipeline import PipelineOptions

    # A source reports silence itself; this longer limit is for a source that hangs.
    silence = 1.5 * cli.camera_options(arguments).silence_s
    give_up = math.inf if arguments.give_up is None else arguments.give_up
    reconnect = ReconnectOptions(silence=silence, give_up=give_up)
    return PipelineOptions(max_frames=arguments.max_frames, reconnect=reconnect)


def _expected(arguments: argparse.Namespace, sources: "Sequence[Source]") -> int | None:
    """The number of frames to expect; None if it is unknown."""
    known = [len(source) for source in sources if isinstance(source, Sized)]
    limits = [*known, *([arguments.max_frames] if arguments.max_frames else [])]
    return min(limits) if limits else None


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``uflow-infer``."""
    run_command(lambda: parser().parse_args(argv), infer, log_to="stderr")


if __name__ == "__main__":
    main()
