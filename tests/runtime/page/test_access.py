"""Whom the live page lets in: hosts, origins, tokens and cookies, over real sockets."""

import socket
from collections.abc import Iterator

import pytest

from live_page import TOKEN, Line, Watcher, connect, httpx, live, shown, websockets
from uflow_edge.runtime.errors import UsageError
from uflow_edge.runtime.page import LivePage, PageServer, serve
from uflow_edge.runtime.page.access import checked_access
from waiting import DEADLINE


def test_beyond_loopback_it_asks_for_a_token_that_cannot_be_guessed(page: LivePage) -> None:
    for host in ("0.0.0.0", "", "::", "192.0.2.7", "belt.example"):
        with pytest.raises(UsageError, match="give it a token"):
            serve(page, host=host, port=0)
    for host in ("127.0.0.1", "127.8.8.8", "localhost", "::1"):
        assert checked_access(host, None).token is None
    with pytest.raises(UsageError, match="5 characters and could be guessed"):
        serve(page, token="short", port=0)
    assert TOKEN not in repr(checked_access("0.0.0.0", TOKEN))


@pytest.fixture
def locked(page: LivePage) -> Iterator[httpx.Client]:
    page.put(*shown())
    with (
        serve(page, host="0.0.0.0", port=0, token=TOKEN) as server,
        httpx.Client(
            base_url=f"http://127.0.0.1:{httpx.URL(server.url).port}", timeout=DEADLINE, trust_env=False
        ) as client,
    ):
        yield client


ROUTES = [
    ("GET", "/"),
    ("GET", "/static/page.js"),
    ("GET", "/api/status"),
    ("GET", "/api/anomalies"),
    ("GET", "/api/anomalies/1.jpg"),
    ("GET", "/api/picture.jpg"),
    ("GET", "/api/openapi.json"),
    ("GET", "/metrics"),
    ("PUT", "/api/threshold"),
    ("POST", "/api/threshold/save"),
    ("POST", "/api/trigger"),
    ("GET", "/nowhere"),
    ("GET", "/healthz/"),
    ("GET", "/healthz/../api/status"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_without_the_token_nothing_is_open(locked: httpx.Client, line: Line, method: str, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "uflow_edge_00000000=x"}, {"Cookie": "é"}):
        answer = locked.request(method, path, headers={k: v.encode("latin-1") for k, v in headers.items()})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    assert locked.request(method, path, params={"token": "wrong"}).status_code == 401
    assert line.fired == 0


def test_health_needs_no_token_and_names_no_camera(locked: httpx.Client) -> None:
    answer = locked.get("/healthz")
    assert answer.status_code == 200
    assert "belt" not in answer.text


def test_a_bearer_and_a_link_open_it(locked: httpx.Client) -> None:
    assert locked.get("/api/status", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    opened = locked.get("/", params={"token": TOKEN})
    assert opened.status_code == 200
    cookie = opened.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    assert locked.get("/api/status").status_code == 200  # by the cookie
    assert locked.post("/api/trigger").status_code == 200
    with httpx.Client(base_url=locked.base_url, trust_env=False) as stranger:
        assert stranger.post("/api/trigger", params={"token": TOKEN}).status_code == 401  # a link changes nothing


def test_people_get_a_form_and_programs_a_line(locked: httpx.Client) -> None:
    page = locked.get("/", headers={"Accept": "text/html,application/xhtml+xml"})
    assert page.status_code == 401
    assert '<form action="/" method="get">' in page.text
    assert locked.get("/").text == "the live page needs its token: add ?token=… to the address\n"


def test_the_socket_needs_the_token_too(locked: httpx.Client) -> None:
    address = str(locked.base_url).replace("http", "ws").rstrip("/") + "/api/live"
    with pytest.raises(websockets.InvalidStatus), connect(address):
        pass
    with connect(address, additional_headers={"Authorization": f"Bearer {TOKEN}"}) as socket_:
        assert Watcher(socket_).ask()[1] is not None


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "", "localhost.evil.example", "[", "127.0.0.1.evil"]
)
def test_another_name_for_this_machine_gets_nothing(http: httpx.Client, host: str) -> None:
    for path in ("/", "/api/status", "/api/anomalies"):
        assert http.get(path, headers={"Host": host}).status_code in (400, 421)


@pytest.mark.parametrize("host", ["127.0.0.1:1234", "localhost", "[::1]:8000", "192.168.1.20", socket.gethostname()])
def test_addresses_and_own_names_are_known(http: httpx.Client, host: str) -> None:
    assert http.get("/api/status", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "http://[", "evil://{own}", "{own}"],
)
def test_another_site_changes_nothing(http: httpx.Client, server: PageServer, line: Line, origin: str) -> None:
    origin = origin.format(own=server.url.removeprefix("http://").rstrip("/"))
    headers = {"Origin": origin}
    assert http.put("/api/threshold", json={"value": 5.0}, headers=headers).status_code == 403
    assert http.post("/api/threshold/save", headers=headers).status_code == 403
    assert http.post("/api/trigger", headers=headers).status_code == 403
    assert (line.threshold, line.fired) == (0.0, 0)
    with pytest.raises(websockets.InvalidStatus), connect(live(server), origin=origin):
        pass


def test_the_page_itself_changes_things(http: httpx.Client, server: PageServer, line: Line) -> None:
    own = server.url.rstrip("/")
    assert http.put("/api/threshold", json={"value": 5.0}, headers={"Origin": own}).status_code == 200
    assert line.threshold == 5.0
