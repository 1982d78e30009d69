"""A client for three calls of the HTTP API of HashiCorp Vault and OpenBao.

It is not the hvac library, on purpose. That follows redirects with the token, reads proxies and
netrc from the environment (through requests), and adds six packages to the process that holds
keys, for three JSON calls.

Source: Vault's API documentation, "HTTP API", "Transit" and "KV version 2".
"""

import http.client
import io
import ipaddress
import json
import os
import re
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from urllib.parse import quote, unquote, urlsplit

from sev_attest.errors import Unsupported
from sev_attest.owner._answers import json_object, quoted
from sev_attest.owner._private_file import private_file
from sev_attest.owner.key_errors import KeyAccessError

SECONDS = 10.0
"""Time that a whole exchange may take, from connecting to the last byte."""
_MAX_ANSWER = 1 << 20
_MAX_TOKEN = 8192
_PORT = 8200
_OPTIONS = frozenset({"ca", "namespace", "token-file"})
_HOST = re.compile(r"[A-Za-z0-9._:-]+")
_SOCKET = re.compile(r"/[!-~]+")
_SCHEMES = {"https": _HOST, "http": _HOST, "http+unix": _SOCKET}
_PART = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9_.+-]+"
_SEGMENT = re.compile(f"{_PART}(?:/{_PART})*")
_TOKEN = re.compile(rb"[!-~]+")
STATUS: Mapping[int, tuple[str, str]] = {
    400: ("it refuses the request", "check that the key exists and is the one that was used"),
    403: ("permission denied", "renew the token; check its policy and the namespace"),
    404: ("not found", "check the mount, the name and the namespace"),
    429: ("too many requests", "try again later, or raise its quota"),
    503: ("it is sealed, or down for maintenance", "unseal it, then try again"),
}
"""Message and hint by HTTP status."""
_REDIRECTS = range(300, 400)
_REDIRECTED = ("it redirects, which is not followed", "name the active node, or what finds it")
_OTHER = ("it fails", "try again later; look into its log")


class Vault:
    """A server, and how to authenticate there. Every call makes a connection of its own."""

    def __init__(
        self, scheme: str, host: str, port: int, options: Mapping[str, str], *, check: str
    ) -> None:
        """Take what :func:`parse_vault` read. Raises KeyAccessError if ``ca`` cannot be read.

        ``host`` is the path of a socket for the scheme ``http+unix``. ``check`` is the id of
        errors.
        """
        self._scheme, self._host, self._port, self._check = scheme, host, port, check
        self._token_file = options.get("token-file", "")
        self.namespace: str = options.get("namespace", "").strip("/")
        place = host if scheme == "http+unix" else f"{f'[{host}]' if ':' in host else host}:{port}"
        self.place: str = f"Vault at {place}"
        self._tls = self._context(options.get("ca")) if scheme == "https" else None

    def __repr__(self) -> str:
        """Return the server, without the token."""
        return f"<{self.place}>"

    def _context(self, ca: str | None) -> ssl.SSLContext:
        # Not create_default_context(): it writes the session keys where SSLKEYLOGFILE says.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if ca is None:
            context.load_default_certs()
            return context
        try:
            context.load_verify_locations(ca)
        except OSError as error:  # SSLError is one
            why = "it is no certificate" if isinstance(error, ssl.SSLError) else error.strerror
            raise KeyAccessError(f"{ca}: {why}", check=self._check) from None
        return context

    def call(
        self, method: str, path: Sequence[str], body: Mapping[str, str] | None = None
    ) -> dict[str, object]:
        """Return the ``data`` of the answer to a request.

        ``path`` are the segments after ``/v1``; a slash in one is a slash of the path.
        Raises KeyAccessError for anything but an answer with status 200 and data.
        """
        where = "/v1/" + "/".join(quote(segment) for segment in path)
        headers = {"X-Vault-Request": "true", "Connection": "close"}
        token = self._token()
        if token:
            headers["X-Vault-Token"] = token
        if self.namespace:
            headers["X-Vault-Namespace"] = self.namespace
        sent = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            sent = json.dumps(body).encode()
        status, answer = self._exchange(method, where, sent, headers)
        found = json_object(answer) or {}
        if status != http.client.OK:
            raise self._refused(status, f"{method} {where}", found)
        data = found.get("data")
        if not isinstance(data, dict):
            raise self.error("an answer that cannot be read")
        return data

    def error(self, reason: str, hint: str = "") -> KeyAccessError:
        """Return an error that names the server."""
        return KeyAccessError(f"{self.place}: {reason}", check=self._check, hint=hint)

    def _refused(self, status: int, what: str, found: Mapping[str, object]) -> KeyAccessError:
        words, hint = STATUS.get(status, _REDIRECTED if status in _REDIRECTS else _OTHER)
        errors = found.get("errors")
        first = errors[0] if isinstance(errors, list) and errors else ""
        said = quoted(first) if isinstance(first, str) else ""
        return self.error(f"{what}: {words} (status {status}{said and ': ' + said})", hint)

    def _token(self) -> str:
        """Return the token, read anew: an agent renews the file."""
        if self._token_file:
            token = private_file(self._token_file, _MAX_TOKEN, check=self._check).strip()
            name = self._token_file
        else:
            token = os.environ.get("VAULT_TOKEN", "").encode("utf-8", "surrogateescape")
            name = "VAULT_TOKEN"
            if not token and self._scheme != "https":
                return ""  # a local agent adds its own
        # http.client quotes a header that it refuses.
        if not _TOKEN.fullmatch(token):
            why = "it holds no token" if token else "there is no token"
            hint = "name a token-file, or set VAULT_TOKEN"
            raise KeyAccessError(f"{name}: {why}", check=self._check, hint=hint)
        return token.decode()

    def _exchange(
        self, method: str, where: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """Return status and body of an answer, at most 1 MiB."""
        end = time.monotonic() + SECONDS
        host = "localhost" if self._scheme == "http+unix" else self._host
        try:
            with self._connected(end) as connected:
                # Given a socket, it neither connects nor looks for a proxy.
                connection = http.client.HTTPConnection(host, self._port)
                connection.sock = _Timed(connected, end)
                connection.request(method, where, body, dict(headers))
                response = connection.getresponse()
                status, answer = response.status, response.read(_MAX_ANSWER + 1)
        except Exception as error:  # noqa: BLE001 - http.client fails in many ways on a bad answer
            raise self.error(_reason(error), "check its address, and that it runs") from None
        if len(answer) > _MAX_ANSWER:
            raise self.error(f"it answered with more than {_MAX_ANSWER} bytes")
        return status, answer

    def _connected(self, end: float) -> socket.socket:
        plain = self._reached(end)
        if self._tls is None:
            return plain
        try:
            plain.settimeout(_left(end))
            return self._tls.wrap_socket(plain, server_hostname=self._host)
        except BaseException:
            plain.close()
            raise

    def _reached(self, end: float) -> socket.socket:
        """Return a connection to the first address that answers."""
        if self._scheme == "http+unix":
            return _connect(socket.AF_UNIX, self._host, end)
        # The resolver has time limits of its own, which nothing can shorten.
        found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        for more, (family, _, _, _, address) in zip(range(len(found), 1, -1), found, strict=False):
            with suppress(OSError):  # each gets its share: a machine that is off answers nothing
                return _connect(family, address, time.monotonic() + _left(end) / more)
        return _connect(found[-1][0], found[-1][4], end)


class _Timed:
    """A socket for http.client whose every wait ends at one time, however slowly data comes."""

    def __init__(self, connected: socket.socket, end: float) -> None:
        self._socket, self._end = connected, end

    def sendall(self, data: bytes) -> None:
        self._socket.settimeout(_left(self._end))
        self._socket.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Incoming(self._socket, self._end))

    def close(self) -> None:
        """Do nothing: http.client closes it before the answer is read."""


