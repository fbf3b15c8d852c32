import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import pytest

from uflow_edge.benchmarks.latency.contenders import Choice, Contender, line_up
from uflow_edge.benchmarks.latency.instruments import Instruments
from uflow_edge.benchmarks.latency.stages import (
    STAGES,
    TO_DEVICE,
    TO_HOST,
    TO_PICTURE,
    TO_VERDICT,
    measure,
    noise_frames,
)
from uflow_edge.runtime.bundle.folder import Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.engines.stopwatch import Transfers

_WATTS = 10.0


class _Metered(Instruments):
    """On a machine that draws the same power all the time."""

    def joules(self) -> tuple[str, float]:
        return "a meter", _WATTS * time.perf_counter()


class _Wrapped(Instruments):
    """Whose meter starts anew with every look at it."""

    def __init__(self) -> None:
        super().__init__()
        self._left = 100.0

    def joules(self) -> tuple[str, float]:
        self._left -= 1
        return "a meter", self._left


@pytest.fixture(scope="module")
def contenders(exported: Path) -> Iterator[tuple[Contender, ...]]:
    bundle = Bundle.load(exported, UFlowManifest)
    with ExitStack() as stack:
        choice = Choice(("onnxruntime",), ("fp32",), threads=1)
        yield line_up(bundle, choice, stack).contenders


@pytest.mark.parametrize("size", [(48, 64), (200, 100)])
def test_noise_frames_are_the_same_every_time(size):
    frames = noise_frames(size)
    assert {frame.shape for frame in frames} == {(*size, 3)}
    assert all(frame.std() > 20 for frame in frames)
    np.testing.assert_array_equal(frames, noise_frames(size))


def test_energy_is_power_times_time(contenders):
    found = measure(contenders, noise_frames((64, 64)), [2], 5, _Metered())
    joules = found.samples[0].joules_per_frame
    assert found.meter == "a meter"
    # The fastest frame bounds it from below whatever else the machine does.
    assert joules is not None and joules > 0.5 * _WATTS * min(found.samples[0].stages["to picture"]) / 1e3
    assert len(found.readings) == len(found.rounds_ms) == 5


def test_a_meter_that_wraps_tells_nothing(contenders):
    assert measure(contenders, noise_frames((64, 64)), [], 5, _Wrapped()).samples[0].joules_per_frame is None


def test_without_a_meter_there_is_no_energy(contenders, tmp_path):
    threads = cv2.getNumThreads()
    found = measure(contenders, noise_frames((64, 64)), [1, 3], 8, Instruments(root=tmp_path))
    assert (found.meter, found.samples[0].joules_per_frame) == (None, None)
    assert {size: len(samples) for size, samples in found.samples[0].batches.items()} == {1: 8, 3: 8}
    assert cv2.getNumThreads() == threads


def test_transfers_that_an_engine_tells_of_are_stages_of_their_own(contenders, monkeypatch):
    contender = contenders[0]
    honest = contender.inspector.engine.run

    def run(pictures):
        contender.stopwatch.add(Transfers(2e-3 * len(pictures), 1e-3 * len(pictures)))
        return honest(pictures)

    monkeypatch.setattr(contender.inspector.engine, "run", run)
    stages = measure(contenders, noise_frames((64, 64)), [3], 6, Instruments()).samples[0].stages
    assert list(stages) == [*STAGES, TO_VERDICT, TO_PICTURE]
    np.testing.assert_allclose(stages[TO_DEVICE], 2e-3)  # of that frame alone, none of a batch or an untimed frame
    np.testing.assert_allclose(stages[TO_HOST], 1e-3)
    np.testing.assert_allclose(np.sum([stages[stage] for stage in STAGES], axis=0), stages[TO_PICTURE])
    np.testing.assert_allclose(np.sum([stages[stage] for stage in STAGES[:-1]], axis=0), stages[TO_VERDICT])


def test_without_transfers_there_is_no_such_stage(contenders):
    stages = measure(contenders, noise_frames((64, 64)), [], 5, Instruments()).samples[0].stages
    assert list(stages) == [stage for stage in (*STAGES, TO_VERDICT, TO_PICTURE) if stage not in (TO_DEVICE, TO_HOST)]
