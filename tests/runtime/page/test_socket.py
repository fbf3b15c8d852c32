"""The live page's socket: what each watcher gets, and what a hundred of them cost."""

import asyncio
import json
import logging
import threading
from contextlib import ExitStack

import pytest

from live_page import Line, Watcher, connect, decoded, httpx, live, shown, websockets
from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.page import LivePage, PageServer
from uflow_edge.runtime.page import pictures as drawing
from uflow_edge.runtime.sources import Frame
from waiting import DEADLINE, wait_until


def test_the_socket_gives_numbers_history_and_each_picture_once(page: LivePage, server: PageServer) -> None:
    page.put(*shown(4, score=2.0))
    with connect(live(server)) as socket_:
        watcher = Watcher(socket_)
        message, jpeg = watcher.ask()
        assert message["picture"]["frame"] == 4
        assert message["picture"]["anomalous"] is True
        assert message["status"]["cameras"][0]["name"] == "belt"
        assert [step[2] for step in message["steps"]] == [2.0]
        assert jpeg is not None
        assert decoded(jpeg).shape == (480, 640, 3)
        message, jpeg = watcher.ask()
        assert (message["picture"], jpeg) == (None, None)  # nothing new
        page.put(*shown(5))
        message, jpeg = watcher.ask()
        assert message["picture"]["frame"] == 5


def test_watchers_of_two_cameras_see_their_own(page: LivePage, server: PageServer) -> None:
    page.put(*shown(1, camera="belt"))
    page.put(*shown(2, camera="top"))
    with connect(live(server)) as one, connect(live(server)) as other:
        belt, top = Watcher(one, "belt"), Watcher(other, "top")
        assert belt.ask()[0]["picture"]["source"] == "belt"
        assert top.ask()[0]["picture"]["source"] == "top"
        top.camera, top.picture = "belt", 0
        assert top.ask()[0]["picture"]["source"] == "belt"
        top.camera, top.picture = "elsewhere", 0
        message, jpeg = top.ask()
        assert (message["picture"], message["steps"], jpeg) == (None, [], None)


@pytest.mark.parametrize("ask", ["no JSON", "[]", '{"camera": 3}', '{"picture": "x"}', b"bytes", "x" * 5000])
def test_a_wrong_ask_ends_only_its_own_socket(page: LivePage, server: PageServer, ask: str | bytes) -> None:
    page.put(*shown())
    with connect(live(server)) as wrong, connect(live(server)) as right:
        wrong.send(ask)
        with pytest.raises(websockets.ConnectionClosed):
            wrong.recv(timeout=DEADLINE)
        assert Watcher(right).ask()[1] is not None


def test_nothing_is_drawn_unless_somebody_asks_and_once_for_all(
    page: LivePage, server: PageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []

    def counted(frame: Frame, inspection: Inspection, channels: tuple[int, ...]) -> bytes:
        drawn.append(frame.index)
        return drawing.render_picture(frame, inspection, channels)

    monkeypatch.setattr("uflow_edge.runtime.page.snapshots.render_picture", counted)
    page.put(*shown(0))
    page.put(*shown(1, score=9.0))
    wait_until(lambda: bool(page.anomalies()))  # the server has been at work
    assert drawn == []
    with ExitStack() as stack:
        watchers = [Watcher(stack.enter_context(connect(live(server)))) for _ in range(5)]
        pictures = [[watcher.ask()[1] is not None for watcher in watchers] for _ in range(3)]
    assert pictures == [[True] * 5, [False] * 5, [False] * 5]
    assert drawn == [1]


def test_a_watcher_that_does_not_ask_gets_nothing(page: LivePage, server: PageServer) -> None:
    with connect(live(server)) as sleeper, connect(live(server)) as awake:
        watcher = Watcher(awake)
        for i in range(5):
            page.put(*shown(i))
            watcher.ask()
        with pytest.raises(TimeoutError):
            sleeper.recv(timeout=0)


def test_a_page_that_cannot_be_drawn_says_so_and_recovers(
    page: LivePage, server: PageServer, line: Line, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("uflow_edge.runtime.page.snapshots._AFTER_FAILURE_S", 0.01)
    page.put(*shown())
    failed = threading.Event()

    def fail_once(frame: Frame, inspection: Inspection, channels: tuple[int, ...]) -> bytes:
        if not failed.is_set():
            failed.set()
            raise RuntimeError("out of colours")
        return drawing.render_picture(frame, inspection, channels)

    monkeypatch.setattr("uflow_edge.runtime.page.snapshots.render_picture", fail_once)
    with caplog.at_level(logging.ERROR), connect(live(server)) as socket_:
        assert Watcher(socket_).ask()[0]["status"]["cameras"][0]["name"] == "belt"
    assert "out of colours" in caplog.text


def test_a_hundred_watchers_and_the_line_does_not_wait(page: LivePage, server: PageServer) -> None:
    """Real sockets: each opens the page and its script, and watches three pictures, while results keep coming."""
    stop = threading.Event()
    slowest = 0.0
    delivered = 0

    def deliver() -> None:
        nonlocal slowest, delivered
        shots = [shown(i) for i in range(50)]
        while not stop.wait(0.005):
            page.put(*shots[delivered % 50])
            delivered += 1

    async def watch(client: httpx.AsyncClient) -> list[int]:
        for path in ("/", "/static/page.js", "/static/page.css"):
            assert (await client.get(path)).status_code == 200
        seen: list[int] = []
        async with websockets.connect(live(server), open_timeout=DEADLINE) as socket_:
            picture = 0
            while len(seen) < 3:
                await socket_.send(json.dumps({"camera": "belt", "picture": picture, "since": 0}))
                message = json.loads(await asyncio.wait_for(socket_.recv(), DEADLINE))
                if message["picture"] is not None:
                    picture = message["picture"]["number"]
                    jpeg = await asyncio.wait_for(socket_.recv(), DEADLINE)
                    assert isinstance(jpeg, bytes)
                    assert jpeg[:2] == b"\xff\xd8"
                    seen.append(picture)
        return seen

    async def all_watch() -> list[list[int]]:
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(base_url=server.url, timeout=DEADLINE, limits=limits, trust_env=False) as client:
            return await asyncio.gather(*(watch(client) for _ in range(100)))

    line = threading.Thread(target=deliver)
    line.start()
    try:
        seen = asyncio.run(all_watch())
    finally:
        stop.set()
        line.join()
    assert len(seen) == 100
    assert all(numbers == sorted(set(numbers)) for numbers in seen)
    assert len({number for numbers in seen for number in numbers}) < 100  # drawn once, for all
    assert page.newest("belt").number == delivered  # every result was taken
