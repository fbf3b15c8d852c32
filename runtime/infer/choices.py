"""Builds sources, views and camera options from the parsed command line of ``uflow-infer``."""

import argparse
from typing import TYPE_CHECKING

from uflow_edge.runtime.archive.arguments import check_ray_options
from uflow_edge.runtime.cli.options import require_option
from uflow_edge.runtime.errors import UsageError
from uflow_edge.runtime.text import redacted

if TYPE_CHECKING:
    from uflow_edge.runtime.sources import CameraOptions, Source
    from uflow_edge.runtime.views import ViewOptions


def check_option_combinations(arguments: argparse.Namespace) -> None:
    """Refuse options that would have no effect.

    Raises:
        UsageError: the message names the missing option.
    """
    require_option(arguments, "mqtt", "mqtt_pictures", "mqtt_ca", "mqtt_cert", "mqtt_key")
    require_option(arguments, "mqtt_cert", "mqtt_key")
    require_option(arguments, "serve", "token")
    require_option(arguments, "save_dir", "save_quota")
    if arguments.heat_map and not (arguments.save_dir or arguments.mqtt_pictures):
        raise UsageError("--heat-map is for saved and published pictures: it needs --save-dir or --mqtt-pictures")
    camera = ("camera_size", "camera_fps", "pixel_format", "exposure", "gain", "camera_buffers")
    require_option(arguments, "camera", *camera)
    if arguments.trigger == "software" and arguments.camera and not arguments.serve:
        raise UsageError("--trigger software needs --serve: POST /api/trigger of the live page fires it")
    check_ray_options(arguments, "parquet")
    if not (arguments.images or arguments.watch) and (arguments.bits or arguments.max_megapixels):
        raise UsageError("--bits and --max-megapixels are for image files; they do not work with --camera or --video")
    _refuse_own_results(arguments)


def _refuse_own_results(arguments: argparse.Namespace) -> None:
    """Refuse folders of results inside the inputs: their pictures would be inspected too, by ``--watch`` forever."""
    from uflow_edge.runtime.images.search import refuse_results_inside

    inputs = [arguments.watch] if arguments.watch else arguments.images or []
    named = {"--save-dir": arguments.save_dir, "--parquet": arguments.parquet}
    refuse_results_inside(inputs, {option: folder for option, folder in named.items() if folder is not None})


def address(text: str) -> tuple[str, int]:
    """Read ``8000`` (on this machine only), ``0.0.0.0:8000`` or ``[::1]:8000``.

    Raises:
        UsageError: the text is none of these.
    """
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"address {text!r}: expected PORT or HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)


def views(arguments: argparse.Namespace) -> "ViewOptions":
    """The regions of interest and tiles."""
    from uflow_edge.runtime.views import DEFAULT_OVERLAP, ViewOptions, parse_region

    if arguments.overlap is not None and arguments.tile is None:
        raise UsageError("--overlap needs --tile")
    overlap = DEFAULT_OVERLAP if arguments.overlap is None else arguments.overlap
    return ViewOptions(tuple(parse_region(text) for text in arguments.roi or ()), arguments.tile, overlap)


def camera_options(arguments: argparse.Namespace) -> "CameraOptions":
    """The settings to request from cameras."""
    from uflow_edge.runtime.sources import CameraOptions

    usual = CameraOptions()
    width, height = arguments.camera_size or (None, None)
    return CameraOptions(
        width=width,
        height=height,
        fps=arguments.camera_fps,
        pixel_format=arguments.pixel_format,
        exposure_us=arguments.exposure,
        gain=arguments.gain,
        buffers=arguments.camera_buffers or usual.buffers,
        silence_s=usual.silence_s if arguments.silence is None else arguments.silence,
    )


def sources(arguments: argparse.Namespace) -> "list[Source]":
    """The sources to inspect; none is opened yet.

    Raises:
        UsageError: an address is invalid.
        BadInput, MissingDependency: a source does not exist, or a package for it is missing.
    """
    from uflow_edge.runtime.sources import parse_camera
    from uflow_edge.runtime.sources.folders import ImageFiles, WatchedFolder, image_files
    from uflow_edge.runtime.sources.video import VideoFile

    if arguments.camera:
        if len(set(arguments.camera)) < len(arguments.camera):
            raise UsageError("--camera: the same camera is given twice")
        options, shown = camera_options(arguments), [redacted(text) for text in arguments.camera]
        return [
            # Cameras whose addresses differ only in secrets get a number.
            parse_camera(text, options, number=1 + shown[:i].count(shown[i]))
            for i, text in enumerate(arguments.camera)
        ]
    if arguments.images:
        return [ImageFiles(image_files(arguments.images))]
    if arguments.watch:
        return [WatchedFolder(arguments.watch)]
    return [VideoFile(arguments.video)]
