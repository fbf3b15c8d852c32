"""gpu_resize.cu, compiled for the host, computes what Pillow and OpenCV do."""

import shutil
import subprocess

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from host_kernels import PHOTOGRAPHS, as_rgb, assert_same, by_pillow, in_format
from uflow_edge.runtime.engines.gpu_resize import (
    BLOCK,
    KERNEL,
    SOURCE,
    launches,
    packed_filter,
    scratch_bytes,
)
from uflow_edge.runtime.engines.raw_frames import PIXEL_FORMATS, RawFrame, picture_size
from uflow_edge.runtime.errors import BadInput


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
