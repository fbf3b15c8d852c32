"""Sources of frames: cameras, video files, image files and folders. Importing this loads nothing heavy."""

from uflow_edge.runtime.sources.addresses import parse_camera
from uflow_edge.runtime.sources.options import CameraOptions
from uflow_edge.runtime.sources.source import Frame, Source, SourceLost

__all__ = ["CameraOptions", "Frame", "Source", "SourceLost", "parse_camera"]
