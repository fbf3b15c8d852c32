"""``uflow-infer``: inspect images, videos or a camera with a bundle."""

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from uflow_edge.runtime.command_line import command_parser, positive_int, print_beside_bar, progress, run_command
from uflow_edge.runtime.errors import BadInput, ExitCode

if TYPE_CHECKING:
    from uflow_edge.runtime.sources import Frame
    from uflow_edge.runtime.verdict import Verdict


def parser() -> argparse.ArgumentParser:
    """The command line of ``uflow-infer``."""
    parser = command_parser(
        "uflow-infer",
        "Inspect images, a video or a camera, and say which frames are anomalous and where.",
        [
            "uflow-infer --images parts/                                # the one *.uflow bundle in this folder",
            "uflow-infer --images parts/ --save-dir seen --json seen.jsonl",
            "uflow-infer --bundle bottle.uflow --camera 0 --json -",
        ],
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", nargs="+", type=Path, metavar="PATH", help="image files, and folders of them")
    source.add_argument("--video", type=Path, metavar="FILE", help="a video file, every frame of it")
    source.add_argument("--camera", metavar="INDEX|URL", help="a camera: 0, 1, … or rtsp://…; Ctrl-C ends it")
    parser.add_argument(
        "--bundle", type=Path, metavar="FOLDER", help="the model; default: the one *.uflow bundle in the current folder"
    )
    parser.add_argument(
        "--save-dir", type=Path, metavar="FOLDER", help="save a picture of every frame: heat map, outline, score"
    )
    parser.add_argument("--json", metavar="FILE", help="write one JSON object a frame; - is standard output")
    parser.add_argument("--threads", type=positive_int, metavar="N", help="threads of the engine; default: one a core")
    parser.add_argument("--max-frames", type=positive_int, metavar="N", help="stop after N frames")
    parser.add_argument("--fail-on-anomaly", action="store_true", help="exit with 1 when a frame is anomalous")
    parser.add_argument("--quiet", action="store_true", help="no line a frame, only the summary")
    return parser


@dataclass
class _Tally:
    """What the summary line sums up."""

    unreadable: int = 0
    anomalous: int = 0
    milliseconds: list[float] = field(default_factory=list)

    def report_unreadable(self, error: BadInput) -> None:
        """Say which image could not be read, and count it."""
        self.unreadable += 1
        print_beside_bar(f"unreadable: {error}", sys.stderr)

    def add(self, verdict: "Verdict") -> None:
        """Count a verdict."""
        self.anomalous += verdict.anomalous
        self.milliseconds.append(verdict.timestamps.total_ms)

    def __str__(self) -> str:
        inspected = len(self.milliseconds)
        text = f"{inspected} inspected, {self.anomalous} anomalous, {self.unreadable} unreadable"
        return text + (f", median {statistics.median(self.milliseconds):.1f} ms a frame" if inspected else "")


def infer(arguments: argparse.Namespace) -> ExitCode:
    """Run the inspection that the command line asks for."""
    from uflow_edge.runtime.bundle import find_bundle
    from uflow_edge.runtime.inspector import Inspector
    from uflow_edge.runtime.sinks import STDOUT, OverlayFolder, open_lines, write_line

    tally = _Tally()
    frames, total = _frames(arguments, tally)
    inspector = Inspector.load(arguments.bundle or find_bundle(Path.cwd()), threads=arguments.threads)
    people = sys.stderr if arguments.json == STDOUT else sys.stdout
    point = inspector.manifest.operating_point
    print(f"{inspector.engine.name}; threshold {point.threshold:.2f} ({point.origin})", file=people)
    overlays = OverlayFolder(arguments.save_dir, inspector.manifest.channels) if arguments.save_dir else None
    interrupted = False
    with open_lines(arguments.json) as lines:
        try:
            for frame in progress(frames, "inspecting", total, "frame"):
                inspection = inspector.examine(
                    frame.image_bgr, frame=frame.index, source=frame.source, captured=frame.captured
                )
                verdict = inspection.verdict
                tally.add(verdict)
                if lines:
                    write_line(verdict, lines)
                if overlays:
                    overlays.save(frame, inspection)
                if not arguments.quiet and arguments.json != STDOUT:
                    word = "ANOMALY" if verdict.anomalous else "good   "
                    print_beside_bar(f"{word} {verdict.score:10.2f}  {frame.source} #{frame.index}", people)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            print(tally, file=people)
    return _exit_code(arguments, tally, interrupted)


def _frames(arguments: argparse.Namespace, tally: _Tally) -> "tuple[Iterator[Frame], int | None]":
    from itertools import islice

    from uflow_edge.runtime.sources import frames_of_camera, frames_of_images, frames_of_video, image_files

    if arguments.images:
        files = image_files(arguments.images)
        frames, total = frames_of_images(files, tally.report_unreadable), len(files)
    else:
        frames = frames_of_video(arguments.video) if arguments.video else frames_of_camera(arguments.camera)
        total = None
    if arguments.max_frames is not None:
        total = arguments.max_frames if total is None else min(total, arguments.max_frames)
    return islice(frames, arguments.max_frames), total


def _exit_code(arguments: argparse.Namespace, tally: _Tally, interrupted: bool) -> ExitCode:
    if interrupted and not arguments.camera:  # Ctrl-C is how a camera run ends
        return ExitCode.INTERRUPTED
    if tally.unreadable:
        return ExitCode.BAD_INPUT
    if arguments.fail_on_anomaly and tally.anomalous:
        return ExitCode.ANOMALY
    return ExitCode.OK


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``uflow-infer``."""
    arguments = parser().parse_args(argv)
    run_command(lambda: infer(arguments))
