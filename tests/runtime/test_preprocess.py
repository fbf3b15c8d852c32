"""The resize that weights were trained with, bit for bit."""

import numpy as np
import pytest
from PIL import Image
from skimage import data

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.preprocess import inspected_box, model_input


@pytest.mark.parametrize("shape", [(512, 512), (301, 517), (40, 33), (256, 256)])
def test_equals_pillow_on_a_photograph(shape: tuple[int, int]) -> None:
    rgb = np.ascontiguousarray(data.astronaut()[: shape[0], : shape[1]] if max(shape) <= 512 else data.astronaut())
    expected = np.asarray(Image.fromarray(rgb).resize((256, 256), Image.Resampling.BILINEAR))
    found = model_input(rgb[:, :, ::-1], 256)
    np.testing.assert_array_equal(found, expected)
    assert found.flags.c_contiguous


@pytest.mark.parametrize("image", ["good", "defective", "painted"])
def test_equals_upstream(reference, end_to_end, image: str) -> None:
    grey = np.asarray(Image.open(reference / f"{image}.png"))
    found = model_input(np.repeat(grey[:, :, None], 3, axis=2), 256)
    np.testing.assert_array_equal(found, end_to_end[f"{image}/resized_uint8"])


def test_crop_takes_the_central_square() -> None:
    rgb = data.astronaut()[:200, :300]
    assert inspected_box((200, 300), "crop") == (50, 0, 250, 200)
    expected = np.asarray(Image.fromarray(rgb[:, 50:250]).resize((64, 64), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(model_input(rgb[:, :, ::-1], 64, "crop"), expected)


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        [[1, 2, 3]],
    ],
)
def test_refuses_what_is_not_a_frame(frame: object) -> None:
    with pytest.raises(BadInput, match=r"uint8 array \[H, W, 3\] in BGR order; got"):
        model_input(frame, 64)  # type: ignore[arg-type]
