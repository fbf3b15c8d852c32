"""Weights rounded to FP16 so that their errors cancel on pictures, at no cost to the engine.

An activation's rounding differs from pixel to pixel, and sums average it out. A weight's or bias's is the same in every
pixel of every image: it moves the features, and the features of good parts vary so little in some directions that what
follows divides by that variation (standardisation, whitening) and magnifies the error. Three quarters of the energies'
error in a whitened network come from there, and none from the products that whiten (docs/export.md).

So the weights that are not yet rounded compensate the error of one that is: for inputs x of a layer, with its bias as
a weight of the constant 1, E|δw·x|² = δwᵀ E[x xᵀ] δw is kept small. One weight after the other takes the nearest FP16
number, and the others move to where that hurts least (Hassibi & Stork, "Second order derivatives for
network pruning", 1992; Frantar et al., "GPTQ", 2023, equations 2 and 3).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from uflow_edge.export.graphs.precision import full_precision
from uflow_edge.export.graphs.probe import Probe
from uflow_edge.runtime.cli.command_line import progress
from uflow_edge.runtime.numeric import FloatMap, Image

_NORMALIZATIONS = frozenset({"LayerNormalization", "GroupNormalization", "InstanceNormalization"})
_PLACES = 256  # of a picture, at which a layer's inputs are sampled
_DAMPING = 1e-3  # of the mean square of an input, so that few pictures do not decide everything
_BLOCK = 128  # weights whose corrections reach the others as one matrix product


def round_weights(model: ir.Model, pictures: Sequence[Image]) -> ir.Model:
    """A copy, still in FP32, whose convolutions before a normalisation have weights that FP16 holds exactly.

    Only those that `to_fp16` computes in FP16, and that share their weights with no other node.

    Args:
        model: in FP32, with pictures as its one input; it is not changed.
        pictures: (S, S, 3) uint8 RGB, as similar to those of the line as possible.
    """
    model = model.clone()
    layers = [Layer.of(node) for node in _before_a_normalization(model.graph)]
    if not layers or not pictures:
        return model
    moments = {layer.node.name: np.zeros(layer.moments_shape) for layer in layers}
    random = np.random.default_rng(0)
    probe = Probe(model, list(dict.fromkeys(layer.source for layer in layers)))
    for values in probe.each(progress(pictures, "inputs of layers")):
        for layer in layers:
            seen = layer.inputs(values[layer.source], random)
            moments[layer.node.name] += seen.swapaxes(1, 2) @ seen / (seen.shape[1] * len(pictures))
    for layer in progress(layers, "rounding weights", unit="layer"):
        layer.put(model.graph, rounded_by_moments(layer.weights(), moments[layer.node.name]))
    for name in [name for name, weight in model.graph.initializers.items() if not weight.uses()]:
        del model.graph.initializers[name]
    return model


def rounded_by_moments(weights: NDArray[np.float64], moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """FP16 numbers near some weights, with which products with their inputs change as little as can be.

    Args:
        weights: (G, O, K), G groups of O results; the first of each, its bias, is rounded first.
        moments: (G, K, K), E[x xᵀ] of each group's inputs.

    Returns:
        (G, O, K) float64.
    """
    power = np.diagonal(moments, axis1=1, axis2=2)
    damping = _DAMPING * np.maximum(power.mean(axis=1), np.finfo(np.float32).tiny)
    damped = moments + damping[:, None, None] * np.eye(moments.shape[1])
    later = np.argsort(-power[:, 1:], axis=1, kind="stable") + 1  # the last ones make good what the first ones do
    order = np.concatenate([np.zeros_like(later[:, :1]), later], axis=1)
    rows, columns = order[:, :, None], order[:, None, :]
    damped = np.take_along_axis(np.take_along_axis(damped, rows, 1), columns, 2)
    columns = np.broadcast_to(columns, weights.shape)
    found = np.empty_like(weights)
    np.put_along_axis(found, columns, _rounded_in_turn(np.take_along_axis(weights, columns, 2), damped), 2)
    return found


def _rounded_in_turn(weights: NDArray[np.float64], moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """`rounded_by_moments` from the first weight to the last, with moments that can be inverted."""
    groups, _, count = weights.shape
    factor = np.linalg.cholesky(np.linalg.inv(moments)).swapaxes(1, 2)  # upper: inverse = factorᵀ factor
    wanted, found = weights.copy(), np.empty_like(weights)
    for start in range(0, count, _BLOCK):
        end = min(start + _BLOCK, count)
        errors = np.empty((groups, weights.shape[1], end - start))
        for k in range(start, end):
            found[..., k] = wanted[..., k].astype(np.float16)
            error = (wanted[..., k] - found[..., k]) / factor[:, k, k, None]
            wanted[..., k + 1 : end] -= error[..., None] * factor[:, None, k, k + 1 : end]
            errors[..., k - start] = error
        wanted[..., end:] -= errors @ factor[:, start:end, end:]
    return found


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution with constant weights (O, C / G, h, w), and perhaps a bias, of G groups of channels."""

    node: ir.Node
    kernel: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    groups: int
    strides: tuple[int, ...]
    pads: tuple[int, ...]

    @classmethod
    def of(cls, node: ir.Node) -> "Layer":
        """Read off a node for which `_is_plain` holds."""
        values = [_array(value) for value in node.inputs[1:] if value is not None]
        attributes = node.attributes
        return cls(
            node,
            values[0],
            values[1] if len(values) > 1 else None,
            attributes.get_int("group", 1),
            tuple(attributes.get_ints("strides", (1, 1))),
            tuple(attributes.get_ints("pads", (0, 0, 0, 0))),
        )

    @property
    def source(self) -> str:
        value = self.node.inputs[0]
        assert value is not None and value.name is not None
        return value.name

    @property
    def moments_shape(self) -> tuple[int, int, int]:
        """Of E[x xᵀ], a matrix a group; the bias's 1 comes first in x."""
        count = self.kernel[0].size + 1
        return self.groups, count, count

    def weights(self) -> NDArray[np.float64]:
        """(G, O / G, K): bias, or 0, and kernel of every result."""
        kernel = self.kernel.reshape(self.groups, len(self.kernel) // self.groups, -1).astype(np.float64)
        bias = np.zeros(len(self.kernel)) if self.bias is None else self.bias
        return np.concatenate([bias.reshape(*kernel.shape[:2], 1), kernel], axis=2)

    def inputs(self, values: FloatMap, random: np.random.Generator) -> NDArray[np.float64]:
        """What it multiplies its weights with at some places of one picture, (C, H, W) to (G, places, K)."""
        top, left, bottom, right = self.pads
        padded = np.pad(values, ((0, 0), (top, bottom), (left, right)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.kernel.shape[2:], axis=(1, 2))
        windows = windows[:, :: self.strides[0], :: self.strides[1]]  # (C, H', W', h, w)
        channels, height, width = windows.shape[:3]
        places = random.choice(height * width, min(_PLACES, height * width), replace=False)
        chosen = windows[:, places // width, places % width].reshape(
            self.groups, channels // self.groups, len(places), -1
        )
        products = chosen.swapaxes(1, 2).reshape(self.groups, len(places), -1)
        ones = np.ones((*products.shape[:2], 1))
        return np.concatenate([ones, products], axis=2)

    def put(self, graph: ir.Graph, weights: NDArray[np.float64]) -> None:
        """Write what `weights` gave, changed, into the graph."""
        _replace(graph, self.node, 1, weights[..., 1:].reshape(self.kernel.shape))
        if self.bias is not None:
            _replace(graph, self.node, 2, weights[..., 0].reshape(self.bias.shape))


def _before_a_normalization(graph: ir.Graph) -> list[ir.Node]:
    """Convolutions that FP16 computes and a normalisation reads, be it through others."""
    nodes = list(graph)
    full = full_precision(nodes)
    before: set[ir.Node] = set()
    for node in reversed(nodes):
        if any(reader.op_type in _NORMALIZATIONS or reader in before for reader in node.successors()):
            before.add(node)
    return [node for node in nodes if node in before and node not in full and _is_plain(node)]


def _is_plain(node: ir.Node) -> bool:
    """Whether it is a two-dimensional convolution, not dilated, whose weights nothing else reads."""
    if node.op_type != "Conv" or node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return False
    weight, *biases = node.inputs[1:]
    return (
        weight is not None
        and weight.shape is not None
        and weight.shape.rank() == 4
        and len(list(weight.uses())) == 1
        and all(value.is_initializer() for value in (weight, *biases) if value is not None)
        and set(node.attributes.get_ints("dilations", (1, 1))) == {1}
    )


def _replace(graph: ir.Graph, node: ir.Node, place: int, values: NDArray[np.float64]) -> None:
    old = node.inputs[place]
    assert old is not None
    name = f"{old.name}_of_{node.name}"
    tensor = ir.tensor(values.astype(np.float32), name=name)
    weight = ir.Value(name=name, shape=old.shape, type=ir.TensorType(ir.DataType.FLOAT), const_value=tensor)
    graph.register_initializer(weight)
    node.replace_input_with(place, weight)


def _array(value: ir.Value) -> NDArray[np.float32]:
    assert value.const_value is not None  # `_is_plain`
    return np.asarray(value.const_value.numpy(), np.float32)
