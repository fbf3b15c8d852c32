"""What peers that mean no good can take of the live page's server: over real sockets on loopback."""

import asyncio
import errno
import logging
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial

import pytest

from extras import extra
from uflow_edge.runtime.page import Controls, LivePage, PageServer, connections, serve
from uflow_edge.runtime.page import access as guarding
from uflow_edge.runtime.page import server as serving
from uflow_edge.runtime.tally import Tally
from waiting import DEADLINE

httpx, connect = extra("httpx"), extra("websockets.sync.client").connect
extra("fastapi")

MOST = 16


@pytest.fixture
def controls() -> Controls:
    return Controls(Tally, lambda: 0.0, lambda: 0.0, lambda value: None)


@pytest.fixture
def start(controls: Controls, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., PageServer]]:
    """Starts servers with few connections and short deadlines."""
    with ExitStack() as stack:

        def start(head_within_s: float = DEADLINE) -> PageServer:
            monkeypatch.setattr(serving, "most_connections", lambda: MOST)
            protocol = partial(connections.bounded_protocol, head_within_s=head_within_s)
            monkeypatch.setattr(serving, "bounded_protocol", protocol)
            return stack.enter_context(serve(LivePage((4,), controls), port=0))

        yield start


def port(server: PageServer) -> int:
    return int(server.url.rstrip("/").rpartition(":")[2])


def opened(server: PageServer, stack: ExitStack, request: bytes, source: str = "127.0.0.1") -> socket.socket:
    """A connection that has sent this."""
    address = ("127.0.0.1", port(server))
    one = stack.enter_context(closing(socket.create_connection(address, DEADLINE, source_address=(source, 0))))
    one.sendall(request)
    return one


def rest_of(connection: socket.socket) -> bytes:
    """All that still comes until the other side ends it."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def get(server: PageServer, source: str = "127.0.0.1") -> int:
    transport = httpx.HTTPTransport(local_address=source)
    with httpx.Client(transport=transport, timeout=DEADLINE) as client:
        return client.get(f"{server.url}api/status").status_code


def test_half_sent_requests_hold_half_of_the_connections_and_others_are_served(
    start: Callable[..., PageServer],
) -> None:
    server = start()
    with ExitStack() as stack:
        held = [opened(server, stack, b"GET / HTTP/1.1\r\nHost: x\r\n") for _ in range(4 * MOST)]
        refused = [one for one in held[MOST // 2 :] if rest_of(one).startswith(b"HTTP/1.1 503 ")]
        assert len(refused) == 4 * MOST - MOST // 2
        assert get(server, source="127.0.0.2") == 200
    assert get(server) == 200  # they left


def test_all_addresses_together_are_bounded(start: Callable[..., PageServer]) -> None:
    server = start()
    with ExitStack() as stack:
        for i in range(MOST):
            opened(server, stack, b"GET / HTTP/1.1\r\n", source=f"127.0.0.{2 + i}")
        assert rest_of(opened(server, stack, b"", source="127.0.0.200")).startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize("answered", [False, True], ids=["the first request", "the second request"])
def test_a_head_that_does_not_end_ends_the_connection(start: Callable[..., PageServer], answered: bool) -> None:
    server = start(head_within_s=0.2)
    with ExitStack() as stack:
        whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" if answered else b""
        answer = rest_of(opened(server, stack, whole + b"GET / HTTP/1.1\r\nHost: "))
        assert answer.startswith(b"HTTP/1.1 200 " if answered else b"")
        assert answered or answer == b""


def test_a_live_socket_outlives_the_deadline_of_heads(start: Callable[..., PageServer]) -> None:
    from websockets.sync.client import connect

    server = start(head_within_s=0.2)
    with connect(server.url.replace("http", "ws") + "api/live") as live, ExitStack() as stack:
        rest_of(opened(server, stack, b"GET"))  # ended by a deadline that began later
        live.send('{"camera": null}')
        assert '"status"' in live.recv(timeout=DEADLINE)


HEAD = b"PUT /api/threshold HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        HEAD + b"Content-Length: 1500000000\r\n\r\n",
        HEAD + b"Content-Length: 20000\r\n\r\n" + b" " * 20000,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"4000\r\n" + b" " * 0x4000 + b"\r\n1\r\n \r\n",
    ],
    ids=["announced", "sent", "chunked"],
)
def test_a_long_body_is_refused_before_it_ends(start: Callable[..., PageServer], request_: bytes) -> None:
    server = start()
    with ExitStack() as stack:
        answer = rest_of(opened(server, stack, request_))
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert answer.endswith(b"the body is larger than 16384 bytes\n")


def test_a_body_that_does_not_come_is_not_waited_for(
    start: Callable[..., PageServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarding, "_BODY_WITHIN_S", 0.2)
    server = start()
    with ExitStack() as stack:
        assert rest_of(opened(server, stack, HEAD + b"Content-Length: 12\r\n\r\n{")).startswith(b"HTTP/1.1 408 ")


def test_errors_of_accept_are_one_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()
    connections.quiet_errors(loop)
    with caplog.at_level(logging.ERROR), closing(loop):
        for _ in range(1000):
            error = OSError(errno.EMFILE, "Too many open files")
            loop.call_exception_handler({"message": "socket.accept() out of system resource", "exception": error})
    (record,) = caplog.records
    said = record.getMessage()
    assert said == "live page: socket.accept() out of system resource (OSError: [Errno 24] Too many open files)"
    assert record.exc_info is None


def test_connections_are_a_quarter_of_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: asked.append(limits))
    for soft, hard, expected in ((64, 256, 64), (1024, 1 << 20, 512), (1024, resource.RLIM_INFINITY, 512)):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, limits=(soft, hard): limits)
        assert connections.most_connections() == expected
        assert asked[-1] == (hard, hard)
