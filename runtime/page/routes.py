"""The live page's interface; described in OpenAPI at ``/api/openapi.json``.

The live socket: the page sends ``{"camera": name, "picture": number of the picture it has, "since": step}`` when it is
ready for more, and gets one text message ``{"camera", "status", "steps", "picture"}``, followed, where ``picture`` is
not null, by one binary message, the JPEG it describes. Whoever does not ask gets nothing, so nothing queues up.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uflow_edge.runtime.bundle.folder import BundleChanged
from uflow_edge.runtime.errors import UflowEdgeError, require
from uflow_edge.runtime.heat import colour_bar_png
from uflow_edge.runtime.page.editions import Edition, Editions
from uflow_edge.runtime.page.state import LivePage
from uflow_edge.runtime.page.status import AnomalyReport, Status, ThresholdReport
from uflow_edge.runtime.storage.strict_json import parse_json, to_json
from uflow_edge.runtime.text import printable

if TYPE_CHECKING:
    from fastapi import FastAPI, WebSocket

_STATIC = Path(__file__).parent / "static"
_LARGEST_THRESHOLD = 1e9
"""In size. No score reaches it, so a threshold beyond is a slip that would switch detection off."""
_JPEG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/jpeg": {}}}, 404: {"description": "no longer there"}}


@dataclass(frozen=True, slots=True)
class NewThreshold:
    """A threshold on the image score, finite."""

    value: float


@dataclass(frozen=True, slots=True)
class Health:
    """Whether verdicts come; else the seconds of silence, by camera."""

    status: str
    silent_s: dict[str, float]


@dataclass(frozen=True, slots=True)
class Done:
    """That it was done."""

    done: bool = True


def create_app(page: LivePage, editions: Editions) -> "FastAPI":
    """The application, without the checks of `access`.

    Raises:
        MissingDependency: FastAPI is not installed.
    """
    require("fastapi", "serve")
    from fastapi import FastAPI
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from fastapi.staticfiles import StaticFiles

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        printing = asyncio.create_task(editions.run())
        try:
            yield
        finally:
            printing.cancel()
            await asyncio.gather(printing, return_exceptions=True)

    app = FastAPI(
        title="uflow-edge live page",
        lifespan=lifespan,
        openapi_url="/api/openapi.json",
        docs_url=None,  # these two load scripts from elsewhere
        redoc_url=None,
    )

    @app.exception_handler(UflowEdgeError)
    async def refused(_: Any, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=409 if isinstance(error, BundleChanged) else 422)

    @app.exception_handler(RequestValidationError)
    async def unfit(_: Any, error: RequestValidationError) -> JSONResponse:
        # FastAPI's own answer quotes the input, which may be no JSON that can be written.
        found = error.errors()[0]
        place = ".".join(str(part) for part in found["loc"][1:])
        return JSONResponse({"detail": printable(f"{place}: {found['msg']}".removeprefix(": "))}, status_code=422)

    @app.exception_handler(OSError)
    async def failed(_: Any, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=500)

    _add_pages(app, page)
    _add_numbers(app, page)
    _add_changes(app, page)
    _add_live(app, page, editions)
    app.mount("/static", StaticFiles(directory=_STATIC.resolve()))
    return app


def _add_pages(app: "FastAPI", page: LivePage) -> None:
    from fastapi import HTTPException, Response
    from fastapi.responses import FileResponse

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> FileResponse:
        return FileResponse(_STATIC / "icon.svg")

    @app.get("/api/colours.png", response_class=Response, responses={200: {"content": {"image/png": {}}}})
    async def colours() -> Response:
        """The colour scale of heat maps, from the threshold (left) upwards."""
        return Response(colour_bar_png(), media_type="image/png")

    @app.get("/", include_in_schema=False)
    async def index() -> FileResponse:
        return FileResponse(_STATIC / "index.html")

    @app.get("/api/anomalies/{number}.jpg", response_class=Response, responses=_JPEG)
    async def anomaly_picture(number: int) -> Response:
        """A recent anomaly with heat map and outlines."""
        return small_or_large(number, small=False)

    @app.get("/api/anomalies/{number}/small.jpg", response_class=Response, responses=_JPEG)
    async def anomaly_thumbnail(number: int) -> Response:
        """Its thumbnail."""
        return small_or_large(number, small=True)

    def small_or_large(number: int, *, small: bool) -> Response:
        anomaly = page.anomaly(number)
        if anomaly is None:
            raise HTTPException(404, f"anomaly {number} is not in the gallery, or no longer")
        return Response(anomaly.pictures.small if small else anomaly.pictures.large, media_type="image/jpeg")


def _add_numbers(app: "FastAPI", page: LivePage) -> None:
    from fastapi import Response

    @app.get("/api/status")
    def status() -> Status:
        """Every number the page shows."""
        return page.status()

    @app.get("/api/anomalies")
    async def anomalies() -> list[AnomalyReport]:
        """Recent anomalies, newest first."""
        return page.anomalies()

    @app.get("/healthz", responses={503: {"model": Health}})
    def healthz(response: Response) -> Health:
        """200 while every camera gets verdicts, 503 when one is silent for too long. Needs no token."""
        silent = page.silence()
        response.status_code = 503 if silent else 200
        # Nobody in particular is asking, so cameras are numbered and not named.
        return Health(
            "silent" if silent else "ok",
            {f"camera {i}": round(silence, 1) for i, silence in enumerate(silent.values(), 1)},
        )

    exposition = page.controls.exposition
    if exposition is not None:

        @app.get("/metrics", response_class=Response)
        def metrics() -> Response:
            """In Prometheus' text format."""
            return Response(exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_changes(app: "FastAPI", page: LivePage) -> None:
    from fastapi import HTTPException

    controls = page.controls

    def threshold() -> ThresholdReport:
        return page.threshold()

    @app.put("/api/threshold")
    def set_threshold(new: NewThreshold) -> ThresholdReport:
        """Apply another threshold from the next frame on."""
        if not abs(new.value) <= _LARGEST_THRESHOLD:
            raise HTTPException(
                422, f"threshold {new.value:g}: expected a finite number of at most {_LARGEST_THRESHOLD:g} in size"
            )
        controls.set_threshold(new.value)
        return threshold()

    @app.post("/api/threshold/save")
    def save_threshold() -> ThresholdReport:
        """Write the threshold that applies into the bundle."""
        if controls.save_threshold is None:
            raise HTTPException(404, "the bundle cannot be written from here, so its threshold stays as it is")
        controls.save_threshold()
        return threshold()

    @app.post("/api/trigger")
    def trigger() -> Done:
        """Have the next frame inspected."""
        if controls.fire_trigger is None:
            raise HTTPException(404, "there is no software trigger")
        controls.fire_trigger()
        return Done()


def _add_live(app: "FastAPI", page: LivePage, editions: Editions) -> None:
    from fastapi import HTTPException, Response, WebSocket, WebSocketDisconnect

    @app.get("/api/picture.jpg", response_class=Response, responses=_JPEG)
    async def picture(camera: str | None = None) -> Response:
        """A camera's newest frame with heat map and outlines; of the first camera, if none is named."""
        name = camera or next((report.name for report in page.status().cameras), None)
        edition = await editions.after(editions.current, name)
        if edition is None or name not in edition.pictures:
            raise HTTPException(404, f"no picture of {name!r} yet")
        return Response(edition.pictures[name].jpeg, media_type="image/jpeg")

    @app.websocket("/api/live")
    async def live(websocket: WebSocket) -> None:
        await websocket.accept()
        last = editions.current
        try:
            while True:
                ask = _Ask.from_json(await websocket.receive_text())
                edition = await editions.after(last, ask.camera)
                if edition is None:
                    await websocket.close(1001)
                    return
                last = edition.number
                await _deliver(websocket, page, edition, ask)
        except (ValueError, KeyError):  # not JSON, not an ask, not text
            await websocket.close(1007)
        except (WebSocketDisconnect, RuntimeError):  # starlette's words for a socket that closed under our hands
            return


@dataclass(frozen=True, slots=True)
class _Ask:
    camera: str | None
    picture: int
    since: int

    @classmethod
    def from_json(cls, text: str) -> "_Ask":
        ask = parse_json(text)
        if not isinstance(ask, dict):
            raise ValueError("expected an object")
        camera, picture, since = ask.get("camera"), ask.get("picture", 0), ask.get("since", 0)
        if not (isinstance(camera, str | None) and isinstance(picture, int) and isinstance(since, int)):
            raise ValueError("expected camera, picture and since")
        return cls(camera, picture, since)


async def _deliver(websocket: "WebSocket", page: LivePage, edition: Edition, ask: _Ask) -> None:
    picture = edition.pictures.get(ask.camera) if ask.camera else None
    if picture is not None and picture.number == ask.picture:
        picture = None
    steps = [astuple(step) for step in page.steps(ask.camera, ask.since)] if ask.camera else []
    about = to_json(None if picture is None else picture.about)
    await websocket.send_text(
        f'{{"camera":{to_json(ask.camera)},"status":{edition.status},"steps":{to_json(steps)},"picture":{about}}}'
    )
    if picture is not None:
        await websocket.send_bytes(picture.jpeg)
