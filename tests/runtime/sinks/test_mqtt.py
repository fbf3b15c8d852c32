"""Verdicts through a real mosquitto, on good days and on bad ones."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest

from extras import needs
from factories import result
from uflow_edge.runtime.backoff import Backoff
from uflow_edge.runtime.drift import DriftState
from uflow_edge.runtime.errors import BadInput, MissingDependency, UsageError
from uflow_edge.runtime.infer.command import main
from uflow_edge.runtime.sinks.buffered import BufferedSink, BufferOptions
from uflow_edge.runtime.sinks.mqtt import Broker, MqttSink
from waiting import DEADLINE, wait_until

CHANNELS = (4,)
FAST = BufferOptions(backoff=Backoff(0.01, 0.1))


def unexpected(error: Exception) -> None:
    pytest.fail(f"unexpected failure: {error}")


def test_verdicts_arrive_in_order_without_mask_and_status_is_retained(broker, subscriber) -> None:
    with subscriber(broker) as listener:
        sink = MqttSink(broker.address)
        for index in range(5):
            sink.put(*result(index))
        listener.wait_for_frames(5)
        assert listener.frames() == [0, 1, 2, 3, 4]
        message = json.loads(listener.wait_for_topic("uflow/verdict"))
        expected = result(0)[1].verdict.as_json()
        assert set(expected) - set(message) == {"mask"}
        assert (message["score"], message["anomalous"], message["size"]) == (-3.25, False, [40, 400])
        with subscriber(broker, "latecomer") as latecomer:
            latecomer.wait_for(("uflow/status", b"online"))
            assert latecomer.received == [("uflow/status", b"online", True)]  # retained, and nothing else is
        sink.close()
        listener.wait_for(("uflow/status", b"online"), ("uflow/status", b"offline"))
    with subscriber(broker, "next day") as late:
        late.wait_for(("uflow/status", b"offline"))


def drifting(camera: str, status: Literal["ok", "warning"], shift: float = 0.1) -> DriftState:
    return DriftState(status, camera, "gain_0", shift, 1.0, 1.5e9 if status == "warning" else None)


def retained_drift(broker, subscriber, sink: MqttSink, index: int) -> dict[str, object] | None:
    """What a newcomer is told of it before the next verdict."""
    with subscriber(broker, f"newcomer {index}") as newcomer:
        sink.put(*result(index))
        newcomer.wait_for_frames(1)
        told = [json.loads(payload) for topic, payload, kept in newcomer.received if topic == "uflow/drift" and kept]
    return told[0] if told else None


def test_drift_is_retained_and_told_when_it_changes(broker, subscriber) -> None:
    with subscriber(broker) as listener, closing(MqttSink(broker.address)) as sink:
        assert retained_drift(broker, subscriber, sink, 0) is None  # without a calibration, nobody watches
        for index, shift in enumerate((0.1, 0.2, 0.3), start=1):
            sink.put(*result(index, drift=drifting("left", "ok", shift)))
        sink.put(*result(4, drift=drifting("right", "ok")))
        sink.put(*result(5, drift=drifting("left", "warning", -1.2)))
        listener.wait_for_frames(6)
        told = [json.loads(payload) for topic, payload, _ in listener.received if topic == "uflow/drift" and payload]
        assert [(one["status"], sorted(one["cameras"])) for one in told] == [
            ("ok", ["left"]),
            ("ok", ["left", "right"]),
            ("warning", ["left", "right"]),
        ]
        assert told[-1]["cameras"]["left"] == drifting("left", "warning", -1.2).as_json()
        assert retained_drift(broker, subscriber, sink, 6) == told[-1]
        sink.put(*result(7, drift=drifting("left", "ok")))
        after = retained_drift(broker, subscriber, sink, 8)
        assert after is not None and after["status"] == "ok"


def test_a_broker_that_forgets_is_told_of_drift_again(broker, subscriber) -> None:
    with closing(BufferedSink(MqttSink(broker.address), unexpected, options=FAST)) as sink:
        with subscriber(broker) as listener:
            sink.put(*result(0, drift=drifting("left", "warning", 2.0)))
            listener.wait_for_frames(1)
        broker.kill()
        broker.start()
        with subscriber(broker, "after") as listener:
            assert json.loads(listener.wait_for_topic("uflow/drift"))["status"] == "warning"


def test_drift_of_the_run_before_is_taken_away(broker, subscriber) -> None:
    with closing(MqttSink(broker.address)) as sink:
        sink.put(*result(0, drift=drifting("left", "warning", 2.0)))
    with closing(MqttSink(broker.address)) as sink:
        sink.put(*result(0))  # returns once it is connected
        assert retained_drift(broker, subscriber, sink, 1) is None


def test_a_broker_killed_and_restarted_loses_nothing(broker, subscriber, logged: list[str]) -> None:
    with subscriber(broker) as listener:
        sink = BufferedSink(MqttSink(broker.address), unexpected, options=FAST)
        for index in range(100):
            sink.put(*result(index))
        listener.wait_for_frames(30)
        broker.kill()  # in the middle of it
        for index in range(100, 250):
            sink.put(*result(index))
        wait_until(lambda: bool(logged))
        assert sink.waiting >= 150
        broker.start()
        for index in range(250, 300):
            sink.put(*result(index))
        listener.wait_for_frames(300)
        assert listener.frames() == list(range(300))
        with subscriber(broker, "latecomer") as latecomer:
            latecomer.wait_for(("uflow/status", b"online"))
        sink.close(DEADLINE)
        listener.wait_for(("uflow/status", b"offline"))
    assert (sink.undelivered, sink.waiting) == (0, 0)
    assert f"mqtt://127.0.0.1:{broker.port} is down" in logged[0]
    assert logged[1].endswith("is back")


def test_a_broker_away_for_too_long_gets_the_newest(brokers, subscriber) -> None:
    broker = brokers()
    broker.start()
    with subscriber(broker) as listener:
        broker.kill()
        options = BufferOptions(results=20, backoff=Backoff(0.01, 0.1))
        sink = BufferedSink(MqttSink(broker.address), unexpected, options=options)
        for index in range(100):
            sink.put(*result(index))
        broker.start()
        listener.wait_for_frames(20)
        sink.close(DEADLINE)
        assert listener.frames()[-20:] == list(range(80, 100))
        assert sink.undelivered + len(listener.frames()) == 100


def test_a_verdict_under_way_is_not_sent_twice(broker, monkeypatch, subscriber) -> None:
    """The confirmation comes too late for the first attempt and is there for the second."""
    with subscriber(broker) as listener, closing(MqttSink(broker.address)) as sink:
        one = result(0)
        sink.put(*result(1))
        monkeypatch.setattr("uflow_edge.runtime.sinks.mqtt._SECONDS_TO_CONFIRM", 0.0)
        with pytest.raises(OSError, match="not confirmed"):
            sink.put(*one)
        monkeypatch.undo()
        sink.put(*one)
        sink.put(*result(2))
        listener.wait_for_frames(3)
        verdicts = [json.loads(payload)["frame"] for topic, payload, _ in listener.received if topic == "uflow/verdict"]
    assert verdicts == [1, 0, 2]


_PUBLISH = """
import sys; sys.path.insert(0, sys.argv[1])
from factories import result
from uflow_edge.runtime.sinks.mqtt import Broker, MqttSink
sink = MqttSink(Broker("127.0.0.1", int(sys.argv[2])), prefix="hall/{line}")
sink.put(*result(0))
print("published", flush=True)
sys.stdin.read()
"""


@contextmanager
def publisher(broker) -> Iterator["subprocess.Popen[str]"]:
    """A process that has published one verdict and then stays connected."""
    command = [sys.executable, "-c", _PUBLISH, str(Path(__file__).parents[2]), str(broker.port)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "published\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_last_will_says_offline_when_the_process_is_killed(broker, subscriber) -> None:
    with subscriber(broker) as listener, publisher(broker) as process:
        listener.wait_for(("hall/{line}/status", b"online"))
        process.send_signal(signal.SIGKILL)
        listener.wait_for(("hall/{line}/status", b"online"), ("hall/{line}/status", b"offline"))
        with subscriber(broker, "latecomer") as latecomer:
            latecomer.wait_for(("hall/{line}/status", b"offline"))
            assert latecomer.received[0][2]


def test_the_will_of_a_process_that_hung_does_not_outlive_its_successor(broker, subscriber) -> None:
    with subscriber(broker) as listener, publisher(broker) as process:
        process.send_signal(signal.SIGSTOP)
        successor = MqttSink(broker.address, prefix="hall/{line}")
        successor.put(*result(1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        successor.put(*result(2))
        listener.wait_for_topic("hall/{line}/verdict")
        with subscriber(broker, "latecomer") as latecomer:
            latecomer.wait_for(("hall/{line}/status", b"online"))
        successor.close()
        listener.wait_for(("hall/{line}/status", b"online"), ("hall/{line}/status", b"offline"))


def test_started_before_the_broker(brokers, subscriber) -> None:
    broker = brokers()
    sink = BufferedSink(MqttSink(broker.address), unexpected, options=FAST)
    sink.put(*result(0))
    broker.start()
    with subscriber(broker) as listener:
        listener.wait_for(("uflow/status", b"online"))
        sink.put(*result(1))
        sink.close(DEADLINE)
        listener.wait_for(("uflow/status", b"offline"))
        assert 1 in listener.frames()
    assert sink.undelivered == 0


@needs("paho")
def test_no_broker_at_all_is_an_os_error_that_says_why(monkeypatch) -> None:
    monkeypatch.setattr("uflow_edge.runtime.sinks.mqtt._SECONDS_TO_CONNECT", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # bound, but nobody listens
        broker = Broker("127.0.0.1", silent.getsockname()[1])
        with closing(MqttSink(broker)) as sink, pytest.raises(ConnectionError, match="refused"):
            sink.put(*result(0))


def test_small_pictures_of_anomalies(broker, subscriber) -> None:
    with subscriber(broker) as listener, closing(MqttSink(broker.address, picture_channels=CHANNELS)) as sink:
        for index, anomalous in enumerate([False, True, False]):
            frame, inspection = sink.needed(*result(index, 7.5 if anomalous else -3.25, size=(400, 800)))
            assert (frame.image_bgr.size > 0) == anomalous  # what the picture is drawn from may wait, no more
            sink.put(frame, inspection)
        picture = cv2.imdecode(np.frombuffer(listener.wait_for_topic("uflow/anomaly"), np.uint8), cv2.IMREAD_COLOR)
        listener.wait_for_frames(3)
        assert picture.shape == (266, 480, 3)  # 800 × (400 + 44), made smaller
        assert [topic for topic, _, _ in listener.received].count("uflow/anomaly") == 1


def test_user_and_password(brokers, tmp_path) -> None:
    passwords = tmp_path / "passwords"
    if shutil.which("mosquitto_passwd") is None:
        pytest.skip("mosquitto_passwd is not installed")
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "line", "secret"], check=True, capture_output=True)
    broker = brokers("allow_anonymous false", f"password_file {passwords}")
    broker.start()
    right = Broker.from_url(f"mqtt://line:secret@127.0.0.1:{broker.port}")
    with closing(MqttSink(right)) as sink:
        sink.put(*result(0))
    failures: list[Exception] = []
    failed = threading.Event()
    wrong = Broker("127.0.0.1", broker.port, user="line", password="guess")
    sink = BufferedSink(MqttSink(wrong), lambda error: (failures.append(error), failed.set()))
    sink.put(*result(0))
    assert failed.wait(DEADLINE)
    sink.close()
    assert isinstance(failures[0], BadInput)
    assert "refuses this client: Not authorized" in str(failures[0])
    assert "secret" not in repr(right)


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(certificate), "-days", "30", "-subj", f"/CN={name}"]
    subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    return certificate, key


@pytest.mark.filterwarnings("ignore:unclosed <ssl:ResourceWarning")  # paho leaves it to the garbage collector
def test_tls(brokers, tmp_path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    certificate, key = make_certificate(tmp_path, "broker")
    stranger, _ = make_certificate(tmp_path, "stranger")
    broker = brokers("allow_anonymous true", f"certfile {certificate}", f"keyfile {key}")
    broker.start()
    with closing(MqttSink(Broker("127.0.0.1", broker.port, tls=True, authorities=certificate))) as sink:
        sink.put(*result(0))
    untrusted = Broker("127.0.0.1", broker.port, tls=True, authorities=stranger)
    with closing(MqttSink(untrusted)) as sink, pytest.raises(ConnectionError, match="certificate verify failed"):
        sink.put(*result(0))


@needs("paho")
def test_certificates_and_keys_that_cannot_be_used(tmp_path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    certificate, key = make_certificate(tmp_path, "line")
    _, other_key = make_certificate(tmp_path, "other")
    locked = tmp_path / "locked.key"
    command = ["openssl", "pkey", "-in", str(key), "-out", str(locked), "-aes128", "-passout", "pass:secret"]
    subprocess.run(command, check=True, capture_output=True)
    (tmp_path / "text.pem").write_text("no certificate")
    for files, message in (
        ({"authorities": tmp_path / "absent.pem"}, "absent.pem: no such file"),
        ({"authorities": tmp_path / "text.pem"}, "text.pem cannot be used"),
        ({"certificate": certificate}, "line.pem cannot be used"),  # its file has no key
        ({"certificate": certificate, "key": other_key}, "line.pem, .*other.key cannot be used"),
        ({"certificate": certificate, "key": locked}, "a key that needs no password"),  # and nobody is asked for one
    ):
        with pytest.raises(BadInput, match=message):
            MqttSink(Broker("broker", tls=True, **files))


def test_a_broker_that_asks_for_a_certificate(brokers, start_infer, tmp_path) -> None:
    """Through the command line; a summary that mentions no lost results means that the broker confirmed them all."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    certificate, key = make_certificate(tmp_path, "broker")
    line_certificate, line_key = make_certificate(tmp_path, "line")
    broker = brokers(
        *("allow_anonymous true", f"certfile {certificate}", f"keyfile {key}"),
        *("require_certificate true", f"cafile {line_certificate}"),
    )
    broker.start()
    run = start_infer(
        *("--camera", "synthetic:96x96@50", "--policy", "every", "--max-frames", 5, "--quiet"),
        *("--mqtt", f"mqtts://127.0.0.1:{broker.port}", "--mqtt-ca", certificate),
        *("--mqtt-cert", line_certificate, "--mqtt-key", line_key),
    )
    assert run.end() == 0
    assert "5 inspected" in run.said
    assert "not delivered" not in run.said
    stranger = Broker("127.0.0.1", broker.port, tls=True, authorities=certificate)
    with closing(MqttSink(stranger)) as sink, pytest.raises(ConnectionError):
        sink.put(*result(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(["--mqtt-ca", "ca.pem"], "--mqtt-ca needs --mqtt", id="authorities without a broker"),
        pytest.param(["--mqtt-cert", "line.pem"], "--mqtt-cert needs --mqtt", id="certificate without a broker"),
        pytest.param(
            ["--mqtt", "mqtts://broker", "--mqtt-key", "line.key"], "--mqtt-key needs --mqtt-cert", id="key alone"
        ),
        pytest.param(
            ["--mqtt", "mqtt://broker", "--mqtt-ca", "ca.pem"], "expected mqtts://broker", id="authorities without TLS"
        ),
    ],
)
def test_certificates_where_they_would_do_nothing(exported, exit_code, capsys, options, message) -> None:
    assert exit_code(main, "--bundle", exported, "--camera", "synthetic:96x96@50", *options) == 2
    assert message in capsys.readouterr().err


