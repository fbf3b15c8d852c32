"""Cross-layer equalisation: every channel between two convolutions fills the one range that INT8 gives them all.

A tensor has one scale, so a channel whose numbers are a twentieth of its neighbour's is left four bits. But a channel
can be multiplied in the weights that make it and divided in the weights that read it (Nagel et al., Data-Free
Quantization Through Weight Equalization and Bias Correction, ICCV 2019, section 4.1). Through nothing or a ReLU that
changes nothing at all. ReLU6 is not linear, but a channel that has never come near 6 may be enlarged until it does:
what was clipped at 6 is then clipped at a little more than the largest value ever seen in this channel, which INT8
would have done anyway.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from uflow_edge.calibration.int8.graph import array, constant, drop_unread, operands, weighted
from uflow_edge.runtime.numeric import FloatMap

_MARGIN = 1.25  # beyond the largest value seen, before an enlarged channel is clipped
_LARGEST_GAIN = 64.0


@dataclass(frozen=True, slots=True)
class Link:
    """Two convolutions with nothing between them but, perhaps, a clipping at zero.

    Attributes:
        maker, reader: names of the convolutions' nodes.
        value: name of what passes between them.
        ceiling: where the activation clips; None for none and for a ReLU.
    """

    maker: str
    reader: str
    value: str
    ceiling: float | None


def links(model: ir.Model) -> tuple[Link, ...]:
    """Where channels can be rescaled: values that one convolution makes and only another one reads."""
    found = []
    for node in weighted(model):
        if node.op_type != "Conv":
            continue
        value, ceiling = node.outputs[0], None
        follower = _only_reader(value)
        if follower is not None and follower.op_type in ("Relu", "Clip"):
            if follower.op_type == "Clip":
                bounds = [None if v is None or not v.is_initializer() else float(array(v)) for v in follower.inputs[1:]]
                if len(bounds) != 2 or bounds[0] != 0 or bounds[1] is None:
                    continue
                ceiling = bounds[1]
            value = follower.outputs[0]
            follower = _only_reader(value)
        if follower is not None and follower.op_type == "Conv" and follower.inputs[0] is value:
            found.append(Link(node.name or "", follower.name or "", value.name or "", ceiling))
    return tuple(found)


def equalize(model: ir.Model, largest: Mapping[str, NDArray[np.float64]], chain: Sequence[Link]) -> ir.Model:
    """A copy that computes the same with channels of one size, as far as pictures have shown them.

    Args:
        model: in FP32; it is left as it is.
        largest: (C,) the largest magnitude of each channel, by name of value, of all links.
        chain: where, as `links` found them.
    """
    model = model.clone()
    nodes = {node.name or "": node for node in weighted(model)}
    for link in chain:
        gains = _gains(largest[link.value], link.ceiling)
        maker, reader = nodes[link.maker], nodes[link.reader]
        _scale(model.graph, maker, 1, gains.reshape(-1, 1, 1, 1))
        if len(maker.inputs) > 2 and maker.inputs[2] is not None:
            _scale(model.graph, maker, 2, gains)
        _scale(model.graph, reader, 1, np.reciprocal(_as_read(gains, reader)))
    drop_unread(model.graph)
    return model


def _only_reader(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    return uses[0][0] if len(uses) == 1 and not value.is_graph_output() else None


def _gains(largest: NDArray[np.float64], ceiling: float | None) -> FloatMap:
    top = float(largest.max()) if ceiling is None else ceiling
    margin = 1.0 if ceiling is None else _MARGIN
    wanted = top / np.maximum(largest * margin, top / _LARGEST_GAIN) if top > 0 else np.ones_like(largest)
    return np.maximum(wanted, 1).astype(np.float32)


def _as_read(gains: FloatMap, reader: ir.Node) -> FloatMap:
    """Gains of the channels that each weight of a convolution multiplies, (C_out or 1, C_in / groups, 1, 1)."""
    groups = reader.attributes.get_int("group", 1)
    results = len(array(operands(reader)[1]))
    by_group = gains.reshape(groups, -1)
    return np.repeat(by_group, results // groups, axis=0)[:, :, np.newaxis, np.newaxis]


def _scale(graph: ir.Graph, node: ir.Node, i: int, factors: FloatMap) -> None:
    weight = node.inputs[i]
    assert weight is not None
    scaled = (array(weight) * factors).astype(np.float32)
    name = f"{weight.name}_of_{node.name}"  # other nodes may share the weight
    while name in graph.initializers:
        name += "_again"
    node.replace_input_with(i, constant(graph, name, scaled))
