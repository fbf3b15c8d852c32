"""ONNX files: simplified, reproducible, anonymous, in one file or two, and whole or not there at all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from extras import extra
from uflow_edge.export.engines.toolchain import load_library
from uflow_edge.export.graphs.files import LARGEST_FILE, write_onnx
from uflow_edge.export.graphs.trace import simplify, trace
from uflow_edge.runtime.engines.tensorrt_library import logger_of
from uflow_edge.runtime.errors import BadInput

SIDE = 16


class Small(nn.Module):
    """A picture's way to an energy: batch norm, two equal weights, a constant to fold, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Conv2d(3, 40, 3, padding=1, bias=False), nn.BatchNorm2d(40)
        self.second, self.third = (nn.Conv2d(40, 40, 3, padding=1) for _ in range(2))
        self.third.load_state_dict(self.second.state_dict())
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)
        self.register_buffer("mixing", torch.randn(SIDE, SIDE))

    def forward(self, image: Tensor) -> Tensor:
        x = image.float().permute(0, 3, 1, 2) / 255
        x = self.mixing @ x @ self.mixing.T
        return self.third(torch.relu(self.second(torch.relu(self.norm(self.first(x)))))).square().sum(1)


@pytest.fixture(scope="module")
def small() -> nn.Module:
    return Small().eval()


@pytest.fixture(scope="module")
def model(small: nn.Module) -> ir.Model:
    """Traced once. Read only."""
    return trace(small, SIDE, ["energy_0"])


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)


