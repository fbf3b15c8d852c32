"""Quantised graphs against arithmetic done by hand."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from uflow_edge.calibration.int8.graph import layers, quantize, rounded_weights
from uflow_edge.calibration.int8.half import with_fp16_rest
from uflow_edge.export.graphs.probe import Probe
from uflow_edge.runtime.errors import BadInput

pytestmark = pytest.mark.long

SIDE = 8
PICTURE = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def block(activation: str = "Relu(first)", groups: int = 1) -> ir.Model:
    """Two convolutions in a residual block behind one at the picture; ``second`` reads what the addition reads too."""
    text = f"""<ir_version: 8, opset_import: ["" : 18]>
    block (uint8[N,{SIDE},{SIDE},3] image) => (float[N,4,{SIDE},{SIDE}] sum) {{
        real = Cast <to = 1> (image)
        moved = Transpose <perm = [0, 3, 1, 2]> (real)
        first = Conv <kernel_shape = [1, 1]> (moved, w0)
        active = {activation}
        second = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = {groups}> (active, w1)
        rectified = Relu(second)
        third = Conv <kernel_shape = [1, 1]> (rectified, w2, b2)
        sum = Add(third, active)
    }}"""
    proto = onnx.parser.parse_model(text)
    random = np.random.default_rng(1)
    weights = {
        "w0": random.standard_normal((4, 3, 1, 1)) / 100,
        "w1": random.standard_normal((4, 4 // groups, 3, 3)) / 3,
        "w2": random.standard_normal((4, 4, 1, 1)) * [[[[1]]], [[[0.01]]], [[[30]]], [[[0]]]],
        "b2": random.standard_normal(4),
        "low": np.zeros(()),
        "high": np.full((), 6.0),
    }
    for name, values in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto, check_type=True))
    for i, node in enumerate(model.graph):
        node.name = f"{node.op_type}_{i}"
    return model


def values(model: ir.Model, *names: str) -> list[np.ndarray]:
    found = Probe(model, names).run(PICTURE)
    return [found[name] for name in names]


def test_layers_are_counted() -> None:
    found = layers(block(groups=4))
    assert [layer.source for layer in found] == ["moved", "active", "rectified"]
    assert [layer.macs for layer in found] == [4 * 3 * SIDE**2, 4 * 9 * SIDE**2, 16 * SIDE**2]


def test_one_layer_is_what_rounding_by_hand_gives() -> None:
    model = block()
    third = layers(model)[2]
    read, exact = values(model, "rectified", "third")
    largest = float(read.max())
    quantized = quantize(model, [third.name], {"rectified": largest})
    (found,) = values(quantized, "third")
    weights, bias = (model.graph.initializers[name].const_value.numpy() for name in ("w2", "b2"))
    integers, scales = rounded_weights(weights)
    scale = ir_scale(quantized, "rectified_scale")
    assert largest / 127 <= scale <= largest / 127 * (1 + 2**-10)
    rounded = np.clip(np.rint(read / scale), -127, 127) * scale
    by_hand = np.einsum("oc,chw->ohw", (integers * scales.reshape(-1, 1, 1, 1))[:, :, 0, 0], rounded)
    np.testing.assert_allclose(found, by_hand + bias[:, None, None], rtol=1e-5, atol=1e-4)
    assert 0 < np.abs(found - exact).max() < 0.05 * np.abs(exact).max()


def ir_scale(model: ir.Model, name: str) -> float:
    return float(model.graph.initializers[name].const_value.numpy())


def test_everything_is_symmetric_and_by_channel() -> None:
    model = block()
    names = [layer.name for layer in layers(model)]
    quantized = quantize(model, names, {"moved": 255.0, "active": 9.0, "rectified": 20.0})
    kinds = [node.op_type for node in quantized.graph]
    assert kinds.count("QuantizeLinear") == 3
    assert kinds.count("DequantizeLinear") == 6
    for node in quantized.graph:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = node.inputs[2].const_value.numpy()
            assert zero.dtype == np.int8
            assert not zero.any()
    by_channel = [n for n in quantized.graph if n.op_type == "DequantizeLinear" and n.inputs[0].is_initializer()]
    assert [n.inputs[1].shape[0] for n in by_channel] == [4, 4, 4]
    onnx.checker.check_model(ir.to_proto(quantized), full_check=True)


def test_a_residual_addition_reads_the_integers_that_are_there() -> None:
    model = block()
    second = layers(model)[1]
    quantized = quantize(model, [second.name], {"active": 9.0})
    added = next(node for node in quantized.graph if node.op_type == "Add")
    assert added.inputs[1].producer().op_type == "DequantizeLinear"
    assert [node.op_type for node in model.graph if "Quantize" in node.op_type] == []  # the original is untouched


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0, 1e4])
def test_no_weight_is_clipped_or_off_by_more_than_half_a_step(scale: float) -> None:
    weights = (np.random.default_rng(2).standard_normal((5, 7, 3, 3)) * scale).astype(np.float32)
    integers, scales = rounded_weights(weights)
    assert np.array_equal(scales, scales.astype(np.float16).astype(np.float32))
    steps = scales.reshape(-1, 1, 1, 1)
    assert (scales > 0).all()
    assert (np.abs(integers * steps - weights) <= steps / 2 * (1 + 1e-5)).all()


def test_a_range_that_was_not_measured_is_named() -> None:
    model = block()
    with pytest.raises(BadInput, match="range of rectified has not been measured"):
        quantize(model, [layers(model)[2].name], {})


def test_fp16_around_integers_needs_no_casts_at_them() -> None:
    model = block()
    names = [layer.name for layer in layers(model)]
    quantized = quantize(model, names, {"moved": 255.0, "active": 9.0, "rectified": 20.0})
    half = with_fp16_rest(quantized)
    onnx.checker.check_model(ir.to_proto(half), full_check=True)
    second = next(node for node in half.graph if node.name == names[1])
    for value in second.inputs[:2]:
        assert value.dtype == ir.DataType.FLOAT16
        assert value.producer().op_type == "DequantizeLinear"
    assert half.graph.outputs[0].dtype == ir.DataType.FLOAT
    (exact,), (found,) = values(quantized, "sum"), values(half, half.graph.outputs[0].name)
    np.testing.assert_allclose(found, exact, atol=0.02 * np.abs(exact).max())


def test_a_matrix_product_has_a_scale_a_column() -> None:
    text = f"""<ir_version: 8, opset_import: ["" : 18]>
    tokens (uint8[N,{SIDE},{SIDE},3] image) => (float[N,{SIDE},{SIDE},5] projected) {{
        real = Cast <to = 1> (image)
        projected = MatMul(real, matrix)
    }}"""
    proto = onnx.parser.parse_model(text)
    matrix = (np.random.default_rng(3).standard_normal((3, 5)) * [1, 0.1, 10, 1, 1]).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(matrix, "matrix"))
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    for i, node in enumerate(model.graph):
        node.name = f"{node.op_type}_{i}"
    (layer,) = layers(model)
    assert layer.macs == 15 * SIDE**2
    quantized = quantize(model, [layer.name], {"real": 127.0})  # a step of 1: pixels up to 127 stay as they are
    (found,) = values(quantized, "projected")
    integers, scales = rounded_weights(matrix, axis=1)
    assert scales.shape == (5,)
    np.testing.assert_allclose(found, np.minimum(PICTURE, 127) @ (integers * scales), rtol=1e-5, atol=1e-3)
