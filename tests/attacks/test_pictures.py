"""Pictures and masks that are damaged, lie about themselves, or are far larger than they look."""

from collections.abc import Iterator
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uflow_edge.runtime.images import decode as reading
from uflow_edge.runtime.images.files import read_image
from uflow_edge.training.evaluation.masks import read_mask

FORMATS = {"bmp": "RGB", "gif": "P", "jpg": "RGB", "png": "RGB", "ppm": "RGB", "tif": "RGB", "webp": "RGB"}
BYTES_A_PIXEL = 24
"""That reading a picture takes at most at once, above what the libraries take."""


@pytest.fixture
def small_limit() -> Iterator[None]:
    """A damaged header may well claim 200 megapixels, which would be read in peace and take a second each."""
    reading.use(reading.Reading(max_megapixels=2))
    yield
    reading.use(reading.Reading())


def encoded(suffix: str, mode: str, size: tuple[int, int] = (24, 16)) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    buffer = BytesIO()
    picture = Image.fromarray(pixels).convert(mode.removesuffix("16"))
    if mode == "L16":
        picture = Image.fromarray(pixels[..., 0].astype(np.uint16) << 8)
    picture.save(buffer, {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix))
    return buffer.getvalue()


def is_a_frame(found: np.ndarray) -> bool:
    return found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3 and found.size > 0


def test_damaged_pictures(tmp_path: Path, times: int, attacks, mutations, small_limit: None) -> None:
    trials = attacks("pictures")
    kinds = [(suffix, encoded(suffix, mode)) for suffix, mode in (*FORMATS.items(), ("png", "L16"), ("tif", "L16"))]
    for seed in range(36 * times):
        suffix, whole = kinds[seed % len(kinds)]
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(mutations(seed).of_bytes(whole, 64 if seed % 3 else None))
        trials.attempt((seed, suffix), partial(read_image, path), is_a_frame)


def test_damaged_masks(tmp_path: Path, times: int, attacks, mutations, small_limit: None) -> None:
    trials, whole = attacks("masks"), encoded("png", "1")
    for seed in range(10 * times):
        (tmp_path / "a.png").write_bytes(mutations(seed).of_bytes(whole, 64 if seed % 2 else None))
        trials.attempt(seed, lambda: read_mask(tmp_path / "a.png"), lambda found: found.dtype == bool)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("side", [2000, pytest.param(8000, marks=pytest.mark.slow)])
def test_memory_is_bounded_by_the_pixels(tmp_path: Path, suffix: str, side: int, attacks) -> None:
    path, pixels = tmp_path / f"bomb.{suffix}", side * side
    mode = FORMATS[suffix]
    Image.new(mode, (side, side), 7).save(path)
    read_image(path)  # libraries are loaded
    trials = attacks(f"large pictures, {side * side // 10**6} megapixels")
    _, used = trials.measured(suffix, lambda: read_image(path), is_a_frame)
    assert used < BYTES_A_PIXEL * pixels + (8 << 20), f"{used / pixels:.1f} bytes a pixel"


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_claims_more_than_allowed_is_not_decoded(tmp_path: Path, suffix: str, attacks, small_limit: None) -> None:
    path = tmp_path / f"bomb.{suffix}"
    Image.new(FORMATS[suffix], (2000, 2000), 7).save(path)
    trials = attacks("large pictures, beyond the limit")
    outcome, used = trials.measured(suffix, lambda: read_image(path))
    assert (outcome, used < 1 << 20) == ("refused", True)
