"""Intermediate values of a graph, computed by onnxruntime, one picture at a time."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from uflow_edge.runtime.engines.onnx_runtime import compute_as_written, session_options
from uflow_edge.runtime.errors import BadInput, require
from uflow_edge.runtime.numeric import FloatMap, Image


class Probe:
    """A session whose outputs are any values of a graph.

    Args:
        model: with pictures as its one input; it is not changed.

    Raises:
        BadInput: the graph has no such value, or onnxruntime cannot load it.
    """

    def __init__(self, model: ir.Model, names: Sequence[str]) -> None:
        model = model.clone()
        values = {output.name: output for node in model.graph for output in node.outputs}
        unknown = [name for name in names if name not in values]
        if unknown:
            raise BadInput(f"the graph computes no {', '.join(unknown)}")
        model.graph.outputs.clear()
        model.graph.outputs.extend(values[name] for name in names)
        self.names = tuple(names)
        self._input = model.graph.inputs[0].name
        shape = model.graph.inputs[0].shape
        self._batch = shape[0] if shape is not None and isinstance(shape[0], int) else 1
        options = session_options(None)
        compute_as_written(options)
        try:
            self._session = require("onnxruntime").InferenceSession(
                ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            raise BadInput(f"onnxruntime cannot load the graph ({error})") from error

    def run(self, picture: Image) -> dict[str, FloatMap]:
        """The values of one picture, (S, S, 3) uint8 RGB, by name and without the batch axis."""
        pictures = np.repeat(picture[np.newaxis], self._batch, axis=0)
        outputs = self._session.run(list(self.names), {self._input: pictures})
        return {name: output[0] for name, output in zip(self.names, outputs, strict=True)}

    def each(self, pictures: Iterable[Image]) -> Iterator[dict[str, FloatMap]]:
        for picture in pictures:
            yield self.run(picture)

    def stacked(self, pictures: Iterable[Image]) -> dict[str, FloatMap]:
        """The values of all pictures, (N, …), for values small enough to keep."""
        found = list(self.each(pictures))
        return {name: np.stack([values[name] for values in found]) for name in self.names}
