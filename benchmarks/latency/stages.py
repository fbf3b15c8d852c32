"""Times engines stage by stage and in turn, so that a disturbance of the machine affects all of them alike."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import cv2
import numpy as np

from uflow_edge.benchmarks.latency.contenders import Contender
from uflow_edge.benchmarks.latency.instruments import Instruments, MachineState
from uflow_edge.benchmarks.latency.statistics import FEWEST_SAMPLES
from uflow_edge.runtime.cli.command_line import progress
from uflow_edge.runtime.engines.reference import noise_images
from uflow_edge.runtime.numeric import Image, Size
from uflow_edge.runtime.overlay import draw_overlay
from uflow_edge.runtime.resize.cpu import model_input

TO_DEVICE, ENGINE, TO_HOST = "host-to-device", "engine", "device-to-host"
STAGES = ("capture copy", TO_DEVICE, "preprocess", ENGINE, TO_HOST, "nfa", "draw")
"""The stages of a frame. There are no transfers where the device shares the host's memory; where the GPU resizes
frames, that is part of `TO_DEVICE`."""
TO_VERDICT, TO_PICTURE = "to verdict", "to picture"
"""Two sums: all stages but the drawing, which a line without a screen does not do, and all stages."""
_WARM_UP_ROUNDS = 3
_BATCHES_EVERY = 4
"""Rounds between batches; fewer where there would be less than `FEWEST_SAMPLES`. They are not measured all at once,
or a disturbance of some seconds would count as their cost."""
_ENERGY_SECONDS = 2.0  # meters tick up to ten times a second
_Stacks: TypeAlias = Mapping[int, Sequence[Image]]
"""Batches of every size, by the side of the model's input: two bundles may differ in it."""


@dataclass(slots=True)
class Samples:
    """The measurements of one contender.

    Attributes:
        stages: milliseconds of every round, by stage.
        batches: milliseconds that the engine alone takes for a whole batch, by batch size.
        joules_per_frame: from frame to picture; None where nothing is metered.
        anomalous: share of frames that were judged anomalous: their regions cost time.
    """

    stages: dict[str, list[float]] = field(default_factory=dict)
    batches: dict[int, list[float]] = field(default_factory=dict)
    joules_per_frame: float | None = None
    anomalous: float = 0.0

    def add(self, times: Mapping[str, float]) -> None:
        """Add the milliseconds of each stage of one frame."""
        to_picture = sum(times.values())
        sums = {TO_VERDICT: to_picture - times["draw"], TO_PICTURE: to_picture}
        for stage, milliseconds in {**times, **sums}.items():
            self.stages.setdefault(stage, []).append(milliseconds)


@dataclass(frozen=True, slots=True)
class Measurements:
    """The measurements of all contenders.

    Attributes:
        rounds_ms: duration of each round of all contenders.
        meter: part of the machine whose energy was measured; None where nothing is metered.
    """

    samples: tuple[Samples, ...]
    rounds_ms: tuple[float, ...]
    readings: tuple[MachineState, ...]
    meter: str | None


def noise_frames(size: Size) -> list[Image]:
    """Seeded frames with the spectrum of photographs, (height, width, 3) uint8 each."""
    height, width = size
    return [
        np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
        for image in noise_images(min(max(size), 512))
    ]


