"""A graph may come from anywhere: what an engine must not be given is found before one loads it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from uflow_edge.runtime.bundle.graph_check import check_graph
from uflow_edge.runtime.errors import BadInput


def written(path: Path, nodes: Sequence[onnx.NodeProto], **initializers: object) -> Path:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 4])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in initializers.items()]
    graph = helper.make_graph(nodes, "g", [image], [out], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    return path


def add(name: str) -> onnx.NodeProto:
    return helper.make_node("Add", ["image", name], ["out"])


BODY = helper.make_graph([helper.make_node("Identity", ["c"], ["d"])], "body", [], [])
INTS = np.array([65536, 65536])
LONG = np.ones((9999, 1), np.float32)


@pytest.mark.parametrize(
    ("nodes", "initializers", "complaint"),
    [
        ([helper.make_node("ConstantOfShape", ["n"], ["big"]), add("big")], {"n": INTS}, "ConstantOfShape"),
        ([helper.make_node("Expand", ["one", "n"], ["big"]), add("big")], {"n": INTS, "one": 1.0}, "Expand"),
        ([helper.make_node("Tile", ["one", "n"], ["big"]), add("big")], {"n": INTS, "one": [[1.0]]}, "Tile"),
        (
            [
                helper.make_node("Mul", ["n", "n"], ["m"]),
                helper.make_node("ConstantOfShape", ["m"], ["big"]),
                add("big"),
            ],
            {"n": np.array([300])},
            "ConstantOfShape",
        ),
        (
            [
                helper.make_node("Constant", [], ["n"], value=numpy_helper.from_array(INTS)),
                helper.make_node("ConstantOfShape", ["n"], ["big"]),
                add("big"),
            ],
            {},
            "ConstantOfShape",
        ),
        ([helper.make_node("Add", ["column", "row"], ["big"]), add("big")], {"column": LONG, "row": LONG.T}, "Add"),
        (
            [helper.make_node("MatMul", ["column", "row"], ["big"]), add("big")],
            {"column": LONG, "row": LONG.T},
            "MatMul",
        ),
        (
            [*(helper.make_node("Concat", [f"c{i}"] * 8, [f"c{i + 1}"], axis=0) for i in range(9)), add("c9")],
            {"c0": np.ones(2, np.float32)},
            "Concat",
        ),
        ([helper.make_node("Tile", ["column", "n"], ["big"]), add("big")], {"column": LONG, "n": [1, 9999]}, "Tile"),
        (
            [helper.make_node("Pad", ["column", "n"], ["big"]), add("big")],
            {"column": LONG, "n": [0, 9999, 0, 0]},
            "Pad",
        ),
        ([helper.make_node("Range", ["a", "b", "b"], ["big"]), add("big")], {"a": [-(2**40)], "b": [1]}, "Range"),
        ([helper.make_node("Resize", ["column", "", "s"], ["big"]), add("big")], {"column": LONG, "s": LONG}, "Resize"),
        (
            [helper.make_node("ConvTranspose", ["column", "column"], ["big"]), add("big")],
            {"column": LONG},
            "ConvTranspose",
        ),
        ([helper.make_node("Loop", ["n", "b"], ["out"], body=BODY)], {"n": 3, "b": True}, "control flow"),
        ([helper.make_node("If", ["b"], ["out"], then_branch=BODY, else_branch=BODY)], {"b": True}, "control flow"),
        ([helper.make_node("Anything", ["image"], ["out"], domain="com.other")], {}, "domain 'com.other'"),
        ([helper.make_node("RandomNormalLike", ["image"], ["out"])], {}, "random numbers"),
    ],
)
def test_what_no_engine_is_given(tmp_path: Path, nodes: list, initializers: dict, complaint: str) -> None:
    with pytest.raises(BadInput, match=rf"g\.onnx: not a graph that uflow-export writes .*{complaint}"):
        check_graph(written(tmp_path / "g.onnx", nodes, **initializers), ())


def test_what_our_graphs_do_is_taken(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["image"], ["shape"]),
        helper.make_node("Mul", ["shape", "n"], ["grown"]),
        helper.make_node("Expand", ["one", "grown"], ["fits"]),
        helper.make_node("ConstantOfShape", ["n"], ["small"]),
        helper.make_node("Add", ["fits", "small"], ["sum"]),
        helper.make_node("DequantizeLinear", ["weights", "one", "zero"], ["w"]),
        helper.make_node("Add", ["sum", "w"], ["more"]),
        add("more"),
    ]
    weights = {"weights": np.zeros((9999, 999), np.int8), "zero": np.int8(0)}
    check_graph(written(tmp_path / "g.onnx", nodes, n=np.array([2, 3]), one=1.0, **weights), ())


def test_weights_outside_lie_where_the_manifest_says(tmp_path: Path) -> None:
    path = written(tmp_path / "g.onnx", [add("w")], w=np.ones((64, 64), np.float32))
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    check_graph(path, ["w.bin"])
    for listed in ((), ("other.bin",)):
        with pytest.raises(BadInput, match="'w.bin', which the manifest does not list"):
            check_graph(path, listed)


@pytest.mark.parametrize("content", [b"", b"graph", b"\x0b", b"\x3a\xff\xff\x7f", bytes(100), b"\xff" * 20])
def test_what_is_no_graph(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "g.onnx").write_bytes(content)
    with pytest.raises(BadInput, match="not a graph"):
        check_graph(tmp_path / "g.onnx", ())


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, 10**6), value=st.integers(0, 255), length=st.integers(0, 10**6))
def test_a_damaged_graph_raises_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int, length: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    content = bytearray(written(path, [add("w")], w=np.ones(3)).read_bytes())
    content[position % len(content)] = value
    path.write_bytes(content[: 1 + length % len(content)])
    try:
        check_graph(path, ())
    except BadInput as error:
        assert "damaged.onnx" in str(error)
