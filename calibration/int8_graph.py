"""An INT8 variant of an ONNX graph, its quantisation written into it as QuantizeLinear and DequantizeLinear nodes.

All is symmetric, zero points 0, as TensorRT demands: activations have one scale a tensor, weights one a result channel
(Wu et al., Integer Quantization for Deep Learning Inference, arXiv 2004.09602, section 3). Only what convolutions read
is quantised. Engines keep it as integers wherever the layer before can write them, and the rest stays exact:

* what a convolution gives is rounded only where another convolution reads it;
* a residual addition reads the integers too where they are there already, so that the branch is stored once and the
  addition can join the convolution before it;
* biases stay in FP32: TensorRT takes no others, and they cost nothing.

Scales are numbers that FP16 holds, so that the same ones serve a graph whose other parts are in FP16.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import NameFixPass

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.numeric import FloatMap

LARGEST = 127
"""Of an INT8 number; −128 is left out, so that the range is symmetric."""

_SMALLEST_SCALE, _LARGEST_SCALE = 2.0**-24, 2.0**15  # that FP16 holds


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution that may be computed in INT8.

    Attributes:
        name: of its node.
        source: name of the value it reads.
        macs: multiply-accumulate operations an image.
        depthwise: whether its channels are convolved in groups.
    """

    name: str
    source: str
    macs: int
    depthwise: bool


def layers(model: ir.Model) -> tuple[Layer, ...]:
    """The convolutions with constant weights, in the order in which they are computed."""
    found = []
    for node in convolutions(model):
        weight = array(node.inputs[1])
        rows, columns = (int(side) for side in node.outputs[0].shape[2:])
        depthwise = node.attributes.get_int("group", 1) > 1
        found.append(Layer(node.name, node.inputs[0].name, weight.size * rows * columns, depthwise))
    return tuple(found)


def quantize(model: ir.Model, chosen: Collection[str], ranges: Mapping[str, float]) -> ir.Model:
    """A copy in which some convolutions read INT8 numbers.

    Args:
        model: in FP32; it is left as it is.
        chosen: names of nodes, as in `layers`.
        ranges: largest absolute value to be represented, by name of value, of every chosen layer's source.

    Raises:
        BadInput: a range is missing.
    """
    model = model.clone()
    pairs = _Pairs(model.graph, ranges)
    for node in convolutions(model):
        if node.name in chosen:
            node.replace_input_with(0, pairs.activation(node.inputs[0]))
            node.replace_input_with(1, pairs.weight(node.inputs[1], node))
    for node in model.graph:
        if node.op_type == "Add":
            for i, value in enumerate(node.inputs):
                if value in pairs.known:
                    node.replace_input_with(i, pairs.known[value])
    drop_unread(model.graph)
    NameFixPass()(model)
    return model


def convolutions(model: ir.Model) -> list[ir.Node]:
    """Those with constant weights."""
    return [node for node in model.graph if node.op_type == "Conv" and node.inputs[1].is_initializer()]


def array(value: ir.Value) -> NDArray[np.float32]:
    """What a constant of the graph holds.

    Raises:
        BadInput: nothing.
    """
    if value.const_value is None:
        raise BadInput(f"weight {value.name} of the graph has no values; export it again")
    return value.const_value.numpy()


def constant(graph: ir.Graph, name: str, values: NDArray[np.generic]) -> ir.Value:
    """The constant of this name, made if it is not there."""
    if name not in graph.initializers:
        tensor = ir.tensor(np.ascontiguousarray(values), name=name)
        value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        graph.register_initializer(value)
    return graph.initializers[name]


def drop_unread(graph: ir.Graph) -> None:
    """Forget constants that nothing reads any more."""
    for name in [name for name, weight in graph.initializers.items() if not weight.uses()]:
        del graph.initializers[name]


def rounded_weights(weights: FloatMap) -> tuple[NDArray[np.int8], FloatMap]:
    """Weights (C_out, …) as INT8 numbers, and the scale of each result channel, (C_out,) float32."""
    largest = np.abs(weights).max(axis=tuple(range(1, weights.ndim)))
    scales = _scales(largest)
    quotients = weights / scales.reshape(-1, *[1] * (weights.ndim - 1))
    return np.clip(np.rint(quotients), -LARGEST, LARGEST).astype(np.int8), scales


def _scales(ranges: NDArray[np.floating]) -> FloatMap:
    """What one step of an INT8 number is worth: the smallest number FP16 holds with which nothing is clipped."""
    exact = np.clip(ranges / LARGEST, _SMALLEST_SCALE, _LARGEST_SCALE)
    near = exact.astype(np.float16)
    return np.where(near < exact, np.nextafter(near, np.float16(np.inf)), near).astype(np.float32)


class _Pairs:
    """What has been quantised in a graph, each value once."""

    def __init__(self, graph: ir.Graph, ranges: Mapping[str, float]) -> None:
        self._graph = graph
        self._ranges = ranges
        self.known: dict[ir.Value, ir.Value] = {}

    def activation(self, value: ir.Value) -> ir.Value:
        """A computed value, rounded to INT8 and back."""
        if value not in self.known:
            if value.name not in self._ranges:
                raise BadInput(f"the range of {value.name} has not been measured; calibrate again")
            scale = _scales(np.asarray(self._ranges[value.name]))
            parameters = (
                constant(self._graph, f"{value.name}_scale", scale),
                constant(self._graph, "int8_zero", np.asarray(np.int8(0))),
            )
            integers = self._result(f"{value.name}_int8", value, ir.DataType.INT8)
            back = self._result(f"{value.name}_rounded", value, ir.DataType.FLOAT)
            quantize_node = ir.node("QuantizeLinear", [value, *parameters], outputs=[integers], name=integers.name)
            dequantize_node = ir.node("DequantizeLinear", [integers, *parameters], outputs=[back], name=back.name)
            producer = value.producer()
            if producer is None:
                self._graph.insert_before(self._graph[0], [quantize_node, dequantize_node])
            else:
                self._graph.insert_after(producer, [quantize_node, dequantize_node])
            self.known[value] = back
        return self.known[value]

    def weight(self, value: ir.Value, reader: ir.Node) -> ir.Value:
        """A constant, stored as INT8."""
        integers, scales = rounded_weights(array(value))
        parts = (
            constant(self._graph, f"{value.name}_int8", integers),
            constant(self._graph, f"{value.name}_scale", scales),
            constant(self._graph, f"{value.name}_zero", np.zeros(len(scales), np.int8)),
        )
        back = self._result(f"{value.name}_of_{reader.name}", value, ir.DataType.FLOAT)
        self._graph.insert_before(
            reader, ir.node("DequantizeLinear", parts, {"axis": 0}, outputs=[back], name=back.name)
        )
        return back

    @staticmethod
    def _result(name: str, like: ir.Value, kind: ir.DataType) -> ir.Value:
        return ir.Value(name=name, shape=like.shape, type=ir.TensorType(kind))
