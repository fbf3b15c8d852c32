"""A product of two large matrices as a graph: what an engine can compute at best, to hold others against."""

import numpy as np
import onnx
from numpy.typing import NDArray

from uflow_edge.runtime.bundle.manifest import DEFAULT_OPSET

SIDE = 1024
MULTIPLICATIONS = SIDE**3


def matrix_product() -> onnx.ModelProto:
    """A graph that multiplies its input ``matrix``, (SIDE, SIDE) float32, with a constant one."""
    text = f"""<ir_version: 8, opset_import: ["" : {DEFAULT_OPSET}]>
    product (float[{SIDE},{SIDE}] matrix) => (float[{SIDE},{SIDE}] result) {{
        result = MatMul(matrix, other)
    }}"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(random_matrix(1), "other"))
    return model


def random_matrix(seed: int) -> NDArray[np.float32]:
    """(SIDE, SIDE), normally distributed."""
    return np.random.default_rng(seed).standard_normal((SIDE, SIDE), dtype=np.float32)
