"""A receiver that is down, hangs, or cannot go on: nothing is lost in silence, and nobody waits."""

import threading
from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factories import result
from uflow_edge.runtime.backoff import Backoff
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.sinks import verdict_only
from uflow_edge.runtime.sinks.buffered import BufferedSink, BufferOptions
from uflow_edge.runtime.sources import Frame
from waiting import DEADLINE

FAST = BufferOptions(backoff=Backoff(0.001, 0.002))


class Receiver:
    """A sink whose `put` first does what the test says, then takes the result."""

    name = "receiver"

    def __init__(self, before: Callable[[int], None] = lambda index: None) -> None:
        self.taken: list[int] = []
        self.closed = threading.Event()
        self.changed = threading.Condition()
        self._before = before

    def put(self, frame: Frame, inspection: Inspection) -> None:
        self._before(frame.index)
        with self.changed:
            self.taken.append(frame.index)
            self.changed.notify_all()

    def close(self) -> None:
        self.closed.set()

    def wait_for(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.taken) >= count, DEADLINE)


class Gate:
    """A receiver's door: closed, every attempt fails; each attempt is counted."""

    def __init__(self, *, is_open: bool = False) -> None:
        self.is_open = is_open
        self.attempts = threading.Semaphore(0)

    def __call__(self, index: int) -> None:
        self.attempts.release()
        if not self.is_open:
            raise ConnectionError("nobody is there")


def unexpected(error: Exception) -> None:
    pytest.fail(f"unexpected failure: {error}")


def test_results_arrive_in_order_and_close_waits_for_them() -> None:
    receiver = Receiver()
    sink = BufferedSink(receiver, unexpected)
    for index in range(100):
        sink.put(*result(index))
    sink.close(DEADLINE)
    assert receiver.taken == list(range(100))
    assert receiver.closed.is_set()
    assert (sink.undelivered, sink.waiting) == (0, 0)


def test_a_receiver_that_is_down_gets_the_same_result_again_and_then_the_rest(logged: list[str]) -> None:
    gate = Gate()
    receiver = Receiver(gate)
    sink = BufferedSink(receiver, unexpected, options=FAST)
    for index in range(5):
        sink.put(*result(index))
    for _ in range(4):
        assert gate.attempts.acquire(timeout=DEADLINE)
    assert sink.waiting == 5
    gate.is_open = True
    receiver.wait_for(5)
    sink.close(DEADLINE)
    assert receiver.taken == [0, 1, 2, 3, 4]
    assert sink.undelivered == 0
    assert len(logged) == 2  # once when it went, once when it came back
    assert "receiver is down (nobody is there)" in logged[0]
    assert logged[1] == "receiver is back"


def test_a_full_buffer_drops_the_oldest_and_counts_it() -> None:
    gate = Gate()
    receiver = Receiver(gate)
    sink = BufferedSink(receiver, unexpected, options=BufferOptions(results=3, backoff=Backoff(0.001, 0.002)))
    sink.put(*result(0))
    assert gate.attempts.acquire(timeout=DEADLINE)  # 0 is under way: it no longer counts as waiting in the buffer
    for index in range(1, 11):
        sink.put(*result(index))
    assert (sink.undelivered, sink.waiting) == (7, 4)
    gate.is_open = True
    sink.close(DEADLINE)
    assert receiver.taken == [0, 8, 9, 10]
    assert sink.undelivered == 7


def test_the_buffer_is_bounded_in_bytes_too() -> None:
    gate = Gate()
    receiver = Receiver(gate)
    one = 64 * 64 * (3 + 1) + 8 * 8 * 4 + 2 * 7 * 7 * 4  # picture, mask, score map, energies and exceedances
    options = BufferOptions(bytes=2 * one + 5, backoff=Backoff(0.001, 0.002))
    sink = BufferedSink(receiver, unexpected, options=options)
    sink.put(*result(0, size=(64, 64)))
    assert gate.attempts.acquire(timeout=DEADLINE)
    for index in range(1, 5):
        sink.put(*result(index, size=(64, 64)))
    sink.put(*result(5, size=(1000, 1000)))  # larger than the bound: alone, it may wait
    assert (sink.undelivered, sink.waiting) == (4, 2)
    gate.is_open = True
    sink.close(DEADLINE)
    assert receiver.taken == [0, 5]


def test_put_returns_while_the_receiver_hangs_and_close_leaves_it_behind() -> None:
    release, entered = threading.Event(), threading.Event()

    def hang(index: int) -> None:
        entered.set()
        assert release.wait(DEADLINE)

    receiver = Receiver(hang)
    sink = BufferedSink(receiver, unexpected, options=BufferOptions(results=10))
    sink.put(*result(0))
    assert entered.wait(DEADLINE)
    for index in range(1, 31):
        sink.put(*result(index))  # returns, or this test would never end
    sink.close(timeout=0.01)
    assert (sink.undelivered, sink.waiting) == (31, 0)
    assert not receiver.closed.is_set()  # from another thread, in the middle of a put, nobody may close it
    release.set()
    assert receiver.closed.wait(DEADLINE)
    assert receiver.taken == [0]


