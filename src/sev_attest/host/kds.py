"""AMD's key distribution server: the CEK that AMD signed, and the certificates of SEV-SNP.

Source: AMD does not describe its server for SEV. sevctl asks it for ``/cek/id/`` and the chip's id
of 64 bytes in hex, and gets the certificate, 2084 bytes. For SEV-SNP, AMD 57230 does; paths are in
:mod:`sev_attest.snp.kds`. To callers that ask too often (about one VCEK in 10 seconds) it answers
429.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from sev_attest._https import Answer, ExchangeError, Server, is_loopback, tls_context
from sev_attest.errors import Unsupported
from sev_attest.host.connection import HostError
from sev_attest.sev.spec import CEK_ADDRESS

_PATH = "/cek/id/"
AMD = CEK_ADDRESS.removesuffix(_PATH)
"""The address of AMD's server; a mirror's stands in its place (``--kds``)."""
SECONDS = 20.0
"""Time that one request may take."""
MAX_WAIT = 60
"""Longest wait that a server may ask for (Retry-After), in seconds."""
_MAX_ANSWER = 1 << 16
_HOST = re.compile(r"[A-Za-z0-9._:-]+")
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)*/?")
_PORTS = {"https": 443, "http": 80}
_DIGITS = re.compile(r"[0-9]{1,9}")
_REDIRECTS = range(300, 400)
_LATER = "try again later"
_STATUS: Mapping[int, tuple[str, str]] = {
    HTTPStatus.FORBIDDEN: ("it refuses the request", "check what is between"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the server is asked for.

    ``check`` is the id of its errors; ``unknown`` says why it has nothing there (status 404), and
    what to do.
    """

    path: str
    check: str
    unknown: tuple[str, str]


class NotServed(HostError):
    """The server has nothing at this address: status 404."""


class KeyServer:
    """AMD's key server, or a mirror of it. ``url`` is its address, without a slash at the end."""

    def __init__(self, url: str = AMD) -> None:
        """Read the address of a server: ``https://HOST[:PORT][/PREFIX]``.

        Plain ``http`` is for loopback addresses only. Raises Unsupported.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise _unsupported("this is no URL") from None
        if parts.scheme not in _PORTS or not _HOST.fullmatch(host):
            raise _unsupported("it does not begin with https:// and a host")
        if parts.scheme == "http" and not is_loopback(host):
            raise _unsupported("plain http is for a loopback address (127.0.0.1) only")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise _unsupported("there is no place for a user, a query or a fragment")
        if not _PREFIX.fullmatch(parts.path):
            raise _unsupported("its path has other characters")
        self._prefix = parts.path.rstrip("/")
        self._server = Server(
            host=host,
            port=port or _PORTS[parts.scheme],
            tls=tls_context() if parts.scheme == "https" else None,
        )
        self._netloc = parts.netloc
        self.url: str = f"{parts.scheme}://{parts.netloc}{self._prefix}"

    def cek_address(self, chip: bytes) -> str:
        """Return the address of a chip's CEK; ``chip`` is its id, 64 bytes."""
        return self.address(_cek(chip))

    def cek(self, chip: bytes, *, wait: Callable[[int], None]) -> bytes:
        """Return what the server has for a chip, as :meth:`fetch` does."""
        return self.fetch(_cek(chip), wait=wait)

    def address(self, wanted: Wanted) -> str:
        """Return the address of what is wanted."""
        return f"{self.url}{wanted.path}"

    def fetch(self, wanted: Wanted, *, wait: Callable[[int], None]) -> bytes:
        """Return what the server has, at most 64 KiB. Does not verify: anything.

        If the server asks to wait for at most a minute, ``wait`` is called with the seconds, once.

        Raises NotServed if it has nothing there; HostError for any other answer, and if there is
        none.
        """
        answer = self._ask(wanted)
        seconds = _seconds(answer)
        if seconds is not None and seconds <= MAX_WAIT:
            wait(seconds)
            answer = self._ask(wanted)
        if answer.status != HTTPStatus.OK:
            raise self._refused(wanted, answer)
        return answer.body

    def _ask(self, wanted: Wanted) -> Answer:
        headers = {"Host": self._netloc, "Accept": "*/*", "Connection": "close"}
        where = f"{self._prefix}{wanted.path}"
        try:
            return self._server.exchange(
                "GET", where, seconds=SECONDS, most=_MAX_ANSWER, headers=headers
            )
        except ExchangeError as error:
            hint = "check the network (no proxy is used)"
            raise self._error(wanted, str(error), hint) from None

    def _refused(self, wanted: Wanted, answer: Answer) -> HostError:
        words, hint = _STATUS.get(answer.status, ("it fails", _LATER))
        kind = HostError
        if answer.status == HTTPStatus.NOT_FOUND:
            kind, (words, hint) = NotServed, wanted.unknown
        if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            seconds = _seconds(answer)
            words = "too many requests"
            hint = _LATER if seconds is None else f"try again in {seconds} seconds"
        if answer.status in _REDIRECTS:
            words, hint = "it redirects, which is not followed", "name the server itself"
        return self._error(wanted, f"{words} (status {answer.status})", hint, kind)

    def _error(
        self, wanted: Wanted, reason: str, hint: str, kind: type[HostError] = HostError
    ) -> HostError:
        return kind(f"{self.address(wanted)}: {reason}", check=wanted.check, hint=hint)


def _cek(chip: bytes) -> Wanted:
    return Wanted(
        path=f"{_PATH}{chip.hex()}",
        check="kds.cek",
        unknown=("it knows no chip with this id", "check that this chip is an AMD EPYC"),
    )


def _seconds(answer: Answer) -> int | None:
    """Return for how long a server asks to wait; None if it does not, or names a date."""
    asks = answer.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
    found = answer.retry_after.strip()
    return int(found) if asks and _DIGITS.fullmatch(found) else None


def _unsupported(reason: str) -> Unsupported:
    form = "the key server is https://HOST[:PORT][/PREFIX]"
    return Unsupported(f"{form}: {reason}", check="usage")
