"""A TCP server that no number of peers can exhaust."""

import socket
import threading
import time
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

_MOST_CONNECTIONS = 16
_SECONDS_WITHOUT_DESCRIPTORS = 0.05


class BoundedServer(ThreadingTCPServer):
    """A thread for each connection, of which there are 16 at most: a new one ends the one that was silent for longest.

    That is what the guide to Modbus on TCP/IP (V1.0b, section 4.2.2) recommends for when all connections are taken.
    """

    allow_reuse_address = True
    request_queue_size = 64
    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, handler: type[BaseRequestHandler]) -> None:
        """Begin to listen.

        Raises:
            OSError: the address cannot be listened on.
        """
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._active: dict[socket.socket, float] = {}
        self._lock = threading.Lock()  # guards the one above
        super().__init__((host, port), handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,), name=f"server {port}", daemon=True)

    @property
    def port(self) -> int:
        """That it listens on."""
        return int(self.server_address[1])

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def close(self) -> None:
        """Stop listening. A conversation that goes on does not keep the process alive."""
        self.shutdown()
        self.server_close()
        self._thread.join()

    def note_activity(self, connection: socket.socket) -> None:
        """A request of this connection was answered."""
        with self._lock:
            if connection in self._active:
                self._active[connection] = time.monotonic()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection, without spinning while there are no descriptors left for one."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(_SECONDS_WITHOUT_DESCRIPTORS)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hand a connection to a thread of its own."""
        with self._lock:
            if len(self._active) >= _MOST_CONNECTIONS:
                silent = min(self._active, key=lambda one: self._active[one])
                del self._active[silent]
                _hang_up(silent)
            self._active[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection, and forget it."""
        with self._lock:
            self._active.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """What one peer does is no reason to fill the log."""


def _hang_up(connection: socket.socket) -> None:
    """Wake the thread that waits for this connection; it then closes it."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # the other side was faster
        return
