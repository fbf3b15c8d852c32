"""The live page's HTTP interface; OpenAPI describes it at ``/api/openapi.json``.

The live socket: when a client is ready it sends ``{"camera": name, "picture": number of the picture it has, "since":
step}``. The answer is one text message ``{"camera", "status", "steps", "picture"}`` and, if ``picture`` is not null,
one binary message with the JPEG. Nothing is sent without a request, so nothing queues up.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from uflow_edge.runtime.bundle.edit import BundleChanged
from uflow_edge.runtime.errors import UflowEdgeError, require
from uflow_edge.runtime.heat import colour_bar_png
from uflow_edge.runtime.page.snapshots import Snapshot, Snapshots
from uflow_edge.runtime.page.state import Anomaly, LivePage
from uflow_edge.runtime.page.status import AnomalyReport, Status, ThresholdReport
from uflow_edge.runtime.storage.strict_json import to_json
from uflow_edge.runtime.text import printable

if TYPE_CHECKING:
    from fastapi import FastAPI, WebSocket

_STATIC = Path(__file__).parent / "static"
_LARGEST_THRESHOLD = 1e9
"""Limit of the absolute value. No score reaches it, so a larger threshold is a typo that would disable detection."""
_JPEG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/jpeg": {}}}, 404: {"description": "not available"}}


@dataclass(frozen=True, slots=True)
class Health:
    """``ok``, or ``silent`` and the seconds of silence of each silent camera."""

    status: str
    silent_s: dict[str, float]


def create_app(page: LivePage, snapshots: Snapshots) -> "FastAPI":
    """The web application, without the checks of `access`.

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
        rendering = asyncio.create_task(snapshots.run())
        try:
            yield
        finally:
            rendering.cancel()
            await asyncio.gather(rendering, return_exceptions=True)

    app = FastAPI(
        title="uflow-edge live page",
        lifespan=lifespan,
        openapi_url="/api/openapi.json",
        docs_url=None,  # these two load scripts from other sites
        redoc_url=None,
    )

    @app.exception_handler(UflowEdgeError)
    async def refused(_: Any, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=409 if isinstance(error, BundleChanged) else 422)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Any, error: RequestValidationError) -> JSONResponse:
        # FastAPI's own answer quotes the input, which may not be serialisable as JSON.
        found = error.errors()[0]
        place = ".".join(str(part) for part in found["loc"][1:])
        return JSONResponse({"detail": printable(f"{place}: {found['msg']}".removeprefix(": "))}, status_code=422)

    @app.exception_handler(OSError)
    async def failed(_: Any, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=500)

    _add_pages(app, page)
    _add_numbers(app, page)
    _add_changes(app, page)
    _add_live(app, page, snapshots)
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
        """The colour scale of heat maps, from the threshold (left) upwards (right)."""
        return Response(colour_bar_png(), media_type="image/png")

    @app.get("/", include_in_schema=False)
    async def index() -> FileResponse:
        return FileResponse(_STATIC / "index.html")

    @app.get("/api/anomalies/{number}.jpg", response_class=Response, responses=_JPEG)
    async def anomaly_picture(number: int) -> Response:
        """A recent anomaly with heat map and outlines."""
        return Response(find(number).pictures.large, media_type="image/jpeg")

    @app.get("/api/anomalies/{number}/small.jpg", response_class=Response, responses=_JPEG)
    async def anomaly_thumbnail(number: int) -> Response:
        """The thumbnail of a recent anomaly."""
        return Response(find(number).pictures.small, media_type="image/jpeg")

    def find(number: int) -> Anomaly:
        anomaly = page.anomaly(number)
        if anomaly is None:
            raise HTTPException(404, f"anomaly {number} is not in the gallery (any more)")
        return anomaly


