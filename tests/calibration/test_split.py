"""The images in two parts: those that the null model is fitted to, and those that carry the promise."""

from pathlib import Path

import pytest

from uflow_edge.calibration.operating_point import Promise, TooFewImages
from uflow_edge.calibration.split import CalibrationOptions, Split
from uflow_edge.runtime.sources.folders import ImageFile

PROMISE = Promise(0.1, 0.9)  # 22 held-out images


def files(count: int) -> list[ImageFile]:
    return [ImageFile(Path(f"{i:04d}.png"), Path(f"{i:04d}")) for i in range(count)]


def test_no_image_is_in_both_parts_and_none_is_lost() -> None:
    split = Split.of(files(101), CalibrationOptions(PROMISE))
    assert len(split.held_out) == 50
    assert sorted([*split.fitted, *split.held_out], key=str) == files(101)
    assert list(split.fitted) == sorted(split.fitted, key=str)  # in the order they came in
    assert Split.of(files(101), CalibrationOptions(PROMISE)) == split
    assert Split.of(files(101), CalibrationOptions(PROMISE, seed=1)) != split


def test_the_promise_comes_first_where_images_are_few() -> None:
    split = Split.of(files(330), CalibrationOptions(Promise(0.01, 0.95)))
    assert (len(split.fitted), len(split.held_out)) == (31, 299)
    split = Split.of(files(5000), CalibrationOptions(Promise(0.01, 0.95)))
    assert (len(split.fitted), len(split.held_out)) == (1000, 4000)
    split = Split.of(files(330), CalibrationOptions(Promise(0.01, 0.95), null_model=False))
    assert (len(split.fitted), len(split.held_out)) == (0, 330)


@pytest.mark.parametrize(
    ("images", "offer"),
    [
        (10, "(--null-model none): at most 25.9 % false alarms with 95 % confidence (--max-false-alarms 0.259)"),
        (100, "--max-false-alarms 0.0368"),
        (310, "no null model (--null-model none)"),
    ],
)
def test_too_few_images_are_refused_before_any_is_read(images: int, offer: str) -> None:
    with pytest.raises(TooFewImages, match="needs 20, better 200, and the promise needs 299 more") as refused:
        Split.of(files(images), CalibrationOptions(Promise(0.01, 0.95)))
    assert offer in str(refused.value)


def test_leaving_out_the_null_model_is_offered_only_where_that_is_enough() -> None:
    with pytest.raises(TooFewImages) as refused:
        Split.of(files(36), CalibrationOptions(Promise(0.05, 0.95)))
    assert "--max-false-alarms 0.171" in str(refused.value)
    assert "--null-model none" not in str(refused.value)


@pytest.mark.parametrize(
    ("images", "promise", "null_model"),
    [
        (20, Promise(0.05, None), False),
        (28, Promise(0.05, None), False),
        (29, Promise(0.1, 0.95), False),
        (38, Promise(0.1, 0.95), False),
        (39, Promise(0.05, None), True),
        (49, Promise(0.1, 0.95), True),
        (79, Promise(0.05, 0.95), True),
        (169, Promise(0.02, 0.95), True),
        (318, Promise(0.02, 0.95), True),
        (319, Promise(0.01, 0.95), True),
    ],
)
def test_the_best_promise_that_images_allow(images: int, promise: Promise, null_model: bool) -> None:
    options = CalibrationOptions(seed=3).with_best_promise(images)
    assert options == CalibrationOptions(promise, null_model, 3)
    split = Split.of(files(images), options)
    assert len(split.held_out) >= promise.images_needed
    assert len(split.fitted) >= (20 if null_model else 0)


def test_without_a_null_model_all_images_carry_the_promise() -> None:
    assert CalibrationOptions(null_model=False).with_best_promise(59).promise == Promise(0.05)
    with pytest.raises(TooFewImages, match=r"19 good images are too few .* 20 are needed\. With 19, .*--null-model"):
        CalibrationOptions().with_best_promise(19)
