"""A tab of a real browser, and a line whose results a test puts on the live page. Needs the extra `serve`."""

import base64
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import cv2
import numpy as np

from extras import extra
from factories import result
from uflow_edge.runtime.drift import DriftState
from uflow_edge.runtime.line.capture import CameraState
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.page import Controls, LivePage
from uflow_edge.runtime.tally import Tally
from uflow_edge.runtime.verdict import Timestamps
from waiting import DEADLINE, wait_until

connect = extra("websockets.sync.client").connect
extra("fastapi")

TOKEN = "a token that nobody guesses"
SCREENS = {
    "phone": (390, 844),
    "small phone": (320, 568),
    "tablet upright": (800, 1280),
    "tablet": (1280, 800),
    "desktop": (1920, 1080),
}
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


class Tab:
    """A browser's tab over Chrome's DevTools protocol."""

    def __init__(self, socket_: Any) -> None:
        self._socket = socket_
        self._numbers = itertools.count(1)
        self.complaints: list[str] = []

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=DEADLINE))
            if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.complaints.append(json.dumps(message["params"]))
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message["result"])

    def run(self, script: str) -> Any:
        answer = self.send(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, script: str, expected: Any = True) -> None:
        deadline = time.monotonic() + DEADLINE
        while (value := self.run(script)) != expected:
            assert time.monotonic() < deadline, f"{script}: expected {expected!r}, got {value!r}"

    def open(self, url: str) -> None:
        self.complaints.clear()
        self.send("Page.navigate", url=url)
        self.until("document.readyState", "complete")

    def text(self, selector: str) -> str:
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.textContent ?? ''"))

    def click(self, selector: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def press(self, key: str) -> None:
        text = {"text": "\r"} if key == "Enter" else {}
        code = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39, "Tab": 9}[key]
        for kind in ("keyDown", "keyUp"):
            extra = text if kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **extra)

    def screen(self, width: int, height: int, *, dark: bool = False) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[feature])

    def screenshot(self) -> np.ndarray:
        png = base64.b64decode(self.send("Page.captureScreenshot")["data"])
        return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)


@contextmanager
def browser(executable: str) -> Iterator[Tab]:
    """A headless browser with one tab, and nothing remembered."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        quiet = ["--disable-background-networking", "--disable-dev-shm-usage", "--remote-debugging-port=0"]
        process = subprocess.Popen(
            [executable, *flags, *quiet, f"--user-data-dir={profile}", "about:blank"], stderr=subprocess.DEVNULL
        )
        try:
            port = _debugging_port(Path(profile) / "DevToolsActivePort")
            with urlopen(f"http://127.0.0.1:{port}/json") as answer:
                target = next(one for one in json.load(answer) if one["type"] == "page")
            with connect(target["webSocketDebuggerUrl"], max_size=None) as socket_:
                tab = Tab(socket_)
                for domain in ("Page", "Runtime", "Log"):
                    tab.send(f"{domain}.enable")
                yield tab
        finally:
            process.kill()
            process.wait()


def _debugging_port(file: Path) -> int:
    wait_until(lambda: file.is_file() and "\n" in file.read_text(), lambda: "the browser does not start")
    return int(file.read_text().splitlines()[0])


class Line:
    """A line whose results a test puts on the page one by one."""

    def __init__(self, *cameras: str, clock: Callable[[], float] = time.monotonic) -> None:
        from skimage import data

        self._texture = cv2.cvtColor(data.gravel()[:240, :320], cv2.COLOR_GRAY2BGR)
        self._indices = itertools.count()
        self.threshold, self.saved, self.fired = 0.0, 0.0, 0
        self.undelivered = {"mqtt": 0}
        self.states = {name: CameraState("running", time.time()) for name in cameras}
        controls = Controls(
            tally=lambda: Tally(captured=1300, inspected=1234, dropped=66, undelivered=self.undelivered),
            threshold=lambda: self.threshold,
            saved_threshold=lambda: self.saved,
            set_threshold=lambda value: setattr(self, "threshold", value),
            save_threshold=lambda: setattr(self, "saved", self.threshold),
            fire_trigger=lambda: setattr(self, "fired", self.fired + 1),
            state=lambda: self.states,
        )
        self.page = LivePage((4,), controls, cameras=cameras, silence_limit_s=None, clock=clock)

    def put(self, score: float = -12.0, camera: str = "belt", drift: DriftState | None = None) -> None:
        index, now = next(self._indices), time.time()
        image, size = self._texture.copy(), (240, 320)
        if score > self.threshold:
            cv2.line(image, (120, 90), (200, 150), (0, 0, 0), 6)
        point, box = OperatingPoint(self.threshold, "log_nfa_0"), (110, 80, 100, 80)
        times = Timestamps(now - 0.04, now - 0.039, now - 0.036, now - 0.004, now)
        made = result(
            index, score, size=size, image_bgr=image, box=box, point=point, camera=camera, times=times, drift=drift
        )
        self.page.put(*made)


CAMERA_LOST = CameraState("lost", 1_700_000_000.0, "is it connected?")
