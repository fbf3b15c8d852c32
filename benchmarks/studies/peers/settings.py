"""What is measured, and how often."""

from dataclasses import dataclass, field
from pathlib import Path

from uflow_edge.benchmarks.latency.machine import usable_cores

ROUNDS, BURSTS = 27, 7


@dataclass(frozen=True, slots=True)
class Settings:
    """Of a run.

    Attributes:
        folder: to work in.
        input_size: of the models, in pixels.
        picture_size: side of the pictures that are inspected.
        pictures: how many; odd, for every second look is not timed and all are to be seen.
        threads: of every contender.
        rounds: of a measurement in which contenders take turns picture by picture.
        bursts, burst_length: of one in which they take turns after so many pictures.
    """

    folder: Path
    input_size: int = 256
    picture_size: int = 300
    pictures: int = 9
    threads: int = field(default_factory=usable_cores)
    rounds: int = ROUNDS
    bursts: int = BURSTS
    burst_length: int = 50
