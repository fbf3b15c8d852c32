"""A bundle with a plan for the stand-in of a GPU."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType

import pytest

from stand_in_cuda import Gpu, fake_libcuda, fake_pycuda, fake_tensorrt, with_plan
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.engines import cuda
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Bundle:
    """The exported bundle, with a plan for the stand-in."""
    folder = tmp_path / "gravel.uflow"
    shutil.copytree(exported, folder)
    (folder / "engines").mkdir()
    return with_plan(Bundle.load(folder, UFlowManifest))


@pytest.fixture
def network(bundle: Bundle) -> Iterator[OnnxRuntimeEngine]:
    """What the plan computes, by onnxruntime."""
    variant = bundle.manifest.variants[0]
    with closing(OnnxRuntimeEngine.from_bundle(bundle, variant)) as engine:
        yield engine


@pytest.fixture
def gpu(bundle: Bundle, network: OnnxRuntimeEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    """An Orin with pycuda and TensorRT 10.3."""
    gpu = Gpu(bundle.manifest, network.run)
    driver = fake_pycuda(gpu)
    package = ModuleType("pycuda")
    package.driver = driver
    for name, module in {"pycuda": package, "pycuda.driver": driver, "tensorrt": fake_tensorrt(gpu)}.items():
        monkeypatch.setitem(sys.modules, name, module)
    libcuda = fake_libcuda(gpu)
    monkeypatch.setattr(cuda, "driver_library", lambda: libcuda)
    cuda.primary_context.cache_clear()
    yield gpu
    cuda.primary_context.cache_clear()
