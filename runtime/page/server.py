"""The live page's web server, which runs in a thread of the inspecting process."""

import asyncio
import socket
import threading
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import quote

from uflow_edge.runtime.errors import UsageError, require
from uflow_edge.runtime.page.access import Access, Guard, checked_access
from uflow_edge.runtime.page.connections import bounded_protocol, most_connections, quiet_errors
from uflow_edge.runtime.page.routes import create_app
from uflow_edge.runtime.page.snapshots import Snapshots
from uflow_edge.runtime.page.state import LivePage

if TYPE_CHECKING:
    import uvicorn

_BACKLOG = 256
_ACCEPTED_AT_ONCE = 16
_CLOSE_WITHIN_S = 2
_LARGEST_MESSAGE = 4096


def serve(page: LivePage, *, host: str = "127.0.0.1", port: int = 8000, token: str | None = None) -> "PageServer":
    """Start the server; it accepts connections when this returns.

    Args:
        page: the page to show. Closing it closes the server.
        port: port to listen on; 0 for any free one.
        token: required from every client; mandatory if other machines can reach the host.

    Raises:
        UsageError: no token for a host beyond loopback, a token short enough to guess, or an address in use.
        MissingDependency: FastAPI, uvicorn or websockets is not installed.
    """
    access = checked_access(host, token)
    for module in ("fastapi", "uvicorn", "websockets"):
        require(module, "serve")
    listener = _listen(host, port)
    server = PageServer(page, access, listener, host)
    page.on_close(server.close)
    return server


class PageServer:
    """A running server; as a context manager it closes itself.

    Attributes:
        url: address of the page, without the token.
        link: address with the token, for the person who starts the server; opening it once signs a browser in.
    """

    def __init__(self, page: LivePage, access: Access, listener: socket.socket, host: str) -> None:
        self.url = f"http://{_shown(host)}:{listener.getsockname()[1]}/"
        self.link = f"{self.url}?token={quote(access.token)}" if access.token else self.url
        snapshots = Snapshots(page)
        self._server = _server(Guard(create_app(page, snapshots), access), snapshots)
        self._thread = threading.Thread(target=self._run, args=(listener,), name="live page", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End all connections and the thread; harmless if closed already."""
        self._server.should_exit = True
        self._thread.join(2 * _CLOSE_WITHIN_S)

    def __enter__(self) -> "PageServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, listener: socket.socket) -> None:
        with listener:
            asyncio.run(self._serve(listener))

    async def _serve(self, listener: socket.socket) -> None:
        quiet_errors(asyncio.get_running_loop())
        await self._server.serve(sockets=[listener])


def _server(app: Guard, snapshots: Snapshots) -> "uvicorn.Server":
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            for listener in sockets or ():
                listener.listen(_BACKLOG)  # further connections wait in the kernel, where they use no descriptors

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            await snapshots.stop()  # otherwise the next line would wait for the clients
            await super().shutdown(sockets)

    return Server(
        uvicorn.Config(
            app,
            loop="asyncio",
            http=bounded_protocol(most_connections()),
            backlog=_ACCEPTED_AT_ONCE,
            log_config=None,
            log_level="error",  # no client may fill the log with warnings about its own requests
            access_log=False,
            lifespan="on",
            server_header=False,
            ws_max_size=_LARGEST_MESSAGE,
            ws_per_message_deflate=False,  # pictures are compressed already
            timeout_graceful_shutdown=_CLOSE_WITHIN_S,
        )
    )


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens already, so that clients can connect before the server's loop runs."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        raise UsageError(
            f"the live page cannot listen on {host}:{port} ({error}): choose a free port and an address of this machine"
        ) from error
    return listener


def _shown(host: str) -> str:
    """The host for a URL: this machine's name if the server listens on all addresses."""
    if host in ("", "0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host
