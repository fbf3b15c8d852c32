"""Writes INT8 quantisation into an ONNX graph, as QuantizeLinear and DequantizeLinear nodes.

Everything is symmetric with zero points 0, as TensorRT demands. Activations have one scale per tensor, weights one per
output channel (Wu et al., Integer Quantization for Deep Learning Inference, arXiv 2004.09602, section 3). Only inputs
of layers are quantised. Engines keep them as integers wherever the layer before can write these; the rest stays exact:

* the output of a layer is rounded only where another layer reads it;
* a residual addition reads the integers too if they exist already, so that the branch is stored once and the addition
  can be fused with the convolution before it;
* biases stay in FP32: TensorRT accepts no others, and they cost nothing.

Scales are numbers that FP16 can represent, so that they also serve a graph whose other parts are in FP16.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import NameFixPass

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.numeric import FloatMap

LARGEST = 127
"""The largest INT8 number in use; −128 is left out, so that the range is symmetric."""

_RESULT_AXIS = {"Conv": 0, "MatMul": 1}  # of the weights
_SMALLEST_SCALE, _LARGEST_SCALE = 2.0**-24, 2.0**15  # that FP16 can represent


@dataclass(frozen=True, slots=True)
class QuantizableLayer:
    """A convolution or matrix product with constant weights, which may be computed in INT8.

    Attributes:
        source: name of the value it reads.
        macs: multiply-accumulate operations per image.
    """

    name: str
    source: str
    macs: int


def layers(model: ir.Model) -> tuple[QuantizableLayer, ...]:
    """All such layers of a graph, in the order in which they are computed."""
    return tuple(_layer(node) for node in _weighted(model))


def quantize(
    model: ir.Model, chosen: Collection[str], ranges: Mapping[str, float], largest_weight: int = LARGEST
) -> ir.Model:
    """A copy of a graph in which the chosen layers read INT8 numbers.

    Args:
        model: in FP32; it is not changed.
        chosen: names of layers, see `layers`.
        ranges: largest magnitude to be represented, by name of value, for the source of every chosen layer.
        largest_weight: magnitude of a quantised weight, see `LARGEST` and `proof.SEVEN_BIT_LARGEST`.

    Raises:
        BadInput: a range is missing.
    """
    model = model.clone()
    pairs = _Pairs(model.graph, ranges, largest_weight)
    for node in _weighted(model):
        if node.name in chosen:
            source, weight = operands(node)
            node.replace_input_with(0, pairs.activation(source))
            node.replace_input_with(1, pairs.weight(weight, node))
    for node in model.graph:
        if node.op_type == "Add":
            for i, value in enumerate(node.inputs):
                if value is not None and value in pairs.known:
                    node.replace_input_with(i, pairs.known[value])
    drop_unread(model.graph)
    NameFixPass()(model)
    return model


def operands(node: ir.Node) -> tuple[ir.Value, ir.Value]:
    """The first two inputs of a node that has two."""
    first, second = node.inputs[:2]
    assert first is not None and second is not None
    return first, second


def array(value: ir.Value) -> NDArray[Any]:
    """The values of a constant.

    Raises:
        BadInput: it has none.
    """
    if value.const_value is None:
        raise BadInput(f"weight {value.name} of the graph has no values; export it again")
    values: NDArray[Any] = value.const_value.numpy()
    return values


def constant(graph: ir.Graph, name: str, values: NDArray[Any]) -> ir.Value:
    """The constant of this name; it is made if it does not exist."""
    if name not in graph.initializers:
        tensor = ir.tensor(np.array(values, order="C"), name=name)
        value = ir.Value(name=name, shape=ir.Shape(values.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        graph.register_initializer(value)
    return graph.initializers[name]


def drop_unread(graph: ir.Graph) -> None:
    """Remove constants that no node reads any more."""
    for name in [name for name, weight in graph.initializers.items() if not weight.uses()]:
        del graph.initializers[name]


def rounded_weights(weights: FloatMap, axis: int = 0, largest: int = LARGEST) -> tuple[NDArray[np.int8], FloatMap]:
    """Weights as INT8 numbers, and their scales along the axis of output channels, (C_out,) float32."""
    others = tuple(i for i in range(weights.ndim) if i != axis)
    scales = _scales(np.abs(weights).max(axis=others), largest)
    quotients = weights / np.expand_dims(scales, others)
    return np.clip(np.rint(quotients), -largest, largest).astype(np.int8), scales


def _weighted(model: ir.Model) -> list[ir.Node]:
    """Convolutions, and products with a matrix, whose weights are constants."""
    return [node for node in model.graph if node.op_type in _RESULT_AXIS and _has_constant_weights(node)]


def _layer(node: ir.Node) -> QuantizableLayer:
    source, weight = operands(node)
    shape = node.outputs[0].shape
    if shape is None:
        raise BadInput(f"the result of node {node.name} has no shape; export it again")
    places = shape[2:] if node.op_type == "Conv" else shape[1:-1]
    macs = math.prod(array(weight).shape) * math.prod(int(side) for side in places if isinstance(side, int))
    return QuantizableLayer(node.name or "", source.name or "", macs)


def _has_constant_weights(node: ir.Node) -> bool:
    source, weight = operands(node)
    is_matrix = weight.shape is not None and len(weight.shape) == 2
    return weight.is_initializer() and not source.is_initializer() and (node.op_type == "Conv" or is_matrix)


def _scales(ranges: NDArray[Any], largest: int = LARGEST) -> FloatMap:
    """The value of one step of an INT8 number: the smallest FP16 number with which nothing is clipped."""
    exact = np.clip(ranges / largest, _SMALLEST_SCALE, _LARGEST_SCALE)
    near = exact.astype(np.float16)
    return np.where(near < exact, np.nextafter(near, np.float16(np.inf)), near).astype(np.float32)


class _Pairs:
    """Quantises values of a graph, each value once."""

    def __init__(self, graph: ir.Graph, ranges: Mapping[str, float], largest_weight: int) -> None:
        self._graph = graph
        self._largest_weight = largest_weight
        self._ranges = ranges
        self.known: dict[ir.Value, ir.Value] = {}

    def activation(self, value: ir.Value) -> ir.Value:
        """A computed value, rounded to INT8 and back to float."""
        if value not in self.known:
            reach = self._ranges.get(value.name or "")
            if reach is None:
                raise BadInput(f"the range of {value.name} has not been measured; calibrate again")
            scale = _scales(np.asarray(reach))
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
        axis = _RESULT_AXIS[reader.op_type]
        integers, scales = rounded_weights(array(value), axis, self._largest_weight)
        parts = (
            constant(self._graph, f"{value.name}_int8", integers),
            constant(self._graph, f"{value.name}_scale", scales),
            constant(self._graph, f"{value.name}_zero", np.zeros(len(scales), np.int8)),
        )
        back = self._result(f"{value.name}_of_{reader.name}", value, ir.DataType.FLOAT)
        self._graph.insert_before(
            reader, ir.node("DequantizeLinear", parts, {"axis": axis}, outputs=[back], name=back.name)
        )
        return back

    @staticmethod
    def _result(name: str, like: ir.Value, kind: ir.DataType) -> ir.Value:
        return ir.Value(name=name, shape=like.shape, type=ir.TensorType(kind))
