"""What a peer may send to the live page."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.page import Controls, LivePage, PageServer, serve
from uflow_edge.runtime.tally import Tally

SOON = 30.0


@dataclass
class Line:
    threshold: float = 0.0

    def set(self, value: float) -> None:
        self.threshold = value

    def controls(self) -> Controls:
        return Controls(
            tally=Tally,
            threshold=lambda: self.threshold,
            saved_threshold=lambda: 0.0,
            set_threshold=self.set,
            save_threshold=None,
            promise=lambda: "none",
            fire_trigger=None,
            state=dict,
            exposition=None,
        )


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def server(line: Line) -> Iterator[PageServer]:
    with serve(LivePage((4,), line.controls()), port=0) as running:
        yield running


def answered(client: httpx.Client, *request: str, **content: Any) -> int:
    answer = client.request(*request, **content)
    if answer.status_code >= 500:
        raise RuntimeError(answer.text)
    if answer.status_code >= 400:
        raise BadInput(f"answered {answer.status_code}")
    return answer.status_code


def say(address: str, message: str | bytes) -> None:
    with connect(address, open_timeout=SOON, close_timeout=SOON, max_size=None) as socket:
        socket.send(message)
        try:
            socket.recv(timeout=0.05)
        except TimeoutError:
            return  # it waits for a picture
        except ConnectionClosed as error:
            if error.rcvd is None or error.rcvd.code == 1011:  # internal error
                raise
            raise BadInput(f"closed with {error.rcvd.code}") from error


def test_bodies_and_headers(server: PageServer, line: Line, times: int, attacks, mutations, capfd) -> None:
    trials = attacks("page: requests")
    targets = (("PUT", "/api/threshold"), ("POST", "/api/threshold/save"), ("POST", "/api/trigger"))
    with httpx.Client(base_url=server.url, timeout=SOON, trust_env=False) as client:
        for seed in range(20 * times):
            change = mutations(seed)
            new = change.of_json({"value": 1.5}) if seed % 3 else {"value": change.random.gauss(0, 1e9)}
            body = json.dumps(new).encode("utf-8", "surrogatepass")
            body = body if seed % 2 else change.of_bytes(body)
            method, target = targets[0] if seed % 4 else change.random.choice(targets)
            origin = change.of_bytes(b"http://127.0.0.1").translate(None, b"\0\n\v\f\r")  # which httpx refuses to send
            headers = {b"Origin": origin.strip()} if seed % 5 == 0 else {}

            ask = partial(answered, client, method, target, content=body, headers=headers)
            trials.attempt(seed, ask, lambda status: math.isfinite(line.threshold))
        assert client.get("/api/status").status_code == 200
    assert "Traceback" not in capfd.readouterr().err


def test_the_live_socket(server: PageServer, times: int, attacks, mutations, capfd) -> None:
    trials = attacks("page: live socket")
    address = server.url.replace("http", "ws") + "api/live"
    for seed in range(10 * times):
        change = mutations(seed)
        text = json.dumps(change.of_json({"camera": None, "picture": 0, "since": 0}))
        message = change.of_bytes(text.encode()) if seed % 3 == 0 else text

        trials.attempt(seed, partial(say, address, message))
    assert "Traceback" not in capfd.readouterr().err
