"""An FP16 variant of an ONNX graph, its precisions written into it as casts, for engines that are strongly typed.

Three kinds of nodes, told apart by what rounding does to them (Micikevicius et al., Mixed Precision Training, 2018):

* convolutions and matrix products gain from FP16, and their sums average its rounding out. Exceptions stay in FP32:
  - the first one, because neighbouring pixels are alike, and so are their rounding errors;
  - those after it with few products per result (a depthwise convolution, a resize), and the next one behind them if it
    halves the values to be cast;
  - products with one vector per image (the time embedding of a diffusion network): they are few, and an error in one
    is in every pixel;
* element-wise arithmetic and nodes that only move values take the precision of their surroundings: FP32 if all their
  readers or all their inputs are FP32, otherwise FP16. So these are in FP32: the prologue of the picture, the residual
  stream of a transformer, the exponents of the couplings, and the last coupling with the energies behind it;
* everything else loses from FP16 and stays in FP32: sums of squares, means, exponentials, softmax, normalisations,
  comparisons. Their range is wide, or a small error decides.

Inputs and outputs keep their types.
"""

from math import prod
from typing import TypeGuard

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import NameFixPass

from uflow_edge.runtime.errors import BadInput

HALF = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
POINTWISE = frozenset(
    {"Abs", "Add", "AveragePool", "Clip", "Div", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu"}
    | {"Max", "Min", "Mul", "Neg", "PRelu", "Relu", "Sigmoid", "Sub", "Tanh", "Where"}
)
MOVING = frozenset(
    {"Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Reshape", "Slice"}
    | {"SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
_WEIGHT_ERROR = 2.0**-10  # of the whole tensor, relative; rounding of normal numbers makes less than half of it
_FEW_PRODUCTS = 32  # a result


def to_fp16(model: ir.Model) -> ir.Model:
    """A copy that computes in FP16 where that is safe; see the module.

    Weights of which FP16 would keep less than its usual precision, being above 65504 or among its subnormal numbers,
    stay in FP32 together with the node that reads them.

    Args:
        model: in FP32, with types on all values, as `trace` makes it. It is left as it is.

    Raises:
        BadInput: a value has no type.
    """
    model = model.clone()
    graph = model.graph
    nodes = list(graph)
    for result in (output for node in nodes for output in node.outputs):
        if result.dtype is None:
            raise BadInput(f"value {result.name} of the graph has no type; export it again")
    full = full_precision(nodes)
    casts = _Casts(graph)
    for node in nodes:
        kind = ir.DataType.FLOAT if node in full else ir.DataType.FLOAT16
        for i, value in enumerate(node.inputs):
            if value is not None and value.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
                node.replace_input_with(i, casts.as_type(value, kind))
        if node not in full:
            for output in node.outputs:
                if output.dtype == ir.DataType.FLOAT:
                    output.type = ir.TensorType(ir.DataType.FLOAT16)  # a new one: clones share theirs
    for name in [name for name, weight in graph.initializers.items() if not weight.uses()]:
        del graph.initializers[name]
    NameFixPass()(model)
    return model


def rounded(model: ir.Model) -> ir.Model:
    """A copy of an FP16 model that any CPU computes as a GPU does: in FP32, each result of an FP16 node then rounded.

    For measuring what FP16 costs. onnxruntime's CPU has no FP16 kernels for most nodes: it computes neighbours in FP32
    and drops the rounding between them, so the FP16 model itself looks better there than it is on a GPU.
    """
    model = model.clone()
    graph = model.graph
    casts = _Casts(graph)
    for node in list(graph):
        if node.op_type in MOVING | {"Cast"}:
            continue
        for i, value in enumerate(node.inputs):
            if value is not None and value.dtype == ir.DataType.FLOAT16:
                node.replace_input_with(i, casts.as_type(value, ir.DataType.FLOAT))
        for output in node.outputs:
            if output.dtype == ir.DataType.FLOAT16:
                output.type = ir.TensorType(ir.DataType.FLOAT)
                uses = list(output.uses())
                half = casts.as_type(output, ir.DataType.FLOAT16)
                for consumer, i in uses:
                    consumer.replace_input_with(i, half)
    NameFixPass()(model)
    return model


class _Casts:
    """Values of a graph in the other precision, each made once."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._known: dict[ir.Value, ir.Value] = {}

    def as_type(self, value: ir.Value, kind: ir.DataType) -> ir.Value:
        """The value itself if it has this type, or its cast."""
        if value.dtype == kind:
            return value
        if value not in self._known:
            self._known[value] = self._weight(value, kind) if value.is_initializer() else self._cast(value, kind)
        return self._known[value]

    def _weight(self, value: ir.Value, kind: ir.DataType) -> ir.Value:
        name = f"{value.name}_{kind.name.lower()}"
        tensor = ir.tensor(_array(value).astype(kind.numpy()), name=name)
        weight = ir.Value(name=name, shape=value.shape, type=ir.TensorType(kind), const_value=tensor)
        self._graph.register_initializer(weight)
        return weight

    def _cast(self, value: ir.Value, kind: ir.DataType) -> ir.Value:
        name = f"{value.name}_{kind.name.lower()}"
        result = ir.Value(name=name, shape=value.shape, type=ir.TensorType(kind))
        node = ir.node("Cast", [value], {"to": kind}, outputs=[result], name=f"cast_{name}")
        producer = value.producer()
        if producer is None:
            self._graph.insert_before(self._graph[0], node)
        else:
            self._graph.insert_after(producer, node)
        return result


def full_precision(nodes: list[ir.Node]) -> set[ir.Node]:
    """The nodes that stay in FP32, given all in topological order."""
    full = {node for node in nodes if _needs_full_precision(node)}
    wanted: set[ir.Node] = set()  # FP32 itself, or nothing but FP32 reads the result
    for node in reversed(nodes):
        if node in full or (node.op_type not in HALF and wanted.issuperset(node.successors())):
            wanted.add(node)
    picture: set[ir.Node] = set()  # no convolution or matrix product comes before, nor is it one
    prologue: set[ir.Node] = set()  # FP32, and so is all that comes before
    for node in nodes:
        reads = {value.producer() for value in node.inputs if value is not None and not _is_weight(value)} - {None}
        ends = False  # the prologue, though in FP32 itself
        if node.op_type in HALF:
            cheap = picture.issuperset(reads) or (prologue.issuperset(reads) and _has_few_products(node))
            ends = not cheap and prologue.issuperset(reads) and _halves(node)
            stays = cheap or ends
        elif node.op_type in MOVING:
            stays = full.issuperset(reads) or (node in wanted and not full.isdisjoint(reads))
        else:
            stays = full.issuperset(reads) or node in wanted
        if stays:
            full.add(node)
        if node in full and prologue.issuperset(reads) and not ends:
            prologue.add(node)
        if node.op_type not in HALF and picture.issuperset(reads):
            picture.add(node)
    for node in reversed(nodes):  # casts before moves rather than behind: that moves half the bytes
        if node.op_type in MOVING and node not in wanted and full.isdisjoint(node.successors()):
            full.discard(node)
    return full


def _needs_full_precision(node: ir.Node) -> bool:
    return (
        node.op_type not in HALF | POINTWISE | MOVING
        or (node.op_type in HALF and _is_vector(node.outputs[0]))
        or any(output.is_graph_output() for output in node.outputs)
        or any(_loses_digits(value) for value in node.inputs if _is_float(value) and _is_weight(value))
    )


def _is_vector(value: ir.Value) -> bool:
    """Whether it is one vector an image."""
    return value.shape is not None and value.shape.rank() <= 2


def _has_few_products(node: ir.Node) -> bool:
    """Whether each result sums up so few products that no tensor core is kept busy."""
    for i, value in enumerate(node.inputs[:2]):
        if _is_weight(value):
            weight = _array(value)
            axis = 0 if node.op_type == "Conv" else i - 2  # of the results
            return node.op_type in ("Conv", "MatMul") and np.count_nonzero(weight) <= _FEW_PRODUCTS * weight.shape[axis]
    return False


def _halves(node: ir.Node) -> bool:
    """Whether it is a convolution that gives at most half as many numbers as it reads."""
    read, result = (None if value is None else value.shape for value in (node.inputs[0], node.outputs[0]))
    if node.op_type != "Conv" or read is None or result is None:
        return False
    numbers_read, numbers = _numbers(read), _numbers(result)
    return numbers is not None and numbers_read is not None and 2 * numbers <= numbers_read


def _numbers(shape: ir.Shape) -> int | None:
    """Of one image, the first axis being the images; None where it is not known."""
    sides = [side for side in shape[1:] if isinstance(side, int)]
    return prod(sides) if len(sides) == shape.rank() - 1 else None


def _loses_digits(weight: ir.Value) -> bool:
    """Whether FP16 holds a weight worse than its precision promises."""
    exact = _array(weight)
    with np.errstate(over="ignore"):
        lost = np.linalg.norm(exact.astype(np.float16).astype(np.float32) - exact)
    return bool(lost > _WEIGHT_ERROR * np.linalg.norm(exact))


def _is_float(value: ir.Value | None) -> TypeGuard[ir.Value]:
    return value is not None and value.dtype == ir.DataType.FLOAT


def _is_weight(value: ir.Value | None) -> TypeGuard[ir.Value]:
    return value is not None and value.is_initializer()


def _array(weight: ir.Value) -> np.ndarray:
    if weight.const_value is None:
        raise BadInput(f"weight {weight.name} of the graph has no values")
    return weight.const_value.numpy()
