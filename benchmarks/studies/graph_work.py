"""What an ONNX graph asks of a machine, part by part: multiply-accumulate operations and bytes.

Counted are convolutions and matrix products, not what is element-wise. Bytes are what cannot be avoided when everything
else is fused into these: weights once, what each of them reads and writes, and what enters and leaves the part.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import onnx
from onnx import ModelProto, NodeProto, ValueInfoProto

from uflow_edge.runtime.errors import BadInput

PartName: TypeAlias = Literal["extractor", "flow", "statistics"]
PART_NAMES: tuple[PartName, ...] = get_args(PartName)
"""In the order in which they run."""

_EXTRACTOR_WEIGHTS = ".feature_extractor."
_AFTER_THE_SQUARES = {"ReduceSum", "Cast", "GreaterOrEqual", "Not", "Less"}
_MATRIX_OPERATORS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


@dataclass(frozen=True, slots=True)
class Work:
    """What one part of the way from picture to verdict computes and moves, for one picture.

    Attributes:
        name: of the part.
        macs: multiply-accumulate operations.
        weight_bytes: of what is constant.
        activation_bytes: read and written on the way.
    """

    name: str
    macs: int
    weight_bytes: int
    activation_bytes: int

    @property
    def bytes(self) -> int:
        """All that is moved."""
        return self.weight_bytes + self.activation_bytes


class Graph:
    """An ONNX graph with all shapes known.

    Args:
        model: as loaded; any batch, and then one picture is counted.

    Raises:
        BadInput: shapes cannot be inferred; the message names the tensor.
    """

    def __init__(self, model: ModelProto) -> None:
        self.model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        graph = self.model.graph
        self.nodes: list[NodeProto] = list(graph.node)
        self.weights = {weight.name: weight for weight in graph.initializer}
        self._values: dict[str, ValueInfoProto] = {
            value.name: value for value in (*graph.input, *graph.value_info, *graph.output)
        }
        self._producers = {output: node for node in self.nodes for output in node.output}

    def work(self, name: str, nodes: Sequence[NodeProto]) -> Work:
        """Of some nodes."""
        entering, leaving = self.boundary(nodes)
        matrix_nodes = [node for node in nodes if node.op_type in _MATRIX_OPERATORS]
        touched = [
            tensor for node in matrix_nodes for tensor in (*self._activations(node.input), *node.output) if tensor
        ]
        edges = [tensor for tensor in (*entering, *leaving) if tensor not in touched]
        constants = {tensor for node in nodes for tensor in node.input if tensor in self.weights}
        return Work(
            name,
            sum(map(self._macs, matrix_nodes)),
            sum(_bytes(self.weights[tensor].dims, self.weights[tensor].data_type) for tensor in constants),
            sum(map(self._tensor_bytes, (*touched, *edges))),
        )

    def parts(self) -> dict[PartName, list[NodeProto]]:
        """The nodes of each part of a U-Flow.

        The extractor is all that its weights need; the statistics are what reduces squares of latents; the flow is what
        lies between.
        """
        extractor: set[str] = set()
        statistics: set[str] = set()
        for node in self.nodes:
            if any(_EXTRACTOR_WEIGHTS in f".{tensor}" for tensor in node.input):
                self._mark_with_all_before(node, extractor)
        for output in self.model.graph.output:
            self._mark_to_the_squares(self._producers[output.name], statistics)
        found: dict[PartName, list[NodeProto]] = {name: [] for name in PART_NAMES}
        for node in self.nodes:
            name = node.output[0]
            found["extractor" if name in extractor else "statistics" if name in statistics else "flow"].append(node)
        return found

    def boundary(self, nodes: Sequence[NodeProto]) -> tuple[list[str], list[str]]:
        """The tensors that enter some nodes from without, and those that leave them, in order."""
        made = {output for node in nodes for output in node.output}
        elsewhere = {tensor for node in self.nodes if node.output[0] not in made for tensor in node.input}
        elsewhere |= {output.name for output in self.model.graph.output}
        read = dict.fromkeys(tensor for node in nodes for tensor in self._activations(node.input))
        return [t for t in read if t not in made], [o for n in nodes for o in n.output if o in elsewhere]

    def cut(self, nodes: Sequence[NodeProto]) -> ModelProto:
        """Some nodes as a model of their own."""
        entering, leaving = self.boundary(nodes)
        read = {tensor for node in nodes for tensor in node.input}
        graph = onnx.helper.make_graph(
            nodes,
            "part",
            [self._values[name] for name in entering],
            [self._values[name] for name in leaving],
            [weight for name, weight in self.weights.items() if name in read],
        )
        return onnx.helper.make_model(
            graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version, functions=[]
        )

    def _mark_with_all_before(self, node: NodeProto, marked: set[str]) -> None:
        waiting = [node]
        while waiting:
            one = waiting.pop()
            if one.output[0] not in marked:
                marked.add(one.output[0])
                waiting += [self._producers[tensor] for tensor in one.input if tensor in self._producers]

    def _mark_to_the_squares(self, node: NodeProto, marked: set[str]) -> None:
        waiting = [node]
        while waiting:
            one = waiting.pop()
            squares = one.op_type == "Mul" and one.input[0] == one.input[1]
            if squares or one.op_type in _AFTER_THE_SQUARES:
                marked.add(one.output[0])
            if not squares and one.op_type in _AFTER_THE_SQUARES:
                waiting += [self._producers[tensor] for tensor in one.input if tensor in self._producers]

    def _activations(self, tensors: Iterable[str]) -> list[str]:
        return [tensor for tensor in tensors if tensor and tensor not in self.weights]

    def _macs(self, node: NodeProto) -> int:
        """Of a convolution: output pixels times the taps each sums over; of a matrix product likewise."""
        first, second = self._shape(node.input[0]), self._shape(node.input[1])
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "ConvTranspose":
            return prod(first) * prod(second[1:])
        taps = prod(second[1:]) if node.op_type == "Conv" else first[-2 if attributes.get("transA") else -1]
        return prod(self._shape(node.output[0])) * taps

    def _tensor_bytes(self, name: str) -> int:
        return _bytes(self._shape(name), self._values[name].type.tensor_type.elem_type)

    def _shape(self, name: str) -> tuple[int, ...]:
        """With 1 for the batch, which is the only length that may be open."""
        if name in self.weights:
            return tuple(self.weights[name].dims)
        value = self._values.get(name)
        if value is None or not value.type.tensor_type.HasField("shape"):
            raise BadInput(f"the shape of tensor {name!r} cannot be inferred, so its work cannot be counted")
        return tuple(length.dim_value or 1 for length in value.type.tensor_type.shape.dim)


def load_graph(path: Path) -> Graph:
    """A graph from a file.

    Raises:
        BadInput: the file is no ONNX graph.
    """
    try:
        return Graph(onnx.load(str(path)))
    except Exception as error:  # protobuf's and onnx's own errors share no base
        raise BadInput(f"{path}: cannot be read as an ONNX graph ({error})") from error


def _bytes(shape: Sequence[int], element: int) -> int:
    return prod(shape) * onnx.helper.tensor_dtype_to_np_dtype(element).itemsize