def run(path: Path, pictures: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (energy,) = session.run(None, {"image": pictures})
    return np.asarray(energy)


def test_computes_what_torch_computes_on_any_batch(small, model, pictures, tmp_path) -> None:
    assert write_onnx(model, tmp_path / "a.onnx") == (tmp_path / "a.onnx",)
    with torch.no_grad():
        expected = small(torch.from_numpy(pictures)).numpy()
    np.testing.assert_allclose(run(tmp_path / "a.onnx", pictures), expected, rtol=1e-4)
    np.testing.assert_allclose(run(tmp_path / "a.onnx", pictures[:1]), expected[:1], rtol=1e-4)


def test_a_fixed_batch_is_in_every_shape(small, pictures, tmp_path) -> None:
    write_onnx(trace(small, SIDE, ["energy_0"], batch=1), tmp_path / "a.onnx")
    graph = onnx.load(tmp_path / "a.onnx").graph
    shapes = [[d.dim_value for d in value.type.tensor_type.shape.dim] for value in (*graph.input, *graph.output)]
    assert shapes == [[1, SIDE, SIDE, 3], [1, SIDE, SIDE]]
    assert run(tmp_path / "a.onnx", pictures[:1]).shape == (1, SIDE, SIDE)


def test_nothing_is_computed_twice_or_in_vain(model) -> None:
    operators = [node.op_type for node in model.graph]
    assert not {"BatchNormalization", "Identity", "Constant"} & set(operators)
    constant = [n.op_type for n in model.graph if all(value is None or value.is_initializer() for value in n.inputs)]
    assert constant == []  # the transposed matrix is folded
    assert all(value.uses() for value in model.graph.initializers.values())


def test_equal_weights_are_stored_once(model) -> None:
    *_, second, third = [node for node in model.graph if node.op_type == "Conv"]
    assert second.inputs[1] is third.inputs[1]
    assert second.inputs[2] is third.inputs[2]
    sizes = [value.const_value.size for value in model.graph.initializers.values()]
    assert sizes.count(40 * 40 * 9) == 1


def test_says_nothing_of_where_it_was_made(model, tmp_path) -> None:
    write_onnx(model, tmp_path / "a.onnx")
    content = (tmp_path / "a.onnx").read_bytes()
    for trace_left in (b"site-packages", str(Path.home()).encode() + b"/", b"forward(self", b"stack_trace", b".py"):
        assert trace_left not in content
    proto = onnx.load(tmp_path / "a.onnx")
    for item in (proto, proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.initializer):
        assert not item.metadata_props
        assert not item.doc_string


def test_an_unknown_opset_is_refused(small) -> None:
    with pytest.raises(BadInput, match=r"opset 99: .* try 18"):
        trace(small, SIDE, ["energy_0"], opset=99)


def test_subgraphs_are_refused() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["" : 18]>
        g (float[1] x, bool c) => (float[1] y) {
            y = If <
                then_branch = a () => (float[1] p) { p = Neg(x) },
                else_branch = b () => (float[1] q) { q = Abs(x) }
            > (c)
        }"""
    )
    with pytest.raises(BadInput, match=r"\(If\) holds a subgraph"):
        simplify(model)


def test_an_invalid_graph_is_not_written(tmp_path) -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["" : 18]>
        g (float[2] x) => (float[3] y) { y = Neg(x) }"""
    )
    with pytest.raises(BadInput, match="a.onnx: the exported graph is not valid ONNX"):
        write_onnx(model, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_large_weights_go_into_a_file_of_their_own(model, pictures, tmp_path) -> None:
    write_onnx(model, tmp_path / "one" / "a.onnx")
    files = write_onnx(model, tmp_path / "two" / "a.onnx", largest_file=1000)
    assert files == (tmp_path / "two" / "a.onnx", tmp_path / "two" / "a.onnx.data")
    assert sorted((tmp_path / "two").iterdir()) == sorted(files)
    assert files[0].stat().st_size < 20_000 < 60_000 < files[1].stat().st_size
    moved = (tmp_path / "two").rename(tmp_path / "moved")  # the graph names its weights relative to itself
    np.testing.assert_array_equal(run(moved / "a.onnx", pictures), run(tmp_path / "one" / "a.onnx", pictures))


def test_openvino_reads_both_files(model, pictures, tmp_path) -> None:
    openvino = extra("openvino")
    write_onnx(model, tmp_path / "a.onnx", largest_file=1000)
    compiled = openvino.Core().compile_model(tmp_path / "a.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(compiled(pictures)[0], run(tmp_path / "a.onnx", pictures), rtol=1e-3)


def test_tensorrt_rtx_reads_both_files(model, tmp_path) -> None:
    trt = load_library("tensorrt_rtx")
    write_onnx(model, tmp_path / "a.onnx", largest_file=1000)
    logger = logger_of(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(tmp_path / "a.onnx"))
    assert tuple(network.get_output(0).shape) == (-1, SIDE, SIDE)


def test_weights_of_an_older_graph_do_not_stay(model, tmp_path) -> None:
    write_onnx(model, tmp_path / "a.onnx", largest_file=1000)
    assert write_onnx(model, tmp_path / "a.onnx") == (tmp_path / "a.onnx",)
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


def test_protobuf_can_hold_what_stays_in_one_file() -> None:
    assert LARGEST_FILE < 2**31


_WRITE = """
import resource, signal, sys
from pathlib import Path
import onnx_ir as ir
from uflow_edge.export.graphs.files import write_onnx
model = ir.load(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    write_onnx(model, Path(sys.argv[2]), int(sys.argv[3]))
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits on the size of files are POSIX")
@pytest.mark.parametrize("largest_file", [LARGEST_FILE, 1000], ids=["one file", "two files"])
def test_a_full_disk_leaves_what_was_there(model, tmp_path, largest_file: int) -> None:
    write_onnx(model, tmp_path / "source.onnx")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.onnx").write_text("an older one")
    arguments = [tmp_path / "source.onnx", tmp_path / "out" / "a.onnx", largest_file]
    done = subprocess.run([sys.executable, "-c", _WRITE, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "too large" in done.stdout  # that is how the limit shows
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {"a.onnx": "an older one"}


_EXPORT = """
import sys
from pathlib import Path
from uflow_edge.export.checkpoints.checkpoint import load_checkpoint
from uflow_edge.export.network.uflow import EnergyGraph
from uflow_edge.export.graphs.files import write_onnx
from uflow_edge.export.graphs.trace import trace
graph = EnergyGraph(load_checkpoint(Path(sys.argv[1])).network(), exceedance_probability=0.9).eval()
names = ["energy_0", "energy_1", "exceedance_0", "exceedance_1"]
write_onnx(trace(graph, 64, names), Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_exports_in_two_processes_are_identical(trained: Path, tmp_path) -> None:
    for seed in "12":
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        arguments = [sys.executable, "-c", _EXPORT, str(trained), str(tmp_path / f"{seed}.onnx")]
        subprocess.run(arguments, check=True, capture_output=True, env=environment)
    assert (tmp_path / "1.onnx").read_bytes() == (tmp_path / "2.onnx").read_bytes()


_EXPORT_MCAIT = """
import json, resource, sys
from pathlib import Path
from uflow_edge.export.network.architecture import Architecture
from uflow_edge.export.network.uflow import EnergyGraph, UFlow
from uflow_edge.export.graphs.files import write_onnx
from uflow_edge.export.graphs.trace import trace
from uflow_edge.export.graphs.precision import to_fp16
graph = EnergyGraph(UFlow(Architecture.default("mcait", 448)), exceedance_probability=0.9).eval().requires_grad_(False)
model = trace(graph, 448, ["energy_0", "energy_1", "exceedance_0", "exceedance_1"])
folder = Path(sys.argv[1])
files = [*write_onnx(model, folder / "a.onnx"), *write_onnx(to_fp16(model), folder / "b.onnx")]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"files": [file.name for file in files], "peak": peak}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory as Linux counts it")
def test_mcait_exports_with_little_memory(tmp_path) -> None:
    done = subprocess.run([sys.executable, "-c", _EXPORT_MCAIT, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["files"] == ["a.onnx", "a.onnx.data", "b.onnx"]
    assert result["peak"] < 16e9
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
    assert [output.shape[1:] for output in session.get_outputs()] == [[28, 28], [14, 14]] * 2