def _add_numbers(app: "FastAPI", page: LivePage) -> None:
    from fastapi import Response

    @app.get("/api/status")
    def status() -> Status:
        """All numbers of the page."""
        return page.status()

    @app.get("/api/anomalies")
    async def anomalies() -> list[AnomalyReport]:
        """Recent anomalies, newest first."""
        return page.anomalies()

    @app.get("/healthz", responses={503: {"model": Health}})
    def healthz(response: Response) -> Health:
        """200 while every camera gets verdicts, 503 if one has been silent for too long. Needs no token."""
        silent = page.silence()
        response.status_code = 503 if silent else 200
        # Without a token the names of the cameras stay private.
        seconds = {f"camera {i}": round(silence, 1) for i, silence in enumerate(silent.values(), 1)}
        return Health("silent" if silent else "ok", seconds)

    exposition = page.controls.exposition
    if exposition is not None:

        @app.get("/metrics", response_class=Response)
        def metrics() -> Response:
            """The metrics in Prometheus' text format."""
            return Response(exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_changes(app: "FastAPI", page: LivePage) -> None:
    from fastapi import Body, HTTPException

    controls = page.controls
    number = Body(embed=True, strict=True)  # neither true nor "5"

    @app.put("/api/threshold")
    def set_threshold(value: Annotated[float, number]) -> ThresholdReport:
        """Use another threshold from the next frame on."""
        if not abs(value) <= _LARGEST_THRESHOLD:
            raise HTTPException(422, f"threshold {value:g}: expected at most {_LARGEST_THRESHOLD:g} in absolute value")
        controls.set_threshold(value)
        return page.threshold()

    @app.post("/api/threshold/save")
    def save_threshold() -> ThresholdReport:
        """Write the threshold in use to the bundle."""
        if controls.save_threshold is None:
            raise HTTPException(404, "the page may not write to the bundle, so the bundle's threshold is unchanged")
        controls.save_threshold()
        return page.threshold()

    @app.post("/api/trigger")
    def trigger() -> dict[str, bool]:
        """Inspect the next frame."""
        if controls.fire_trigger is None:
            raise HTTPException(404, "there is no software trigger: start uflow-infer with --trigger software")
        controls.fire_trigger()
        return {"done": True}


def _add_live(app: "FastAPI", page: LivePage, snapshots: Snapshots) -> None:
    from fastapi import HTTPException, Response, WebSocket, WebSocketDisconnect

    @app.get("/api/picture.jpg", response_class=Response, responses=_JPEG)
    async def picture(camera: str | None = None) -> Response:
        """A camera's newest frame with heat map and outlines; the first camera's if none is named."""
        name = camera or next((report.name for report in page.status().cameras), None)
        snapshot = await snapshots.after(snapshots.current, name)
        if snapshot is None or name not in snapshot.pictures:
            raise HTTPException(404, f"no picture of {name!r} yet")
        return Response(snapshot.pictures[name].jpeg, media_type="image/jpeg")

    @app.websocket("/api/live")
    async def live(websocket: WebSocket) -> None:
        await websocket.accept()
        last = snapshots.current
        try:
            while True:
                request = msgspec.json.decode(await websocket.receive_text(), type=_LiveRequest)
                snapshot = await snapshots.after(last, request.camera)
                if snapshot is None:
                    await websocket.close(1001)
                    return
                last = snapshot.number
                await _deliver(websocket, page, snapshot, request)
        except (ValueError, KeyError):  # not JSON, not a request, or not text
            await websocket.close(1007)
        except (WebSocketDisconnect, RuntimeError):  # starlette raises either if the peer has closed the socket
            return


@dataclass(frozen=True, slots=True)
class _LiveRequest:
    camera: str | None = None
    picture: int = 0
    since: int = 0


async def _deliver(websocket: "WebSocket", page: LivePage, snapshot: Snapshot, request: _LiveRequest) -> None:
    camera = request.camera
    picture = snapshot.pictures.get(camera) if camera else None
    if picture is not None and picture.number == request.picture:
        picture = None
    steps = [astuple(step) for step in page.steps(camera, request.since)] if camera else []
    about = to_json(None if picture is None else picture.about)
    await websocket.send_text(
        f'{{"camera":{to_json(camera)},"status":{snapshot.status},"steps":{to_json(steps)},"picture":{about}}}'
    )
    if picture is not None:
        await websocket.send_bytes(picture.jpeg)
