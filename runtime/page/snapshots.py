"""Snapshots of the live page, rendered once for all clients and slowly enough not to disturb the inspection.

About ten times per second there is a new snapshot: the status as JSON, and the newest picture of each camera that a
client watches. A client asks for a snapshot, shows it, and asks again; a slow client skips snapshots, and nothing
queues up for it. A single thread renders and rests three times as long as it works; the interval between snapshots
grows with the number of clients.
"""

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from uflow_edge.runtime.page.pictures import render_anomaly, render_picture
from uflow_edge.runtime.page.state import CameraResult, LivePage
from uflow_edge.runtime.page.status import VerdictReport
from uflow_edge.runtime.storage.strict_json import finite, to_json

SHORTEST_INTERVAL_S = 0.1
_INTERVAL_PER_CLIENT_S = 0.005
_REST = 3.0
_AFTER_FAILURE_S = 5.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CameraPicture:
    """The picture of a camera's newest frame.

    Attributes:
        number: number of the result, counted per camera.
        jpeg: the frame with heat map and outlines.
        about: number and verdict, for JSON.
    """

    number: int
    jpeg: bytes
    about: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of the page.

    Attributes:
        number: counted from 1.
        status: `LivePage.status` as JSON.
        cameras: the cameras that clients wanted; None stands for clients that want no picture.
    """

    number: int
    status: str
    cameras: frozenset[str | None]
    pictures: dict[str, CameraPicture]


class Snapshots:
    """Renders snapshots and delivers them to clients; runs in the event loop."""

    def __init__(self, page: LivePage) -> None:
        self._page = page
        self._renderer = ThreadPoolExecutor(1, thread_name_prefix="live page pictures")
        self._current = Snapshot(0, "", frozenset(), {})
        self._wanted: set[str | None] = set()
        self._waiting = 0
        self._clients = 0
        self._changed = asyncio.Condition()
        self.stopped = False

    async def run(self) -> None:
        try:
            while True:
                began = time.monotonic()
                try:
                    await self._render()
                except Exception:  # the inspection continues without a page, but the log says so
                    _log.exception("cannot render the live page; next attempt in %g s", _AFTER_FAILURE_S)
                    await asyncio.sleep(_AFTER_FAILURE_S)
                worked = time.monotonic() - began
                interval = max(SHORTEST_INTERVAL_S, _INTERVAL_PER_CLIENT_S * self._clients)
                await asyncio.sleep(max(interval - worked, worked * _REST))
        finally:
            self._renderer.shutdown(wait=False, cancel_futures=True)

    async def stop(self) -> None:
        async with self._changed:
            self.stopped = True
            self._changed.notify_all()

    async def after(self, number: int, camera: str | None) -> Snapshot | None:
        """Wait for a snapshot newer than ``number`` that was rendered for ``camera``; None after `stop`."""

        def ready() -> bool:
            return self.stopped or (self._current.number > number and camera in self._current.cameras)

        async with self._changed:
            if not ready():
                self._wanted.add(camera)
            self._waiting += 1
            try:
                await self._changed.wait_for(ready)
            finally:
                self._waiting -= 1
            return None if self.stopped else self._current

    @property
    def current(self) -> int:
        """Number of the snapshot that was rendered last."""
        return self._current.number

    async def _render(self) -> None:
        loop = asyncio.get_running_loop()
        anomaly = self._page.next_pending()
        if anomaly is not None:
            await loop.run_in_executor(self._renderer, self._render_anomaly, anomaly)
        if not self._waiting:
            self._clients = 0
            return
        wanted = frozenset(self._wanted)
        pictures, status = await loop.run_in_executor(self._renderer, self._render_snapshot, wanted)
        async with self._changed:
            self._wanted -= wanted
            self._clients = self._waiting
            self._current = Snapshot(self._current.number + 1, status, wanted, pictures)
            self._changed.notify_all()

    def _render_anomaly(self, result: CameraResult) -> None:
        self._page.keep(result, render_anomaly(result.frame, result.inspection, self._page.channels))

    def _render_snapshot(self, cameras: frozenset[str | None]) -> tuple[dict[str, CameraPicture], str]:
        pictures = {name: picture for name in cameras if name and (picture := self._picture(name)) is not None}
        return pictures, to_json(finite(asdict(self._page.status())))

    def _picture(self, camera: str) -> CameraPicture | None:
        result = self._page.newest(camera)
        if result is None:
            return None
        before = self._current.pictures.get(camera)
        if before is not None and before.number == result.number:
            return before
        about = {"number": result.number, **asdict(VerdictReport.from_verdict(result.inspection.verdict))}
        jpeg = render_picture(result.frame, result.inspection, self._page.channels)
        return CameraPicture(result.number, jpeg, about)
