"""What one peer may take of the live page's server: a share of the connections, and no longer than a request needs."""

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_WITHIN_S: Final = 10.0
_MOST: Final = 512
_SHARE_OF_FILES: Final = 4
_SAY_AGAIN_S: Final = 60.0
_FULL: Final = b"too many connections to the live page: close some, or try again later\n"
_REFUSAL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(_FULL), _FULL)
)
_log = logging.getLogger(__name__)


def most_connections() -> int:
    """How many are served at once: a quarter of the files that this process may open, at most 512.

    The limit on open files is raised first, as far as this user may. Cameras and results keep the rest.
    """
    try:
        import resource
    except ImportError:  # Windows, where sockets are not files
        return _MOST
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        return max(min(_MOST, soft // _SHARE_OF_FILES), 1)
    return _MOST if hard == resource.RLIM_INFINITY else max(min(_MOST, hard // _SHARE_OF_FILES), 1)


def bounded_protocol(most: int, head_within_s: float = HEAD_WITHIN_S) -> "type[H11Protocol]":
    """uvicorn's HTTP protocol with limits; sockets that it hands on to the WebSocket protocol still count.

    Args:
        most: connections in all. One address gets half of them.
        head_within_s: seconds from the beginning of a connection, or from the end of an answer, in which the next
            request's head has to be there.
    """
    from h11 import Request
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Bounded(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            address = _address(self)
            if len(self.connections) > most or sum(_address(one) == address for one in self.connections) > most // 2:
                transport.write(_REFUSAL)
                transport.close()
            else:
                self._await_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget_deadline()
            super().connection_lost(exc)

        def handle_websocket_upgrade(self, event: Request) -> None:
            self._forget_deadline()
            super().handle_websocket_upgrade(event)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._await_head()

        def _await_head(self) -> None:
            self._forget_deadline()
            self._deadline = self.loop.call_later(head_within_s, self._end_if_idle)

        def _forget_deadline(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()

        def _end_if_idle(self) -> None:
            if self.cycle is None or self.cycle.response_complete:
                self.transport.abort()

    return Bounded


def quiet_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Have the loop say what fails outside of requests, such as a lack of descriptors, in one line a minute."""
    said: dict[str, float] = {}

    def say(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        line = f"live page: {context['message']}" + ("" if error is None else f" ({type(error).__name__}: {error})")
        now = time.monotonic()
        if line not in said or now - said[line] > _SAY_AGAIN_S:
            if len(said) > _MOST:
                said.clear()
            said[line] = now
            _log.error("%s", line)

    loop.set_exception_handler(say)


def _address(connection: Any) -> str | None:
    client: tuple[str, int] | None = connection.client
    return client[0] if client else None
