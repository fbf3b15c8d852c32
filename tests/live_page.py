"""A live page's line, which records what is done to it, and a client of the page's socket. Needs the extra `serve`."""

import json

import cv2
import numpy as np

from extras import extra
from factories import result
from uflow_edge.runtime.inspection import Inspection
from uflow_edge.runtime.line.capture import CameraState
from uflow_edge.runtime.operating_point import OperatingPoint
from uflow_edge.runtime.page import Controls, PageServer
from uflow_edge.runtime.sources import Frame
from uflow_edge.runtime.tally import Tally
from uflow_edge.runtime.verdict import Timestamps
from waiting import DEADLINE

httpx, websockets = extra("httpx"), extra("websockets")
connect = extra("websockets.sync.client").connect
extra("fastapi")

CHANNELS = (4,)
TOKEN = "a token that nobody guesses"
GREY = np.full((60, 80, 3), 90, np.uint8)


def shown(
    index: int = 0, *, score: float = -3.25, threshold: float = 0.0, camera: str = "belt"
) -> tuple[Frame, Inspection]:
    """A grey frame; where its score is above the threshold, with a region in the middle."""
    began = 1_700_000_000.0 + index
    times = Timestamps(began, began + 0.001, began + 0.003, began + 0.033, began + 0.037)
    point, box, name = OperatingPoint(threshold, "log_nfa_0"), (30, 20, 20, 20), str(index)
    return result(
        index, score, size=(60, 80), image_bgr=GREY, box=box, point=point, camera=camera, name=name, times=times
    )


class Line:
    """A pipeline's handles, and what was done with them."""

    def __init__(self) -> None:
        self.threshold, self.saved = 0.0, 0.0
        self.fired = 0
        self.states: dict[str, CameraState] = {}
        self.refuse: Exception | None = None

    def set(self, value: float) -> None:
        if self.refuse:
            raise self.refuse
        self.threshold = value

    def save(self) -> None:
        if self.refuse:
            raise self.refuse
        self.saved = self.threshold

    def fire(self) -> None:
        self.fired += 1

    def controls(self) -> Controls:
        return Controls(
            tally=lambda: Tally(
                captured=12, inspected=9, dropped=3, anomalous=1, reconnects=2, undelivered={"mqtt": 5}
            ),
            threshold=lambda: self.threshold,
            saved_threshold=lambda: self.saved,
            set_threshold=self.set,
            save_threshold=self.save,
            promise=lambda: "none",
            fire_trigger=self.fire,
            state=lambda: self.states,
            exposition=lambda: b"frames_total 9\n",
        )


def live(server: PageServer) -> str:
    return server.url.replace("http", "ws") + "api/live"


class Watcher:
    """What the page's script does: ask, get numbers, get a picture if there is one, ask again."""

    def __init__(self, socket_: "websockets.sync.client.ClientConnection", camera: str | None = "belt") -> None:
        self.socket, self.camera, self.picture, self.since = socket_, camera, 0, 0

    def ask(self) -> tuple[dict, bytes | None]:
        self.socket.send(json.dumps({"camera": self.camera, "picture": self.picture, "since": self.since}))
        message = json.loads(self.socket.recv(timeout=DEADLINE))
        if message["steps"]:
            self.since = message["steps"][-1][0]
        if message["picture"] is None:
            return message, None
        self.picture = message["picture"]["number"]
        jpeg = self.socket.recv(timeout=DEADLINE)
        assert isinstance(jpeg, bytes)
        return message, jpeg


def decoded(jpeg: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
