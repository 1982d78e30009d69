"""A guest behind a QMP socket (extra ``qmp``): ``qmp+unix:///PATH`` or ``qmp+tcp://HOST:PORT``.

Source: QEMU's qapi/misc-target.json, run-state.json, machine.json.
"""

import asyncio
import base64
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from sev_attest.errors import MalformedInput, SevAttestError, Unsupported, WrongState
from sev_attest.host import (
    UNREADABLE,
    UNSURE,
    DomainConfig,
    HostError,
    bounded,
    within,
    words,
)
from sev_attest.host.place import ends_here, shown
from sev_attest.sev.launch_info import Claims, read_report

Value = TypeVar("Value")

SCHEMES = ("qmp+unix", "qmp+tcp")
_GRACE = 1.0
"""Seconds to disconnect in."""
_PAUSED = ("prelaunch", "paused")
_ATTESTABLE = "launch-secret"
_MOST_STATE = 40
_MOST_LINE = 4 << 20
"""Bytes of one message: query-cpus-fast of 4096 vCPUs is the longest that is asked for."""


def address(uri: str) -> str | tuple[str, int]:
    """Read a URI: the path of a socket, or host and port; raises Unsupported."""
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


class Connection:
    """A connection to a QMP socket; it is one guest. Every call is bound to ``timeout`` seconds."""

    config: DomainConfig | None = None
    starts = "QEMU's option -S"
    resumes = "QMP's `cont`"

    def __init__(self, uri: str, timeout: float) -> None:
        """Connect; raises HostError, Unsupported without the extra."""
        where = address(uri)
        self._timeout = timeout
        try:
            from qemu.qmp import ExecuteError, QMPClient, QMPError
        except ImportError:
            raise Unsupported(
                "qemu.qmp is not installed",
                check="extra.qmp",
                hint="pip install 'sev-attest[qmp]'",
            ) from None
        self._refused, self._broken = ExecuteError, QMPError
        self._client = QMPClient("sev-attest")
        silent = logging.getLogger("sev_attest.host.qmp")
        silent.disabled = True  # what goes wrong is raised
        self._client.logger = silent
        # A host may send events without end, and the library keeps each until somebody reads it.
        self._client.events.event_filter = lambda _event: False
        self._client.readbuflen = _MOST_LINE
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
        """Connect to a host, and see whether that is this machine; raises HostError."""
        try:
            reached = within(self._timeout, what, lambda: socket.create_connection(where))
            self._local = ends_here(reached)
        except (OSError, ValueError) as error:  # ValueError: there can be no such name
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
            raise HostError(
                f"{what}: no answer in {bound:g} seconds",
                check="host.timeout",
                hint="--timeout waits for longer",
            ) from None
        except self._refused as error:
            raise _Refused(f"{what}: {words(str(error))}", check="host.qmp") from None
        except (self._broken, OSError, EOFError) as error:
            raise HostError(
                f"{what}: {words(str(error)) or 'the connection is lost'}", check="host.qmp"
            ) from None
        except Exception:  # noqa: BLE001 - whatever the library makes of it
            raise HostError(f"{what}: {UNREADABLE}", check="host.qmp") from None

    def _ask(self, command: str, **arguments: object) -> Any:
        return self._call(command, lambda: self._client.execute(command, arguments or None))

    def is_local(self) -> bool:
        """Tell whether the socket is this machine's: then nobody knows what is behind it."""
        return self._local

    def chain(self) -> bytes:
        """Ask for the SEV capabilities."""
        return _text(self._ask("query-sev-capabilities"), "SEV capabilities").encode()

    def guest(self, name: str | None) -> "Connection":
        """Give the one guest that is there; raises WrongState if it is none of SEV's."""
        if name is not None:
            raise Unsupported("a QMP socket is one guest's: --domain has no place", check="usage")
        if _field(self._ask("query-sev"), "enabled", bool) is not True:
            raise WrongState("the guest was started without SEV", check="host.state")
        return self

    def state(self) -> str:
        """Tell its state; a guest that never ran (-S) is paused, too.

        One that is, and yet is not where the firmware takes a secret, is in SEV's state.
        """
        state = _field(self._ask("query-status"), "status", str)[:_MOST_STATE]
        if state not in _PAUSED:
            return state
        sev = _field(self._ask("query-sev"), "state", str)[:_MOST_STATE]
        return "paused" if sev == _ATTESTABLE else f"in the state {sev} of SEV"

    def claims(self) -> Claims:
        """Read what query-sev and query-sev-launch-measure say."""
        replies = [self._ask(command) for command in ("query-sev", "query-sev-launch-measure")]
        claims = read_report(_text(replies, "launch info"))
        missing = [name for name, value in asdict(claims).items() if value is None]
        if missing:
            raise MalformedInput("QMP reply", "query-sev", f"{', '.join(missing)} missing")
        return claims

    def vcpus(self) -> int:
        """Count its vCPUs."""
        cpus = self._ask("query-cpus-fast")
        if not isinstance(cpus, list):
            raise MalformedInput("QMP reply", "query-cpus-fast", "is no list")
        return len(cpus)

    def cpu(self) -> tuple[int, int, int] | None:
        """Give None: QMP does not tell the host's CPU."""
        return None

    def confirm(self) -> None:
        """Do nothing: a connection is one QEMU's, and that starts no second guest."""

    def inject(self, header: bytes, payload: bytes) -> None:
        """Have QEMU pass the packet to the firmware."""
        parts = {"packet-header": header, "secret": payload}
        texts = {name: base64.b64encode(part).decode() for name, part in parts.items()}
        try:
            self._ask("sev-inject-launch-secret", **texts)
        except _Refused as error:
            raise WrongState(
                str(error),
                check="host.secret",
                hint="the guest is not the one that was measured, or runs already",
            ) from None
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
    """Write a reply as the JSON that it was."""
    try:
        return bounded(json.dumps(reply), what)
    except (ValueError, RecursionError):
        raise MalformedInput("QMP reply", what, UNREADABLE) from None


class _Refused(HostError):
    """QEMU answers with an error."""
