"""From a torch network to ONNX models without traces of the machine that they were made on."""

import hashlib
import warnings
from collections.abc import Mapping, Sequence

import onnx_ir as ir
import torch
from onnx_ir.passes.common import IdentityEliminationPass, NameFixPass, RemoveUnusedNodesPass, RemoveUnusedOpsetsPass
from torch import Tensor, nn

from uflow_edge.runtime.bundle.manifest import DEFAULT_OPSET, OPSETS
from uflow_edge.runtime.bundle.uflow import INPUT_NAME
from uflow_edge.runtime.errors import BadInput, require

TRACED_BATCH = 2
"""Batch of the examples for graphs of any batch: torch.export would treat a 1 as a constant."""

_SUBGRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
_LARGEST_FOLDED = 1 << 24  # elements of a constant; results computed from weights are as large as the weights


def trace(
    graph: nn.Module, side: int, output_names: Sequence[str], opset: int = DEFAULT_OPSET, batch: int | None = None
) -> ir.Model:
    """A network as a simplified ONNX model that shares its weights.

    Args:
        graph: takes (N, side, side, 3) uint8; in evaluation mode.
        side: of the square pictures.
        output_names: of what the network returns, in this order.
        batch: pictures a run; None takes any number.

    Raises:
        BadInput: the exporter does not know this opset.
        MissingDependency: onnxscript is not installed.
    """
    example = torch.zeros(batch or TRACED_BATCH, side, side, 3, dtype=torch.uint8)
    return trace_module(graph, {INPUT_NAME: example}, output_names, opset, dynamic_batch=batch is None)


def trace_module(
    module: nn.Module,
    examples: Mapping[str, Tensor],
    output_names: Sequence[str],
    opset: int = DEFAULT_OPSET,
    *,
    dynamic_batch: bool,
) -> ir.Model:
    """Any network as a simplified ONNX model that shares its weights.

    Args:
        module: in evaluation mode.
        examples: its inputs by name, in the order of its arguments; the first axis of each is the batch.
        output_names: of what it returns, in this order.
        dynamic_batch: take any batch, not only that of the examples, which must be `TRACED_BATCH` then.

    Raises:
        BadInput: the exporter does not know this opset.
        MissingDependency: onnxscript is not installed.
    """
    if opset not in OPSETS:  # torch would print a traceback
        raise BadInput(f"opset {opset}: the exporter writes {OPSETS[0]} to {OPSETS[-1]}; try {DEFAULT_OPSET}")
    require("onnxscript", "export")
    batch = {0: torch.export.Dim("batch", min=1)}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own deprecations: nothing a user can act on
        program = torch.onnx.export(
            module,
            tuple(examples.values()),
            input_names=list(examples),
            output_names=list(output_names),
            dynamic_shapes=tuple(batch for _ in examples) if dynamic_batch else None,
            opset_version=opset,
            dynamo=True,
            optimize=False,  # `simplify` does, and folds more
            verbose=False,
        )
    assert program is not None
    model = program.model
    found = model.opset_imports.get("")
    if found != opset:
        raise BadInput(f"opset {opset}: the exporter wrote opset {found} instead; try {DEFAULT_OPSET}")
    simplify(model)
    return model


def simplify(model: ir.Model) -> None:
    """Fold constants and batch norms, drop unused values, store equal weights once, and clear all origins.

    Stack traces, local paths and tool notes are private, and different in every export.

    Raises:
        BadInput: a node holds a subgraph, which engines do not take.
    """
    optimizer = require("onnxscript.optimizer", "export")
    optimizer.optimize_ir(model, input_size_limit=_LARGEST_FOLDED, output_size_limit=_LARGEST_FOLDED)
    passes = (IdentityEliminationPass(), RemoveUnusedNodesPass(), RemoveUnusedOpsetsPass(), NameFixPass())
    ir.passes.Sequential(*passes)(model)
    _share_equal_weights(model.graph)
    _forget_origins(model)
    for node in model.graph:
        if any(attribute.type in _SUBGRAPHS for attribute in node.attributes.values()):
            raise BadInput(f"node {node.name} ({node.op_type}) holds a subgraph, which engines do not take")


def _share_equal_weights(graph: ir.Graph) -> None:
    # onnx-ir's own pass stops at weights that are not contiguous, such as a transposed matrix.
    kept: dict[tuple[ir.DataType, tuple[int, ...], bytes], ir.Value] = {}
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        assert tensor is not None  # what the exporter wrote has values
        key = (tensor.dtype, tuple(tensor.shape.numpy()), hashlib.sha256(tensor.tobytes()).digest())
        first = kept.setdefault(key, value)
        if first is not value:
            value.replace_all_uses_with(first)
            del graph.initializers[name]


def _forget_origins(model: ir.Model) -> None:
    graph = model.graph
    results = [output for node in graph for output in node.outputs]
    for item in (model, graph, *graph, *graph.inputs, *graph.initializers.values(), *results):
        item.metadata_props.clear()
        item.doc_string = None
