"""Operations and bytes counted by hand, and those of a real graph against torch's own counter."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from uflow_edge.benchmarks.studies.graph_work import PART_NAMES, Graph, Work, load_graph
from uflow_edge.export.bundle import energy_graph
from uflow_edge.export.checkpoints.checkpoint import load_checkpoint
from uflow_edge.export.dry_run import parts
from uflow_edge.runtime.errors import BadInput

HAND_MADE = """<ir_version: 8, opset_import: ["" : 18]>
graph (uint8[batch,3,8,8] image) => (float[batch,10] scores)
<float[6,1,3,3] kernels, float[6] offsets, float[2,96] projection, float[10] bias> {
    pixels = Cast<to = 1>(image)
    maps = Conv<kernel_shape = [3,3], strides = [2,2], pads = [1,1,1,1], group = 3>(pixels, kernels, offsets)
    active = Relu(maps)
    flat = Flatten(active)
    scores = Gemm<transB = 1>(flat, weights, bias)
}"""


def hand_made(text: str = HAND_MADE) -> Graph:
    model = onnx.parser.parse_model(text)
    weights = {
        "kernels": np.zeros((6, 1, 3, 3), np.float32),
        "offsets": np.zeros(6, np.float32),
        "weights": np.zeros((10, 96), np.float32),
        "bias": np.zeros(10, np.float32),
    }
    del model.graph.initializer[:]
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in weights.items())
    return Graph(model)


def test_a_graph_counted_by_hand() -> None:
    graph = hand_made()
    work = graph.work("all", graph.nodes)
    convolution = 6 * 4 * 4 * 9  # output pixels, each over one channel of its group
    product = 10 * 96
    pixels, maps, flat, scores = 4 * 3 * 8 * 8, 4 * 6 * 4 * 4, 4 * 96, 4 * 10
    image = 3 * 8 * 8  # one byte each, and nothing that is counted reads it
    assert work == Work("all", convolution + product, 4 * (54 + 6 + 960 + 10), pixels + maps + flat + scores + image)


def test_what_enters_and_leaves() -> None:
    graph = hand_made()
    assert graph.boundary(graph.nodes[1:3]) == (["pixels"], ["active"])
    assert [value.name for value in graph.cut(graph.nodes[1:3]).graph.initializer] == ["kernels", "offsets"]


@pytest.mark.parametrize(
    ("body", "macs"),
    [
        ("y = MatMul(x, w)", 5 * 7 * 4),
        ("y = Gemm<transA = 1>(t, w)", 5 * 7 * 4),
    ],
)
def test_products(body: str, macs: int) -> None:
    text = f"""<ir_version: 8, opset_import: ["" : 18]>
    graph (float[5,4] x, float[4,5] t) => (float[5,7] y) {{ {body} }}"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((4, 7), np.float32), "w"))
    graph = Graph(model)
    assert graph.work("product", graph.nodes).macs == macs


def test_transposed_convolution() -> None:
    text = """<ir_version: 8, opset_import: ["" : 18]>
    graph (float[1,4,5,5] x) => (float[1,6,10,10] y) { y = ConvTranspose<strides = [2,2]>(x, w) }"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((4, 6, 2, 2), np.float32), "w"))
    graph = Graph(model)
    assert graph.work("up", graph.nodes).macs == 4 * 5 * 5 * 6 * 2 * 2


def test_real_parts_are_what_torch_counts(trained: Path, exported: Path) -> None:
    graph = load_graph(exported / "model.fp32.onnx")
    found = {name: graph.work(name, nodes) for name, nodes in graph.parts().items()}
    extractor, flow = parts(energy_graph(load_checkpoint(trained), lowered=True).network, 64)
    assert (found["extractor"].macs, found["flow"].macs) == (extractor.macs, flow.macs)
    assert found["statistics"].macs == 0
    # Batch norms are folded into the convolutions before them.
    assert found["extractor"].weight_bytes == pytest.approx(4 * extractor.weights, rel=0.05)
    assert found["flow"].weight_bytes == pytest.approx(4 * flow.weights, rel=0.05)


def test_parts_one_after_the_other_are_the_whole(exported: Path) -> None:
    graph = load_graph(exported / "model.fp32.onnx")
    values = {"image": np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)}
    whole = onnxruntime.InferenceSession(str(exported / "model.fp32.onnx"), providers=["CPUExecutionProvider"])
    expected = dict(zip([o.name for o in whole.get_outputs()], whole.run(None, values), strict=True))
    found_parts = graph.parts()
    assert tuple(found_parts) == PART_NAMES
    assert sum(map(len, found_parts.values())) == len(graph.nodes)
    for nodes in found_parts.values():
        part = graph.cut(nodes).SerializeToString()
        session = onnxruntime.InferenceSession(part, providers=["CPUExecutionProvider"])
        given = {tensor.name: values[tensor.name] for tensor in session.get_inputs()}
        values |= dict(zip([o.name for o in session.get_outputs()], session.run(None, given), strict=True))
    for name, value in expected.items():
        np.testing.assert_allclose(values[name], value, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_counted_is_said(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(BadInput, match=r"text\.onnx: cannot be read as an ONNX graph"):
        load_graph(tmp_path / "text.onnx")
    text = """<ir_version: 8, opset_import: ["" : 18, "other" : 1]>
    graph (float[1,4,5,5] x) => (float y) { a = other.Unknown(x)  y = Conv(a, w) }"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((4, 4, 1, 1), np.float32), "w"))
    graph = Graph(model)
    with pytest.raises(BadInput, match="the shape of tensor 'a' cannot be inferred"):
        graph.work("part", graph.nodes)
