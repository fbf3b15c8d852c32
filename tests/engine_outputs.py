"""Outputs of an engine, held against those of onnxruntime on the CPU."""

import numpy as np

from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.engines import Outputs
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.inspection import LatentStatistics


def assert_same(found_outputs: Outputs, expected_outputs: Outputs, tolerance: float = 1e-3) -> None:
    found, expected = LatentStatistics.of(found_outputs, 2), LatentStatistics.of(expected_outputs, 2)
    for a, b in zip(found.energies, expected.energies, strict=True):
        assert (a.shape, a.dtype) == (b.shape, np.float32)
        np.testing.assert_allclose(a, b, rtol=tolerance)
    for a, b in zip(found.exceedances, expected.exceedances, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).mean() <= 10 * tolerance  # a count flips where a latent lies on the quantile


def on_cpu(bundle: Bundle) -> OnnxRuntimeEngine:
    variant = bundle.manifest.variants[0]
    return OnnxRuntimeEngine.from_bundle(bundle, variant)