def measure(
    contenders: Sequence[Contender],
    frames: Sequence[Image],
    batches: Sequence[int],
    rounds: int,
    instruments: Instruments,
) -> Measurements:
    """Time every contender on the same frames.

    Args:
        contenders: at least one.
        frames: (H, W, 3) uint8 BGR, taken in turn, one per round.
        batches: batch sizes for the throughput of the engine alone.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # as uflow-infer has it
    try:
        samples = tuple(Samples() for _ in contenders)
        sides = {contender.inspector.manifest.input_size for contender in contenders}
        stacks = {side: _batches(side, frames, batches) for side in sides}
        _warm_up(contenders, frames, stacks)
        rounds_ms, readings = _rounds(contenders, samples, frames, stacks, rounds, instruments)
        meter = _energy(contenders, samples, frames, instruments)
    finally:
        cv2.setNumThreads(threads)
    return Measurements(samples, tuple(rounds_ms), tuple(readings), meter)


def _rounds(
    contenders: Sequence[Contender],
    samples: Sequence[Samples],
    frames: Sequence[Image],
    stacks: _Stacks,
    rounds: int,
    instruments: Instruments,
) -> tuple[list[float], list[MachineState]]:
    """Milliseconds of each round, and the readings after it."""
    durations, readings = [], []
    anomalous = [0] * len(contenders)
    every = min(_BATCHES_EVERY, max(1, rounds // FEWEST_SAMPLES))
    for round_ in progress(range(rounds), "latency", unit="round"):
        started = time.perf_counter()
        for turn in range(len(contenders)):
            i = (turn + round_) % len(contenders)  # so no contender always follows the slowest
            frame = frames[round_ % len(frames)]
            # The first frame finds the caches full of another engine's weights; on a line, an engine is alone.
            _one_frame(contenders[i], frame)
            times, found = _one_frame(contenders[i], frame)
            anomalous[i] += found
            samples[i].add(times)
        durations.append(1e3 * (time.perf_counter() - started))
        readings.append(instruments.read())
        if round_ % every == 0:
            _run_batches(contenders, samples, stacks)
    for sample, count in zip(samples, anomalous, strict=True):
        sample.anomalous = count / rounds
    return durations, readings


def _one_frame(contender: Contender, frame: Image) -> tuple[dict[str, float], bool]:
    """Milliseconds of each stage, and whether the frame is anomalous."""
    inspector = contender.inspector
    contender.stopwatch.restart()
    marks = [time.perf_counter()]

    def mark() -> None:
        marks.append(time.perf_counter())

    captured = frame.copy()
    mark()
    prepared = inspector.prepare(captured)
    mark()
    inferred = inspector.infer(prepared)
    mark()
    inspection = inspector.judge(inferred)
    mark()
    draw_overlay(captured, inspection, inspector.manifest.channels)
    mark()
    steps = [1e3 * float(step) for step in np.diff(marks)]
    times = dict(zip((stage for stage in STAGES if stage not in (TO_DEVICE, TO_HOST)), steps, strict=True))
    transfers = contender.stopwatch.transfers
    if transfers is not None:
        times |= {TO_DEVICE: transfers.to_device, TO_HOST: transfers.to_host}
        times[ENGINE] -= transfers.to_device + transfers.to_host
    return {stage: times[stage] for stage in STAGES if stage in times}, inspection.verdict.anomalous


def _batches(side: int, frames: Sequence[Image], sizes: Sequence[int]) -> list[Image]:
    """(N, S, S, 3) uint8 RGB for every size N, of the frames in turn."""
    pictures = [model_input(frame, side) for frame in frames]
    return [np.stack([pictures[i % len(pictures)] for i in range(size)]) for size in sizes]


def _warm_up(contenders: Sequence[Contender], frames: Sequence[Image], stacks: _Stacks) -> None:
    for contender in contenders:
        for stack in stacks[contender.inspector.manifest.input_size]:
            contender.inspector.engine.run(stack)
        for _ in range(_WARM_UP_ROUNDS):
            _one_frame(contender, frames[0])


def _run_batches(contenders: Sequence[Contender], samples: Sequence[Samples], stacks: _Stacks) -> None:
    """Each size in turn, all contenders one after another."""
    by_contender = [stacks[contender.inspector.manifest.input_size] for contender in contenders]
    for same_size in zip(*by_contender, strict=True):
        for contender, sample, stack in zip(contenders, samples, same_size, strict=True):
            contender.inspector.engine.run(stack)
            started = time.perf_counter()
            contender.inspector.engine.run(stack)
            sample.batches.setdefault(len(stack), []).append(1e3 * (time.perf_counter() - started))


def _energy(
    contenders: Sequence[Contender], samples: Sequence[Samples], frames: Sequence[Image], instruments: Instruments
) -> str | None:
    """Energy by contender, from frame to picture, each for long enough that the meter's steps do not matter."""
    before = instruments.joules()
    if before is None:
        return None
    meter, _ = before
    for contender, sample in zip(contenders, samples, strict=True):
        before, count, end = instruments.joules(), 0, time.perf_counter() + _ENERGY_SECONDS
        while time.perf_counter() < end:
            _one_frame(contender, frames[count % len(frames)])
            count += 1
        after = instruments.joules()
        if before is not None and after is not None and after[1] >= before[1]:  # a meter that wrapped tells nothing
            sample.joules_per_frame = (after[1] - before[1]) / count
    return meter
