"""Publishes verdicts to an MQTT 5 broker (OASIS MQTT 5.0); the broker confirms each one before the next.

Topics, below a prefix:
    status   "online" or "offline", retained; the broker sends "offline" when the connection breaks (last will).
    drift    the drift state of each camera as JSON; retained, and sent when a state changes.
    verdict  every verdict as JSON, without the mask; QoS 1.
    anomaly  on request, a small JPEG of every anomaly; QoS 0, as a lost picture does no harm.
"""

import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from uflow_edge.runtime.errors import BadInput, UsageError
from uflow_edge.runtime.sinks import Provenance, Undeliverable, about, verdict_only
from uflow_edge.runtime.sinks.mqtt_broker import Broker, new_client
from uflow_edge.runtime.storage.strict_json import to_json
from uflow_edge.runtime.text import printable

if TYPE_CHECKING:
    from paho.mqtt.client import Client
    from paho.mqtt.reasoncodes import ReasonCode

    from uflow_edge.runtime.drift import DriftState
    from uflow_edge.runtime.heat import HeatMap
    from uflow_edge.runtime.inspection import Inspection
    from uflow_edge.runtime.sources import Frame
    from uflow_edge.runtime.verdict import Verdict

__all__ = ["OFFLINE", "ONLINE", "Broker", "MqttSink", "drift_message", "verdict_message"]

ONLINE, OFFLINE = b"online", b"offline"
_KEEP_ALIVE = 15  # seconds; the broker notices a device without power after 1.5 times as long
_SECONDS_TO_CONNECT, _SECONDS_TO_CONFIRM, _SECONDS_TO_SIGN_OFF = 1.0, 10.0, 1.0
_LONGEST_RECONNECT_DELAY = 5  # seconds
_FATAL_REASON_CODES = {0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C}  # protocol, client name, password, rights, ban, method
_MESSAGE_REASON_CODES = {0x90, 0x99}  # topic, payload
_LARGEST_OUTGOING = 256 << 20
_OVERHEAD = 1 << 10  # bytes of a packet besides topic prefix and message
_LONGEST_PREFIX = 1000
_NO_ANSWER = "no answer yet"
_PICTURE_WIDTH = 480


