"""A TCP server with a limited number of connections."""

import socket
import threading
import time
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

_MOST_CONNECTIONS = 16
_SECONDS_WITHOUT_DESCRIPTORS = 0.05


class BoundedServer(ThreadingTCPServer):
    """Serves at most 16 connections, one thread each; a further one replaces the one that has been idle longest.

    The guide to Modbus on TCP/IP (V1.0b, section 4.2.2) recommends this for the case that all connections are in use.
    """

    allow_reuse_address = True
    request_queue_size = 64
    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, handler: type[BaseRequestHandler]) -> None:
        """Open the listening socket.

        Raises:
            OSError: the server cannot listen on this address.
        """
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._active: dict[socket.socket, float] = {}
        self._lock = threading.Lock()  # guards the one above
        super().__init__((host, port), handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,), name=f"server {port}", daemon=True)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop serving. Open connections do not keep the process alive."""
        self.shutdown()
        self.server_close()
        self._thread.join()

    def note_activity(self, connection: socket.socket) -> None:
        """Record that a request on this connection was answered."""
        with self._lock:
            if connection in self._active:
                self._active[connection] = time.monotonic()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; wait a moment if the process has no file descriptor left for it."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(_SECONDS_WITHOUT_DESCRIPTORS)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own."""
        with self._lock:
            if len(self._active) >= _MOST_CONNECTIONS:
                idle = min(self._active, key=lambda one: self._active[one])
                del self._active[idle]
                _disconnect(idle)
            self._active[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._active.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: no client may fill the log."""


def _disconnect(connection: socket.socket) -> None:
    """Wake the thread that serves this connection; the thread then closes it."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # the client has closed it already
        return
