"""The builder, run for real with TensorRT-RTX, which builds engines without a GPU."""

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from extras import needs
from uflow_edge.export.engines import tensorrt
from uflow_edge.export.engines.plan_options import RTX_COMPUTE_CAPABILITIES, PlanOptions
from uflow_edge.export.engines.tensorrt import BuildFailed, TensorSpec, build_engine
from uflow_edge.export.engines.toolchain import Toolchain, find_toolchain, load_library
from uflow_edge.runtime.bundle.manifest import BatchRange
from uflow_edge.runtime.engines import cuda
from uflow_edge.runtime.engines.tensorrt_library import logger_of
from uflow_edge.runtime.errors import BadInput, MissingDependency, UsageError

pytestmark = needs("tensorrt_rtx_bindings")

RTX = PlanOptions("rtx")
IMAGE = TensorSpec("image", "uint8", (-1, 8, 8, 3))
ENERGY = TensorSpec("energy_0", "fp32", (-1, 8, 8))
NO_TIMING_IN_RTX = "ignore:.*Timing cache operations are no-ops:DeprecationWarning"

Builder = Callable[..., tuple[bytes, tensorrt.Layers]]


@pytest.fixture
def toolchain() -> Toolchain:
    return find_toolchain(RTX)


@pytest.fixture
def build(tmp_path) -> Builder:
    """Build an engine of a graph with one input and one output."""

    def run(toolchain, graph, options=RTX, *, image=IMAGE, outputs=(ENERGY,), batch=BatchRange(1, 2, 4)):
        plan, layers = build_engine(toolchain, graph, [image], outputs, options, batch, tmp_path / "a.timing")
        return bytes(plan), layers

    return run


