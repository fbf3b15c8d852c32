"""Access control of the live page: token, host, origin and body size are checked before anything else runs.

* A token in the query of any GET becomes a cookie that scripts cannot read and other sites cannot use.
* The host must be an IP address or one of this machine's names, against DNS rebinding.
* A browser's request that changes something or opens a socket must come from this page (Origin header).
* The body of a request must be short and arrive within seconds.
"""

import asyncio
import hashlib
import hmac
import ipaddress
import socket
from base64 import b64encode
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from uflow_edge.runtime.errors import UsageError

SHORTEST_TOKEN = 16
OPEN_PATH = "/healthz"
LARGEST_BODY = 16 << 10
_BODY_WITHIN_S = 10.0
_COOKIE_AGE_S = 90 * 24 * 3600
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_LOCKED = (Path(__file__).parent / "static" / "locked.html").read_bytes()
_LOCKED_STYLE = b64encode(hashlib.sha256(_LOCKED.split(b"<style>")[1].split(b"</style>")[0]).digest()).decode()
_LOCKED_POLICY = f"default-src 'none'; style-src 'sha256-{_LOCKED_STYLE}'; form-action 'self'; frame-ancestors 'none'"

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use the page.

    Attributes:
        token: required by every route except ``/healthz``; None for no token.
        names: accepted host names of this machine, besides its IP addresses.
    """

    token: str | None = field(default=None, repr=False)
    names: frozenset[str] = frozenset()

    @property
    def cookie(self) -> tuple[str, str]:
        """Name and value; the value proves the token without revealing it, and stays valid after a restart."""
        digest = hmac.new((self.token or "").encode(), b"uflow-edge live page", hashlib.sha256).hexdigest()
        return f"uflow_edge_{hashlib.sha256(digest.encode()).hexdigest()[:8]}", digest


def checked_access(host: str, token: str | None) -> Access:
    """Access to a page that listens on ``host``.

    Raises:
        UsageError: other machines can reach the page and there is no token, or the token is short enough to guess.
    """
    if token is None and not is_loopback(host):
        raise UsageError(
            f"the live page on {host or 'all addresses'} would be open to everyone on the network: give it a token of "
            f"{SHORTEST_TOKEN} characters or more, or let it listen on 127.0.0.1"
        )
    if token is not None and len(token) < SHORTEST_TOKEN:
        raise UsageError(
            f"the live page's token has {len(token)} characters and could be guessed: expected {SHORTEST_TOKEN} or "
            "more; python -c 'import secrets; print(secrets.token_urlsafe())' prints a good one"
        )
    own = socket.gethostname().lower()
    return Access(token, frozenset({"localhost", own, f"{own}.local", own.split(".")[0], f"{own.split('.')[0]}.local"}))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server on this host."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware that passes on what `Access` allows and adds security headers to every response."""

    def __init__(self, app: Application, access: Access) -> None:
        self.app: Final = app
        self._access: Final = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = None if scope["path"] == OPEN_PATH else self._refusal(scope, headers)
        if refusal is None and scope["type"] == "http" and scope["method"] not in _SAFE:
            receive, refusal = await _bounded_body(headers, receive)
        if refusal is None:
            await self.app(scope, receive, self._with_security_headers(scope, headers, send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": refusal[1]})
        else:
            await _refuse(*refusal, scope, headers, self._with_security_headers(scope, headers, send))

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if not self._known(host):
            return 421, f"{host!r} is not a name of this machine: use its IP address"
        if not self._has_token(scope, headers):
            return 401, "the live page needs its token: add ?token=… to the address"
        changes = scope["type"] == "websocket" or scope["method"] not in _SAFE
        origin = headers.get("origin")
        own = {f"http://{host.lower()}", f"https://{host.lower()}"}  # https behind a TLS proxy
        if changes and origin is not None and origin.lower() not in own:
            return 403, f"requests from {origin!r} are refused: expected one from this page"
        return None

    def _known(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if name in self._access.names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _has_token(self, scope: Scope, headers: dict[str, str]) -> bool:
        token = self._access.token
        if token is None:
            return True
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _same(bearer.strip(), token):
            return True
        name, value = self._access.cookie
        return _same(_cookies(headers).get(name, ""), value) or self._token_in_query(scope)

    def _token_in_query(self, scope: Scope) -> bool:
        token = self._access.token
        if token is None or scope["type"] != "http" or scope["method"] != "GET":
            return False
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])
        return _same(given[0], token)

    def _with_security_headers(self, scope: Scope, headers: dict[str, str], send: Send) -> Send:
        extra = _security_headers(headers.get("host", ""))
        if self._token_in_query(scope):
            name, value = self._access.cookie
            secure = "; Secure" if scope["scheme"] == "https" else ""
            cookie = f"{name}={value}; Path=/; Max-Age={_COOKIE_AGE_S}; HttpOnly; SameSite=Strict{secure}"
            extra = [*extra, (b"set-cookie", cookie.encode("latin-1"))]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message.get("headers", [])}
                added = [header for header in extra if header[0] not in given]
                message = {**message, "headers": [*message.get("headers", []), *added]}
            await send(message)

        return send_with_headers


def _security_headers(host: str) -> list[tuple[bytes, bytes]]:
    # In older Safari, 'self' does not cover WebSockets of the page's own host.
    sockets = f" ws://{host} wss://{host}" if host and not set(host) & set(" ;,'\"") else ""
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; form-action 'self'; "
        f"manifest-src 'self'; connect-src 'self'{sockets}; base-uri 'none'; frame-ancestors 'none'"
    )
    return [
        (b"content-security-policy", policy.encode("latin-1")),
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"cache-control", b"no-store"),
    ]


async def _bounded_body(headers: dict[str, str], receive: Receive) -> tuple[Receive, tuple[int, str] | None]:
    """Read the whole body and return a function that delivers it in one piece, or the reason for refusing it."""
    too_large = 413, f"the body is larger than {LARGEST_BODY} bytes"
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > LARGEST_BODY:
        return receive, too_large
    body, more = b"", True
    try:
        async with asyncio.timeout(_BODY_WITHIN_S):
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    return receive, (400, "the body ended early")
                body, more = body + message.get("body", b""), message.get("more_body", False)
                if len(body) > LARGEST_BODY:
                    return receive, too_large
    except TimeoutError:
        return receive, (408, f"the body did not arrive within {_BODY_WITHIN_S:g} s")
    rest = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def replay() -> Message:
        return next(rest, None) or await receive()

    return replay, None


async def _refuse(status: int, reason: str, scope: Scope, headers: dict[str, str], send: Send) -> None:
    """Send a form for the token to a browser, a line of text to any other client."""
    for_people = status == 401 and "text/html" in headers.get("accept", "")
    body = _LOCKED if for_people else (reason + "\n").encode()
    kind = b"text/html; charset=utf-8" if for_people else b"text/plain; charset=utf-8"
    start = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    if for_people:
        start.append((b"content-security-policy", _LOCKED_POLICY.encode()))
    if status == 401:
        start.append((b"www-authenticate", b"Bearer"))
    if status in (400, 408, 413):
        start.append((b"connection", b"close"))  # the rest of the body is not read
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _cookies(headers: dict[str, str]) -> dict[str, str]:
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(headers.get("cookie", "")).items()}
    except CookieError:
        return {}


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
