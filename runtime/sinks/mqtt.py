"""Verdicts to an MQTT 5 broker (OASIS MQTT 5.0), each confirmed by it before the next.

Topics, below a prefix:
    status   "online" or "offline", retained; the broker itself says "offline" when we vanish (last will).
    verdict  every verdict as JSON, without the mask; QoS 1.
    anomaly  on request, a small JPEG of every anomaly; QoS 0, for a picture is a courtesy.
"""

import json
import socket
import sys
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

import numpy as np

from uflow_edge.runtime.errors import BadInput, UsageError, require
from uflow_edge.runtime.sinks import verdict_only

if TYPE_CHECKING:
    from paho.mqtt.client import Client
    from paho.mqtt.reasoncodes import ReasonCode

    from uflow_edge.runtime.inspection import Inspection
    from uflow_edge.runtime.sources import Frame
    from uflow_edge.runtime.verdict import Verdict

ONLINE, OFFLINE = b"online", b"offline"
_KEEP_ALIVE = 15  # seconds; a device without power is seen to be offline after 1.5 times that
_SECONDS_TO_CONNECT, _SECONDS_TO_CONFIRM, _SECONDS_TO_SAY_GOODBYE = 1.0, 10.0, 1.0
_LONGEST_RECONNECT_DELAY = 5  # seconds
_HOPELESS = {0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C}  # protocol, client name, password, authorisation, ban, method
_NO_ANSWER = "no answer yet"
_PICTURE_WIDTH = 480