@pytest.fixture
def small_graph(tmp_path) -> Callable[..., Path]:
    """Write a graph of one convolution: image uint8 (N, 8, 8, 3) -> energy_0 float32 (N, 8, 8)."""

    def write(batch: int | str = "N", half: bool = False, external: bool = False, operator: str = "Relu") -> Path:
        kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        weight = np.linspace(-1, 1, 4 * 3 * 3 * 3).reshape(4, 3, 3, 3).astype(np.float16 if half else np.float32)
        nodes = [
            helper.make_node("Cast", ["image"], ["number"], to=kind),
            helper.make_node("Transpose", ["number"], ["channels_first"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["channels_first", "weight"], ["latent"], pads=[1, 1, 1, 1]),
            helper.make_node(operator, ["latent"], ["positive"], name="odd_one"),
            helper.make_node("Cast", ["positive"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSumSquare", ["wide", "axes"], ["energy_0"], keepdims=0),
        ]
        graph = helper.make_graph(
            nodes,
            "small",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, 8, 8, 3])],
            [helper.make_tensor_value_info("energy_0", TensorProto.FLOAT, [batch, 8, 8])],
            [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(np.array([1]), "axes")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        path = tmp_path / "small.onnx"
        onnx.save_model(model, str(path), save_as_external_data=external, location="small.data", size_threshold=0)
        return path

    return write


def without(library: ModuleType, **replaced: object) -> ModuleType:
    """The real library, some of whose names are another version's."""
    other = ModuleType("another_version")
    other.__dict__.update({**library.__dict__, **replaced})
    return other


def test_a_graph_becomes_one_plan_for_all_gpus(build, toolchain, small_graph, capfd) -> None:
    plan, layers = build(toolchain, small_graph())
    assert capfd.readouterr() == ("", "")  # nobody watches, so no progress bar
    assert toolchain.compute_capabilities == RTX_COMPUTE_CAPABILITIES
    assert toolchain.cuda.isdigit()  # as in the name of the package
    assert len(plan) > 1000
    assert layers.described == "network"
    assert [entry["type"] for entry in layers.details if entry["type"] in ("CONVOLUTION", "REDUCE")] == [
        "CONVOLUTION",
        "REDUCE",
    ]
    assert layers.by_type["fp32"] >= 5
    assert "fp16" not in layers.by_type


def test_half_precision_in_the_graph_is_half_precision_in_the_network(build, toolchain, small_graph) -> None:
    _, layers = build(toolchain, small_graph(half=True))
    assert {entry["type"]: entry["results"][0].split()[1] for entry in layers.details}["CONVOLUTION"] == "fp16"
    assert layers.by_type["fp16"] == 4  # cast, transpose, convolution, ReLU
    assert layers.by_type["fp32"] == 3  # cast, square, sum


def test_strong_typing_is_asked_for_where_there_is_a_flag_for_it(build, toolchain, small_graph) -> None:
    library, asked = toolchain.module, []

    class Recording:
        """The real builder, and what networks were asked of it."""

        def __init__(self, logger):
            self.builder = library.Builder(logger)

        def create_network(self, flags):
            asked.append(flags)
            return self.builder.create_network(flags)

        def __getattr__(self, name):
            return getattr(self.builder, name)

    graph = small_graph(half=True)
    _, with_flag = build(replace(toolchain, module=without(library, Builder=Recording)), graph)
    flagless = without(library, Builder=Recording, NetworkDefinitionCreationFlag=SimpleNamespace())
    _, without_flag = build(replace(toolchain, module=flagless), graph)
    assert asked == [1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED), 0]
    assert with_flag.by_type == without_flag.by_type


def test_weights_in_a_second_file_are_found(build, toolchain, small_graph) -> None:
    inside, _ = build(toolchain, small_graph())
    graph = small_graph(external=True)
    assert (graph.parent / "small.data").stat().st_size >= 4 * 3 * 3 * 3 * 4
    outside, layers = build(toolchain, graph)
    assert layers.by_type["fp32"] >= 5
    assert len(outside) == pytest.approx(len(inside), rel=0.01)
    (graph.parent / "small.data").unlink()
    with pytest.raises(BadInput, match="small.onnx: TensorRT-RTX .* cannot parse it: .*small.data"):
        build(toolchain, graph)


def test_a_fixed_batch_needs_no_range(build, toolchain, small_graph) -> None:
    image, energy = replace(IMAGE, shape=(2, 8, 8, 3)), replace(ENERGY, shape=(2, 8, 8))
    plan, _ = build(toolchain, small_graph(batch=2), image=image, outputs=[energy], batch=BatchRange(2, 2, 2))
    assert len(plan) > 1000


@pytest.mark.parametrize(
    ("image", "outputs", "message"),
    [
        (replace(IMAGE, shape=(-1, 16, 16, 3)), [ENERGY], r"its inputs are image uint8 \[-1, 8, 8, 3\], but .*16, 16"),
        (replace(IMAGE, type="fp32"), [ENERGY], ".* asks for image fp32"),
        (IMAGE, [replace(ENERGY, name="energy_1")], "its outputs are energy_0 fp32 .* asks for energy_1"),
        (IMAGE, [ENERGY, replace(ENERGY, name="exceedance_0")], ".* asks for energy_0 .*; exceedance_0"),
        (replace(IMAGE, shape=(4, 8, 8, 3)), [ENERGY], r".* asks for image uint8 \[4, 8, 8, 3\]"),
    ],
    ids=["another size", "another type", "another name", "an output missing", "another batch"],
)
def test_a_graph_unlike_the_manifest_is_refused(build, toolchain, small_graph, image, outputs, message) -> None:
    with pytest.raises(BadInput, match=rf"small.onnx: {message}"):
        build(toolchain, small_graph(), image=image, outputs=outputs)


def test_an_operator_it_does_not_know_is_named(build, toolchain, small_graph) -> None:
    with pytest.raises(BadInput, match=r"small.onnx: TensorRT-RTX 1\.\d.* cannot parse it: .*odd_one.*FancyRelu"):
        build(toolchain, small_graph(operator="FancyRelu"))


def test_a_graph_cut_short_is_refused(build, toolchain, small_graph) -> None:
    graph = small_graph()
    graph.write_bytes(graph.read_bytes()[:-100])
    with pytest.raises(BadInput, match="small.onnx: .* cannot parse it: .*Failed to parse the ONNX model"):
        build(toolchain, graph)


def test_a_file_that_is_no_graph_is_refused(build, toolchain, tmp_path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"this is not a graph")
    with pytest.raises(BadInput, match="no.onnx: its inputs are none"):  # the parser itself is content
        build(toolchain, tmp_path / "no.onnx")


def test_the_builders_own_words_are_passed_on(build, toolchain, small_graph) -> None:
    # TensorRT-RTX ships no lean runtime, so this build fails inside the library.
    options = PlanOptions("local", version_compatible=True)
    with pytest.raises(BuildFailed, match="built no engine .*version-compatible.*lean"):
        build(toolchain, small_graph(), options)


def test_fp32_is_not_rounded_to_tf32(toolchain, small_graph) -> None:
    trt = toolchain.module
    builder = trt.Builder(logger_of(trt))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger_of(trt))
    assert parser.parse_from_file(str(small_graph()))
    assert builder.create_builder_config().get_flag(trt.BuilderFlag.TF32)  # the library's own choice
    config = tensorrt._configured(toolchain, builder, network, RTX, BatchRange())
    assert not config.get_flag(trt.BuilderFlag.TF32)
    assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 1 << 30


