"""One HTTP exchange, bounded in time and size.

It is not urllib, on purpose. That follows redirects, reads proxies from the environment, and
limits each wait, not the whole exchange.
"""

import http.client
import io
import ipaddress
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass


class ExchangeError(Exception):
    """An exchange that failed; the text is the reason, which may quote the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server answered. ``retry_after`` is the header of this name, "" without one."""

    status: int
    retry_after: str
    body: bytes


def tls_context(ca: str | None = None) -> ssl.SSLContext:
    """Return a context that verifies servers: TLS 1.2 or later, system's CAs or those of a file.

    Raises OSError, of which ssl.SSLError is one, if the file holds no certificate.
    """
    # Not create_default_context(): it writes the session keys where SSLKEYLOGFILE says.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(ca)
    return context


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where a server is. Without ``tls``, the exchange is plain HTTP."""

    host: str
    """A name, an address, or with ``local`` the path of a socket."""
    port: int
    tls: ssl.SSLContext | None = None
    local: bool = False

    @property
    def place(self) -> str:
        """The server, for people."""
        if self.local:
            return self.host
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def exchange(
        self,
        method: str,
        where: str,
        *,
        seconds: float,
        most: int,
        body: bytes | None = None,
        headers: Mapping[str, str],
    ) -> Answer:
        """Return the answer to one request; redirects are not followed.

        ``seconds`` is the time for the whole exchange, from connecting to the last byte. ``most``
        is the largest body that is accepted, in bytes.

        Raises ExchangeError if there is no answer, or a larger one.
        """
        end = time.monotonic() + seconds
        try:
            with self._connected(end) as connected:
                # Given a socket, it neither connects nor looks for a proxy.
                host = "localhost" if self.local else self.host
                connection = http.client.HTTPConnection(host, self.port)
                connection.sock = _Timed(connected, end)
                connection.request(method, where, body, dict(headers))
                response = connection.getresponse()
                answer = Answer(
                    status=response.status,
                    retry_after=response.headers.get("Retry-After", ""),
                    body=response.read(most + 1),
                )
        except Exception as error:  # noqa: BLE001 - http.client fails in many ways on a bad answer
            raise ExchangeError(_reason(error, seconds)) from None
        if len(answer.body) > most:
            raise ExchangeError(f"it answered with more than {most} bytes")
        return answer

    def _connected(self, end: float) -> socket.socket:
        plain = self._reached(end)
        if self.tls is None:
            return plain
        try:
            plain.settimeout(_left(end))
            return self.tls.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise

    def _reached(self, end: float) -> socket.socket:
        """Return a connection to the first address that answers."""
        if self.local:
            return _connect(socket.AF_UNIX, self.host, end)
        # The resolver has time limits of its own, which nothing can shorten.
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
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


def _reason(error: Exception, seconds: float) -> str:
    """Return why an exchange failed. An exception's own text may quote a header: a token."""
    if isinstance(error, TimeoutError):
        return f"no answer in {seconds:g} seconds"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason}"
    if isinstance(error, OSError):
        return error.strerror or "the connection failed"
    return "an answer that cannot be read"


def is_loopback(host: str) -> bool:
    """Return whether a host is given by a loopback address; a name could lead anywhere."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
