"""A real MQTT broker, and a program that listens to it."""

import getpass
import json
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from extras import extra
from uflow_edge.runtime.sinks.mqtt import Broker
from waiting import DEADLINE, wait_until

paho = extra("paho.mqtt.client")


class Mosquitto:
    """A broker that can be killed and started again; it keeps sessions and retained messages on disk."""

    def __init__(self, executable: str, folder: Path, *options: str) -> None:
        self._executable = executable
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
        command = [self._executable, "-c", str(self._configuration)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._answers, lambda: "mosquitto does not answer", self._process)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """As the machine room's power cut does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def address(self) -> Broker:
        return Broker("127.0.0.1", self.port)


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
        session = extra("paho.mqtt.properties").Properties(extra("paho.mqtt.packettypes").PacketTypes.CONNECT)
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