def test_a_key_without_its_certificate() -> None:
    with pytest.raises(UsageError, match=r"the key line\.key needs its certificate"):
        Broker("broker", tls=True, key=Path("line.key"))


def test_addresses() -> None:
    assert Broker.from_url("mqtt://broker") == Broker("broker", 1883)
    assert Broker.from_url("mqtts://line%40a:p%3Aq@10.0.0.7/") == Broker("10.0.0.7", 8883, "line@a", "p:q", tls=True)
    assert str(Broker.from_url("mqtts://me:secret@broker:1")) == "mqtts://broker:1"
    for url in (
        "broker",
        "http://broker",
        "mqtt://",
        "mqtt://broker:port",
        "mqtt://broker/topic",
        "mqtt://broker:99999",
    ):
        with pytest.raises(UsageError, match="expected mqtt://host"):
            Broker.from_url(url)


@pytest.mark.parametrize("prefix", ["", "/", "a/#", "+", "/a", "a/", "$SYS"])
def test_prefixes_that_are_no_topics(prefix: str) -> None:
    with pytest.raises(UsageError, match="topic prefix"):
        MqttSink(Broker("broker"), prefix=prefix)


def test_without_the_package_one_line_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    with pytest.raises(MissingDependency, match=r"pip install '.\[mqtt\]'"):
        MqttSink(Broker("broker"))
