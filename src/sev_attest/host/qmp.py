"""A connection to one guest's QMP socket (extra ``qmp``): ``qmp+unix:///PATH`` or ``qmp+tcp://HOST:PORT``.

Source: QEMU's qapi/misc-target.json, run-state.json, machine.json.
"""

import asyncio
import base64
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NoReturn, TypeVar
from urllib.parse import unquote, urlsplit

from sev_attest.domain_xml.versions import Versions, read_version
from sev_attest.errors import MalformedInput, SevAttestError, Unsupported, WrongState
from sev_attest.host.connection import NOT_TAKEN, UNSURE, DomainConfig, HostError
from sev_attest.host.limits import UNREADABLE, call_within, excerpt, no_answer, within_limit
from sev_attest.host.place import ends_here, shown
from sev_attest.sev.launch_info import Claims, read_report

Value = TypeVar("Value")

SCHEMES: tuple[str, str] = ("qmp+unix", "qmp+tcp")
_GRACE = 1.0
"""Seconds that disconnecting may take."""
_PAUSED = ("prelaunch", "paused")
"""RunState of a guest that was started with -S, and of one that was stopped."""
_ATTESTABLE = "launch-secret"
"""SevState in which the firmware takes a secret."""
_MAX_STATE = 40
_MAX_LINE = 4 << 20
"""Bytes of one message. The longest answer is that of query-cpus-fast for 4096 vCPUs."""


def address(uri: str) -> str | tuple[str, int]:
    """Return the path of a socket, or host and port, of a URI. Raises Unsupported."""
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme == SCHEMES[0] and parts.path and not parts.netloc:
        return unquote(parts.path)
    if parts.scheme == SCHEMES[1] and parts.hostname and port is not None:
        return parts.hostname, port
    raise Unsupported(
        f"{shown(uri)} is neither qmp+unix:///PATH nor qmp+tcp://HOST:PORT", check="usage"
    )


