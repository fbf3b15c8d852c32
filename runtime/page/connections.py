"""Limits on the connections of the live page's server: their number, in all and per address, and their idle time."""

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_WITHIN_S: Final = 10.0
_LIMIT: Final = 512
_SHARE_OF_FILES: Final = 4
_REPEAT_AFTER_S: Final = 60.0
_FULL: Final = b"too many connections to the live page: close some, or try again later\n"
_REFUSAL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(_FULL), _FULL)
)
_log = logging.getLogger(__name__)


def most_connections() -> int:
    """The number of connections served at once: a quarter of this process's limit on open files, at most 512.

    The limit is first raised as far as this user may. The rest is for cameras and results.
    """
    try:
        import resource
    except ImportError:  # Windows, where sockets are not files
        return _LIMIT
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        return max(min(_LIMIT, soft // _SHARE_OF_FILES), 1)
    return _LIMIT if hard == resource.RLIM_INFINITY else max(min(_LIMIT, hard // _SHARE_OF_FILES), 1)


def bounded_protocol(most: int, head_within_s: float = HEAD_WITHIN_S) -> "type[H11Protocol]":
    """uvicorn's HTTP protocol with limits; WebSockets count as connections too.

    Args:
        most: limit for all connections. One address may have half of them.
        head_within_s: seconds within which the head of the next request must arrive, counted from the start of the
            connection or the end of the last response.
    """
    from h11 import Request
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class BoundedH11(H11Protocol):
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
            self._cancel_deadline()
            super().connection_lost(exc)

        def handle_websocket_upgrade(self, event: Request) -> None:
            self._cancel_deadline()
            super().handle_websocket_upgrade(event)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._await_head()

        def _await_head(self) -> None:
            self._cancel_deadline()
            self._deadline = self.loop.call_later(head_within_s, self._end_if_idle)

        def _cancel_deadline(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()

        def _end_if_idle(self) -> None:
            if self.cycle is None or self.cycle.response_complete:
                self.transport.abort()

    return BoundedH11


def quiet_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Log errors outside of requests, such as a lack of file descriptors, in one line, repeated once per minute."""
    logged: dict[str, float] = {}

    def log_error(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        line = f"live page: {context['message']}" + ("" if error is None else f" ({type(error).__name__}: {error})")
        now = time.monotonic()
        if line not in logged or now - logged[line] > _REPEAT_AFTER_S:
            if len(logged) > _LIMIT:
                logged.clear()
            logged[line] = now
            _log.error("%s", line)

    loop.set_exception_handler(log_error)


def _address(connection: Any) -> str | None:
    client: tuple[str, int] | None = connection.client
    return client[0] if client else None
