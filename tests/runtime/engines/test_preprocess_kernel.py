"""gpu_resize.cu, compiled for the host, computes what Pillow and OpenCV do; its wrapper keeps its promises."""

import ctypes
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.engines import Outputs
from uflow_edge.runtime.engines.device_frames import DeviceFrames, device_frames
from uflow_edge.runtime.engines.gpu_resize import (
    BLOCK,
    KERNEL,
    PARAMETERS,
    SOURCE,
    CudaPreprocessor,
    launches,
    packed_filter,
    scratch_bytes,
)
from uflow_edge.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from uflow_edge.runtime.engines.raw_frames import PIXEL_FORMATS, RawFrame, picture_size
from uflow_edge.runtime.engines.tensorrt import DeviceInput, TensorRtEngine
from uflow_edge.runtime.errors import BadInput, MissingDependency
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.views import ViewOptions

PHOTOGRAPHS = [data.astronaut, data.cat, data.brick, data.gravel]
STRICT = ["-std=c++14", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
TYPES = {"P": ctypes.c_void_p, "i": ctypes.c_int}


@pytest.fixture(scope="module")
def host(tmp_path_factory) -> Callable[..., None]:
    """The kernel as a function of the host."""
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    library = tmp_path_factory.mktemp("kernel") / "preprocess.so"
    subprocess.run([compiler, "-x", "c++", *STRICT, "-shared", "-fPIC", SOURCE, "-o", library], check=True)
    loaded = ctypes.CDLL(str(library))
    kernel = loaded[KERNEL]
    kernel.argtypes, kernel.restype = [TYPES[parameter] for parameter in PARAMETERS], None
    return kernel


def by_kernel(host, frame, pixel_format, side, box=None) -> np.ndarray:
    """What `CudaPreprocessor` would launch, on the host; in memory that shows where it has not been written."""
    size = picture_size(frame, pixel_format)
    left, top, right, bottom = box = box or (0, 0, size[1], size[0])
    raw = RawFrame(frame.ctypes.data, frame.strides[0], size, pixel_format)
    across, down = packed_filter(right - left, side), packed_filter(bottom - top, side)
    between = np.full(scratch_bytes(box, side) + 1, 222, np.uint8)
    picture = np.full((side + 1, side, 3), 222, np.uint8)
    addresses = [array.ctypes.data for array in (across, down, between, picture)]
    for launch in launches(raw, box, side, *addresses):
        host(*launch.arguments)
    assert (picture[side] == 222).all() and between[-1] == 222, "wrote beyond the end"
    return picture[:side]


def by_pillow(rgb, side, box=None) -> np.ndarray:
    left, top, right, bottom = box or (0, 0, rgb.shape[1], rgb.shape[0])
    part = Image.fromarray(np.ascontiguousarray(rgb[top:bottom, left:right]))
    return np.asarray(part.resize((side, side), Image.Resampling.BILINEAR))


def as_rgb(photograph: np.ndarray) -> np.ndarray:
    return photograph if photograph.ndim == 3 else np.repeat(photograph[:, :, np.newaxis], 3, axis=2)


def in_format(rgb: np.ndarray, pixel_format: str) -> tuple[np.ndarray, np.ndarray]:
    """A raw frame made from a picture, and the RGB that Pillow or OpenCV reads from it."""
    if pixel_format == "rgb":
        return np.ascontiguousarray(rgb), rgb
    if pixel_format == "bgr":
        return np.ascontiguousarray(rgb[:, :, ::-1]), rgb
    if pixel_format == "gray":
        return np.ascontiguousarray(rgb[:, :, 1]), np.repeat(rgb[:, :, 1:2], 3, axis=2)
    height, width = rgb.shape[0] // 2 * 2, rgb.shape[1] // 2 * 2
    planes = cv2.cvtColor(np.ascontiguousarray(rgb[:height, :width]), cv2.COLOR_RGB2YUV_I420)
    luma, chroma = planes[:height], planes[height:].reshape(2, height // 2, width // 2)
    if pixel_format == "nv12":
        frame = np.vstack([luma, chroma.transpose(1, 2, 0).reshape(height // 2, width)])
        return frame, cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_NV12)
    frame = np.empty((height, width, 2), np.uint8)
    frame[:, :, 0] = luma
    frame[:, :, 1] = np.repeat(chroma.transpose(1, 2, 0).reshape(height // 2, width), 2, axis=0)
    return frame, cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_YUYV)


def assert_same(found: np.ndarray, expected: np.ndarray, pixel_format: str) -> None:
    """Equal; for YUV within the grey level by which a vectorised conversion may differ."""
    if pixel_format in ("yuyv", "nv12"):
        assert np.abs(found.astype(int) - expected).max() <= 1
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("photograph", PHOTOGRAPHS, ids=lambda photograph: photograph.__name__)
@pytest.mark.parametrize("pixel_format", PIXEL_FORMATS)
@pytest.mark.parametrize(
    ("side", "box"),
    [
        pytest.param(128, None, id="smaller"),
        pytest.param(600, None, id="larger"),
        pytest.param(97, (13, 27, 290, 210), id="odd region"),
        pytest.param(160, (101, 40, 261, 300), id="width unchanged"),
        pytest.param(160, (100, 41, 400, 201), id="height unchanged"),
        pytest.param(48, (20, 3, 120, 290), id="portrait"),
        pytest.param(128, (50, 70, 178, 198), id="unchanged"),
        pytest.param(1, None, id="to one pixel"),
        pytest.param(40, (150, 150, 151, 151), id="from one pixel"),
        pytest.param(50, (7, 0, 8, 300), id="from one column"),
    ],
)
def test_photographs(host, photograph, pixel_format, side, box) -> None:
    frame, rgb = in_format(as_rgb(photograph()), pixel_format)
    assert_same(by_kernel(host, frame, pixel_format, side, box), by_pillow(rgb, side, box), pixel_format)


@pytest.mark.parametrize("pixel_format", PIXEL_FORMATS)
def test_rows_that_lie_apart(host, pixel_format) -> None:
    frame, rgb = in_format(data.cat(), pixel_format)
    padded = np.full((frame.shape[0], frame.shape[1] + 16, *frame.shape[2:]), 77, np.uint8)
    padded[:, : frame.shape[1]] = frame
    found = by_kernel(host, padded[:, : frame.shape[1]], pixel_format, 100)
    assert_same(found, by_pillow(rgb, 100), pixel_format)


@pytest.mark.parametrize(
    ("pixel_format", "shape"),
    [("bgr", (1, 1, 3)), ("rgb", (1, 1, 3)), ("gray", (1, 1)), ("yuyv", (1, 2, 2)), ("nv12", (3, 2))],
)
def test_the_smallest_frames(host, pixel_format, shape) -> None:
    frame = np.arange(90, 90 + np.prod(shape), dtype=np.uint8).reshape(shape)
    found = by_kernel(host, frame, pixel_format, 3)
    codes = {"yuyv": cv2.COLOR_YUV2RGB_YUYV, "nv12": cv2.COLOR_YUV2RGB_NV12, "bgr": cv2.COLOR_BGR2RGB}
    rgb = cv2.cvtColor(frame, codes[pixel_format]) if pixel_format in codes else as_rgb(frame)
    assert_same(found, by_pillow(rgb, 3), pixel_format)


@settings(deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    side=st.integers(1, 70),
    pixel_format=st.sampled_from(["bgr", "rgb", "gray"]),
    seed=st.integers(0, 2**32 - 1),
    choices=st.data(),
)
def test_any_size_and_region(host, height, width, side, pixel_format, seed, choices) -> None:
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    frame, rgb = in_format(rgb, pixel_format)
    left, top = choices.draw(st.integers(0, width - 1)), choices.draw(st.integers(0, height - 1))
    box = left, top, choices.draw(st.integers(left + 1, width)), choices.draw(st.integers(top + 1, height))
    np.testing.assert_array_equal(by_kernel(host, frame, pixel_format, side, box), by_pillow(rgb, side, box))


def test_every_colour_of_yuv(host) -> None:
    """All 256 lumas with 64 x 64 chromas, those outside the limited range among them: no resize, only the colours."""
    luma, blue, red = np.meshgrid(np.arange(256), np.arange(0, 256, 4), np.arange(0, 256, 4), indexing="ij")
    pairs = np.stack([luma, blue, luma[::-1], red], axis=-1).astype(np.uint8)  # Y U Y V
    frame = pairs.reshape(1024, 2048, 2)
    expected = cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_YUYV)
    for left in (0, 1024):
        box = (left, 0, left + 1024, 1024)
        found = by_kernel(host, frame, "yuyv", 1024, box)
        assert np.abs(found.astype(int) - expected[:, left : left + 1024]).max() <= 1


@pytest.mark.parametrize("size", [(1, 640), (7, 33), (8, 32), (9, 1), (1080, 1920), (1920, 1080)])
def test_grids_cover_everything_once(size: tuple[int, int]) -> None:
    height, width = size
    made = launches(RawFrame(0, 3 * width, size, "bgr"), (0, 0, width, height), 100, 0, 0, 0, 0)
    assert len(made) == 2
    for launch in made:
        for blocks, threads, extent in zip(launch.grid, BLOCK, launch.arguments[-2:], strict=False):
            assert (blocks - 1) * threads < extent <= blocks * threads


@pytest.mark.parametrize(
    ("pixel_format", "frame", "message"),
    [
        ("bgr", np.zeros((8, 8, 3), np.uint16), r"a BGR frame must be a uint8 array \[H, W, 3\]; got uint16"),
        ("rgb", np.zeros((8, 8), np.uint8), r"an? RGB frame must .* got shape \(8, 8\)"),
        ("gray", np.zeros((8, 8, 1), np.uint8), r"a GRAY frame must .* \[H, W\]; got shape \(8, 8, 1\)"),
        ("gray", np.zeros((0, 8), np.uint8), r"got shape \(0, 8\)"),
        ("yuyv", np.zeros((8, 7, 2), np.uint8), r"\[H, W, 2\] with W even; got shape \(8, 7, 2\)"),
        ("yuyv", np.zeros(8, np.uint8), r"got shape \(8,\)"),
        ("nv12", np.zeros((8, 8), np.uint8), r"\[3/2 H, W\] with H and W even; got shape \(8, 8\)"),
        ("nv12", np.zeros((9, 7), np.uint8), r"got shape \(9, 7\)"),
        ("bgr", [[1, 2, 3]], "got list"),
    ],
)
def test_refuses_what_is_not_such_a_frame(pixel_format, frame, message) -> None:
    with pytest.raises(BadInput, match=message):
        picture_size(frame, pixel_format)


@pytest.mark.parametrize("architecture", ["sm_87", "sm_110"])
def test_the_cuda_compiler_takes_it(architecture: str, tmp_path) -> None:
    compiler = shutil.which("nvcc")
    if compiler is None:
        pytest.skip("no nvcc")
    known = subprocess.run([compiler, "--list-gpu-code"], capture_output=True, text=True, check=True).stdout.split()
    if architecture not in known:
        pytest.skip(f"this nvcc does not know {architecture}")
    target = tmp_path / "preprocess.cubin"
    command = [compiler, "-cubin", f"-arch={architecture}", "-Werror", "all-warnings", SOURCE, "-o", target]
    subprocess.run(command, check=True)
    content = target.read_bytes()
    assert f".text.{KERNEL}".encode() in content


class Memory:
    """An allocation of the stand-in's device."""

    def __init__(self, device: "Device", size: int) -> None:
        self.array = np.full(size, 0xAA, np.uint8)
        self.device = device
        device.memory.append(self)

    def __int__(self) -> int:
        return self.array.ctypes.data

    def free(self) -> None:
        assert not self.device.stream.work, "freed while in use"
        self.device.memory.remove(self)


class Stream:
    """Does nothing before somebody waits, as late as a real one may."""

    def __init__(self) -> None:
        self.work: deque[Callable[[], None]] = deque()

    def synchronize(self) -> None:
        while self.work:
            self.work.popleft()()


class Event:
    """Waiting for one does what the stream was given before it, and no more."""

    def __init__(self, flags: int) -> None:
        self.reached = True

    def record(self, stream: Stream) -> None:
        self.reached, self.stream = False, stream
        stream.work.append(lambda: setattr(self, "reached", True))

    def synchronize(self) -> None:
        while not self.reached:
            self.stream.work.popleft()()


class Device:
    """pycuda on a machine without a GPU: memory of the host, and the kernels compiled for it."""

    def __init__(self, host: Callable[..., None]) -> None:
        self.host, self.stream = host, Stream()
        self.memory: list[Memory] = []
        self.launched = 0
        self.driver = SimpleNamespace(
            Context=SimpleNamespace(synchronize=self.stream.synchronize),
            CompileError=ZeroDivisionError,
            Event=Event,
            event_flags=SimpleNamespace(DISABLE_TIMING=2),
            mem_alloc=lambda size: Memory(self, size),
            memcpy_htod=self.copy,
            memcpy_htod_async=self.copy_later,
            module_from_file=lambda path: SimpleNamespace(get_function=self.function),
            pagelocked_empty=self.page_locked,
        )
        self.locked: list[int] = []

    def current(self):
        return nullcontext()

    def page_locked(self, size: int, dtype: type) -> np.ndarray:
        array = np.empty(size, dtype)
        self.locked.append(array.ctypes.data)
        return array

    def copy(self, target, source: np.ndarray) -> None:
        ctypes.memmove(int(target), source.ctypes.data, source.nbytes)

    def copy_later(self, target, source: np.ndarray, stream: Stream) -> None:
        assert stream is self.stream
        assert source.ctypes.data in self.locked, "only page-locked memory can be copied later"
        stream.work.append(lambda: self.copy(target, source))

    def function(self, name: str) -> SimpleNamespace:
        assert name == KERNEL

        def call(grid, block, stream, *arguments) -> None:
            pointers = [value for value, kind in zip(arguments, PARAMETERS, strict=True) if kind == "P"]

            def work() -> None:
                for pointer in pointers:
                    assert any(0 <= pointer - int(memory) < memory.array.size for memory in self.memory)
                self.host(*arguments)

            self.launched += 1
            stream.work.append(work)

        return SimpleNamespace(prepare=lambda parameters: None, prepared_async_call=call)


@pytest.fixture
def device(host) -> Device:
    return Device(host)


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


@pytest.fixture
def bundle(exported: Path) -> Bundle:
    return Bundle.load(exported, UFlowManifest)


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
