"""Frames wait here for the engine: one lane per source, served in turn, so that no camera starves another."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, Literal, TypeAlias, TypeVar

T = TypeVar("T")

Policy: TypeAlias = Literal["latest", "every"]
"""``latest``: a new item replaces the waiting one. ``every``: the producer waits for room."""


class Inbox(Generic[T]):
    """A bounded buffer between several producers and one consumer."""

    def __init__(
        self,
        policies: tuple[Policy, ...],
        capacity: int,
        weigh: Callable[[T], int] = lambda item: 0,
        most_weight: int = 0,
    ) -> None:
        """Open one lane per policy.

        Args:
            capacity: items that may wait in a lane of policy ``every``; a lane of policy ``latest`` holds one.
            weigh: returns the weight of an item, such as its bytes.
            most_weight: limit for the sum of all items from `put` to `done`. With policy ``every`` the producer waits
                while its item would exceed the limit; a single item is accepted at any weight.
        """
        self._policies = policies
        self._capacity = capacity
        self._weigh = weigh
        self._most_weight = most_weight
        self._weight = 0
        self._lanes: tuple[deque[T], ...] = tuple(deque() for _ in policies)
        self._turn = 0
        self._open = True
        self._changed = threading.Condition()

    def put(self, lane: int, item: T) -> list[T]:
        """Add an item.

        Returns:
            The items that the consumer will not get: those that this one replaced, or this one if the inbox is closed.
        """
        waiting, weight = self._lanes[lane], self._weigh(item)

        def has_room() -> bool:
            return len(waiting) < self._capacity and (not self._weight or self._weight + weight <= self._most_weight)

        with self._changed:
            if self._policies[lane] == "every":
                self._changed.wait_for(lambda: has_room() or not self._open)
            if not self._open:
                return [item]
            overtaken = list(waiting) if self._policies[lane] == "latest" else []
            if overtaken:
                waiting.clear()
            waiting.append(item)
            self._weight += weight - sum(map(self._weigh, overtaken))
            self._changed.notify_all()
            return overtaken

    def done(self, item: T) -> None:
        """Stop counting the weight of an item that was taken."""
        with self._changed:
            self._weight -= self._weigh(item)
            self._changed.notify_all()

    @property
    def waiting(self) -> bool:
        """Whether an item can be taken. Only the consumer, or with nobody consuming, may rely on it."""
        return any(self._lanes)

    @property
    def ended(self) -> bool:
        """Whether the inbox is closed and empty."""
        with self._changed:
            return not self._open and not any(self._lanes)

    def take(self) -> T | None:
        """The next item, lane after lane; None if there is none now."""
        with self._changed:
            for i in range(len(self._lanes)):
                lane = (self._turn + i) % len(self._lanes)
                if self._lanes[lane]:
                    self._turn = lane + 1
                    item = self._lanes[lane].popleft()
                    self._changed.notify_all()
                    return item
            return None

    def close(self) -> None:
        """Refuse new items; waiting ones can still be taken."""
        with self._changed:
            self._open = False
            self._changed.notify_all()

    def clear(self) -> list[T]:
        """Remove and return all waiting items."""
        with self._changed:
            left = [item for lane in self._lanes for item in lane]
            for lane in self._lanes:
                lane.clear()
            self._weight -= sum(map(self._weigh, left))
            self._changed.notify_all()
            return left
