"""The flow as FrEIA traces it against the lowered one: ``python -m uflow_edge.benchmarks.lowering``.

The same weights, the same input, in onnxruntime and OpenVINO, all in turn in one process; beside them how fast the same
engine multiplies large matrices, measured in the same rounds.
"""

import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from uflow_edge.benchmarks.matrix_product import MULTIPLICATIONS, matrix_product, random_matrix
from uflow_edge.benchmarks.timing import interleaved_medians
from uflow_edge.export.architecture import Architecture
from uflow_edge.export.flow import build_flow, ordered_latents
from uflow_edge.export.forecast import parts
from uflow_edge.export.lowered_network import lower
from uflow_edge.export.lowering import LoweredFlow, lower_flow
from uflow_edge.export.network import EnergyGraph, UFlow
from uflow_edge.export.onnx_files import write_onnx
from uflow_edge.export.onnx_graph import simplify, trace
from uflow_edge.runtime.command_line import progress, table
from uflow_edge.runtime.errors import require
from uflow_edge.runtime.manifest import DEFAULT_OPSET
from uflow_edge.runtime.nfa.block import DEFAULT_PROBABILITY
from uflow_edge.runtime.uflow_manifest import INPUT_NAME

ROUNDS = 40
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Pair:
    """One network as it was traced and as it was lowered.

    Attributes:
        name: for people.
        traced, lowered: ONNX files with the same inputs and outputs.
        inputs: of both, by name.
        macs: multiply-accumulate operations of the lowered one.
    """

    name: str
    traced: Path
    lowered: Path
    inputs: Mapping[str, NDArray[Any]]
    macs: int


class _FlowEnergies(nn.Module):
    """Features to energies, through FrEIA's flow or the lowered one."""

    def __init__(self, flow: nn.Module) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        lowered = isinstance(self.flow, LoweredFlow)
        latents = self.flow(*features) if lowered else ordered_latents(self.flow, features, jac=False)[0]
        return tuple((z * z).sum(dim=1) for z in latents)


def main() -> None:
    """Print a table of medians."""
    torch.manual_seed(0)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        product = write_onnx(ir.from_proto(matrix_product()), Path(folder) / "product.onnx")[0]
        cases = [
            (_flow_pair, "resnet18", 256),
            (_flow_pair, "mcait", 448),
            (_model_pair, "resnet18", 256),
            (_model_pair, "efficientnet_lite0", 256),
        ]
        for make, extractor, size in progress(cases, "measuring", unit="network"):
            rows += _measured(make(extractor, size, Path(folder)), product)
    print(f"batch 1, {THREADS} threads, median of {ROUNDS} interleaved rounds in ms; peak: large matrix products\n")
    print(table(("", "engine", "traced", "lowered", "ratio", "of peak"), rows, left=(0, 1)))


def _measured(pair: Pair, product: Path) -> list[tuple[str, ...]]:
    matrix = random_matrix(0)
    rows: list[tuple[str, ...]] = []
    for engine, load in (("onnxruntime", _in_onnxruntime), ("OpenVINO", _in_openvino)):
        contenders = {
            "traced": load(pair.traced, pair.inputs),
            "lowered": load(pair.lowered, pair.inputs),
            "peak": load(product, {"matrix": matrix}),
        }
        medians = interleaved_medians(contenders, ROUNDS)
        peak = MULTIPLICATIONS / medians["peak"]  # multiply-accumulates a millisecond
        traced, lowered = medians["traced"], medians["lowered"]
        share = pair.macs / lowered / peak
        rows.append((pair.name, engine, f"{traced:.1f}", f"{lowered:.1f}", f"{traced / lowered:.2f}", f"{share:.0%}"))
    return rows


def _flow_pair(extractor: str, size: int, folder: Path) -> Pair:
    architecture = Architecture.default(extractor, size)
    flow = build_flow(architecture).eval().requires_grad_(False)
    lowered = lower_flow(flow, architecture)
    features = tuple(torch.randn(1, s.channels, s.side, s.side) for s in architecture.features)
    names = [f"feature_{i}" for i in range(len(features))]
    traced_file, lowered_file = (folder / f"{extractor}-flow-{kind}.onnx" for kind in ("traced", "lowered"))
    for module, path in ((flow, traced_file), (lowered, lowered_file)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _FlowEnergies(module),
                features,
                input_names=names,
                opset_version=DEFAULT_OPSET,
                dynamo=True,
                verbose=False,
            )
        assert program is not None
        simplify(program.model)
        write_onnx(program.model, path)
    with FlopCounterMode(display=False) as counter:
        lowered(*features)
    inputs = {name: feature.numpy() for name, feature in zip(names, features, strict=True)}
    return Pair(f"flow of {extractor}", traced_file, lowered_file, inputs, counter.get_total_flops() // 2)


def _model_pair(extractor: str, size: int, folder: Path) -> Pair:
    architecture = Architecture.default(extractor, size)
    network = UFlow(architecture).eval().requires_grad_(False)
    if extractor == "efficientnet_lite0":  # as our trainer leaves it
        network.set_whitening([torch.eye(s.channels).repeat(s.side**2, 1, 1) for s in architecture.features])
    lowered = lower(network)
    names = [f"{kind}_{i}" for kind in ("energy", "exceedance") for i in range(len(architecture.latents))]
    traced_file, lowered_file = (folder / f"{extractor}-{kind}.onnx" for kind in ("traced", "lowered"))
    for graph, path in (
        (EnergyGraph(network, DEFAULT_PROBABILITY), traced_file),
        (EnergyGraph(lowered, DEFAULT_PROBABILITY), lowered_file),
    ):
        write_onnx(trace(graph.eval(), size, names), path)
    image = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    macs = sum(part.macs for part in parts(lowered, size))
    return Pair(f"all of {extractor}", traced_file, lowered_file, {INPUT_NAME: image}, macs)


def _in_onnxruntime(path: Path, inputs: Mapping[str, NDArray[Any]]) -> Callable[[], object]:
    onnxruntime = require("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, inputs)


def _in_openvino(path: Path, inputs: Mapping[str, NDArray[Any]]) -> Callable[[], object]:
    properties = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": THREADS,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = require("openvino", "openvino").compile_model(str(path), "CPU", properties).create_infer_request()
    return lambda: request.infer(inputs)


if __name__ == "__main__":
    main()