def test_closing_with_the_receiver_down_ends_and_counts_what_is_left() -> None:
    gate = Gate()
    receiver = Receiver(gate)
    sink = BufferedSink(receiver, unexpected, options=BufferOptions(backoff=Backoff(1000.0, 1000.0)))
    for index in range(4):
        sink.put(*result(index))
    assert gate.attempts.acquire(timeout=DEADLINE)
    sink.close(timeout=0.05)  # does not wait for the 1000 seconds
    assert receiver.closed.is_set()
    assert (receiver.taken, sink.undelivered, sink.waiting) == ([], 4, 0)
    sink.put(*result(4))
    assert sink.undelivered == 5


def test_a_receiver_that_comes_back_while_closing_gets_everything() -> None:
    attempts = 0

    def third_time(index: int) -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 4:
            raise ConnectionError("not yet")

    receiver = Receiver(third_time)
    sink = BufferedSink(receiver, unexpected, options=FAST)
    for index in range(3):
        sink.put(*result(index))
    sink.close(DEADLINE)
    assert (receiver.taken, sink.undelivered) == ([0, 1, 2], 0)


@pytest.mark.parametrize("error", [BadInput("the log is a folder"), ZeroDivisionError("a mistake")], ids=str)
def test_an_error_that_time_does_not_heal_is_handed_over_once(error: Exception) -> None:
    def fail(index: int) -> None:
        if index == 1:
            raise error

    failures: deque[Exception] = deque()
    failed = threading.Event()

    def on_failure(failure: Exception) -> None:
        failures.append(failure)
        failed.set()

    receiver = Receiver(fail)
    sink = BufferedSink(receiver, on_failure)
    for index in range(3):
        sink.put(*result(index))
    assert failed.wait(DEADLINE)
    sink.put(*result(3))
    sink.close(DEADLINE)
    assert list(failures) == [error]
    assert receiver.taken == [0]
    assert sink.undelivered == 3
    assert receiver.closed.is_set()


def test_a_sink_says_what_it_needs() -> None:
    held = []

    class OddVerdicts(Receiver):
        def needed(self, frame: Frame, inspection: Inspection) -> tuple[Frame, Inspection] | None:
            return verdict_only(frame, inspection, mask=False) if frame.index % 2 else None

        def put(self, frame: Frame, inspection: Inspection) -> None:
            held.append(frame.image_bgr.nbytes + inspection.score.nbytes + inspection.verdict.mask.nbytes)
            super().put(frame, inspection)

    receiver = OddVerdicts()
    sink = BufferedSink(receiver, unexpected)
    for index in range(6):
        sink.put(*result(index))
    sink.close(DEADLINE)
    assert receiver.taken == [1, 3, 5]
    assert held == [0, 0, 0]
    assert sink.undelivered == 0


@settings(deadline=None, max_examples=40)
@given(st.lists(st.booleans(), max_size=40), st.integers(1, 5), st.integers(0, 30))
def test_every_result_is_delivered_once_or_counted(works: list[bool], bound: int, count: int) -> None:
    """Whatever the receiver does: what arrives is in order, and what does not is counted."""
    moods = deque(works)

    def moody(index: int) -> None:
        if moods and not moods.popleft():
            raise ConnectionError("not now")

    receiver = Receiver(moody)
    sink = BufferedSink(receiver, unexpected, options=BufferOptions(results=bound, backoff=Backoff(0.0001, 0.0001)))
    for index in range(count):
        sink.put(*result(index))
    sink.close(DEADLINE)
    assert receiver.taken == sorted(set(receiver.taken))
    assert len(receiver.taken) + sink.undelivered == count
    assert receiver.taken[-bound:] == list(range(count))[-bound:]  # the newest are never the ones dropped


def test_closing_behind_files_takes_as_long_as_results_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    permits, allowed = threading.Semaphore(0), 0
    receiver = Receiver(lambda index: bool(permits.acquire(timeout=DEADLINE)))
    sink = BufferedSink(receiver, unexpected)
    for index in range(40):
        sink.put(*result(index))

    def ten_more(timeout: float) -> None:
        """Stands in for waiting so long for the thread."""
        nonlocal allowed
        allowed += 10
        permits.release(10)
        receiver.wait_for(min(allowed, 40))
        if allowed >= 40:
            join(DEADLINE)

    join = sink._thread.join
    monkeypatch.setattr(sink._thread, "join", ten_more)
    sink.close(while_it_delivers=True)
    assert receiver.taken == list(range(40))
    assert sink.undelivered == 0
