"""OpenVINO's benchmark_app for real, and the bare session."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from extras import extra
from uflow_edge.benchmarks.studies.peers.bare import BareSession
from uflow_edge.benchmarks.studies.peers.benchmark_app import benchmark_app_ms, read_report
from uflow_edge.runtime.errors import BadInput

TINY = """<ir_version: 8, opset_import: ["" : 18]>
graph (uint8[batch,side,side,3] image) => (float[batch,side,side,3] pixels) { pixels = Cast<to = 1>(image) }"""


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.onnx"
    onnx.save(onnx.parser.parse_model(TINY), str(path))
    return path


@pytest.mark.parametrize("fixed", [False, True])
def test_benchmark_app_tells_its_median(graph: Path, fixed: bool) -> None:
    extra("openvino")
    # It rounds to hundredths of a millisecond, so the picture is large enough to take some.
    took = benchmark_app_ms(graph, "image[1,1024,1024,3]", threads=1, iterations=3, fixed=fixed)
    assert 0 < took < 1000


def test_benchmark_app_fails_loudly(tmp_path: Path) -> None:
    extra("openvino")
    (tmp_path / "broken.onnx").write_text("no graph")
    with pytest.raises(BadInput, match=r"broken\.onnx: benchmark_app fails: ."):
        benchmark_app_ms(tmp_path / "broken.onnx", "image[1,4,4,3]", threads=1, iterations=3)


def test_report() -> None:
    assert read_report({"execution_results": {"latency (ms)": "6.29", "avg latency": "6.44"}}) == 6.29
    for report in ({}, {"execution_results": {}}, {"execution_results": {"latency (ms)": "fast"}}):
        with pytest.raises(BadInput, match="no median latency"):
            read_report(report)


@pytest.mark.parametrize("spinning", [False, True])
def test_bare_session(graph: Path, spinning: bool) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3), dtype=np.uint8)
    (pixels,) = BareSession(graph, 1, spinning=spinning).run(picture)
    np.testing.assert_array_equal(pixels, picture.astype(np.float32))
