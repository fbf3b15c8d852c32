"""A PLC reads what happened, and nothing it sends does harm."""

import signal
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extras import extra
from factories import result
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.sinks.modbus import ModbusSink
from uflow_edge.runtime.tally import Tally

TALLY = Tally(captured=100_000, inspected=70_000, dropped=30_000, anomalous=65_537)


@pytest.fixture(scope="module")
def sink() -> Iterator[ModbusSink]:
    sink = ModbusSink(lambda: TALLY, port=0)
    yield sink
    sink.close()


def ask(sink: ModbusSink, request: bytes) -> bytes:
    """What comes back over the wire until the server hangs up or we do."""
    with socket.create_connection(("127.0.0.1", sink.port), timeout=30) as plc:
        plc.sendall(request)
        plc.shutdown(socket.SHUT_WR)
        received = b""
        while part := plc.recv(4096):
            received += part
        return received


def test_the_specifications_frames_to_the_byte(sink) -> None:
    """Application protocol V1.1b3, sections 6.3 and 6.4; messaging on TCP/IP V1.0b, section 3.1.3."""
    sink.put(*result(70_001, 12.5))
    assert ask(sink, bytes.fromhex("1501 0000 0006 ff 03 0003 0004")) == bytes.fromhex(
        "1501 0000 000b ff 03 08 0001 1171 4148 0000"
    )
    sink.put(*result(70_002, -12.5))
    assert ask(sink, bytes.fromhex("0004 0000 0006 01 04 0005 0002")) == bytes.fromhex(
        "0004 0000 0007 01 04 04 c148 0000"
    )


@pytest.mark.parametrize(("score", "written"), [(1e300, 3.4e38), (-1e300, -3.4e38), (1e36, 1e36)])
def test_a_score_beyond_float32_is_written_as_its_largest(sink, score: float, written: float) -> None:
    sink.put(*result(1, score))
    registers = sink.registers()
    assert registers[1] == 1 + (score > 0)
    assert struct.unpack(">f", struct.pack(">2H", *registers[5:7]))[0] == pytest.approx(written)


def test_two_requests_on_one_connection(sink) -> None:
    sink.put(*result(5, 1.0))
    request = bytes.fromhex("0001 0000 0006 01 04 0007 0006")
    data = bytes.fromhex("0c 0001 1170 0001 0001 0000 7530")  # 70,000, 65,537 and 30,000
    answer = bytes.fromhex("0001 0000 000f 01 04") + data
    assert ask(sink, request * 2) == answer * 2


def test_before_the_first_verdict() -> None:
    sink = ModbusSink(Tally, port=0)
    assert sink.registers()[1:] == [0] * 12
    sink.close()


@pytest.mark.parametrize(
    ("request_data", "response"),
    [
        pytest.param("06 0000 0001", "86 01", id="writing"),
        pytest.param("2b 0e 01 00", "ab 01", id="device identification"),
        pytest.param("03 000d 0001", "83 02", id="past the end"),
        pytest.param("03 000c 0002", "83 02", id="across the end"),
        pytest.param("01 0000 0001", "81 01", id="coils"),
        pytest.param("03 0000 0000", "83 03", id="no registers"),
        pytest.param("03 0000 007e", "83 03", id="126 registers"),
        pytest.param("03 0000", "83 03", id="cut short"),
    ],
)
def test_requests_for_what_is_not_there(sink, request_data: str, response: str) -> None:
    data, expected = bytes.fromhex(request_data), bytes.fromhex(response)
    received = ask(sink, struct.pack(">HHHB", 9, 0, 1 + len(data), 1) + data)
    assert received == struct.pack(">HHHB", 9, 0, 3, 1) + expected


@settings(deadline=None, max_examples=50)
@given(st.binary(min_size=1, max_size=600))
def test_noise_does_no_harm(sink, noise: bytes) -> None:
    ask(sink, noise)
    assert ask(sink, bytes.fromhex("0001 0000 0006 01 03 0009 0002")).endswith(bytes.fromhex("04 0001 0001"))


def test_a_library_reads_the_same(sink) -> None:
    client_module = extra("pymodbus.client")
    sink.put(*result(123_456, -777.25))
    client = client_module.ModbusTcpClient("127.0.0.1", port=sink.port)
    try:
        assert client.connect()
        registers = client.read_holding_registers(0, count=13).registers
        assert client.read_input_registers(3, count=2).registers == registers[3:5]
        assert registers[1] == 1
        assert struct.unpack(">If", struct.pack(">4H", *registers[3:7])) == (123_456, -777.25)
        assert client.read_holding_registers(13, count=1).isError()
        assert client.write_register(0, 1).isError()
    finally:
        client.close()


def test_an_address_that_is_taken(sink) -> None:
    with pytest.raises(BadInput, match=f"127.0.0.1:{sink.port} .*choose another port"):
        ModbusSink(Tally, port=sink.port)


def test_a_plc_reads_a_run(start_infer) -> None:
    run = start_infer("--camera", "synthetic:96x96@50", "--quiet", "--modbus", 0)
    run.wait_for("Modbus TCP: 127.0.0.1:")
    port = int(run.said.split("Modbus TCP: 127.0.0.1:")[1].split()[0])
    request = bytes.fromhex("0001 0000 0006 01 04 0000 000d")

    def poll(plc: socket.socket) -> tuple[int, ...]:
        plc.sendall(request)
        answer = plc.recv(9 + 26, socket.MSG_WAITALL)
        return struct.unpack(">HHHIfIII", answer[9:])

    with socket.create_connection(("127.0.0.1", port), timeout=30) as plc:
        run.wait_until(lambda: poll(plc)[5] >= 10)
        _, decision, age, frame, score, inspected, anomalies, _ = poll(plc)
        assert decision == 1 + (score > 0)
        assert age < 30
        assert frame + 1 >= inspected >= 10
        assert anomalies <= inspected
        assert run.end(signal.SIGTERM) == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=30)
