"""Drift is noticed when it is there, and not when it is not."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import stats

from uflow_edge.runtime.bundle.folder import Bundle, parse_manifest
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.drift import DriftMonitor, DriftRange, DriftState, _student, drift_numbers
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.inspector import Inspector
from uflow_edge.runtime.line.capture import Feed
from uflow_edge.runtime.line.pipeline import Pipeline
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.sinks.json_lines import JsonLines
from uflow_edge.runtime.sources.folders import ImageFiles, image_files

STANDARD = DriftRange((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 300)  # two scales and the score


def normal(random: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    return random.standard_normal(size)


def skewed(random: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """The score's law is skewed, the gains' is not."""
    values = random.standard_normal(size)
    values[:, -1] = random.exponential(size=size[0])
    return values


def heavy(random: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    return random.standard_t(3, size)


def warnings(monitor: DriftMonitor, frames: np.ndarray) -> int:
    count, before = 0, "ok"
    for i, numbers in enumerate(frames.tolist()):
        state = monitor.update("belt", numbers, anomalous=False, captured=float(i))
        count += state.status == "warning" and before == "ok"
        before = state.status
    return count


@pytest.mark.parametrize("law", [normal, skewed, heavy])
@pytest.mark.parametrize("images", [20, 300])
def test_exchangeable_frames_raise_less_than_one_warning_in_100_000(
    law: Callable[..., np.ndarray], images: int
) -> None:
    """20 calibrations, 10,000 frames each, none of which may warn: a rate of 1 in 100,000 would give 2 on average."""
    random = np.random.default_rng(images)
    raised = 0
    for _ in range(20):
        expected = DriftRange.of(law(random, (images, 4)))
        raised += warnings(DriftMonitor(expected), law(random, (10_000, 4)))
    assert raised == 0


@pytest.mark.parametrize(("shift", "most_frames"), [(1.0, 100), (2.0, 45), (5.0, 20), (-2.0, 45)])
@pytest.mark.parametrize("statistic", [0, 1, 2])
def test_a_shift_is_noticed_soon(shift: float, most_frames: int, statistic: int) -> None:
    random = np.random.default_rng(0)
    monitor = DriftMonitor(STANDARD)
    assert warnings(monitor, normal(random, (500, 3))) == 0
    for i in range(1, most_frames + 1):
        numbers = random.standard_normal(3)
        numbers[statistic] += shift
        state = monitor.update("belt", numbers.tolist(), anomalous=False, captured=1000.0 + i)
        if state.status == "warning":
            break
    assert state.status == "warning"
    assert state.statistic == ("gain_0", "gain_1", "score")[statistic]
    assert state.direction == ("higher" if shift > 0 else "lower")
    assert state.since == 1000.0 + i
    assert abs(state.shift) > state.limit
    assert i > 3  # one odd frame is no drift


def feed(
    monitor: DriftMonitor, value: float, frames: int, *, anomalous: bool = False, camera: str = "belt"
) -> DriftState:
    for i in range(frames):
        state = monitor.update(camera, [value, 0.0, 0.0], anomalous=anomalous, captured=float(i))
    return state


def test_a_warning_stays_until_frames_are_well_back() -> None:
    monitor = DriftMonitor(STANDARD)
    raised = feed(monitor, 1.0, 60)
    assert raised.status == "warning"
    back = feed(monitor, 0.8 * raised.limit, 500)  # within the limit, not within half of it
    assert (back.status, back.since) == ("warning", raised.since)
    over = feed(monitor, 0.0, 500)
    assert (over.status, over.since) == ("ok", None)


def test_defects_are_no_drift_but_an_endless_row_of_them_is() -> None:
    monitor = DriftMonitor(STANDARD)
    for _ in range(50):
        assert feed(monitor, 50.0, 19, anomalous=True).status == "ok"
        feed(monitor, 0.0, 1)
    state = feed(monitor, 50.0, 30, anomalous=True)
    assert (state.status, state.statistic) == ("warning", "gain_0")


def test_cameras_are_watched_by_themselves() -> None:
    monitor = DriftMonitor(STANDARD)
    assert feed(monitor, 3.0, 100, camera="left").status == "warning"
    state = feed(monitor, 0.0, 1, camera="right")
    assert (state.status, state.camera) == ("ok", "right")
    assert feed(monitor, 3.0, 1, camera="left").status == "warning"


def test_the_limit_knows_how_little_few_images_say() -> None:
    limits = [replace(STANDARD, images=images).limit for images in (20, 50, 300, 10_000)]
    assert limits == sorted(limits, reverse=True)
    assert limits[-1] == pytest.approx(5 * np.sqrt(1 / 101), rel=0.02)
    for degrees in (19, 50, 1000):
        assert _student(5.0, degrees) == pytest.approx(stats.t(degrees).isf(stats.norm.sf(5.0)), rel=2e-3)


def test_numbers_of_a_frame_count_all_its_parts() -> None:
    energies = [np.full((2, 4, 4), 6.0, np.float32), np.full((2, 2, 2), 5.0, np.float32)]
    energies[0][1] = 2.0
    assert drift_numbers(energies, (2, 5), -1.5) == pytest.approx((np.log(2), 0.0, -1.5))
    assert np.isfinite(drift_numbers([np.zeros((1, 2, 2), np.float32)], (3,), 0.0)).all()


@pytest.mark.parametrize(
    "values",
    [
        {"mean": (0.0,), "deviation": (1.0,)},
        {"deviation": (1.0, 1.0)},
        {"deviation": (1.0, 0.0, 1.0)},
        {"mean": (0.0, float("nan"), 0.0)},
        {"images": 19},
    ],
)
def test_a_range_that_is_none_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="drift: expected"):
        replace(STANDARD, **values)  # type: ignore[arg-type]


def test_it_lives_in_the_manifest(exported: Path) -> None:
    manifest = Bundle.load(exported, UFlowManifest).manifest
    scales = len(manifest.scales)
    drift = DriftRange((0.5,) * (scales + 1), (0.1,) * (scales + 1), 40)
    assert parse_manifest(replace(manifest, drift=drift).to_json(), UFlowManifest).drift == drift
    assert parse_manifest(manifest.to_json(), UFlowManifest).drift is None
    values = json.loads(replace(manifest, drift=drift).to_json())
    for damaged in ({"images": "many"}, {"images": None}, {"mean": [0.0, 0.0], "deviation": [1.0, 1.0]}, {"more": 1}):
        with pytest.raises(BadInput):
            parse_manifest(json.dumps({**values, "drift": {**values["drift"], **damaged}}), UFlowManifest)


def pieces(seed: int, count: int) -> Sequence[np.ndarray]:
    """Pieces of one photograph, (80, 80, 3) uint8."""
    from skimage import data

    random, gravel = np.random.default_rng(seed), data.gravel()
    corners = random.integers(0, 512 - 80, (count, 2))
    return [cv2.cvtColor(gravel[y : y + 80, x : x + 80], cv2.COLOR_GRAY2BGR) for y, x in corners]


def defocused(frame: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.GaussianBlur(frame, (0, 0), 1.2), np.uint8)


def dimmed(frame: np.ndarray) -> np.ndarray:
    return np.asarray(frame * 0.5, np.uint8)


@pytest.fixture(scope="module")
def watching(exported: Path) -> Callable[[], Inspector]:
    """An inspector of a real bundle that has seen 100 pieces of the photograph."""
    plain = Inspector.load(exported, threads=1)
    numbers, scores = [], []
    for frame in pieces(0, 100):
        inferred = plain.infer(plain.prepare(frame))
        scores.append(plain.judge(inferred).verdict.score)
        numbers.append(drift_numbers(inferred.statistics.energies, plain.manifest.channels, scores[-1]))
    manifest = replace(
        plain.manifest,
        drift=DriftRange.of(np.array(numbers)),
        operating_point=OperatingPoint(max(scores), "conformal", 0.01, 100),
    )
    return lambda: Inspector(manifest, plain.engine)


@pytest.mark.parametrize("change", [defocused, dimmed])
def test_a_camera_that_changes_is_noticed_and_one_that_does_not_is_not(
    watching: Callable[[], Inspector], change: Callable[[np.ndarray], np.ndarray]
) -> None:
    inspector = watching()
    for i, frame in enumerate(pieces(1, 300)):
        state = inspector.inspect(frame, frame=i).drift
        assert state is not None and state.status == "ok"
    states = (inspector.inspect(change(frame)).drift for frame in pieces(2, 100))
    assert any(state is not None and state.status == "warning" for state in states)


def test_a_folder_is_one_camera_and_the_log_says_so(watching: Callable[[], Inspector], tmp_path: Path) -> None:
    for i, frame in enumerate(pieces(2, 130)):
        cv2.imwrite(str(tmp_path / f"{i:03d}.png"), defocused(frame))
    files = image_files([tmp_path])
    Pipeline(watching(), [Feed(ImageFiles(files))], [JsonLines(tmp_path / "log.jsonl")]).run()
    states = [json.loads(line)["drift"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert states[0]["status"] == "ok" and states[-1]["status"] == "warning"
    assert {state["camera"] for state in states} == {"130 images"}
    assert set(states[-1]) == {"status", "camera", "statistic", "shift", "limit", "since", "direction"}


def test_without_a_calibration_nobody_watches(exported: Path) -> None:
    assert Inspector.load(exported, threads=1).inspect(pieces(0, 1)[0]).drift is None
