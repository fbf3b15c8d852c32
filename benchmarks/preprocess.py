"""Time of the resize, frame to model input: ``python -m uflow_edge.benchmarks.preprocess``."""

from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image as PillowImage
from skimage import data

from uflow_edge.benchmarks.timing import interleaved_medians
from uflow_edge.runtime.numeric import Image
from uflow_edge.runtime.preprocess import model_input

BILINEAR = PillowImage.Resampling.BILINEAR
CASES = {
    "1920x1080 to 448": ((1080, 1920), 448),
    "1920x1080 to 256": ((1080, 1920), 256),
    "1080x1920 to 448": ((1920, 1080), 448),
    "1280x720 to 448": ((720, 1280), 448),
    "640x480 to 256": ((480, 640), 256),
    "300x300 to 256": ((300, 300), 256),
}
ROUNDS = 100


def photograph(height: int, width: int) -> Image:
    """(H, W, 3) uint8 BGR, enlarged from a real photograph."""
    picture = PillowImage.fromarray(data.astronaut()[:, :, ::-1])
    return np.array(picture.resize((width, height), PillowImage.Resampling.BICUBIC))


def by_pillow(frame_bgr: Image, side: int) -> Image:
    """What `model_input` repeats."""
    resized = PillowImage.fromarray(frame_bgr).resize((side, side), BILINEAR)
    return np.ascontiguousarray(np.asarray(resized)[:, :, ::-1])


def main() -> None:
    """Check that both agree, then print a table of medians."""
    print(f"frame to model input, squashed; median of {ROUNDS} rounds, in ms\n")
    print(f"{'frame':20}{'Pillow':>10}{'ours':>10}{'times':>10}")
    for name, ((height, width), side) in CASES.items():
        frame = photograph(height, width)
        np.testing.assert_array_equal(model_input(frame, side), by_pillow(frame, side))
        contenders: dict[str, Callable[[], object]] = {
            "pillow": partial(by_pillow, frame, side),
            "ours": partial(model_input, frame, side),
        }
        medians = interleaved_medians(contenders, ROUNDS)
        ratio = medians["pillow"] / medians["ours"]
        print(f"{name:20}{medians['pillow']:10.2f}{medians['ours']:10.2f}{ratio:10.1f}")


if __name__ == "__main__":
    main()
