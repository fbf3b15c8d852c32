"""Rescaled channels: the same results, more of the INT8 range used."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from uflow_edge.calibration.int8.equalisation import equalize, links
from uflow_edge.export.graphs.probe import Probe

pytestmark = pytest.mark.long

SIDE = 6
PICTURES = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)


def chain(activation: str, groups: int) -> ir.Model:
    """Channels of very different size between two convolutions."""
    text = f"""<ir_version: 8, opset_import: ["" : 18]>
    chain (uint8[N,{SIDE},{SIDE},3] image) => (float[N,4,{SIDE},{SIDE}] result) {{
        real = Cast <to = 1> (image)
        moved = Transpose <perm = [0, 3, 1, 2]> (real)
        made = Conv <kernel_shape = [1, 1]> (moved, w0, b0)
        between = {activation}
        result = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = {groups}> (between, w1)
    }}"""
    proto = onnx.parser.parse_model(text)
    random = np.random.default_rng(1)
    sizes = np.array([1, 0.3, 0.05, 0]).reshape(4, 1, 1, 1)
    weights = {
        "w0": sizes * random.uniform(0.001, 0.01, (4, 3, 1, 1)),
        "b0": sizes.ravel() * random.uniform(0, 0.3, 4),
        "w1": random.standard_normal((4, 4 // groups, 3, 3)),
        "low": np.zeros(()),
        "high": np.full((), 6.0),
    }
    for name, values in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto, check_type=True))
    for i, node in enumerate(model.graph):
        node.name = f"{node.op_type}_{i}"
    return model


@pytest.mark.parametrize("groups", [1, 4], ids=["full", "depthwise"])
@pytest.mark.parametrize(
    ("activation", "ceiling"), [("Relu(made)", None), ("Identity(made)", None), ("Clip(made, low, high)", 6.0)]
)
def test_same_results_from_channels_of_one_size(activation: str, ceiling: float | None, groups: int) -> None:
    model = chain(activation, groups)
    if activation.startswith("Identity"):  # simplified graphs have none
        node = next(node for node in model.graph if node.op_type == "Identity")
        node.outputs[0].replace_all_uses_with(node.inputs[0])
        model.graph.remove(node, safe=True)
    (link,) = links(model)
    assert link.ceiling == ceiling
    before = Probe(model, [link.value, "result"]).stacked(PICTURES)
    largest = np.abs(before[link.value]).max(axis=(0, 2, 3)).astype(np.float64)
    equal = equalize(model, {link.value: largest}, [link])
    after = Probe(equal, [link.value, "result"]).stacked(PICTURES)
    np.testing.assert_allclose(after["result"], before["result"], rtol=1e-4, atol=1e-4)
    reached = np.abs(after[link.value]).max(axis=(0, 2, 3))
    aim = largest.max() if ceiling is None else ceiling / 1.25
    np.testing.assert_allclose(reached[:3], aim, rtol=1e-4)
    assert reached[3] == 0  # a dead channel stays dead


def test_what_others_read_too_is_left_alone() -> None:
    model = chain("Relu(made)", 1)
    between = next(node for node in model.graph if node.op_type == "Relu").outputs[0]
    model.graph.outputs.append(between)
    assert links(model) == ()