def test_a_flag_that_a_version_lacks_is_named(build, toolchain, small_graph) -> None:
    library = without(toolchain.module, BuilderFlag=SimpleNamespace())
    with pytest.raises(UsageError, match="has no REFIT"):
        build(replace(toolchain, module=library), small_graph(), PlanOptions("local", refittable=True))


def test_a_dla_that_is_not_there_is_refused(build, toolchain, small_graph) -> None:
    with pytest.raises(UsageError, match="DLA core 0: .* finds 0"):
        build(toolchain, small_graph(), PlanOptions("local", dla_core=0))


def test_a_gpu_it_cannot_build_for_is_refused(build, small_graph) -> None:
    orin = find_toolchain(PlanOptions("rtx", compute_capabilities=("8.7",)))
    with pytest.raises(
        UsageError, match=r"8.7: .* builds for 7.5, 8.0, .* 12.0.*no Jetson target.*uflow-export --bundle"
    ):
        build(orin, small_graph())


def test_gpus_are_sorted_and_counted_once() -> None:
    options = PlanOptions("rtx", compute_capabilities=("12.0", "8.6", "12.0", "7.5"))
    assert find_toolchain(options).compute_capabilities == ("7.5", "8.6", "12.0")


def test_ctrl_c_stops_the_builder(build, toolchain, small_graph, monkeypatch) -> None:
    made, steps_after = [], []

    def monitor(trt: ModuleType):
        class Impatient(type(real(trt))):
            def phase_start(self, *phase):
                super().phase_start(*phase)
                if not self.interrupted.is_set():
                    os.kill(os.getpid(), signal.SIGINT)
                    assert self.interrupted.wait(60)  # the main thread hears of it while this one waits

            def step_complete(self, *step):
                steps_after.append(super().step_complete(*step))
                return steps_after[-1]

        made.append(Impatient())
        return made[-1]

    real = tensorrt.progress_monitor
    monkeypatch.setattr(tensorrt, "progress_monitor", monitor)
    with pytest.raises(KeyboardInterrupt):
        build(toolchain, small_graph())
    assert steps_after == [False]  # one step, and the library gave up
    assert made[0].bars == {}


