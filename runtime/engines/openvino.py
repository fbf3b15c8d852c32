"""The ONNX graph in OpenVINO, on the CPU."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.engines import Outputs
from uflow_edge.runtime.engines.batches import batch_of, run_in_batches
from uflow_edge.runtime.errors import BadInput, require
from uflow_edge.runtime.manifest import Manifest, Variant
from uflow_edge.runtime.numeric import FloatMap


class OpenVinoEngine:
    """A compiled model over one graph.

    Raises:
        MissingDependency: openvino is absent.
        BadInput: the graph cannot be loaded.
    """

    def __init__(self, graph: Path, manifest: Manifest, variant: Variant, threads: int | None = None) -> None:
        openvino = require("openvino", "openvino")
        properties = {
            "PERFORMANCE_HINT": "LATENCY",
            # Left to itself it computes in bfloat16 where the CPU can, which is not what the graph says.
            "INFERENCE_PRECISION_HINT": "f32",
            **({} if threads is None else {"INFERENCE_NUM_THREADS": threads}),
        }
        try:
            compiled = openvino.compile_model(str(graph), "CPU", properties)
            self._request: Any = compiled.create_infer_request()
        except Exception as error:  # OpenVINO raises plain RuntimeError and its own types alike
            raise BadInput(f"{graph}: OpenVINO cannot load this graph ({error})") from error
        self._signature = manifest.signature
        self._batch = batch_of(variant)
        self.name = f"OpenVINO {openvino.__version__.split('-')[0]}, CPU, {variant.precision}"

    def run(self, *inputs: NDArray[Any]) -> Outputs:
        """See `Engine.run`."""
        return run_in_batches(inputs, self._batch, self._run)

    def close(self) -> None:
        """Let go of the model and its buffers."""
        self._request = None

    def _run(self, inputs: Sequence[NDArray[Any]]) -> list[FloatMap]:
        self._request.infer(
            {tensor.name: values for tensor, values in zip(self._signature.inputs, inputs, strict=True)}
        )
        # The request reuses its output buffers in the next run.
        return [np.array(self._request.get_tensor(name).data) for name in self._signature.output_names]