@dataclass(frozen=True, slots=True)
class Broker:
    """Where a broker is and how it lets us in.

    Attributes:
        host: name or address.
        port: TCP port.
        user, password: if it asks for them.
        tls: encrypt, and verify the broker's certificate.
        authorities: PEM file of the authorities to trust; default, those of the system.
        certificate, key: PEM files, if the broker asks for a client certificate; the key may be in the certificate's.

    Raises:
        UsageError: on construction, certificates without TLS, or a key without a certificate.
    """

    host: str
    port: int = 1883
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    authorities: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if not self.tls and (self.authorities or self.certificate or self.key):
            raise UsageError(f"broker {self}: certificates and keys are for TLS; expected mqtts://{self.host}")
        if self.key and not self.certificate:
            raise UsageError(f"broker {self}: the key {self.key} needs its certificate")

    @classmethod
    def from_url(cls, url: str) -> "Broker":
        """Read ``mqtt://[user[:password]@]host[:port]`` (port 1883), or ``mqtts://…`` for TLS (port 8883).

        Raises:
            UsageError: not such a URL.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or parts.scheme not in ("mqtt", "mqtts") or parts.path.strip("/") or parts.query:
            raise UsageError(f"broker {url!r}: expected mqtt://host, mqtt://user@host:1883 or mqtts://host")
        tls = parts.scheme == "mqtts"
        user, password = (None if text is None else unquote(text) for text in (parts.username, parts.password))
        return cls(host, port or (8883 if tls else 1883), user, password, tls)

    def __str__(self) -> str:
        return f"mqtt{'s' if self.tls else ''}://{self.host}:{self.port}"


class MqttSink:
    """Publishes verdicts. Connects, also again, by itself; while there is no connection `put` raises OSError."""

    def __init__(
        self,
        broker: Broker,
        *,
        prefix: str = "uflow",
        client_id: str | None = None,
        picture_channels: tuple[int, ...] | None = None,
    ) -> None:
        """Begin to connect, and return at once.

        Args:
            broker: to publish to.
            prefix: of the topics, one for each process; may contain ``/``.
            client_id: default, made from this machine's name and the prefix. It is the same after a restart on purpose:
                the broker then ends the session of the process before, whose last will cannot follow our "online".
            picture_channels: of the latents, per scale, to publish pictures of anomalies; default, no pictures.

        Raises:
            UsageError: a prefix that is no topic.
            BadInput: a certificate or key that cannot be used.
            MissingDependency: paho-mqtt is not installed.
        """
        if not prefix.strip("/") or prefix != prefix.strip("/") or set(prefix) & set("+#$\0"):
            raise UsageError(f"topic prefix {prefix!r}: expected something like uflow or hall-2/line-1, without + # $")
        self.name: Final = str(broker)
        self._prefix = prefix
        self._picture_channels = picture_channels
        self._unconfirmed: tuple[Inspection, int] | None = None  # the message under way
        self._changed = threading.Condition()  # guards what is below, which the client's thread changes
        self._connected = False
        self._trouble = _NO_ANSWER
        self._welcomed = False
        self._hopeless = False
        self._confirmed: dict[int, ReasonCode] = {}
        self._client = self._new_client(broker, client_id or f"uflow-edge-{socket.gethostname()}-{prefix}")
        self._client.connect_async(broker.host, broker.port, keepalive=_KEEP_ALIVE)
        self._client.loop_start()

    def needed(self, frame: "Frame", inspection: "Inspection") -> "tuple[Frame, Inspection]":
        """The verdict without its mask; everything where a picture is to be drawn."""
        return (frame, inspection) if self._pictured(inspection) else verdict_only(frame, inspection, mask=False)

    def put(self, frame: "Frame", inspection: "Inspection") -> None:
        """Publish one verdict, and return when the broker has confirmed it.

        Raises:
            OSError: it has not: there is no connection, or it was lost, or the broker declined. Called again with the
                same inspection, it waits for the message under way instead of sending another.
            BadInput: the broker has refused this client from the start.
        """
        self._wait_for_connection()
        if self._unconfirmed is None or self._unconfirmed[0] is not inspection:
            self._unconfirmed = inspection, self._publish("verdict", verdict_message(inspection.verdict))
        reason = self._confirmation(self._unconfirmed[1], _SECONDS_TO_CONFIRM)
        if reason is None:
            raise ConnectionError("a verdict was not confirmed")
        self._unconfirmed = None
        if reason.is_failure:
            raise ConnectionError(f"a verdict was declined: {reason}")
        if self._pictured(inspection):
            self._client.publish(self._topic("anomaly"), self._picture(frame, inspection), qos=0)

    def close(self) -> None:
        """Say that we go offline, and disconnect."""
        if self._connected:
            self._confirmation(self._publish("status", OFFLINE, retain=True), _SECONDS_TO_SAY_GOODBYE)
        self._client.disconnect()
        self._client.loop_stop()

    def _wait_for_connection(self) -> None:
        """Return when there is one. Raises OSError, BadInput as `put` does."""
        with self._changed:
            self._changed.wait_for(lambda: self._connected or self._hopeless, _SECONDS_TO_CONNECT)
            if self._hopeless:
                raise BadInput(f"{self.name} refuses this client: {self._trouble}")
            if not self._connected:
                raise ConnectionError(self._trouble)

    def _publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Send with QoS 1; the message's identifier."""
        with self._changed:
            self._confirmed.clear()
        return self._client.publish(self._topic(topic), payload, qos=1, retain=retain).mid

    def _topic(self, name: str) -> str:
        return f"{self._prefix}/{name}"

    def _confirmation(self, message: int, seconds: float) -> "ReasonCode | None":
        with self._changed:
            self._changed.wait_for(lambda: message in self._confirmed or not self._connected, seconds)
            return self._confirmed.get(message)

    def _pictured(self, inspection: "Inspection") -> bool:
        return self._picture_channels is not None and inspection.verdict.anomalous

    def _picture(self, frame: "Frame", inspection: "Inspection") -> bytes:
        """JPEG, at most 480 pixels wide."""
        import cv2

        from uflow_edge.runtime.overlay import draw_overlay
        from uflow_edge.runtime.sinks.overlays import encode

        picture = draw_overlay(frame.image_bgr, inspection, self._picture_channels or ())
        height, width = picture.shape[:2]
        if width > _PICTURE_WIDTH:
            size = (_PICTURE_WIDTH, max(1, round(height * _PICTURE_WIDTH / width)))
            picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
        return encode(picture, "jpeg")

    def _new_client(self, broker: Broker, client_id: str) -> "Client":
        paho = require("paho.mqtt.client", "mqtt")
        client: Client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTProtocolVersion.MQTTv5
        )
        client.username_pw_set(broker.user, broker.password)
        if broker.tls:
            _encrypt(client, broker)
        client.will_set(self._topic("status"), OFFLINE, qos=1, retain=True)
        client.reconnect_delay_set(1, _LONGEST_RECONNECT_DELAY)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        return client

    def _on_connect(self, client: "Client", _data: Any, _flags: Any, reason: "ReasonCode", _properties: Any) -> None:
        if not reason.is_failure:
            client.publish(self._topic("status"), ONLINE, qos=1, retain=True)
        with self._changed:
            # Refused from the start is a mistake to mend; refused later, the line must not stop for it.
            self._hopeless = not self._welcomed and reason.value in _HOPELESS
            self._connected = not reason.is_failure
            self._welcomed |= self._connected
            self._trouble = str(reason)
            self._changed.notify_all()

    def _on_connect_fail(self, _client: "Client", _data: Any) -> None:
        with self._changed:
            self._trouble = str(sys.exc_info()[1] or _NO_ANSWER)  # called while the error is being handled

    def _on_disconnect(
        self, _client: "Client", _data: Any, _flags: Any, reason: "ReasonCode", _properties: Any
    ) -> None:
        with self._changed:
            if self._connected:  # otherwise it is known already why there is no connection
                self._trouble = f"connection lost: {reason}"
            self._connected = False
            self._changed.notify_all()

    def _on_publish(self, _client: "Client", _data: Any, message: int, reason: "ReasonCode", _properties: Any) -> None:
        with self._changed:
            self._confirmed[message] = reason
            self._changed.notify_all()


def verdict_message(verdict: "Verdict") -> bytes:
    """The verdict as JSON, like a line of the log but without its mask."""
    fields = replace(verdict, mask=np.zeros((1, 1), np.bool_)).as_json()
    del fields["mask"]
    return json.dumps(fields).encode()


def _encrypt(client: "Client", broker: Broker) -> None:
    files = (broker.authorities, broker.certificate, broker.key)
    for path in files:
        if path is not None and not path.is_file():  # OpenSSL does not say which one is missing
            raise BadInput(f"{path}: no such file; expected a certificate or key in PEM format for {broker}")
    authorities, certificate, key = (None if path is None else str(path) for path in files)
    try:
        # The empty password is wrong for every encrypted key; without one OpenSSL would ask at the terminal.
        client.tls_set(authorities, certificate, key, keyfile_password="")
    except (OSError, ValueError) as error:
        given = ", ".join(str(path) for path in files if path is not None)
        raise BadInput(
            f"{broker}: {given} cannot be used ({error}); expected PEM files, and a key that needs no password"
        ) from error
