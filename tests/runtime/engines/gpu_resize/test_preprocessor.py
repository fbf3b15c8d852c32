"""Frames that the GPU resizes: none is overwritten or freed too early, and the verdict stays the same."""

import sys
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from skimage import data

from host_kernels import PHOTOGRAPHS, Device, as_rgb, assert_same, by_pillow, in_format
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.engines import Outputs
from uflow_edge.runtime.engines.device_frames import DeviceFrames, device_frames
from uflow_edge.runtime.engines.gpu_resize import (
    KERNEL,
    SOURCE,
    CudaPreprocessor,
)
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.engines.raw_frames import PIXEL_FORMATS, RawFrame
from uflow_edge.runtime.engines.tensorrt import DeviceInput, TensorRtEngine
from uflow_edge.runtime.errors import BadInput, MissingDependency
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.views import ViewOptions


def preprocessor(device, side=64, pixel_format="bgr", fit="squash") -> CudaPreprocessor:
    return CudaPreprocessor(device, side, pixel_format, fit, compiled=SOURCE)


@pytest.mark.parametrize("pixel_format", PIXEL_FORMATS)
def test_frames_of_several_sizes_one_after_the_other(device, pixel_format) -> None:
    """Nothing waits for the GPU in between: what it still reads must not be overwritten or freed."""
    ours = preprocessor(device, 64, pixel_format)
    cat = data.cat()
    crops = [cat[:60, :80], cat[:300, :200], cat[:300, 200:400], cat[:300, 100:300], cat[:100, :64], cat[:64, :64]]
    targets = [device.driver.mem_alloc(64 * 64 * 3) for _ in crops]
    for crop, target in zip(crops, targets, strict=True):
        frame = in_format(crop, pixel_format)[0]
        ours.run(frame, int(target), device.stream)
        frame[:] = 0
    device.stream.synchronize()
    for crop, target in zip(crops, targets, strict=True):
        expected = by_pillow(in_format(crop, pixel_format)[1], 64)
        assert_same(target.array.reshape(64, 64, 3), expected, pixel_format)
    assert device.launched == 2 * len(crops) - 2  # two have the picture's width or height already
    ours.close()
    ours.close()
    assert device.memory == targets


def test_regions_become_pictures_in_their_order(device) -> None:
    frame, rgb = in_format(data.astronaut(), "bgr")
    boxes = [(0, 0, 64, 64), (400, 10, 500, 300), (3, 5, 4, 6)]
    target = device.driver.mem_alloc(3 * 64 * 64 * 3)
    preprocessor(device).run(frame, int(target), device.stream, boxes)
    device.stream.synchronize()
    expected = np.stack([by_pillow(rgb, 64, box) for box in boxes])
    np.testing.assert_array_equal(target.array.reshape(3, 64, 64, 3), expected)


def test_a_larger_frame_while_the_last_one_is_being_worked_on(device) -> None:
    ours = preprocessor(device)
    box = (20, 30, 70, 80)
    targets = [device.driver.mem_alloc(64 * 64 * 3) for _ in range(3)]
    for length, target in zip((90, 100, 300), targets, strict=True):
        ours.run(data.cat()[:length, :length, ::-1], int(target), device.stream, [box])
    device.stream.synchronize()
    for target in targets:
        np.testing.assert_array_equal(target.array.reshape(64, 64, 3), by_pillow(data.cat(), 64, box))


def test_crop_takes_the_central_square(device) -> None:
    target = device.driver.mem_alloc(64 * 64 * 3)
    preprocessor(device, fit="crop").run(data.cat()[:200, :300, ::-1], int(target), device.stream)
    device.stream.synchronize()
    np.testing.assert_array_equal(target.array.reshape(64, 64, 3), by_pillow(data.cat(), 64, (50, 0, 250, 200)))


def test_a_frame_that_is_on_the_device_already(device) -> None:
    frame, rgb = in_format(data.cat(), "nv12")
    decoded = device.driver.mem_alloc(frame.nbytes)
    decoded.array[:] = frame.ravel()
    target = device.driver.mem_alloc(64 * 64 * 3)
    raw = RawFrame(int(decoded), frame.shape[1], rgb.shape[:2], "nv12")
    preprocessor(device).run_on_device(raw, int(target), device.stream)
    device.stream.synchronize()
    assert_same(target.array.reshape(64, 64, 3), by_pillow(rgb, 64), "nv12")


def test_ever_new_sizes_do_not_fill_the_device(device) -> None:
    ours = preprocessor(device, 8, "gray")
    target = device.driver.mem_alloc(8 * 8 * 3)
    gravel = data.gravel()
    for length in range(20, 120):
        ours.run(gravel[:length, : length + 1], int(target), device.stream)
        device.stream.synchronize()
        expected = by_pillow(as_rgb(gravel[:length, : length + 1]), 8)
        np.testing.assert_array_equal(target.array.reshape(8, 8, 3), expected)
    assert len(device.memory) < 40


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (-1, 0, 5, 5), (0, 0, 81, 5), (0, 10, 5, 61), (9, 9, 5, 5)])
def test_refuses_a_region_outside_the_frame(device, box) -> None:
    with pytest.raises(BadInput, match="inside the frame of 80 x 60 pixels"):
        preprocessor(device).run(np.zeros((60, 80, 3), np.uint8), 0, device.stream, [box])
    assert not device.stream.work


