"""The lower bound: onnxruntime's ``session.run`` on our graph, in the few lines that anybody would write."""

from pathlib import Path
from typing import Any

from uflow_edge.runtime.bundle.uflow import INPUT_NAME
from uflow_edge.runtime.errors import require
from uflow_edge.runtime.numeric import FloatMap, Image


class BareSession:
    """A graph in onnxruntime.

    Args:
        graph: ONNX file.
        threads: of the CPU.
        spinning: let threads spin while they wait, as is onnxruntime's way unless it is told otherwise. Those of our
            engine sleep, and leave the processor to whatever runs beside them.
    """

    def __init__(self, graph: Path, threads: int, *, spinning: bool) -> None:
        onnxruntime = require("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        self._session: Any = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])

    def run(self, picture: Image) -> list[FloatMap]:
        """(1, S, S, 3) uint8 RGB to what the graph gives."""
        outputs: list[FloatMap] = self._session.run(None, {INPUT_NAME: picture})
        return outputs
