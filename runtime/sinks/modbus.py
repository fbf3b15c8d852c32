"""A read-only Modbus TCP server, from which a PLC polls the last verdict and the counts.

Source: MODBUS Application Protocol V1.1b3, sections 6.3 and 6.4. It is implemented here because reading registers is a
small part of the protocol, and the API of the Python libraries for servers changes often.

Registers, readable as holding registers (function 3) or input registers (4) under every unit number; two registers
form a 32-bit number, high word first:
    0    seconds since the start, modulo 65,536: a heartbeat
    1    last decision: 0 none yet, 1 good, 2 anomalous
    2    seconds since the last verdict, at most 65,535
    3    4   number of the last frame, modulo 2³²
    5    6   its score, IEEE 754 single precision
    7    8   frames inspected, modulo 2³²
    9    10  anomalies
    11   12  frames dropped
"""

import struct
import time
from collections.abc import Callable
from socketserver import StreamRequestHandler
from typing import TYPE_CHECKING, Final

from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.sinks import verdict_only
from uflow_edge.runtime.sinks.bounded_server import BoundedServer
from uflow_edge.runtime.tally import Tally

if TYPE_CHECKING:
    from uflow_edge.runtime.inspection import Inspection
    from uflow_edge.runtime.sources import Frame
    from uflow_edge.runtime.verdict import Verdict

_READ_HOLDING, _READ_INPUT = 3, 4
_ILLEGAL_FUNCTION, _ILLEGAL_ADDRESS, _ILLEGAL_VALUE = 1, 2, 3
_MOST_REGISTERS = 125  # per request
_LARGEST = 3.4e38  # float32
_HEADER = struct.Struct(">HHHB")  # transaction, protocol (0), number of bytes from the unit on, unit
_IDLE_SECONDS = 600


class ModbusSink:
    """Answers PLCs from threads of its own. `put` only stores the verdict, so it needs no buffer."""

    def __init__(self, tally: Callable[[], Tally], *, host: str = "127.0.0.1", port: int = 1502) -> None:
        """Start the server.

        Args:
            tally: returns the pipeline's current counts; called from the server's threads.
            host: address to listen on; by default only this machine can connect. The protocol has no authentication.
            port: port to listen on; 0 for any free one. Modbus' standard port, 502, needs root.

        Raises:
            BadInput: the server cannot listen on this address.
        """
        self._tally = tally
        self._started = time.monotonic()
        self._last: tuple[Verdict, float] | None = None
        try:
            self._server = _ModbusServer(host, port, self.answer)
        except OSError as error:
            raise BadInput(f"Modbus cannot listen on {host}:{port} ({error}); choose another port") from error
        self.port: Final[int] = self._server.port
        self.name: Final = f"modbus {host}:{self.port}"
        self._server.start()

    def put(self, frame: "Frame", inspection: "Inspection") -> None:
        _, slim = verdict_only(frame, inspection, mask=False)
        self._last = slim.verdict, time.monotonic()  # assigned at once, so that no request sees a mixture

    def close(self) -> None:
        """Stop the server. Open connections do not keep the process alive."""
        self._server.close()

    def registers(self) -> list[int]:
        """The values of all registers now, 16 bits each; docs/line.md has their meaning."""
        now, last, tally = time.monotonic(), self._last, self._tally()
        decision, age, frame, score = 0, 0, 0, 0.0
        if last is not None:
            verdict, seen = last
            decision, age = 1 + verdict.anomalous, min(int(now - seen), 0xFFFF)
            frame, score = verdict.frame, min(max(verdict.score, -_LARGEST), _LARGEST)
        wide = (number & 0xFFFFFFFF for number in (tally.inspected, tally.anomalous, tally.dropped))
        heartbeat = int(now - self._started) & 0xFFFF
        return list(
            struct.unpack(">13H", struct.pack(">HHHIfIII", heartbeat, decision, age, frame & 0xFFFFFFFF, score, *wide))
        )

    def answer(self, request: bytes) -> bytes:
        """Function code and data of the response, or of an exception response if the request is invalid."""
        function = request[0]
        if function not in (_READ_HOLDING, _READ_INPUT):
            return bytes([function | 0x80, _ILLEGAL_FUNCTION])
        first, count = struct.unpack(">HH", request[1:]) if len(request) == 5 else (0, 0)
        if not 1 <= count <= _MOST_REGISTERS:
            return bytes([function | 0x80, _ILLEGAL_VALUE])
        values = self.registers()[first : first + count]
        if len(values) < count:
            return bytes([function | 0x80, _ILLEGAL_ADDRESS])
        return struct.pack(f">BB{count}H", function, 2 * count, *values)


class _ModbusServer(BoundedServer):
    def __init__(self, host: str, port: int, answer: Callable[[bytes], bytes]) -> None:
        self.answer = answer
        super().__init__(host, port, _ModbusHandler)


class _ModbusHandler(StreamRequestHandler):
    server: _ModbusServer
    timeout = _IDLE_SECONDS

    def handle(self) -> None:
        """Answer until the client disconnects, is idle for too long, or speaks another protocol."""
        try:
            while len(header := self.rfile.read(_HEADER.size)) == _HEADER.size:
                transaction, protocol, length, unit = _HEADER.unpack(header)
                if protocol != 0 or not 2 <= length <= 254:
                    return
                request = self.rfile.read(length - 1)
                if len(request) < length - 1:
                    return
                response = self.server.answer(request)
                self.wfile.write(_HEADER.pack(transaction, 0, len(response) + 1, unit) + response)
                self.server.note_activity(self.connection)
        except OSError:
            return
