"""Real processes that several test modules of the runtime start: a broker, and `uflow-infer` itself."""

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from uflow_edge.runtime.sinks.mqtt import Broker

DEADLINE = 60.0
MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


class Mosquitto:
    """A broker that can be killed and started again; it keeps sessions and retained messages on disk."""

    def __init__(self, folder: Path, *options: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._configuration = folder / "mosquitto.conf"
        lines = [
            f"listener {self.port} 127.0.0.1",
            f"user {getpass.getuser()}",
            "persistence true",
            f"persistence_location {folder}/",
            "autosave_on_changes true",
            "autosave_interval 1",
            "max_inflight_messages 0",
            *(options or ["allow_anonymous true"]),
        ]
        self._configuration.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it accepts connections."""
        command = [str(MOSQUITTO), "-c", str(self._configuration)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + DEADLINE
        while True:
            assert self._process.poll() is None, "mosquitto does not start"
            assert time.monotonic() < end, "mosquitto does not answer"
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.01)
            else:
                return

    def kill(self) -> None:
        """As the machine room's power cut does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def address(self) -> Broker:
        return Broker("127.0.0.1", self.port)


@pytest.fixture
def brokers(tmp_path) -> Iterator[Callable[..., Mosquitto]]:
    """Makes brokers, not yet started, and stops them in the end."""
    if MOSQUITTO is None:
        if os.environ.get("UFLOW_EDGE_REQUIRE_SERVICES"):
            pytest.fail("mosquitto is required, but not installed")
        pytest.skip("mosquitto is not installed")
    made = []

    def make(*options: str) -> Mosquitto:
        made.append(Mosquitto(tmp_path, *options))
        return made[-1]

    yield make
    for broker in made:
        broker.kill()


@pytest.fixture
def broker(brokers) -> Mosquitto:
    broker = brokers()
    broker.start()
    return broker


class Subscriber:
    """Another program that listens to all topics, and whose session the broker keeps while they are apart."""

    def __init__(self, port: int, name: str) -> None:
        self.received: list[tuple[str, bytes, bool]] = []
        self._changed = threading.Condition()
        self._subscribed = False
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv5)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_subscribe = lambda *_: self._note(subscribed=True)
        self._client.on_message = lambda client, data, message: self._note(message)
        session = Properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = 3600
        self._client.connect("127.0.0.1", port, clean_start=False, properties=session)
        self._client.loop_start()
        self._wait(lambda: self._subscribed)

    def _note(self, message: paho.MQTTMessage | None = None, *, subscribed: bool = False) -> None:
        with self._changed:
            self._subscribed |= subscribed
            if message is not None:
                self.received.append((message.topic, bytes(message.payload), message.retain))
            self._changed.notify_all()

    def _wait(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, DEADLINE), self.received[-5:]

    def wait_for(self, *expected: tuple[str, bytes]) -> None:
        """Until these have arrived on the status topic last, in this order."""
        self._wait(lambda: tuple(one[:2] for one in self.received if "status" in one[0])[-len(expected) :] == expected)

    def frames(self, topic: str = "uflow/verdict") -> list[int]:
        """Numbers of the verdicts, each at its first arrival: QoS 1 allows for more than one."""
        return list(dict.fromkeys(json.loads(payload)["frame"] for name, payload, _ in self.received if name == topic))

    def wait_for_frames(self, count: int) -> None:
        self._wait(lambda: len(self.frames()) >= count)

    def wait_for_topic(self, topic: str) -> bytes:
        self._wait(lambda: any(name == topic for name, _, _ in self.received))
        return next(payload for name, payload, _ in self.received if name == topic)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def subscriber() -> Callable[..., AbstractContextManager[Subscriber]]:
    """Makes subscribers that go with their ``with`` block."""

    @contextmanager
    def make(broker: Mosquitto, name: str = "listener") -> Iterator[Subscriber]:
        with closing(Subscriber(broker.port, name)) as listener:
            yield listener

    return make


class Run:
    """`uflow-infer` in a process of its own, with all that it says."""

    def __init__(self, said: Path, command: list[str]) -> None:
        self._said = said
        with said.open("wb") as file:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)

    @property
    def said(self) -> str:
        return self._said.read_text()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Until this is true of the run, which must not end before."""
        end = time.monotonic() + DEADLINE
        while not condition():
            assert self.process.poll() is None, f"it ended: {self.said}"
            assert time.monotonic() < end, f"nothing more happens: {self.said}"
            time.sleep(0.01)

    def wait_for(self, text: str, times: int = 1) -> None:
        """Until it has said this so often."""
        self.wait_until(lambda: self.said.count(text) >= times)

    def end(self, number: int | None = None) -> int:
        """The exit code, once it has ended: because of this signal, or by itself."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(DEADLINE)


@pytest.fixture
def start_infer(exported: Path, tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Starts `uflow-infer` on the bundle of the session, and kills in the end what still runs."""
    runs: list[Run] = []

    def start(*arguments: object, prefix: tuple[str, ...] = ()) -> Run:
        code = "from uflow_edge.runtime.command import main; main()"
        command = [*prefix, sys.executable, "-c", code, "--bundle", str(exported), *map(str, arguments)]
        runs.append(Run(tmp_path / f"said-{len(runs)}.txt", command))
        return runs[-1]

    yield start
    for run in runs:
        run.process.send_signal(signal.SIGKILL)
        run.process.wait()
