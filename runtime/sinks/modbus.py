"""The last verdict and the counts for a PLC that polls: a read-only Modbus TCP server.

Source: MODBUS Application Protocol V1.1b3, sections 6.3 and 6.4. Written out here, for reading registers is a small
part of the protocol, and its Python libraries rename the parts of their servers every few months.

Registers, to be read as holding (function 3) or as input registers (4), the same under every unit number; two registers
make a 32-bit number, high word first:
    0    seconds since the start, modulo 65,536: the PLC's proof of life
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
from uflow_edge.runtime.line.tally import Tally
from uflow_edge.runtime.sinks import verdict_only
from uflow_edge.runtime.sinks.bounded_server import BoundedServer

if TYPE_CHECKING:
    from uflow_edge.runtime.inspection import Inspection
    from uflow_edge.runtime.sources import Frame
    from uflow_edge.runtime.verdict import Verdict

_READ_HOLDING, _READ_INPUT = 3, 4
_ILLEGAL_FUNCTION, _ILLEGAL_ADDRESS, _ILLEGAL_VALUE = 1, 2, 3
_MOST_REGISTERS = 125  # of one request
_LARGEST = 3.4e38  # of a register pair's float32
_HEADER = struct.Struct(">HHHB")  # transaction, protocol (0), bytes that follow with this one, unit
_IDLE_SECONDS = 600


class ModbusSink:
    """Answers PLCs from threads of its own. `put` only remembers the verdict: it needs no buffer."""

    def __init__(self, tally: Callable[[], Tally], *, host: str = "127.0.0.1", port: int = 1502) -> None:
        """Begin to listen.

        Args:
            tally: the pipeline's counts at this moment; called from the threads that answer.
            host: to listen on; default, for this machine only. The protocol knows no password.
            port: 0 takes a free one; Modbus's own, 502, is for root only.

        Raises:
            BadInput: the address cannot be listened on.
        """
        self._tally = tally
        self._started = time.monotonic()
        self._last: tuple[Verdict, float] | None = None
        try:
            self._server = _Server(host, port, self.answer)
        except OSError as error:
            raise BadInput(f"Modbus cannot listen on {host}:{port} ({error}); choose another port") from error
        self.port: Final[int] = self._server.port
        self.name: Final = f"modbus {host}:{self.port}"
        self._server.start()

    def put(self, frame: "Frame", inspection: "Inspection") -> None:
        """Show this verdict from now on."""
        _, slim = verdict_only(frame, inspection, mask=False)
        self._last = slim.verdict, time.monotonic()  # one assignment: no request sees half of it

    def close(self) -> None:
        """Stop listening. A conversation that goes on does not keep the process alive."""
        self._server.close()

    def registers(self) -> list[int]:
        """All registers at this moment."""
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
        """Function code and data of the response; an exception response where the request cannot be fulfilled."""
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


class _Server(BoundedServer):
    def __init__(self, host: str, port: int, answer: Callable[[bytes], bytes]) -> None:
        self.answer = answer
        super().__init__(host, port, _Conversation)


class _Conversation(StreamRequestHandler):
    server: _Server
    timeout = _IDLE_SECONDS

    def handle(self) -> None:
        """Answer until the other side hangs up, falls silent, or talks something else."""
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
