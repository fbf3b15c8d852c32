"""The graph of a diffusion UNet: what it computes, in both precisions, on which engines, and at what cost."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from uflow_edge.export.engines.plan_options import PlanOptions
from uflow_edge.export.engines.tensorrt import TensorSpec, build_engine
from uflow_edge.export.engines.toolchain import find_toolchain
from uflow_edge.export.graphs.files import write_onnx
from uflow_edge.export.graphs.precision import rounded, to_fp16
from uflow_edge.export.unet.bundle import manifest_of
from uflow_edge.export.unet.checkpoint import UNetCheckpoint, load_unet
from uflow_edge.export.unet.graph import torch_predictor, trace_unet
from uflow_edge.export.unet.parity import (
    UNET_BOUNDS,
    Difference,
    UNetParity,
    UNetReference,
    parity_samples,
)
from uflow_edge.runtime.bundle.manifest import BatchRange, Variant
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine

ALPHAS_CUMPROD = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))


@pytest.fixture(scope="module")
def checkpoint(diffcf_reference: Path) -> UNetCheckpoint:
    """The authors' layout. Read only."""
    return load_unet(diffcf_reference / "unet.pt", diffcf_reference / "parameters.yaml")


@pytest.fixture(scope="module")
def expected(diffcf_reference: Path) -> dict[str, np.ndarray]:
    """What the authors' code computes."""
    return dict(np.load(diffcf_reference / "unet_eval.npz"))


def engine_of(graph: Path, checkpoint: UNetCheckpoint) -> OnnxRuntimeEngine:
    return OnnxRuntimeEngine(graph, manifest_of(checkpoint), Variant(graph.name, "fp32", 18))


@pytest.fixture(scope="module")
def model(checkpoint: UNetCheckpoint) -> ir.Model:
    """Traced once. Read only."""
    return trace_unet(checkpoint, manifest_of(checkpoint).signature)


@pytest.fixture(scope="module")
def half(model: ir.Model) -> ir.Model:
    """Read only."""
    return to_fp16(model)


@pytest.fixture(scope="module")
def graphs(model: ir.Model, half: ir.Model, tmp_path_factory) -> dict[str, Path]:
    """Both precisions written, and FP16 as a GPU computes it. Read only."""
    folder = tmp_path_factory.mktemp("graphs")
    models = {"fp32": model, "fp16": half, "fp16 rounded": rounded(half)}
    return {name: write_onnx(found, folder / f"{name}.onnx")[0] for name, found in models.items()}


@pytest.fixture(scope="module")
def engines(graphs: dict[str, Path], checkpoint: UNetCheckpoint) -> dict[str, OnnxRuntimeEngine]:
    """One for each graph."""
    return {name: engine_of(graph, checkpoint) for name, graph in graphs.items()}


@pytest.fixture(scope="module")
def reference_run(checkpoint: UNetCheckpoint) -> UNetReference:
    return UNetReference.of("torch", torch_predictor(checkpoint), *parity_samples(ALPHAS_CUMPROD, 64))


def test_the_graph_computes_the_authors_numbers(engines, expected) -> None:
    outputs = engines["fp32"].run(expected["x"], expected["t"].astype(np.float32))
    for found, name in zip(outputs, ("eps", "variance_channels"), strict=True):
        assert np.abs(found - expected[name]).max() <= 1e-4 * np.abs(expected[name]).max()


def test_inputs_and_outputs_are_as_agreed(graphs) -> None:
    for name in ("fp32", "fp16"):
        graph = onnx.load(graphs[name]).graph
        found = {
            value.name: (
                value.type.tensor_type.elem_type,
                [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim],
            )
            for value in (*graph.input, *graph.output)
        }
        picture = (onnx.TensorProto.FLOAT, ["batch", 3, 64, 64])
        timestep = (onnx.TensorProto.FLOAT, ["batch"])
        assert found == {"sample": picture, "timestep": timestep, "noise": picture, "variance": picture}
        assert [value.name for value in (*graph.input, *graph.output)] == ["sample", "timestep", "noise", "variance"]


def test_batches_of_one_and_three_agree(engines, expected) -> None:
    sample = np.concatenate([expected["x"], expected["x"][:1, :, ::-1]])
    steps = np.array([4, 731, 40], np.float32)
    for name in ("fp32", "fp16"):
        run = engines[name].run
        together = run(sample, steps)
        one_by_one = [run(sample[i : i + 1], steps[i : i + 1]) for i in range(3)]
        bound = 1e-4 if name == "fp32" else UNET_BOUNDS["fp16"].maximum
        for k, output in enumerate(together):
            assert np.abs(output - np.concatenate([alone[k] for alone in one_by_one])).max() < bound


def test_any_batch_though_diffusers_asks_for_its_size(graphs, checkpoint) -> None:
    """diffusers has a branch for 64 pictures and more, of which torch.export keeps one side."""
    sample = np.random.default_rng(0).standard_normal((65, 3, 64, 64)).astype(np.float32)
    steps = np.full(65, 40, np.float32)
    run = engine_of(graphs["fp32"], checkpoint).run
    (all_noise, _), (last_noise, _) = run(sample, steps), run(sample[-1:], steps[-1:])
    assert np.abs(all_noise[-1:] - last_noise).max() < 1e-4


