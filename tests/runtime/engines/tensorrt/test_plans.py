"""Which TensorRT plan is taken on which GPU, and what is said when none fits."""

import dataclasses
import sys
from contextlib import closing
from dataclasses import replace

import pytest

from stand_in_cuda import Error, assert_nothing_left, pictures, same, with_plan
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.manifest import BatchRange
from uflow_edge.runtime.engines import cuda
from uflow_edge.runtime.engines.plans import find_plan
from uflow_edge.runtime.engines.selection import open_engine
from uflow_edge.runtime.engines.tensorrt import DeviceInput, TensorRtEngine
from uflow_edge.runtime.errors import BadInput, MissingDependency


def test_a_plan_for_a_fixed_batch_is_filled_up(bundle, network, gpu) -> None:
    fixed = with_plan(bundle, batch=BatchRange(4, 4, 4))
    images = pictures(3, bundle.manifest.input_size)
    with closing(TensorRtEngine(fixed, fixed.manifest.plans[1])) as engine:
        assert same(engine.run(images), network.run(images))
        assert gpu.calls.count("set_input_shape") == 1

        def kernel(target: DeviceInput) -> None:
            gpu.memory[target.pointer][: images.size] = images.reshape(-1)

        assert same(engine.run_on_device(kernel, 3), network.run(images))


def test_the_bytes_that_are_loaded_are_the_ones_that_were_hashed(bundle, gpu) -> None:
    (bundle.folder / bundle.manifest.plans[0].file).write_bytes(b"another")
    with pytest.raises(BadInput, match="the file is not the plan that was built"):
        TensorRtEngine(bundle, bundle.manifest.plans[0])
    assert_nothing_left(gpu)


@pytest.mark.parametrize(
    ("differences", "reason"),
    [
        ({"compute_capabilities": ("8.6", "8.9")}, "compute capability 8.6, 8.9, this one has 8.7"),
        ({"graph_sha256": "0" * 64}, "built from another model.fp16.onnx"),
        ({"version": "10.2.0"}, "built by TensorRT 10.2.0, but 10.3.0 is installed"),
        ({"version": "9.9.0", "options": "version-compatible"}, "built by TensorRT 9.9.0"),
        ({"version": "10.16.0", "options": "version-compatible"}, "built by TensorRT 10.16.0"),
    ],
)
def test_a_plan_that_does_not_fit_is_passed_over_with_the_reason(
    bundle, network, gpu, differences, reason, logged: list[str]
) -> None:
    manifest = bundle.manifest
    other = Bundle(bundle.folder, replace(manifest, plans=(replace(manifest.plans[0], **differences),)))
    with pytest.raises(MissingDependency, match=f"{reason}.*uflow-export --bundle .*gravel.uflow --trt"):
        open_engine(other, "tensorrt")
    with closing(open_engine(other)) as engine:
        assert engine.name.startswith("onnxruntime")
        assert same(engine.run(pictures(1, manifest.input_size)), network.run(pictures(1, manifest.input_size)))
    assert len(logged) == 2
    assert logged[0].startswith("warning: tensorrt is skipped: ")
    assert reason.replace("\\", "") in logged[0]
    assert logged[1].startswith("engine: onnxruntime ")
    assert_nothing_left(gpu)


def test_among_plans_the_one_that_fits_is_taken(bundle, gpu) -> None:
    fp32 = next(variant for variant in bundle.manifest.variants if variant.precision == "fp32")
    many = with_plan(bundle, compute_capabilities=("12.0",))
    many = with_plan(many, graph=fp32.file, graph_sha256=bundle.manifest.files[fp32.file])
    many = with_plan(many, library="tensorrt_rtx", version="1.7.0")
    many = Bundle(many.folder, replace(many.manifest, plans=many.manifest.plans[::-1]))
    rtx, exact, other, first = many.manifest.plans
    assert find_plan(many, ["fp16", "fp32"], "8.7") == first  # TensorRT-RTX there is another version, or none
    assert find_plan(many, ["fp32"], "8.7") == exact
    assert find_plan(many, ["fp32", "fp16"], "8.7") == exact
    assert find_plan(many, ["fp16"], "12.0") == dataclasses.replace(other)
    with pytest.raises(MissingDependency, match="for GPUs of compute capability 8.7, this one has 5.3"):
        find_plan(many, ["fp16"], "5.3")
    assert rtx.library == "tensorrt_rtx"


def test_a_version_compatible_plan_runs_later_and_may_bring_its_code(bundle, network, gpu, monkeypatch) -> None:
    compatible = with_plan(bundle, version="10.0.1", options="workspace 1 MiB, version-compatible")
    plan = compatible.manifest.plans[1]
    assert find_plan(Bundle(bundle.folder, replace(compatible.manifest, plans=(plan,))), ["fp16"], "8.7") == plan
    with closing(TensorRtEngine(compatible, plan)) as engine:
        assert engine._plan._runtime.engine_host_code_allowed is True
    with closing(TensorRtEngine(compatible, compatible.manifest.plans[0])) as engine:
        assert engine._plan._runtime.engine_host_code_allowed is False


def test_auto_takes_the_plan_and_says_so(bundle, gpu, logged: list[str]) -> None:
    with closing(open_engine(bundle)) as engine:
        assert isinstance(engine, TensorRtEngine)
    assert logged == ["engine: TensorRT 10.3.0, Orin, fp16"]
    gpu.fails = {"enqueue"}
    with closing(open_engine(bundle)) as engine:
        assert engine.name.startswith("onnxruntime")
    assert "tensorrt is skipped: TensorRT 10.3.0, Orin, fp16: the run failed (out of workspace)" in logged[1]
    assert_nothing_left(gpu)


def test_without_a_gpu_or_pycuda_it_says_what_to_install(bundle, gpu, monkeypatch, logged: list[str]) -> None:
    cuda.primary_context.cache_clear()

    def no_gpu() -> None:
        raise Error("cuInit failed: no CUDA-capable device is detected")

    monkeypatch.setattr(sys.modules["pycuda.driver"], "init", no_gpu)
    with pytest.raises(MissingDependency, match="no NVIDIA GPU that CUDA can use .cuInit failed"):
        open_engine(bundle, "tensorrt")
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(MissingDependency, match=r"pycuda cannot be loaded .*pip install '.\[trt\]'"):
        open_engine(bundle, "tensorrt")
    open_engine(bundle).close()
    assert "warning: tensorrt is skipped: pycuda cannot be loaded" in logged[0]


def test_without_tensorrt_it_says_what_to_install(bundle, gpu, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingDependency, match=r"TensorRT is not installed.*pip install '.\[trt\]'"):
        open_engine(bundle, "tensorrt")
