"""A client for three calls of the HTTP API of HashiCorp Vault and OpenBao.

It is not the hvac library, on purpose. That follows redirects with the token, reads proxies and
netrc from the environment (through requests), and adds six packages to the process that holds
keys, for three JSON calls.

Source: Vault's API documentation, "HTTP API", "Transit" and "KV version 2".
"""

import json
import os
import re
import ssl
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from urllib.parse import quote, unquote, urlsplit

from sev_attest._https import Answer, ExchangeError, Server, is_loopback, tls_context
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
        self._scheme, self._check = scheme, check
        self._token_file = options.get("token-file", "")
        self.namespace: str = options.get("namespace", "").strip("/")
        self._server = Server(
            host=host,
            port=port,
            tls=self._context(options.get("ca")) if scheme == "https" else None,
            local=scheme == "http+unix",
        )
        self.place: str = f"Vault at {self._server.place}"

    def __repr__(self) -> str:
        """Return the server, without the token."""
        return f"<{self.place}>"

    def _context(self, ca: str | None) -> ssl.SSLContext:
        try:
            return tls_context(ca)
        except OSError as error:  # SSLError is one
            why = "it is no certificate" if isinstance(error, ssl.SSLError) else error.strerror
            raise KeyAccessError(f"{ca}: {why}", check=self._check) from None

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
        answer = self._exchange(method, where, sent, headers)
        found = json_object(answer.body) or {}
        if answer.status != HTTPStatus.OK:
            raise self._refused(answer.status, f"{method} {where}", found)
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
    ) -> Answer:
        """Return an answer of at most 1 MiB."""
        try:
            return self._server.exchange(
                method, where, seconds=SECONDS, most=_MAX_ANSWER, body=body, headers=headers
            )
        except ExchangeError as error:
            hint = "check its address, and that it runs"
            raise self.error(quoted(str(error)), hint) from None


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
    if parts.scheme == "http" and not is_loopback(host):
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
