"""A tab of a browser, and a line with its page."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from uflow_edge.runtime.page import PageServer, serve

if TYPE_CHECKING:
    from browser import Line, Tab


@pytest.fixture(scope="module")
def browser_tab() -> "Iterator[Tab]":
    from browser import CHROMIUM, browser

    if CHROMIUM is None:
        if os.environ.get("UFLOW_EDGE_REQUIRE_SERVICES"):
            pytest.fail("a browser is required, but there is no chromium")
        pytest.skip("no chromium")
    with browser(CHROMIUM) as tab:
        yield tab


@pytest.fixture
def tab(browser_tab: "Tab") -> "Tab":
    browser_tab.open("about:blank")
    browser_tab.screen(1280, 800)
    return browser_tab


@pytest.fixture
def line() -> "Line":
    from browser import Line

    return Line("belt")


@pytest.fixture
def server(line: "Line") -> Iterator[PageServer]:
    with serve(line.page, port=0) as running:
        yield running