class _Incoming(io.RawIOBase):
    """What arrives on a socket until a time."""

    def __init__(self, connected: socket.socket, end: float) -> None:
        self._socket, self._end = connected, end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        self._socket.settimeout(_left(self._end))
        return self._socket.recv_into(buffer)


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _connect(family: int, address: object, end: float) -> socket.socket:
    connected = socket.socket(family, socket.SOCK_STREAM)
    try:
        connected.settimeout(_left(end))
        connected.connect(address)  # type: ignore[arg-type] # of getaddrinfo, or a path
    except BaseException:
        connected.close()
        raise
    return connected


def _reason(error: Exception) -> str:
    """Return why an exchange failed. An exception's own text may quote a header: the token."""
    if isinstance(error, TimeoutError):
        return f"no answer in {SECONDS:g} seconds"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {quoted(error.verify_message)}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {quoted(str(error.reason))}"
    if isinstance(error, OSError):
        return quoted(error.strerror or "the connection failed")
    return "an answer that cannot be read"


def parse_vault(text: str, *, check: str, form: str, blank: str = "") -> tuple[Vault, list[str]]:
    """Return the server of a URL, and the segments of its path.

    ``https://HOST[:PORT]/SEGMENT/...?token-file=PATH&namespace=NAME&ca=PATH``. The port is 8200 if
    none is given. Plain ``http`` is for loopback addresses only, ``http+unix://PATH/...`` for a
    socket, its path percent-encoded. ``blank`` is a text that may stand in a segment.
    ``form`` is shown in errors, ``check`` is the id of the client's.

    Raises Unsupported, which never quotes the URL.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise _unsupported("this is no URL", form) from None
    if "@" in parts.netloc or parts.fragment:
        raise _unsupported("there is no place for a user, a password or a fragment", form)
    if parts.scheme == "http+unix":
        host = unquote(parts.netloc)
    if parts.scheme not in _SCHEMES or not _SCHEMES[parts.scheme].fullmatch(host):
        raise _unsupported("it does not begin with https:// and a host", form)
    if parts.scheme == "http" and not _is_loopback(host):
        raise _unsupported("plain http is for a loopback address (127.0.0.1) only", form)
    segments = [unquote(segment) for segment in (parts.path or "/").split("/")[1:]]
    for segment in segments:
        if not _SEGMENT.fullmatch(segment.replace(blank, "name") if blank else segment):
            raise _unsupported("a part of the path is empty or has other characters", form)
    options = _options(parts.query, form)
    return Vault(parts.scheme, host, port or _PORT, options, check=check), segments


def _options(query: str, form: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        if name not in _OPTIONS or name in found or not value or not unquote(value).isprintable():
            known = ", ".join(sorted(_OPTIONS))
            raise _unsupported(f"after the ? each of {known} may stand once, with a value", form)
        found[name] = unquote(value)
    if "namespace" in found and not _SEGMENT.fullmatch(found["namespace"].strip("/")):
        raise _unsupported("the namespace has other characters", form)
    return found


def _unsupported(reason: str, form: str) -> Unsupported:
    return Unsupported(f"{form}: {reason}", check="usage")


def _is_loopback(host: str) -> bool:
    """Return whether a host is given by a loopback address; a name could lead anywhere."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