def test_without_pycuda_it_says_what_to_install(device, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda.compiler", None)
    with pytest.raises(MissingDependency, match=r"pip install '.\[trt\]'"):
        CudaPreprocessor(device, 64)


@pytest.mark.parametrize("error", [OSError("nvcc was not found"), ZeroDivisionError("unsupported sm_999")])
def test_without_a_fitting_compiler_it_says_so(device, monkeypatch, error) -> None:
    def fails(source: str, *, no_extern_c: bool) -> None:
        assert KERNEL in source and no_extern_c
        raise error

    compiler = ModuleType("pycuda.compiler")
    compiler.SourceModule = fails  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", ModuleType("pycuda"))
    monkeypatch.setitem(sys.modules, "pycuda.compiler", compiler)
    with pytest.raises(MissingDependency, match=f"{error}.*nvcc"):
        CudaPreprocessor(device, 64)


class EngineBeside(OnnxRuntimeEngine):
    """The bundle's own network, fed from the stand-in's device as the native TensorRT engine is."""

    largest_batch = 2

    def __init__(self, bundle: Bundle, device: Device) -> None:
        variant = bundle.manifest.variants[0]
        super().__init__(bundle.path(variant), bundle.manifest, variant, threads=1)
        self.device, (self.image,) = device, bundle.manifest.signature.inputs
        self.counts: list[int] = []

    def run_on_device(self, write: Callable[[DeviceInput], None], count: int = 1) -> Outputs:
        assert count <= self.largest_batch
        self.counts.append(count)
        shape = (count, *self.image.shape)
        memory = self.device.driver.mem_alloc(int(np.prod(shape)))
        write(DeviceInput(int(memory), shape, self.device.stream))
        self.device.stream.synchronize()
        pictures = memory.array.reshape(shape).copy()
        memory.free()
        return self.run(pictures)


@pytest.mark.parametrize(
    "views", [ViewOptions(), ViewOptions(regions=((10, 20, 300, 200),)), ViewOptions(tile=256, overlap=0.25)]
)
def test_an_inspector_gives_the_same_verdict_whoever_resizes(bundle, device, views) -> None:
    engine = EngineBeside(bundle, device)
    frames = DeviceFrames(engine, preprocessor(device, bundle.manifest.input_size))
    on_device = Inspector(bundle.manifest, engine, views, frames)
    on_cpu = Inspector(bundle.manifest, engine, views)
    for photograph in (data.astronaut, data.gravel):
        frame = np.ascontiguousarray(as_rgb(photograph())[:, :, ::-1])
        found, expected = on_device.examine(frame), on_cpu.examine(frame)
        assert on_device.prepare(frame).pictures is None
        assert sum(engine.counts) == len(expected_boxes(views, frame)) and max(engine.counts) <= 2
        engine.counts.clear()
        np.testing.assert_allclose(found.score, expected.score, rtol=1e-5)  # batches differ, and so does rounding
        np.testing.assert_array_equal(found.verdict.mask, expected.verdict.mask)
    frames.close()
    assert device.memory == []


def expected_boxes(views: ViewOptions, frame: np.ndarray) -> tuple[tuple[int, int, int, int], ...]:
    return views.boxes((frame.shape[0], frame.shape[1]), "squash")


def test_without_a_native_engine_or_a_compiler_the_cpu_resizes(device, monkeypatch, bundle, logged: list[str]) -> None:
    engine = EngineBeside(bundle, device)
    assert device_frames(engine, 64) is None
    assert logged == []
    native = object.__new__(TensorRtEngine)
    native.cuda = device
    monkeypatch.setitem(sys.modules, "pycuda.compiler", None)
    assert device_frames(native, 64) is None
    assert [line.startswith("warning: frames are resized on the CPU: ") for line in logged] == [True]


@pytest.mark.gpu
@pytest.mark.parametrize("pixel_format", PIXEL_FORMATS)
def test_a_real_gpu(pixel_format) -> None:
    from uflow_edge.runtime.engines.cuda import primary_context

    cuda = primary_context()
    ours = CudaPreprocessor(cuda, 448, pixel_format)
    with cuda.current():
        stream, target = cuda.driver.Stream(), cuda.driver.mem_alloc(448 * 448 * 3)
        for photograph in PHOTOGRAPHS:
            frame, rgb = in_format(as_rgb(photograph()), pixel_format)
            ours.run(frame, int(target), stream)
            found = np.empty((448, 448, 3), np.uint8)
            cuda.driver.memcpy_dtoh_async(found, target, stream)
            stream.synchronize()
            assert_same(found, by_pillow(rgb, 448), pixel_format)
        target.free()
    ours.close()
