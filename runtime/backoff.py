"""The delay before another attempt, doubled after each failure."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds before the second attempt, and the longest delay."""

    first: float
    longest: float

    def delays(self) -> Iterator[float]:
        """The delays before the second, third, … attempt, without end."""
        delay = self.first
        while True:
            yield delay
            delay = min(2 * delay, self.longest)
