"""An INT8 graph whose other parts are in FP16, for GPUs: what TensorRT fuses there is INT8 between FP16.

`to_fp16` leaves quantisation in FP32, with casts around it. A cast between a convolution and its DequantizeLinear may
keep an engine from seeing that the two belong together, so here quantisation itself reads and gives FP16, which its
operators do from opset 19 on. Its scales are then FP16 too; `quantize` has chosen them so that FP16 holds them exactly.
"""

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import NameFixPass

from uflow_edge.calibration.int8_graph import array, constant, drop_unread
from uflow_edge.export.precision import to_fp16

OPSET = 19
"""The first in which scales may be FP16."""


def with_fp16_rest(model: ir.Model) -> ir.Model:
    """A copy that computes in FP16 what it does not compute in INT8, where that is safe.

    Args:
        model: as `quantize` made it, with scales that FP16 holds.
    """
    model = to_fp16(model)
    graph = model.graph
    for node in list(graph):
        if node.op_type == "QuantizeLinear" and _is_cast_to(node.inputs[0], ir.DataType.FLOAT):
            node.replace_input_with(0, node.inputs[0].producer().inputs[0])
            node.replace_input_with(1, _half(graph, node.inputs[1]))
        elif node.op_type == "DequantizeLinear":
            result = node.outputs[0]
            readers = [reader for reader, _ in result.uses()]
            if readers and all(_is_cast_to(reader.outputs[0], ir.DataType.FLOAT16) for reader in readers):
                node.replace_input_with(1, _half(graph, node.inputs[1]))
                result.type = ir.TensorType(ir.DataType.FLOAT16)
                for cast in readers:
                    cast.outputs[0].replace_all_uses_with(result)
    for node in reversed(list(graph)):
        if node.op_type == "Cast" and not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
            graph.remove(node, safe=True)
    drop_unread(graph)
    model.opset_imports[""] = graph.opset_imports[""] = max(OPSET, model.opset_imports[""])
    NameFixPass()(model)
    return model


def _is_cast_to(value: ir.Value | None, kind: ir.DataType) -> bool:
    node = None if value is None else value.producer()
    return (
        node is not None
        and node.op_type == "Cast"
        and node.outputs[0].dtype == kind
        and (node.inputs[0].dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16))
    )


def _half(graph: ir.Graph, scale: ir.Value) -> ir.Value:
    if scale.dtype == ir.DataType.FLOAT16:
        return scale
    return constant(graph, f"{scale.name}_float16", array(scale).astype(np.float16))