class MqttSink:
    """Publishes verdicts. Connects and reconnects by itself; without a connection `put` raises OSError."""

    def __init__(
        self,
        broker: Broker,
        *,
        prefix: str = "uflow",
        picture_channels: tuple[int, ...] | None = None,
        heat_map: "HeatMap" = "nfa",
        provenance: Provenance | None = None,
    ) -> None:
        """Start to connect, and return at once.

        Args:
            prefix: prefix of the topics, unique per process; may contain ``/``.
            picture_channels: channels of the latents, per scale, to publish pictures of anomalies; None for none.
            heat_map: what the colours of pictures show; see `overlay.draw_maps`.
            provenance: if given, every verdict names the bundle and the frame.

        Raises:
            UsageError: the prefix is not a valid topic.
            BadInput: a certificate or key cannot be used.
            MissingDependency: paho-mqtt is not installed.
        """
        bad = prefix != prefix.strip("/") or set(prefix) & set("+#$") or not prefix.isprintable()
        if not prefix or bad or len(prefix.encode()) > _LONGEST_PREFIX:
            raise UsageError(
                f"topic prefix {printable(prefix)!r}: expected a topic such as uflow or hall-2/line-1, of at most "
                f"{_LONGEST_PREFIX} bytes, without + # $ and control characters"
            )
        self.name: Final = str(broker)
        self._prefix = prefix
        self._picture_channels = picture_channels
        self._heat_map: HeatMap = heat_map
        self._provenance = provenance
        self._unconfirmed: tuple[Inspection, int] | None = None  # a message sent but not confirmed
        self._changed = threading.Condition()  # guards the attributes below, which the client's thread changes
        self._connected = False
        self._largest = _LARGEST_OUTGOING  # bytes; the broker's limit for a message
        self._last_error = _NO_ANSWER
        self._ever_connected = False
        self._refused = False
        self._confirmed: dict[int, ReasonCode] = {}
        self._drifts: dict[str, DriftState] = {}  # the states that the broker retains, by camera
        # The same name after a restart: the broker ends the old session first, so its last will precedes our "online".
        self._client = self._new_client(broker, f"uflow-edge-{socket.gethostname()}-{prefix}")
        self._client.connect_async(broker.host, broker.port, keepalive=_KEEP_ALIVE)
        self._client.loop_start()

    def needed(self, frame: "Frame", inspection: "Inspection") -> "tuple[Frame, Inspection]":
        """Needs the verdict without its mask, or the whole result to draw a picture."""
        return (frame, inspection) if self._has_picture(inspection) else verdict_only(frame, inspection, mask=False)

    def put(self, frame: "Frame", inspection: "Inspection") -> None:
        """Publish one verdict, and return when the broker has confirmed it.

        Raises:
            OSError: there is no connection, it was lost, or the broker declined the message. If called again with the
                same inspection, `put` waits for the message it has sent instead of sending another.
            Undeliverable: the broker declines this verdict only.
            BadInput: the broker refused this client's first connection.
        """
        self._wait_for_connection()
        self._publish_drift(inspection.verdict.drift)
        if self._unconfirmed is None or self._unconfirmed[0] is not inspection:
            message = verdict_message(inspection.verdict, about(frame, self._provenance))
            if len(message) > self._largest:
                sizes = f"{len(message)} bytes; the broker accepts at most {self._largest}"
                raise Undeliverable(f"{self.name}: the verdict on {frame.source} has {sizes}")
            self._unconfirmed = inspection, self._publish("verdict", message)
        reason = self._confirmation(self._unconfirmed[1], _SECONDS_TO_CONFIRM)
        if reason is None:
            raise ConnectionError("a verdict was not confirmed")
        self._unconfirmed = None
        if reason.value in _MESSAGE_REASON_CODES:
            raise Undeliverable(f"{self.name}: the verdict on {frame.source} was declined: {reason}")
        if reason.is_failure:
            raise ConnectionError(f"a verdict was declined: {reason}")
        if self._has_picture(inspection) and len(picture := self._picture(frame, inspection)) <= self._largest:
            self._client.publish(self._topic("anomaly"), picture, qos=0)

    def close(self) -> None:
        """Publish "offline", and disconnect."""
        if self._connected:
            self._confirmation(self._publish("status", OFFLINE, retain=True), _SECONDS_TO_SIGN_OFF)
        self._client.disconnect()
        self._client.loop_stop()

    def _wait_for_connection(self) -> None:
        """Raises OSError and BadInput as `put` does."""
        with self._changed:
            self._changed.wait_for(lambda: self._connected or self._refused, _SECONDS_TO_CONNECT)
            if self._refused:
                raise BadInput(f"{self.name} refuses this client: {self._last_error}")
            if not self._connected:
                raise ConnectionError(self._last_error)

    def _publish_drift(self, drift: "DriftState | None") -> None:
        """Publish a camera's drift state if it has changed. Raises OSError as `put` does."""
        before = None if drift is None else self._drifts.get(drift.camera)
        if drift is None or (before is not None and before.status == drift.status):
            return
        drifts = {**self._drifts, drift.camera: drift}
        reason = self._confirmation(self._publish("drift", drift_message(drifts), retain=True), _SECONDS_TO_CONFIRM)
        if reason is None or reason.is_failure:
            raise ConnectionError(f"the drift state was not confirmed{'' if reason is None else f': {reason}'}")
        self._drifts = drifts

    def _publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Send with QoS 1, and return the message's identifier."""
        with self._changed:
            self._confirmed.clear()
        return self._client.publish(self._topic(topic), payload, qos=1, retain=retain).mid

    def _topic(self, name: str) -> str:
        return f"{self._prefix}/{name}"

    def _confirmation(self, message: int, seconds: float) -> "ReasonCode | None":
        with self._changed:
            self._changed.wait_for(lambda: message in self._confirmed or not self._connected, seconds)
            return self._confirmed.get(message)

    def _has_picture(self, inspection: "Inspection") -> bool:
        return self._picture_channels is not None and inspection.verdict.anomalous

    def _picture(self, frame: "Frame", inspection: "Inspection") -> bytes:
        """JPEG, at most 480 pixels wide."""
        import cv2

        from uflow_edge.runtime.overlay import draw_overlay
        from uflow_edge.runtime.sinks.marks import encode

        picture = draw_overlay(frame.image_bgr, inspection, self._picture_channels or (), self._heat_map)
        height, width = picture.shape[:2]
        if width > _PICTURE_WIDTH:
            size = (_PICTURE_WIDTH, max(1, round(height * _PICTURE_WIDTH / width)))
            picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
        return encode(picture, "jpeg")

    def _new_client(self, broker: Broker, client_id: str) -> "Client":
        client = new_client(client_id)
        broker.apply_credentials(client)
        client.will_set(self._topic("status"), OFFLINE, qos=1, retain=True)
        client.reconnect_delay_set(1, _LONGEST_RECONNECT_DELAY)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        return client

    def _on_connect(self, client: "Client", _data: Any, _flags: Any, reason: "ReasonCode", properties: Any) -> None:
        if not reason.is_failure:
            client.publish(self._topic("status"), ONLINE, qos=1, retain=True)
            # Sent at every connection, as a broker may lose it; empty, it removes an earlier process' state.
            client.publish(self._topic("drift"), drift_message(self._drifts), qos=1, retain=True)
        with self._changed:
            # A refused first connection is a wrong setting and ends the run; a later one must not stop the line.
            self._refused = not self._ever_connected and reason.value in _FATAL_REASON_CODES
            self._connected = not reason.is_failure
            largest = getattr(properties, "MaximumPacketSize", _LARGEST_OUTGOING)
            self._largest = largest - _OVERHEAD - len(self._prefix.encode())
            self._ever_connected |= self._connected
            self._last_error = str(reason)
            self._changed.notify_all()

    def _on_connect_fail(self, _client: "Client", _data: Any) -> None:
        with self._changed:
            self._last_error = str(sys.exc_info()[1] or _NO_ANSWER)  # paho calls this while it handles the error

    def _on_disconnect(
        self, _client: "Client", _data: Any, _flags: Any, reason: "ReasonCode", _properties: Any
    ) -> None:
        with self._changed:
            if self._connected:  # otherwise the reason is known already
                self._last_error = f"connection lost: {reason}"
            self._connected = False
            self._changed.notify_all()

    def _on_publish(self, _client: "Client", _data: Any, message: int, reason: "ReasonCode", _properties: Any) -> None:
        with self._changed:
            self._confirmed[message] = reason
            self._changed.notify_all()


def drift_message(drifts: "Mapping[str, DriftState]") -> bytes:
    """The drift state of all cameras together and of each camera, as JSON; empty if no state is known."""
    if not drifts:
        return b""
    warned = any(drift.status == "warning" for drift in drifts.values())
    cameras = {camera: drift.as_json() for camera, drift in drifts.items()}
    return to_json({"status": "warning" if warned else "ok", "cameras": cameras}).encode()


def verdict_message(verdict: "Verdict", more: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """The verdict as JSON, like a line of the JSON log but without the mask."""
    fields = replace(verdict, mask=np.zeros((1, 1), np.bool_)).as_json()
    del fields["mask"]
    return to_json({**fields, **more}).encode()
