"""The inbox between two stages."""

import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from uflow_edge.runtime.line.inbox import Inbox


@settings(max_examples=60, deadline=None)
@given(
    lanes=st.lists(st.tuples(st.sampled_from(["latest", "every"]), st.integers(0, 30)), min_size=1, max_size=4),
    capacity=st.integers(1, 5),
)
def test_the_inbox_keeps_order_and_loses_nothing_unsaid(lanes: list[tuple[str, int]], capacity: int) -> None:
    inbox: Inbox[tuple[int, int]] = Inbox(tuple(policy for policy, _ in lanes), capacity)
    overtaken: list[list[tuple[int, int]]] = [[] for _ in lanes]

    def produce(lane: int, count: int) -> None:
        for number in range(count):
            overtaken[lane] += inbox.put(lane, (lane, number))

    threads = [threading.Thread(target=produce, args=(lane, count)) for lane, (_, count) in enumerate(lanes)]
    taken: list[tuple[int, int]] = []

    def consume() -> None:
        while not inbox.ended:
            if (item := inbox.take()) is not None:
                taken.append(item)

    consumer = threading.Thread(target=consume)
    for thread in (*threads, consumer):
        thread.start()
    for thread in threads:
        thread.join()
    inbox.close()
    consumer.join()
    for lane, (policy, count) in enumerate(lanes):
        mine = [number for one, number in taken if one == lane]
        assert mine == sorted(mine)
        lost = [number for _, number in overtaken[lane]]
        assert sorted(mine + lost) == list(range(count))
        assert policy == "latest" or not lost
        assert count == 0 or mine[-1] == count - 1


def test_a_closed_inbox_gives_back_what_it_gets() -> None:
    inbox: Inbox[str] = Inbox(("every",), 1)
    assert inbox.put(0, "a") == []
    inbox.close()
    assert inbox.put(0, "b") == ["b"]
    assert (inbox.take(), inbox.take()) == ("a", None)


def test_lanes_are_taken_in_turn() -> None:
    inbox: Inbox[str] = Inbox(("every", "every"), 3)
    for item in ("a1", "a2", "a3"):
        inbox.put(0, item)
    inbox.put(1, "b1")
    assert [inbox.take() for _ in range(4)] == ["a1", "b1", "a2", "a3"]


def soon_taken(inbox: Inbox[int]) -> int:
    while (item := inbox.take()) is None:
        pass
    return item


def test_heavy_items_wait_alone_until_they_are_done() -> None:
    inbox: Inbox[int] = Inbox(("every",), 4, lambda item: item, 100)
    put: list[int] = []

    def produce() -> None:
        for item in (60, 30, 20, 300):
            inbox.put(0, item)
            put.append(item)

    producer = threading.Thread(target=produce)
    producer.start()
    assert [soon_taken(inbox), soon_taken(inbox)] == [60, 30]
    assert put in ([60], [60, 30]), "20 more would be too much, though nothing waits"
    inbox.done(60)
    assert soon_taken(inbox) == 20
    inbox.done(30)
    assert 300 not in put
    inbox.done(20)
    assert soon_taken(inbox) == 300, "one is taken however heavy it is"
    producer.join(10)
    assert put == [60, 30, 20, 300]
