"""Every extractor's graphs, in both precisions, become TensorRT-RTX engines; no GPU is needed for that."""

from pathlib import Path

import pytest

from extras import needs
from uflow_edge.export.engines.plan_options import PlanOptions
from uflow_edge.export.engines.tensorrt import DYNAMIC, TensorSpec, build_engine
from uflow_edge.export.engines.toolchain import find_toolchain
from uflow_edge.export.graphs.files import write_onnx
from uflow_edge.export.graphs.precision import to_fp16
from uflow_edge.export.graphs.trace import trace
from uflow_edge.export.network.architecture import Architecture
from uflow_edge.export.network.lowered_network import lower
from uflow_edge.export.network.uflow import EnergyGraph, UFlow
from uflow_edge.runtime.bundle.manifest import BatchRange
from uflow_edge.runtime.engines.tensorrt_library import logger_of

pytestmark = needs("tensorrt_rtx_bindings")

RTX = PlanOptions("rtx", compute_capabilities=("8.6",))


def signature(architecture: Architecture) -> tuple[TensorSpec, list[TensorSpec]]:
    """What goes into a graph of this architecture, and what comes out."""
    side, scales = architecture.input_size, architecture.latents
    maps = [
        TensorSpec(f"{kind}_{i}", "fp32", (DYNAMIC, scale.side, scale.side))
        for kind in ("energy", "exceedance")
        for i, scale in enumerate(scales)
    ]
    return TensorSpec("image", "uint8", (DYNAMIC, side, side, 3)), maps


def parsed(graph: Path) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs and outputs as the library itself reads them, without our own checks."""
    trt = find_toolchain(RTX).module
    names = {trt.uint8: "uint8", trt.float32: "fp32", trt.float16: "fp16"}
    builder = trt.Builder(logger_of(trt))
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger_of(trt))
    assert parser.parse_from_file(str(graph))
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    found = [[TensorSpec(t.name, names[t.dtype], tuple(t.shape)) for t in tensors] for tensors in (inputs, outputs)]
    return found[0], found[1]


@pytest.mark.parametrize(
    ("extractor", "size", "smallest"),
    [
        ("resnet18", 256, 10_000_000),
        ("efficientnet_lite0", 256, 1_000_000),
        pytest.param("timm:convnextv2_atto", 256, 2_000_000, marks=pytest.mark.slow),
        pytest.param("timm:mobilenetv4_conv_medium", 256, 2_000_000, marks=pytest.mark.slow),
        pytest.param("wide_resnet50_2", 256, 100_000_000, marks=pytest.mark.slow),
        pytest.param("mcait", 448, 700_000_000, marks=pytest.mark.slow),
    ],
)
def test_it_is_parsed_and_built(extractor: str, size: int, smallest: int, tmp_path: Path) -> None:
    architecture = Architecture.default(extractor, size)
    image, maps = signature(architecture)
    network = lower(UFlow(architecture).eval().requires_grad_(False))
    full = trace(EnergyGraph(network, exceedance_probability=0.9).eval(), size, [spec.name for spec in maps])
    halves = {}
    for precision, model in (("fp32", full), ("fp16", to_fp16(full))):
        graph, *_ = write_onnx(model, tmp_path / f"{precision}.onnx")
        assert parsed(graph) == ([image], maps)
        plan, layers = build_engine(
            find_toolchain(RTX), graph, [image], maps, RTX, BatchRange(1, 1, 4), tmp_path / "a.timing"
        )
        assert plan.nbytes > smallest
        halves[precision] = layers.by_type.get("fp16", 0)
        convolutions = [layer for layer in layers.details if layer["type"] == "CONVOLUTION"]
        types = [layer["results"][0].split()[1] for layer in convolutions]
        if precision == "fp32":
            assert set(types) == {"fp32"}
        else:  # all but those at the picture
            assert types.count("fp32") <= 6 < types.count("fp16")
    assert halves["fp32"] == 0
    assert halves["fp16"] > 50
