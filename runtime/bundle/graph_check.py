"""Refuses unsafe ONNX graphs before any engine loads them.

A bundle may come from anywhere. Refused are weights in files that the manifest does not list, control flow (a loop may
never end), operators of other domains, random numbers, and constants of a few bytes that take gigabytes once an engine
has computed them. Exported graphs have none of these.

The file is read as Protocol Buffers (protobuf.dev/programming-guides/encoding) by the field numbers of onnx.proto;
weights are skipped.
"""

import mmap
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from uflow_edge.runtime.errors import BadInput

_GRAPH, _FUNCTIONS = 7, 25  # of ModelProto
_NODE, _INITIALIZER, _SPARSE_INITIALIZER = 1, 5, 15  # of GraphProto
_INPUT, _OUTPUT, _OP_TYPE, _ATTRIBUTE, _DOMAIN = 1, 2, 4, 5, 7  # of NodeProto
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11  # of AttributeProto
_DIMS, _DATA_TYPE, _INT64_DATA, _NAME, _RAW_DATA, _EXTERNAL_DATA = 1, 2, 7, 8, 9, 13  # of TensorProto
_INT64 = 7  # of TensorProto.DataType
_KEY, _VALUE = 1, 2  # of StringStringEntryProto
_RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
_SIZE_INPUT = {"ConstantOfShape": 0, "Expand": 1, "OneHot": 1, "Pad": 1, "Range": 1, "Resize": 3, "Tile": 1}
"""Operators whose result has the size that an input states, and the index of that input."""
_NO_LARGER = frozenset(
    (
        *("Abs", "Cast", "Ceil", "Constant", "DequantizeLinear", "Exp", "Flatten", "Floor", "Identity", "Log", "Neg"),
        *("Not", "QuantizeLinear", "Reciprocal", "Reshape", "Shape", "Size", "Slice", "Sqrt", "Squeeze", "Transpose"),
        "Unsqueeze",
    )
)
"""Operators whose result is no larger than their largest input."""
_COMBINED = frozenset(
    (
        *("Add", "And", "Concat", "Div", "Equal", "Gather", "Greater", "Less", "MatMul", "Max", "Min", "Mod", "Mul"),
        *("Or", "Pow", "Sub", "Where"),
    )
)
"""Operators whose result may be as large as the product of their inputs, by broadcasting or otherwise."""
_LARGEST = 1 << 26
"""Most elements of a computed constant; 256 MiB in float32."""


def check_graph(file: Path, data: Collection[str]) -> None:
    """Refuse a graph that is not safe to load.

    Args:
        data: names of the files beside it that may hold its weights.

    Raises:
        BadInput: the graph is unsafe, or the file is not a graph; the message says what was found.
    """
    try:
        with file.open("rb") as opened:  # the map is closed by the last view of it
            _check_model(memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)), data)
    except (ValueError, struct.error, IndexError) as error:
        raise BadInput(f"{file}: not a graph that uflow-export writes ({error}); export it again") from error


@dataclass(slots=True)
class _Constants:
    """Values that depend on no input of the graph: largest size and, for a few integers, product, by name."""

    elements: dict[str, int] = field(default_factory=dict)
    products: dict[str, int] = field(default_factory=dict)

    def elements_of(self, operator: str, inputs: list[str]) -> int | None:
        """Most elements that an operator can make from constants; None: unknown."""
        index = _SIZE_INPUT.get(operator)
        if index is not None:
            sizes = inputs[: index + 1] if operator == "Range" else inputs[index : index + 1]
            if not sizes or any(name not in self.products for name in sizes):
                return None
            grown = prod(self.products[name] for name in sizes)
            return grown * self.elements.get(inputs[0], 1) if operator in ("Expand", "Pad", "Tile") else grown
        sizes_in = [self.elements[name] for name in inputs if name]
        if operator in _NO_LARGER:
            return max(sizes_in, default=1)
        return prod(1 + size for size in sizes_in) if operator in _COMBINED else None


