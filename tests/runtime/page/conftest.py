"""A live page that is served on loopback."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from uflow_edge.runtime.page import LivePage, PageServer, serve
from waiting import DEADLINE

if TYPE_CHECKING:
    from live_page import Line, httpx


@pytest.fixture
def line() -> "Line":
    from live_page import Line

    return Line()


@pytest.fixture
def page(line: "Line") -> LivePage:
    from live_page import CHANNELS

    return LivePage(CHANNELS, line.controls())


@pytest.fixture
def server(page: LivePage) -> Iterator[PageServer]:
    with serve(page, port=0) as running:
        yield running


@pytest.fixture
def http(server: PageServer) -> "Iterator[httpx.Client]":
    from live_page import httpx

    with httpx.Client(base_url=server.url, timeout=DEADLINE, trust_env=False) as client:
        yield client
