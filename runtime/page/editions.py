"""What all watchers get: the page's numbers and pictures, made once, at a pace that inspection does not feel.

About ten times a second there is a new edition: the status as JSON, and of every camera that somebody watches the
newest picture. A watcher asks for an edition, gets it, and asks again when it has shown it; one that is slow misses
editions, and nothing queues up for it. Drawing happens in a single thread that rests three times as long as it works,
and the more watchers there are, the longer an edition lives.
"""

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from uflow_edge.runtime.page.pictures import picture_of, pictures_of
from uflow_edge.runtime.page.state import LivePage, Shot
from uflow_edge.runtime.storage.strict_json import finite, to_json
from uflow_edge.runtime.text import printable

SHORTEST_INTERVAL_S = 0.1
_INTERVAL_PER_WATCHER_S = 0.005
_REST = 3.0
_AFTER_FAILURE_S = 5.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Picture:
    """A camera's picture and what it shows.

    Attributes:
        number: of the result among the camera's.
        jpeg: the frame with heat map and outlines.
        about: the rest, for JSON.
    """

    number: int
    jpeg: bytes
    about: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Edition:
    """One state of the page.

    Attributes:
        number: editions are numbered from 1.
        status: `LivePage.status` in JSON.
        cameras: that it was made for; None among them: for whoever wants no picture.
        pictures: of those that have one, by camera.
    """

    number: int
    status: str
    cameras: frozenset[str | None]
    pictures: dict[str, Picture]


class Editions:
    """Makes editions in the event loop's time and hands them to watchers."""

    def __init__(self, page: LivePage) -> None:
        self._page = page
        self._darkroom = ThreadPoolExecutor(1, thread_name_prefix="live page pictures")
        self._current = Edition(0, "", frozenset(), {})
        self._wanted: set[str | None] = set()
        self._waiting = 0
        self._watchers = 0
        self._news = asyncio.Condition()
        self.stopped = False

    async def run(self) -> None:
        """Make editions until cancelled."""
        try:
            while True:
                began = time.monotonic()
                try:
                    await self._make()
                except Exception:  # inspection goes on without a page, but not without a word
                    _log.exception("the live page cannot be drawn; next attempt in %g s", _AFTER_FAILURE_S)
                    await asyncio.sleep(_AFTER_FAILURE_S)
                worked = time.monotonic() - began
                interval = max(SHORTEST_INTERVAL_S, _INTERVAL_PER_WATCHER_S * self._watchers)
                await asyncio.sleep(max(interval - worked, worked * _REST))
        finally:
            self._darkroom.shutdown(wait=False, cancel_futures=True)

    async def stop(self) -> None:
        """Send every watcher home."""
        async with self._news:
            self.stopped = True
            self._news.notify_all()

    async def after(self, number: int, camera: str | None) -> Edition | None:
        """The first edition after one that was made for a camera; None when there will be no more."""

        def there() -> bool:
            return self.stopped or (self._current.number > number and camera in self._current.cameras)

        async with self._news:
            if not there():
                self._wanted.add(camera)
            self._waiting += 1
            try:
                await self._news.wait_for(there)
            finally:
                self._waiting -= 1
            return None if self.stopped else self._current

    @property
    def current(self) -> int:
        """Number of the newest edition."""
        return self._current.number

    async def _make(self) -> None:
        loop = asyncio.get_running_loop()
        shot = self._page.next_undeveloped()
        if shot is not None:
            await loop.run_in_executor(self._darkroom, self._develop, shot)
        if not self._waiting:
            self._watchers = 0
            return
        wanted = frozenset(self._wanted)
        pictures, status = await loop.run_in_executor(self._darkroom, self._print, wanted)
        async with self._news:
            self._wanted -= wanted
            self._watchers = self._waiting
            self._current = Edition(self._current.number + 1, status, wanted, pictures)
            self._news.notify_all()

    def _develop(self, shot: Shot) -> None:
        self._page.keep(shot, pictures_of(shot.frame, shot.inspection, self._page.channels))

    def _print(self, cameras: frozenset[str | None]) -> tuple[dict[str, Picture], str]:
        pictures = {name: picture for name in cameras if name and (picture := self._picture(name)) is not None}
        return pictures, to_json(finite(asdict(self._page.status())))

    def _picture(self, camera: str) -> Picture | None:
        shot = self._page.newest(camera)
        if shot is None:
            return None
        before = self._current.pictures.get(camera)
        if before is not None and before.number == shot.number:
            return before
        verdict = shot.inspection.verdict
        about = {
            "number": shot.number,
            "frame": verdict.frame,
            "source": printable(verdict.source),
            "captured": verdict.timestamps.captured,
            "score": verdict.score,
            "threshold": verdict.operating_point.threshold,
            "anomalous": verdict.anomalous,
        }
        return Picture(shot.number, picture_of(shot.frame, shot.inspection, self._page.channels), about)
