"""The ONNX graph in OpenVINO, on the CPU."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uflow_edge.runtime.bundle.manifest import Manifest, Variant
from uflow_edge.runtime.engines import Outputs
from uflow_edge.runtime.engines.batches import batch_of, run_in_batches
from uflow_edge.runtime.engines.links import loadable_path
from uflow_edge.runtime.errors import BadInput, MissingDependency, require
from uflow_edge.runtime.numeric import FloatMap


class OpenVinoEngine:
    """A model compiled from one graph: for batch size 1, which is an eighth faster, and on demand for any other.

    Only in bf16 it computes in another precision than the graph's.

    Raises:
        MissingDependency: openvino is not installed, or bf16 is asked for and the processor has no bfloat16.
        BadInput: the graph cannot be loaded.
    """

    def __init__(self, graph: Path, manifest: Manifest, variant: Variant, threads: int | None = None) -> None:
        openvino = require("openvino", "openvino")
        self._properties = {
            "PERFORMANCE_HINT": "LATENCY",
            # By default it computes in bfloat16 where the CPU can, and not in the graph's precision.
            "INFERENCE_PRECISION_HINT": "bf16" if variant.precision == "bf16" else "f32",
            **({} if threads is None else {"INFERENCE_NUM_THREADS": threads}),
        }
        self._signature = manifest.signature
        self._batch = batch_of(variant)
        self._core: Any = openvino.Core()
        if variant.precision == "bf16" and "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise MissingDependency("this processor has no bfloat16; run with --precision fp32")
        self._requests: dict[int | None, Any] = {}
        try:
            with loadable_path(graph, variant) as path:
                self._model: Any = self._core.read_model(path)
            self._request(1 if self._batch is None else self._batch.minimum)
        except Exception as error:  # OpenVINO raises plain RuntimeError and its own types alike
            raise BadInput(f"{graph}: OpenVINO cannot load this graph ({' '.join(str(error).split())})") from error
        self.precision = variant.precision
        self.name = f"OpenVINO {openvino.__version__.split('-')[0]}, CPU, {variant.precision}"

    def run(self, *inputs: NDArray[Any]) -> Outputs:
        return run_in_batches(inputs, self._batch, self._run)

    def largest_weight(self) -> int:
        """Of the 8-bit weights, by magnitude; 0 if there are none."""
        constants = (node for node in self._model.get_ops() if node.get_type_name() == "Constant")
        weights = (node.data for node in constants if node.get_element_type().get_type_name() == "i8")
        return max((int(np.abs(values.astype(np.int16)).max(initial=0)) for values in weights), default=0)

    def close(self) -> None:
        self._requests.clear()
        self._model = self._core = None

    def _run(self, inputs: Sequence[NDArray[Any]]) -> list[FloatMap]:
        request = self._request(len(inputs[0]))
        request.infer({tensor.name: values for tensor, values in zip(self._signature.inputs, inputs, strict=True)})
        # The request reuses its output buffers in the next run.
        return [np.array(request.get_tensor(name).data) for name in self._signature.output_names]

    def _request(self, count: int) -> Any:
        fixed = 1 if self._batch is None and count == 1 else None
        if fixed not in self._requests:
            model = self._model.clone()
            if fixed is not None:
                model.reshape({tensor.name: (fixed, *tensor.shape) for tensor in self._signature.inputs})
            compiled = self._core.compile_model(model, "CPU", self._properties)
            self._requests[fixed] = compiled.create_infer_request()
        return self._requests[fixed]
