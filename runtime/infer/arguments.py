"""The command line of ``uflow-infer``."""

import argparse
from pathlib import Path
from typing import Any

from uflow_edge.runtime.archive.arguments import add_ray_options
from uflow_edge.runtime.cli.options import (
    add_bundle_option,
    add_engine_options,
    add_heat_map_option,
    add_images_option,
    add_jsonl_option,
    add_reading_options,
    add_rule_option,
    add_view_options,
)
from uflow_edge.runtime.cli.parser import command_parser
from uflow_edge.runtime.cli.values import finite_float, pixel_size, positive_int

TOKEN_VARIABLE = "UFLOW_EDGE_TOKEN"
MQTT_PASSWORD_VARIABLE = "UFLOW_EDGE_MQTT_PASSWORD"
PAGE, METRICS, MODBUS = "127.0.0.1:8000", "127.0.0.1:9108", "127.0.0.1:1502"


def parser() -> argparse.ArgumentParser:
    """The command line of ``uflow-infer``."""
    parser = command_parser(
        "uflow-infer",
        "Inspect a camera, images or a video, and report which frames are anomalous and where.",
        [
            "uflow-infer parts/                                         # the only *.uflow bundle in this folder",
            "uflow-infer --images parts/ --save-dir seen --jsonl seen.jsonl",
            "uflow-infer --camera 0 --serve                             # and open http://127.0.0.1:8000/",
            "uflow-infer --camera rtsp://line-1/ --save-dir seen --save anomalies --save-quota 10000 --mqtt mqtt://broker",
            "uflow-infer --camera synthetic:640x480@30 --serve          # without a camera",
            "uflow-infer --images archive/ --ray local --parquet found  # docs/scale-out.md",
        ],
    )
    _add_sources(parser)
    _add_model(parser)
    _add_outputs(parser)
    add_ray_options(parser).add_argument(
        "--parquet",
        type=Path,
        metavar="FOLDER",
        help="write one row per image to this folder, on storage that all workers share",
    )
    run = parser.add_argument_group("run")
    run.add_argument("--max-frames", type=positive_int, metavar="N", help="stop after N frames")
    run.add_argument("--fail-on-anomaly", action="store_true", help="exit with code 1 if a frame is anomalous")
    run.add_argument("--quiet", action="store_true", help="print no line per frame, only the summary")
    return parser


class _Images(argparse.Action):
    """Stores positional paths as ``--images``."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: object) -> None:
        if values:
            namespace.images = values


def _add_sources(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to inspect")
    source = group.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--camera",
        action="append",
        metavar="CAMERA",
        help="0, /dev/video0, csi://0, rtsp://…, http://…, gst:PIPELINE, genicam:SERIAL, synthetic:640x480@30; "
        "repeat it for more cameras; Ctrl-C ends the run",
    )
    source.add_argument(
        "paths", nargs="*", action=_Images, default=[], type=Path, metavar="PATH", help="the same as --images PATH"
    )
    add_images_option(source)
    source.add_argument(
        "--watch", type=Path, metavar="FOLDER", help="inspect images as they appear in a folder, until Ctrl-C"
    )
    source.add_argument("--video", type=Path, metavar="FILE", help="a video file; every frame is inspected")
    add_view_options(group)
    add_reading_options(group)
    camera = parser.add_argument_group("cameras")
    camera.add_argument("--camera-size", type=pixel_size, metavar="WxH", help="frame size to ask the camera for")
    camera.add_argument("--camera-fps", type=finite_float, metavar="X", help="frames per second to ask the camera for")
    camera.add_argument(
        "--pixel-format", metavar="NAME", help="pixel format to ask the camera for: MJPG, YUYV, BayerRG8, …"
    )
    camera.add_argument("--exposure", type=finite_float, metavar="US", help="exposure time in microseconds")
    camera.add_argument("--gain", type=finite_float, metavar="X", help="gain, in the camera's own unit")
    camera.add_argument(
        "--camera-buffers", type=positive_int, metavar="N", help="frames that V4L2 may buffer (default: 1)"
    )
    camera.add_argument(
        "--silence",
        type=finite_float,
        metavar="S",
        help="seconds without a frame after which a camera counts as lost (default: 10)",
    )
    camera.add_argument(
        "--give-up",
        type=finite_float,
        metavar="S",
        help="seconds to wait for a lost camera before the run ends (default: forever)",
    )
    camera.add_argument(
        "--trigger",
        default="free",
        metavar="TRIGGER",
        help="which frames are inspected: free (all), every:MILLISECONDS, software (POST /api/trigger of the live "
        "page), gpio:CHIP/LINE",
    )
    camera.add_argument(
        "--policy",
        choices=["latest", "every"],
        help="when frames come faster than they can be inspected: latest drops and counts frames, every makes the "
        "source wait (default: latest for cameras, every for files)",
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    add_bundle_option(group)
    add_engine_options(group)
    add_rule_option(group)
    group.add_argument(
        "--threshold",
        type=finite_float,
        metavar="X",
        help="a frame is anomalous if its score, -log10 NFA, is above X (default: the bundle's threshold)",
    )


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("results")
    add_jsonl_option(group, "- is standard output")
    group.add_argument(
        "--jsonl-size", type=positive_int, default=100, metavar="MB", help="start a new --jsonl file at this size"
    )
    group.add_argument("--jsonl-files", type=positive_int, default=10, metavar="N", help="--jsonl files to keep")
    group.add_argument("--save-dir", type=Path, metavar="FOLDER", help="save pictures with heat map, outline and score")
    group.add_argument("--save", choices=["all", "anomalies"], default="all", help="which pictures to save")
    add_heat_map_option(group)
    group.add_argument("--save-format", choices=["png", "jpeg"], default="png", help="format of the pictures")
    group.add_argument(
        "--save-quota",
        type=positive_int,
        metavar="MB",
        help="above this size of all pictures, delete the oldest (default: never)",
    )
    group.add_argument(
        "--mqtt",
        metavar="URL",
        help=f"publish to this broker: mqtt://host or mqtts://user@host:8883; password in {MQTT_PASSWORD_VARIABLE}",
    )
    group.add_argument("--mqtt-topic", default="uflow", metavar="PREFIX", help="first part of all topics")
    group.add_argument("--mqtt-pictures", action="store_true", help="also publish a small picture of every anomaly")
    group.add_argument(
        "--mqtt-ca",
        type=Path,
        metavar="PEM",
        help="certificate authorities to trust with mqtts:// (default: the system's)",
    )
    group.add_argument("--mqtt-cert", type=Path, metavar="PEM", help="client certificate for an mqtts:// broker")
    group.add_argument(
        "--mqtt-key", type=Path, metavar="PEM", help="key of the client certificate (default: in the same file)"
    )
    group.add_argument(
        "--serve", nargs="?", const=PAGE, metavar="[HOST:]PORT", help=f"show the live page (without a value: {PAGE})"
    )
    group.add_argument(
        "--token",
        metavar="TEXT",
        help=f"token that the live page requires when it listens beyond this machine (or {TOKEN_VARIABLE})",
    )
    group.add_argument(
        "--metrics",
        nargs="?",
        const=METRICS,
        metavar="[HOST:]PORT",
        help=f"serve Prometheus metrics without the live page, which has them at /metrics (without a value: {METRICS})",
    )
    group.add_argument(
        "--modbus",
        nargs="?",
        const=MODBUS,
        metavar="[HOST:]PORT",
        help=f"serve the last verdict and the counts to a PLC over Modbus TCP (without a value: {MODBUS})",
    )
