"""Converts what an INT8 graph does not compute in INT8 to FP16, for GPUs: TensorRT fuses INT8 with FP16 around it.

`to_fp16` alone leaves quantisation in FP32, with casts around it. A cast between a convolution and its DequantizeLinear
may keep an engine from recognising the pair, so here quantisation itself reads and writes FP16, which its operators do
from opset 19 on. The scales become FP16 too; `quantize` has chosen scales that FP16 represents exactly.
"""

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import NameFixPass

from uflow_edge.calibration.int8.graph import array, constant, drop_unread, operands
from uflow_edge.export.graphs.precision import to_fp16

OPSET = 19
"""The first opset in which scales may be FP16."""


def with_fp16_rest(model: ir.Model) -> ir.Model:
    """A copy that computes in FP16 what is not in INT8, where that is safe.

    Args:
        model: as `quantize` made it, with scales that FP16 can represent.
    """
    model = to_fp16(model)
    graph = model.graph
    for node in list(graph):
        cast = node.inputs[0].producer() if node.op_type == "QuantizeLinear" and node.inputs[0] is not None else None
        if cast is not None and _is_cast_to(cast.outputs[0], ir.DataType.FLOAT):
            node.replace_input_with(0, cast.inputs[0])
            node.replace_input_with(1, _half(graph, operands(node)[1]))
        elif node.op_type == "DequantizeLinear":
            _give_fp16(graph, node)
    for node in reversed(list(graph)):
        unread = not node.outputs[0].uses() and not node.outputs[0].is_graph_output()
        if unread and node.op_type in ("Cast", "DequantizeLinear"):
            graph.remove(node, safe=True)
    drop_unread(graph)
    model.opset_imports[""] = graph.opset_imports[""] = max(OPSET, model.opset_imports[""])
    NameFixPass()(model)
    return model


def _give_fp16(graph: ir.Graph, node: ir.Node) -> None:
    """Give readers that want FP16 a DequantizeLinear of their own; the others keep this one."""
    result = node.outputs[0]
    casts = [cast.outputs[0] for cast, _ in result.uses() if _is_cast_to(cast.outputs[0], ir.DataType.FLOAT16)]
    if not casts:
        return
    name = f"{result.name}_float16"
    half = ir.Value(name=name, shape=result.shape, type=ir.TensorType(ir.DataType.FLOAT16))
    inputs = [node.inputs[0], _half(graph, operands(node)[1]), node.inputs[2]]
    graph.insert_after(node, ir.node("DequantizeLinear", inputs, node.attributes, outputs=[half], name=name))
    for cast in casts:
        cast.replace_all_uses_with(half)


def _is_cast_to(value: ir.Value, kind: ir.DataType) -> bool:
    """Whether a value is cast to this type from a floating-point type."""
    node = value.producer()
    if node is None or node.op_type != "Cast" or value.dtype != kind:
        return False
    source = node.inputs[0]
    return source is not None and source.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16)


def _half(graph: ir.Graph, scale: ir.Value) -> ir.Value:
    if scale.dtype == ir.DataType.FLOAT16:
        return scale
    return constant(graph, f"{scale.name}_float16", array(scale).astype(np.float16))
