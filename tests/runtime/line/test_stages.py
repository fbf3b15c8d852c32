"""The stages of a pipeline and the threads that carry items through them."""

import threading
from collections import Counter
from types import SimpleNamespace

import pytest

from uflow_edge.runtime.line.inbox import Inbox
from uflow_edge.runtime.line.stage import Stages
from waiting import DEADLINE

NAMES = ("first", "second", "third", "last")


def test_every_stage_works_on_one_item_at_a_time_and_keeps_their_order() -> None:
    inbox: Inbox[int] = Inbox(("every",), 4)
    inside, seen, threads = Counter[str](), {name: [] for name in NAMES}, {name: set() for name in NAMES}

    def work(name: str, item: int) -> int | None:
        inside[name] += 1
        assert inside[name] == 1
        seen[name].append(item)
        threads[name].add(threading.get_ident())
        inside[name] -= 1
        return None if name == "second" and item % 10 == 3 else item

    stages = Stages(inbox, [(name, lambda item, name=name: work(name, item)) for name in NAMES], pytest.fail)
    stages.start()
    for item in range(1, 400):
        inbox.put(0, item)
        stages.wake()
    inbox.close()
    stages.wake()
    assert any(stages.wait(DEADLINE) for _ in NAMES)
    left = [item for item in range(1, 400) if item % 10 != 3]
    assert (seen["first"], seen["second"]) == (list(range(1, 400)), list(range(1, 400)))
    assert (seen["third"], seen["last"]) == (left, left)
    assert len(threads["last"]) == 1


def test_an_item_that_is_alone_stays_in_one_thread_and_the_next_one_does_not_wait_for_it() -> None:
    inbox: Inbox[SimpleNamespace] = Inbox(("every",), 4)
    threads: dict[int, list[int]] = {1: [], 2: []}
    second_came, done = threading.Event(), threading.Event()

    def work(name: str, item: SimpleNamespace) -> SimpleNamespace:
        threads[item.number].append(threading.get_ident())
        if (name, item.number) == ("second", 1):
            put(2)
            assert second_came.wait(DEADLINE)
        elif (name, item.number) == ("first", 2):
            second_came.set()
        elif (name, item.number) == ("last", 2):
            done.set()
        return item

    def put(number: int) -> None:
        inbox.put(0, SimpleNamespace(number=number))
        stages.wake()

    stages = Stages(inbox, [(name, lambda item, name=name: work(name, item)) for name in NAMES], pytest.fail)
    stages.start()
    while not stages._last_sleeps:
        pass
    put(1)
    assert done.wait(DEADLINE)
    inbox.close()
    stages.wake()
    assert any(stages.wait(DEADLINE) for _ in NAMES)
    assert len(set(threads[1])) == 1
    assert threads[2][0] != threads[1][0]
    assert threads[2][-1] == threads[1][-1]
