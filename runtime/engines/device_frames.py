"""From frames to engine outputs on one GPU: the raw frame is uploaded, and a few kilobytes are downloaded."""

import logging
from typing import TYPE_CHECKING

import numpy as np

from uflow_edge.runtime.errors import MissingDependency
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.resize.cpu import Box

if TYPE_CHECKING:
    from uflow_edge.runtime.engines import Engine, Outputs
    from uflow_edge.runtime.engines.gpu_resize import CudaPreprocessor
    from uflow_edge.runtime.engines.tensorrt import DeviceInput, TensorRtEngine

logger = logging.getLogger(__name__)


class DeviceFrames:
    """Resizes frames with the kernel of gpu_resize.cu, straight into the engine's input buffer.

    Args:
        engine: the caller closes it, after this object.
        preprocessor: of the same GPU and input size; `close` closes it.
    """

    def __init__(self, engine: "TensorRtEngine", preprocessor: "CudaPreprocessor") -> None:
        self._engine = engine
        self._preprocessor = preprocessor

    def run(self, frame_bgr: Image, boxes: tuple[Box, ...]) -> "Outputs":
        """Resize parts of a frame and run the engine on them.

        Args:
            frame_bgr: (H, W, 3) uint8, BGR.
            boxes: one per sample.

        Raises:
            BadInput: a box is not inside the frame.
            EngineFailed: the GPU failed.
        """
        largest = self._engine.largest_batch
        runs = [self._run(frame_bgr, boxes[start : start + largest]) for start in range(0, len(boxes), largest)]
        return runs[0] if len(runs) == 1 else tuple(np.concatenate(parts) for parts in zip(*runs, strict=True))

    def _run(self, frame_bgr: Image, boxes: tuple[Box, ...]) -> "Outputs":
        def write(target: "DeviceInput") -> None:
            self._preprocessor.run(frame_bgr, target.pointer, target.stream, boxes)

        return self._engine.run_on_device(write, len(boxes))

    def close(self) -> None:
        """Free the preprocessor's memory on the GPU."""
        self._preprocessor.close()


def device_frames(engine: "Engine", side: int) -> DeviceFrames | None:
    """The resize on the GPU for a native TensorRT engine; None if the CPU has to resize.

    Args:
        side: S of its input, in pixels.
    """
    from uflow_edge.runtime.engines.gpu_resize import CudaPreprocessor
    from uflow_edge.runtime.engines.tensorrt import TensorRtEngine

    if not isinstance(engine, TensorRtEngine):
        return None
    try:
        return DeviceFrames(engine, CudaPreprocessor(engine.cuda, side))
    except MissingDependency as error:
        logger.warning("warning: frames are resized on the CPU: %(error)s", {"error": error})
        return None
