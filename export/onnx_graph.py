"""From the torch network to an ONNX graph that says nothing of the machine it was traced on."""

import warnings
from pathlib import Path

import onnx
import torch

from uflow_edge.export.network import EnergyGraph
from uflow_edge.runtime.bundle import DEFAULT_OPSET, INPUT_NAME
from uflow_edge.runtime.errors import BadInput, require
from uflow_edge.runtime.files import replacing

_TRACED_BATCH = 2  # torch.export takes a traced 1 for a constant, not for a dynamic batch


def export_onnx(graph: EnergyGraph, output_names: tuple[str, ...], path: Path, opset: int = DEFAULT_OPSET) -> None:
    """Trace, simplify, check and write a graph with a dynamic batch.

    Args:
        graph: in evaluation mode.
        output_names: of energies, then exceedances, finest first.
        path: written in one rename.
        opset: of the ONNX standard operators.

    Raises:
        BadInput: the exporter does not know this opset, or the graph does not pass the ONNX checker.
        MissingDependency: onnxscript is not installed.
    """
    require("onnxscript", "export")
    side = graph.network.architecture.input_size
    example = torch.zeros(_TRACED_BATCH, side, side, 3, dtype=torch.uint8)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own deprecations: nothing a user can act on
        program = torch.onnx.export(
            graph,
            (example,),
            input_names=[INPUT_NAME],
            output_names=list(output_names),
            dynamic_shapes={"image": {0: torch.export.Dim("batch", min=1)}},
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    found = {entry.domain: entry.version for entry in model.opset_import}.get("")
    if found != opset:
        raise BadInput(f"opset {opset}: the exporter wrote opset {found} instead; try {DEFAULT_OPSET}")
    strip_origins(model)
    onnx.checker.check_model(model, full_check=True)
    with replacing(path) as temporary:
        onnx.save_model(model, str(temporary))


def strip_origins(model: onnx.ModelProto) -> None:
    """Remove stack traces, local paths and tool notes: private, and different in every export."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        if hasattr(item, "metadata_props"):
            del item.metadata_props[:]
        item.doc_string = ""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                raise BadInput(f"node {node.name} ({node.op_type}) holds a subgraph, which engines do not take")