def test_a_network_without_variance_in_a_fixed_batch(tmp_path) -> None:
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=16,
        block_out_channels=(32, 32),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
    )
    network.save_pretrained(tmp_path)
    checkpoint = load_unet(tmp_path)
    assert not checkpoint.learned_variance
    model = trace_unet(checkpoint, manifest_of(checkpoint).signature, batch=1)
    shapes = {value.name: list(value.shape.numpy()) for value in (*model.graph.inputs, *model.graph.outputs)}
    assert shapes == {"sample": [1, 3, 16, 16], "timestep": [1], "noise": [1, 3, 16, 16]}
    (graph,) = write_onnx(model, tmp_path / "a.onnx")
    reference = UNetReference.of("torch", torch_predictor(checkpoint), *parity_samples(ALPHAS_CUMPROD, 16))
    parity = reference.compare(engine_of(graph, checkpoint), UNET_BOUNDS["fp32"])
    assert parity.variance is None
    assert parity.holds


def test_attention_is_decomposed_and_nothing_is_left_over(model) -> None:
    operators = Counter(node.op_type for node in model.graph)
    assert operators["Softmax"] == 10  # 3 levels down, 2 x 3 up, and the middle
    assert not {"Attention", "Identity", "Constant", "Dropout", "Cast"} & operators.keys()


def test_says_nothing_of_where_it_was_made(graphs) -> None:
    content = graphs["fp32"].read_bytes()
    for trace_left in (b"site-packages", b"diffusers", str(Path.home()).encode() + b"/", b"forward(self", b".py"):
        assert trace_left not in content


def test_time_normalisation_and_softmax_stay_fp32(half) -> None:
    types: dict[str, set[str]] = {}
    for node in half.graph:
        types.setdefault(node.op_type, set()).add(node.outputs[0].dtype.name)
    for operator in ("Sin", "Cos", "Gemm", "InstanceNormalization", "Softmax"):  # Gemm: the time and its projections
        assert types[operator] == {"FLOAT"}, operator
    convolutions = [node.outputs[0].dtype.name for node in half.graph if node.op_type == "Conv"]
    assert convolutions == ["FLOAT"] + ["FLOAT16"] * (len(convolutions) - 1)  # the first one reads the picture
    assert {node.outputs[0].dtype.name for node in half.graph if node.op_type == "MatMul"} == {"FLOAT16"}


def test_fp16_weights_take_little_more_than_half(graphs) -> None:
    assert graphs["fp16"].stat().st_size < 0.65 * graphs["fp32"].stat().st_size


@pytest.mark.parametrize("name", ["fp32", "fp16", "fp16 rounded"])
def test_parity_holds_with_room_to_spare(engines, reference_run, name: str) -> None:
    bound = UNET_BOUNDS[name.split()[0]]
    parity = reference_run.compare(engines[name], bound)
    assert parity.holds, str(parity)
    assert parity.variance is not None
    assert parity.noise.rms < 0.8 * bound.rms
    assert parity.timesteps == (5, 40, 300, 900)
    assert parity.noise.rms > 0  # it was compared with something else than itself


class Faulty:
    """An engine with a fault around it."""

    def __init__(self, name: str, run: Callable[..., tuple[np.ndarray, ...]]) -> None:
        self.name, self.run = name, run


def test_parity_notices_small_faults(engines, reference_run) -> None:
    run = engines["fp32"].run

    def not_a_number(sample: np.ndarray, timestep: np.ndarray) -> tuple[np.ndarray, ...]:
        noise, variance = run(sample, timestep)
        variance[0, 0, 0, 0] = np.nan
        return noise, variance

    faults = {
        "one step late": lambda sample, timestep: run(sample, timestep + 1),
        "swapped": lambda sample, timestep: run(sample, timestep)[::-1],
        "not a number": not_a_number,
    }
    for name, fault in faults.items():
        assert not reference_run.compare(Faulty(name, fault), UNET_BOUNDS["fp32"]).holds, name
    broken = reference_run.compare(Faulty("a", not_a_number), UNET_BOUNDS["fp32"])
    assert broken.variance == Difference(np.inf, np.inf)


def test_parity_holds_exactly_at_its_bound() -> None:
    bound = Difference(1e-3, 1e-4)
    parity = UNetParity("a", "b", (5,), bound, None, bound)
    assert parity.holds
    assert not UNetParity("a", "b", (5,), bound, Difference(1e-3, 1.1e-4), bound).holds


