"""Address and credentials of an MQTT broker."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from uflow_edge.runtime.errors import BadInput, UsageError, require
from uflow_edge.runtime.text import printable, redacted

if TYPE_CHECKING:
    from paho.mqtt.client import Client

_LARGEST_INCOMING = 64 << 10  # bytes per packet; without subscriptions there are only acknowledgements


@dataclass(frozen=True, slots=True)
class Broker:
    """Address and credentials of a broker.

    Attributes:
        user, password: if the broker requires them.
        tls: encrypt, and verify the broker's certificate.
        authorities: PEM file of the trusted authorities; None for those of the system.
        certificate, key: PEM files, if the broker requires a client certificate; one file may hold both.

    Raises:
        UsageError: on construction, if there are certificates without TLS or a key without a certificate.
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
            raise UsageError(f"broker {self}: certificates and keys need TLS; expected mqtts://{self.host}")
        if self.key and not self.certificate:
            raise UsageError(f"broker {self}: the key {self.key} needs its certificate")

    @classmethod
    def from_url(cls, url: str) -> "Broker":
        """Parse ``mqtt://[user[:password]@]host[:port]`` (port 1883), or ``mqtts://…`` for TLS (port 8883).

        Raises:
            UsageError: the text is not such a URL.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or parts.scheme not in ("mqtt", "mqtts") or parts.path.strip("/") or parts.query or parts.fragment:
            raise UsageError(
                f"broker {redacted(printable(url))}: expected mqtt://host, mqtt://host:1883 or mqtts://host; "
                "percent-encode special characters in a password, such as / as %2F"
            )
        tls = parts.scheme == "mqtts"
        user, password = (None if text is None else unquote(text) for text in (parts.username, parts.password))
        return cls(host, port or (8883 if tls else 1883), user, password, tls)

    def __str__(self) -> str:
        return f"mqtt{'s' if self.tls else ''}://{self.host}:{self.port}"

    def apply_credentials(self, client: "Client") -> None:
        """Set user, password and certificates of a client.

        Raises:
            BadInput: a certificate or key cannot be used.
        """
        client.username_pw_set(self.user, self.password)
        if self.tls:
            _encrypt(client, self)


def new_client(client_id: str) -> "Client":
    """A client for MQTT 5 that refuses packets above 64 KiB, so that a broker cannot exhaust the memory.

    Raises:
        MissingDependency: paho-mqtt is not installed.
    """
    paho = require("paho.mqtt.client", "mqtt")

    class BoundedClient(paho.Client):  # type: ignore[name-defined]
        def _sock_recv(self, size: int) -> bytes:
            if size > _LARGEST_INCOMING:  # paho would buffer up to 256 MB
                raise ConnectionError(f"the broker announces a packet of {size} bytes")
            return bytes(super()._sock_recv(size))

    version = paho.CallbackAPIVersion.VERSION2
    client: Client = BoundedClient(version, client_id=client_id, protocol=paho.MQTTProtocolVersion.MQTTv5)
    return client


def _encrypt(client: "Client", broker: Broker) -> None:
    files = (broker.authorities, broker.certificate, broker.key)
    for path in files:
        if path is not None and not path.is_file():  # OpenSSL does not say which one is missing
            raise BadInput(f"{path}: no such file; expected a certificate or key in PEM format for {broker}")
    authorities, certificate, key = (None if path is None else str(path) for path in files)
    try:
        # With no password OpenSSL would ask for one at the terminal; the empty password makes it fail instead.
        client.tls_set(authorities, certificate, key, keyfile_password="")
    except (OSError, ValueError) as error:
        given = ", ".join(str(path) for path in files if path is not None)
        raise BadInput(
            f"{broker}: {given} cannot be used ({error}); expected PEM files, and a key that needs no password"
        ) from error
