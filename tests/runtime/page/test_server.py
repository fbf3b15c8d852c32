"""Files, controls and the end of the live page, over real sockets."""

import re
import socket
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from live_page import CHANNELS, Line, Watcher, connect, httpx, live, shown, websockets
from uflow_edge.runtime.bundle.edit import BundleChanged
from uflow_edge.runtime.errors import BadInput, MissingDependency, UsageError
from uflow_edge.runtime.page import LivePage, serve
from waiting import DEADLINE, wait_until


def test_what_is_not_offered_is_not_there(line: Line) -> None:
    bare = replace(line.controls(), save_threshold=None, fire_trigger=None, exposition=None)
    with (
        serve(LivePage(CHANNELS, bare), port=0) as server,
        httpx.Client(base_url=server.url, trust_env=False) as http,
    ):
        assert http.get("/metrics").status_code == 404
        assert http.post("/api/trigger").status_code == 404
        assert http.post("/api/threshold/save").status_code == 404
        assert http.get("/api/status").json()["trigger"] is False
        assert http.get("/api/status").json()["threshold"]["can_save"] is False


def test_every_file_of_the_page_is_served_and_none_from_elsewhere(http: httpx.Client) -> None:
    html = http.get("/").text
    wanted = re.findall(r'(?:href|src)="(/static/[^"#]+)', html)
    assert wanted
    scripts = [http.get(path) for path in wanted]
    for module in re.findall(r'from "\./(\w+\.js)"', "".join(script.text for script in scripts)):
        scripts.append(http.get(f"/static/{module}"))
    assert [script.status_code for script in scripts] == [200] * len(scripts)
    elsewhere = re.findall(r"https?://[^\s\"'`]+", html + "".join(script.text for script in scripts))
    assert set(elsewhere) <= {"http://www.w3.org/2000/svg"}  # a name, not an address


def test_the_threshold_applies_live_is_saved_and_taken_back(http: httpx.Client, line: Line) -> None:
    assert http.put("/api/threshold", json={"value": 12}).json()["value"] == 12.0
    answer = http.put("/api/threshold", json={"value": 12.5}).json()
    assert answer == {"value": 12.5, "saved": 0.0, "can_save": True, "promise": "none"}
    assert (line.threshold, line.saved) == (12.5, 0.0)
    assert http.post("/api/threshold/save").json()["saved"] == 12.5
    assert line.saved == 12.5


@pytest.mark.parametrize(
    "body",
    [
        '{"value": NaN}',
        '{"value": 1e999}',
        '{"value": 1.7e308}',
        '{"value": "high"}',
        '{"value": "5"}',
        '{"value": true}',
        '{"value": null}',
        '{"value": [NaN]}',
        '{"value": {"a": Infinity}}',
        "{}",
        "NaN",
        r'"\ud800"',
        r'{"value": "\ud800"}',
        "no JSON",
    ],
)
def test_what_is_no_threshold_changes_nothing(http: httpx.Client, line: Line, body: str) -> None:
    line.threshold = 7.0
    answer = http.put("/api/threshold", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)
    assert line.threshold == 7.0


def test_what_the_pipeline_refuses_is_said(http: httpx.Client, line: Line) -> None:
    line.refuse = BadInput("the manifest is gone: restore the bundle")
    answer = http.put("/api/threshold", json={"value": 1.0})
    assert (answer.status_code, answer.json()) == (422, {"detail": "the manifest is gone: restore the bundle"})
    line.refuse = BundleChanged("its calibration has changed since it was loaded")
    answer = http.post("/api/threshold/save")
    assert (answer.status_code, answer.json()) == (409, {"detail": "its calibration has changed since it was loaded"})
    line.refuse = OSError("read-only file system")
    answer = http.post("/api/threshold/save")
    assert (answer.status_code, answer.json()) == (500, {"detail": "read-only file system"})


def test_the_trigger_fires(http: httpx.Client, line: Line) -> None:
    assert http.post("/api/trigger").json() == {"done": True}
    assert line.fired == 1


def test_a_taken_port_is_said(page: LivePage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1:{port}"):
            serve(page, port=port)


def test_browsers_find_an_icon(http: httpx.Client) -> None:
    assert http.get("/favicon.ico").headers["content-type"].startswith("image/svg+xml")


@pytest.mark.parametrize("path", ["/", "/static/page.css", "/api/status", "/healthz", "/nowhere"])
def test_every_answer_has_security_headers(http: httpx.Client, path: str) -> None:
    headers = http.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_closing_the_page_ends_streams_and_thread(page: LivePage) -> None:
    before = {thread.name for thread in threading.enumerate()}
    server = serve(page, port=0)
    page.put(*shown())
    with connect(live(server)) as waiting, connect(live(server)) as idle:
        assert Watcher(waiting).ask()[1] is not None
        waiting.send('{"camera": "belt", "picture": 1}')
        page.close()
        for socket_ in (waiting, idle):
            with pytest.raises(websockets.ConnectionClosed):
                while True:
                    socket_.recv(timeout=DEADLINE)
    wait_until(lambda: {thread.name for thread in threading.enumerate()} <= before)
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url, trust_env=False)
    page.close()
    server.close()
    page.put(*shown())  # a late result does no harm


def test_closing_at_once_is_clean(page: LivePage) -> None:
    serve(page, port=0).close()


@pytest.mark.parametrize("module", ["fastapi", "uvicorn", "websockets"])
def test_what_is_missing_is_named(page: LivePage, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependency, match=rf"{module} is not installed.*\[serve\]"):
        serve(page, port=0)


def test_importing_loads_no_server_and_no_pixels() -> None:
    code = (
        "import sys, uflow_edge.runtime.page\n"
        "print(*[name for name in ('numpy', 'cv2', 'fastapi', 'uvicorn') if name in sys.modules])\n"
        "import uflow_edge.runtime.page.server\n"
        "print(*[name for name in ('fastapi', 'uvicorn', 'websockets', 'torch') if name in sys.modules])"
    )
    result_ = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result_.stdout.split("\n") == ["", "", ""]