def test_parity_samples_are_noised_as_their_steps_say() -> None:
    samples, steps = parity_samples(ALPHAS_CUMPROD, 64)
    assert steps == [5, 40, 300, 900]
    assert {sample.shape for sample in samples} == {(1, 3, 64, 64)}
    grain = [np.abs(np.diff(sample)).mean() for sample in samples]
    assert grain == sorted(grain)
    again, _ = parity_samples(ALPHAS_CUMPROD, 64)
    assert all(np.array_equal(a, b) for a, b in zip(samples, again, strict=True))
    assert parity_samples(ALPHAS_CUMPROD, 32, 1)[0][0].shape == (1, 1, 32, 32)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_rtx_builds_any_batch(graphs, tmp_path, precision: str) -> None:
    options = PlanOptions("rtx", compute_capabilities=("8.6",))
    picture = (-1, 3, 64, 64)
    inputs = [TensorSpec("sample", "fp32", picture), TensorSpec("timestep", "fp32", (-1,))]
    outputs = [TensorSpec(name, "fp32", picture) for name in ("noise", "variance")]
    toolchain, batch = find_toolchain(options), BatchRange(1, 4, 16)
    plan, layers = build_engine(toolchain, graphs[precision], inputs, outputs, options, batch, tmp_path / "a.timing")
    assert len(bytes(plan)) > 1e6
    kinds = Counter(entry["results"][0].split()[1] for entry in layers.details if entry["type"] == "CONVOLUTION")
    assert kinds == ({"fp32": 51} if precision == "fp32" else {"fp32": 1, "fp16": 50})


_EXPORT = """
import sys
from pathlib import Path
from uflow_edge.export.graphs.files import write_onnx
from uflow_edge.export.graphs.precision import to_fp16
from uflow_edge.export.unet.bundle import manifest_of
from uflow_edge.export.unet.checkpoint import load_unet
from uflow_edge.export.unet.graph import trace_unet
checkpoint = load_unet(Path(sys.argv[1]), Path(sys.argv[2]))
model = trace_unet(checkpoint, manifest_of(checkpoint).signature)
write_onnx(model, Path(sys.argv[3]))
write_onnx(to_fp16(model), Path(sys.argv[4]))
"""


@pytest.mark.slow
def test_exports_in_two_processes_are_identical(diffcf_reference, tmp_path) -> None:
    given = [str(diffcf_reference / name) for name in ("unet.pt", "parameters.yaml")]
    for seed in "12":
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        written = [str(tmp_path / f"{precision}-{seed}.onnx") for precision in ("fp32", "fp16")]
        arguments = [sys.executable, "-c", _EXPORT, *given, *written]
        subprocess.run(arguments, check=True, capture_output=True, env=environment)
    for precision in ("fp32", "fp16"):
        assert (tmp_path / f"{precision}-1.onnx").read_bytes() == (tmp_path / f"{precision}-2.onnx").read_bytes()


_EXPORT_FULL = """
import json, sys, time
from pathlib import Path
import torch
from uflow_edge.export.unet.guided_diffusion import blank_network, convert, renamed, unet_config
from uflow_edge.export.graphs.files import write_onnx
from uflow_edge.export.graphs.precision import to_fp16
from uflow_edge.export.unet.bundle import manifest_of
from uflow_edge.export.unet.checkpoint import load_unet
from uflow_edge.export.unet.flags import GuidedDiffusionFlags
from uflow_edge.export.unet.graph import trace_unet

folder, started = Path(sys.argv[1]), time.perf_counter()

def write_checkpoint():
    flags = GuidedDiffusionFlags(256, 256, 2, (1, 1, 2, 2, 4, 4), (3, 4, 5), 64, True, True, True)
    shapes = {name: value.shape for name, value in blank_network(unet_config(flags)).state_dict().items()}
    state, random = {}, torch.Generator().manual_seed(0)
    for old, new in renamed(flags, shapes).items():
        rows, rest = sum(shapes[name][0] for name in new), shapes[new[0]][1:]
        one_pixel = old.endswith((".qkv.weight", ".proj_out.weight"))
        state[old] = torch.empty(rows, *rest, *([1] if one_pixel else [])).normal_(0, 0.01, generator=random)
    torch.save(state, folder / "unet.pt")

if sys.argv[2] == "write":
    write_checkpoint()
else:
    checkpoint = load_unet(folder / "unet.pt")
    count = sum(value.numel() for value in checkpoint.model.parameters())
    model = trace_unet(checkpoint, manifest_of(checkpoint).signature)
    files = [*write_onnx(model, folder / "a.onnx"), *write_onnx(to_fp16(model), folder / "b.onnx")]
    status = Path("/proc/self/status").read_text()  # getrusage would count what the parent of this process holds
    peak = 1024 * int(status.partition("VmHWM:")[2].split()[0])
    seconds = time.perf_counter() - started
    sizes = {file.name: file.stat().st_size for file in files}
    print(json.dumps({"files": sizes, "peak": peak, "seconds": seconds, "count": count}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory as Linux counts it")
def test_the_published_network_exports_with_little_memory(tmp_path) -> None:
    for what in ("write", "export"):
        arguments = [sys.executable, "-c", _EXPORT_FULL, str(tmp_path), what]
        done = subprocess.run(arguments, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["count"] == 552_814_086
    assert list(result["files"]) == ["a.onnx", "a.onnx.data", "b.onnx", "b.onnx.data"]
    assert result["files"]["a.onnx"] < 2e6
    assert result["peak"] < 8e9  # the weights take 2.2; 16 are allowed