@pytest.mark.filterwarnings(NO_TIMING_IN_RTX)
def test_the_local_path_keeps_a_timing_cache(build, toolchain, small_graph, tmp_path) -> None:
    local = replace(toolchain, library="tensorrt")  # the real bindings, called as TensorRT is; only the GPU is missing
    _, layers = build(local, small_graph(), PlanOptions("local"))
    assert (tmp_path / "a.timing").stat().st_size > 0
    assert layers.described == "network"  # the engine cannot be loaded here, and it says so


def test_a_timing_cache_that_does_not_fit_is_left_out(tmp_path) -> None:
    class Config:
        """Refuses the cache of another version when it is made, and that of another GPU when it is set."""

        used = None

        def create_timing_cache(self, content):
            return None if content == b"version" else content

        def set_timing_cache(self, cache, ignore_mismatch):
            if ignore_mismatch or cache == b"gpu":
                return False
            self.used = cache
            return True

    for kept, expected in ((b"fits", b"fits"), (b"version", b""), (b"gpu", b""), (None, b"")):
        path = tmp_path / f"{kept}.timing"
        if kept is not None:
            path.write_bytes(kept)
        config = Config()
        tensorrt._load_timing_cache(config, path)
        assert config.used == expected


@pytest.mark.parametrize(
    ("text", "expected"), [(json.dumps({"Layers": [{"Name": "conv"}]}), [{"Name": "conv"}]), ("{nan", None)]
)
def test_layers_are_read_from_an_engine_that_can_be_loaded(text, expected) -> None:
    """A stand-in for what takes a GPU."""
    inspector = SimpleNamespace(get_engine_information=lambda form: text)
    engine = SimpleNamespace(create_engine_inspector=lambda: inspector)
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda plan: engine)
    library = without(load_library("tensorrt_rtx"), Runtime=lambda logger: runtime)
    assert tensorrt._engine_layers(library, b"plan") == expected
    assert runtime.engine_host_code_allowed is True  # or a version-compatible plan would not load


@pytest.mark.parametrize(
    ("library", "title"), [("tensorrt", "TensorRT is not installed"), ("tensorrt_rtx", "TensorRT-RTX is not installed")]
)
def test_without_the_library_the_error_says_every_way_to_an_engine(library, title, monkeypatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependency, match=title) as error:
        load_library(library)
    for way in (
        "'.[trt]",
        "'.[rtx]",
        "no Jetson target",
        "--system-site-packages",
        "uflow-export --bundle bottle.uflow --trt",
    ):
        assert way in str(error.value)


def test_a_library_that_cannot_be_loaded_says_why(monkeypatch, tmp_path) -> None:
    (tmp_path / "tensorrt.py").write_text("raise OSError('libnvinfer.so.10: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(MissingDependency, match=r"TensorRT cannot be loaded \(libnvinfer.so.10: cannot open"):
        load_library("tensorrt")


def test_without_a_gpu_the_local_target_says_so(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", load_library("tensorrt_rtx"))
    monkeypatch.setattr(cuda, "DRIVER_LIBRARY", "libno-such-driver.so.1")
    cuda.driver_library.cache_clear()
    with pytest.raises(MissingDependency, match=r"but no NVIDIA GPU here: .*'.\[rtx\].*uflow-export --bundle"):
        find_toolchain(PlanOptions("local"))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"target": "rtx", "dla_core": 0}, "no DLA core"),
        ({"target": "rtx", "refittable": True}, "neither version-compatible nor refittable"),
        ({"target": "rtx", "version_compatible": True}, "neither version-compatible nor refittable"),
        ({"target": "rtx", "compute_capabilities": ()}, "one or more such as 8.6"),
        ({"target": "rtx", "compute_capabilities": ("86",)}, "capabilities 86: expected"),
        ({"workspace_mebibytes": 0}, "workspace of 0 MiB"),
    ],
)
def test_what_cannot_be_built_is_refused_at_once(choices, message) -> None:
    with pytest.raises(UsageError, match=message):
        PlanOptions(**choices)