def _check_model(model: memoryview, data: Collection[str]) -> None:
    graphs = 0
    for number, value in _fields(model):
        if number == _FUNCTIONS:
            raise ValueError("it has functions of its own")
        if number == _GRAPH:
            _check_graph(_bytes(value), data)
            graphs += 1
    if not graphs:
        raise ValueError("it holds no ONNX graph")


def _check_graph(graph: memoryview, data: Collection[str]) -> None:
    constants = _Constants()
    nodes = []
    for number, value in _fields(graph):
        if number == _INITIALIZER:
            _add_tensor(_bytes(value), constants, data)
        elif number == _SPARSE_INITIALIZER:
            raise ValueError("it has sparse weights")
        elif number == _NODE:
            nodes.append(_bytes(value))
    for node in nodes:
        _check_node(node, constants, data)


def _check_node(node: memoryview, constants: _Constants, data: Collection[str]) -> None:
    inputs, outputs, operator = [], [], ""
    for number, value in _fields(node):
        if number == _INPUT:
            inputs.append(_text(value))
        elif number == _OUTPUT:
            outputs.append(_text(value))
        elif number == _OP_TYPE:
            operator = _text(value)
        elif number == _DOMAIN and _text(value) not in ("", "ai.onnx"):
            raise ValueError(f"it has an operator of the domain {_text(value)!r}")
        elif number == _ATTRIBUTE:
            _check_attribute(_bytes(value), outputs, constants, data)
    if operator in _RANDOM:
        raise ValueError(f"it draws random numbers ({operator})")
    index = _SIZE_INPUT.get(operator)
    constant = all(name in constants.elements for name in inputs if name)
    if constant or (index is not None and index < len(inputs) and inputs[index] in constants.elements):
        elements = constants.elements_of(operator, inputs)
        if elements is None or elements > _LARGEST:
            raise ValueError(f"it makes a constant of more than {_LARGEST:,} elements ({operator})")
        if constant:
            constants.elements.update({name: max(elements, constants.elements.get(name, 0)) for name in outputs})


def _check_attribute(attribute: memoryview, outputs: list[str], constants: _Constants, data: Collection[str]) -> None:
    for number, value in _fields(attribute):
        if number in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
            raise ValueError("it has control flow, a graph within the graph")
        if number in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
            _add_tensor(_bytes(value), constants, data, outputs[0] if outputs else "")


def _add_tensor(tensor: memoryview, constants: _Constants, data: Collection[str], name: str = "") -> None:
    """Note its size, check where its values are stored, and note the product of a few integers."""
    dims, values, whole = [], [], False
    for number, value in _fields(tensor):
        if number == _NAME:
            name = name or _text(value)
        elif number == _DIMS:
            dims += [value] if isinstance(value, int) else list(_varints(value))
        elif number == _DATA_TYPE:
            whole = value == _INT64
        elif number == _EXTERNAL_DATA:
            entry = {key: _text(text) for key, text in _fields(_bytes(value))}
            if entry.get(_KEY) == "location" and entry.get(_VALUE) not in data:
                raise ValueError(f"its weights lie in {entry.get(_VALUE)!r}, which the manifest does not list")
        elif number == _RAW_DATA and 0 < len(_bytes(value)) <= 128 and len(_bytes(value)) % 8 == 0:
            values += [one for (one,) in struct.iter_unpack("<q", _bytes(value))]
        elif number == _INT64_DATA:
            values += [value] if isinstance(value, int) else list(_varints(value))[:64]
    constants.elements[name] = prod(dims)
    if whole and values:
        constants.products[name] = prod(max(abs(one), 1) for one in values)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, position = _varint(message, position)
            yield number, value
            continue
        if wire == 2:
            size, position = _varint(message, position)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError("it is no Protocol Buffer")
        if size > len(message) - position:
            raise ValueError("it is cut short")
        yield number, message[position : position + size]
        position += size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError("it is no Protocol Buffer")


def _varints(packed: memoryview) -> Iterator[int]:
    position = 0
    while position < len(packed):
        value, position = _varint(packed, position)
        yield value


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("it is no Protocol Buffer")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_bytes(value)).decode("utf-8")