class QmpConnection:
    """A connection to a QMP socket, and its one guest. Every call may take ``timeout`` seconds."""

    config: DomainConfig | None = None
    starts: str = "QEMU's option -S"
    resumes: str = "QMP's `cont`"

    def __init__(self, uri: str, timeout: float) -> None:
        """Connect. Raises HostError, and Unsupported if qemu.qmp is not installed."""
        where = address(uri)
        self._timeout = timeout
        try:
            from qemu.qmp import ExecuteError, QMPClient, QMPError
        except ImportError:
            raise Unsupported(
                "qemu.qmp is not installed",
                check="extra.qmp",
                hint="`pip install '.[qmp]'` in sev-attest's folder installs it",
            ) from None
        self._refused, self._broken = ExecuteError, QMPError
        self._client = QMPClient("sev-attest")
        silent = logging.getLogger("sev_attest.host.qmp")
        silent.disabled = True  # every error is raised
        self._client.logger = silent
        # The library keeps events until they are read, and a host may send any number.
        self._client.events.event_filter = lambda _event: False
        self._client.readbuflen = _MAX_LINE
        self._runner = asyncio.Runner()
        self._local = True
        try:
            what = f"connecting to {shown(uri)}"
            reached = where if isinstance(where, str) else self._reach(what, where)
            self._call(what, lambda: self._client.connect(reached))
        except BaseException:
            self.close()
            raise

    def _reach(self, what: str, where: tuple[str, int]) -> socket.socket:
        """Return a connection to ``where``; note whether that is this machine. Raises HostError."""
        try:
            reached = call_within(self._timeout, what, lambda: socket.create_connection(where))
            self._local = ends_here(reached)
        except (OSError, ValueError) as error:  # ValueError: the name is invalid
            raise HostError(f"{what}: {error}", check="host.qmp") from None
        return reached

    def close(self) -> None:
        """Disconnect."""
        with suppress(SevAttestError):
            self._call("disconnecting", self._client.disconnect, min(self._timeout, _GRACE))
        self._runner.close()

    def _call(
        self,
        what: str,
        function: Callable[[], Awaitable[Value]],
        seconds: float | None = None,
    ) -> Value:
        bound = self._timeout if seconds is None else seconds

        async def call() -> Value:
            return await asyncio.wait_for(function(), bound)

        try:
            return self._runner.run(call())
        except TimeoutError:
            raise no_answer(what, bound) from None
        except self._refused as error:
            raise _Refused(f"{what}: {excerpt(str(error))}", check="host.qmp") from None
        except (self._broken, OSError, EOFError) as error:
            raise HostError(
                f"{what}: {excerpt(str(error)) or 'the connection is lost'}", check="host.qmp"
            ) from None
        except Exception:  # noqa: BLE001 - the library may raise anything on a bad answer
            raise HostError(f"{what}: {UNREADABLE}", check="host.qmp") from None

    def _ask(self, command: str, **arguments: object) -> Any:
        return self._call(command, lambda: self._client.execute(command, arguments or None))

    def is_local(self) -> bool:
        """Return whether the socket is on this machine; what is behind it is not known then."""
        return self._local

    def chain(self) -> bytes:
        """Return the SEV capabilities, as JSON."""
        return _text(self._ask("query-sev-capabilities"), "SEV capabilities").encode()

    def guest(self, name: str | None) -> "QmpConnection":
        """Return the one guest. Raises WrongState if it is not an SEV guest."""
        if name is not None:
            raise Unsupported("a QMP socket is one guest's: do not name a domain", check="usage")
        if _field(self._ask("query-sev"), "enabled", bool) is not True:
            raise WrongState("the guest was started without SEV", check="host.state")
        return self

    def versions(self) -> Versions:
        """Return the version of QEMU."""
        numbers = _field(self._ask("query-version"), "qemu", dict)
        parts = [_field(numbers, name, int) for name in ("major", "minor", "micro")]
        try:
            return Versions(qemu=read_version(".".join(map(str, parts))))
        except (Unsupported, ValueError):  # ValueError: a number of too many digits
            raise MalformedInput("QMP reply", "query-version", "is not a version") from None

    def find(self, _name: str) -> NoReturn:
        """Raise Unsupported: there are no domains."""
        raise Unsupported(
            "a QMP socket is that of one guest which runs: no domain can be defined there",
            check="usage",
            hint="connect to libvirt (--connect qemu+ssh://HOST/system)",
        )

    define = find

    def state(self) -> str:
        """Return "paused" if the guest is paused and the firmware takes a secret, else its state.

        A guest that was started with -S is paused, too.
        """
        state = _field(self._ask("query-status"), "status", str)[:_MAX_STATE]
        if state not in _PAUSED:
            return state
        sev = _field(self._ask("query-sev"), "state", str)[:_MAX_STATE]
        return "paused" if sev == _ATTESTABLE else f"in the state {sev} of SEV"

    def claims(self) -> Claims:
        """Return what query-sev and query-sev-launch-measure answer. Raises MalformedInput."""
        replies = [self._ask(command) for command in ("query-sev", "query-sev-launch-measure")]
        claims = read_report(_text(replies, "launch info"))
        missing = [name for name, value in claims._asdict().items() if value is None]
        if missing:
            raise MalformedInput("QMP reply", "query-sev", f"{', '.join(missing)} missing")
        return claims

    def vcpus(self) -> int:
        """Return the number of its vCPUs."""
        cpus = self._ask("query-cpus-fast")
        if not isinstance(cpus, list):
            raise MalformedInput("QMP reply", "query-cpus-fast", "is not a list")
        return len(cpus)

    def cpu(self) -> tuple[int, int, int] | None:
        """Return None: QMP does not report the host's CPU."""
        return None

    def confirm(self) -> None:
        """Do nothing: the connection is to one QEMU process, which has one guest."""

    def inject(self, header: bytes, payload: bytes) -> None:
        """Pass a packet to the firmware; raises as RunningGuest says."""
        parts = {"packet-header": header, "secret": payload}
        texts = {name: base64.b64encode(part).decode() for name, part in parts.items()}
        try:
            self._ask("sev-inject-launch-secret", **texts)
        except _Refused as error:
            raise WrongState(str(error), check="host.secret", hint=NOT_TAKEN) from None
        except HostError as error:
            error.hint = UNSURE
            raise

    def resume(self) -> None:
        """Let it run."""
        self._ask("cont")


def _field(reply: object, name: str, kind: type[Value]) -> Value:
    value = reply.get(name) if isinstance(reply, dict) else None
    if not isinstance(value, kind):
        raise MalformedInput("QMP reply", name, "is missing")
    return value


def _text(reply: object, what: str) -> str:
    """Return a reply as JSON. Raises MalformedInput if it is too long or too deep."""
    try:
        return within_limit(json.dumps(reply), what)
    except (ValueError, RecursionError):
        raise MalformedInput("QMP reply", what, UNREADABLE) from None


class _Refused(HostError):
    """QEMU answered with an error."""
