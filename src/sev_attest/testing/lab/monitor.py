"""Between a QMP client and the real QEMU: SEV's commands are answered here, the rest passes.

Source: QEMU's qapi/misc-target.json, docs/interop/qmp-spec.txt and target/i386/sev.c.
"""

import base64
import json
import os
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sev_attest.sev.spec import GuestState
from sev_attest.testing.platform import FirmwareError, Platform
from sev_attest.testing.qemu import Guest, QemuError

_CHUNK = 1 << 16
_MOST_DESCRIPTORS = 16
_C_BIT = 51
_STATES = {
    GuestState.LUPDATE: "launch-update",
    GuestState.LSECRET: "launch-secret",
    GuestState.RUNNING: "running",
}
Answer = Callable[[bytes], bytes | None]
"""Takes a message of the client; gives what is said to it, or None for one that is QEMU's."""


class SevMonitor:
    """What QMP has of SEV, for one guest; without one, as when libvirt asks what QEMU can do."""

    def __init__(
        self,
        platform: Platform,
        guest: Guest | None = None,
        note: Callable[[str], object] = lambda _line: None,
    ) -> None:
        """Answer for this guest on this platform; ``note`` is told which secrets it gets."""
        self.platform = platform
        self.guest = guest
        self._note = note
        self._commands: dict[str, Callable[[Any], object]] = {
            "query-sev": self._query_sev,
            "query-sev-capabilities": self._capabilities,
            "query-sev-launch-measure": self._measure,
            "query-sev-attestation-report": self._report,
            "sev-inject-launch-secret": self._inject,
        }

    def __call__(self, message: bytes) -> bytes | None:
        """Answer a message of the client's (:data:`Answer`)."""
        try:
            request = json.loads(message)
            name = request["execute"]
        except (ValueError, KeyError, TypeError):
            return None  # QEMU will say what is wrong with it
        if name == "cont":
            self._resume()
        if name not in self._commands:
            return None
        reply: dict[str, object]
        try:
            reply = {"return": self._commands[name](request.get("arguments", {}))}
        except FirmwareError as error:
            what = f"ret=-5 fw_error={error.status.value} '{firmware_words(error)}'"
            reply = _error(f"SEV: failed to inject secret {what}")
        except (QemuError, ValueError, KeyError) as error:
            reply = _error(str(error))
        if "id" in request:
            reply["id"] = request["id"]
        return json.dumps(reply).encode() + b"\r\n"

    def _resume(self) -> None:
        # Only the first time is there something to finish.
        with suppress(FirmwareError):
            if self.guest is not None:
                self.guest.resume()

    def _state(self, guest: Guest) -> GuestState:
        return self.platform.guest_status(guest.handle).state

    def _query_sev(self, _arguments: object) -> object:
        guest = self.guest
        return {
            "enabled": guest is not None,
            "api-major": self.platform.api[0],
            "api-minor": self.platform.api[1],
            "build-id": self.platform.build,
            "policy": guest.policy if guest else 0,
            "state": _STATES[self._state(guest)] if guest else "uninit",
            "handle": guest.handle if guest else 0,
        }

    def _capabilities(self, _arguments: object) -> object:
        pdh, links = self.platform.pdh_cert_export()
        blobs = {"pdh": pdh, "cert-chain": links, "cpu0-id": self.platform.get_id()}
        texts = {name: base64.b64encode(blob).decode() for name, blob in blobs.items()}
        return {**texts, "cbitpos": _C_BIT, "reduced-phys-bits": 1}

    def _measure(self, _arguments: object) -> object:
        if self.guest is None:
            raise QemuError("SEV launch measurement is not available")
        return {"data": base64.b64encode(self.guest.measurement).decode()}

    def _report(self, arguments: dict[str, str]) -> object:
        if self.guest is None:
            raise QemuError("SEV is not enabled")
        nonce = base64.b64decode(arguments["mnonce"])
        report = self.platform.attestation(self.guest.handle, nonce)
        return {"data": base64.b64encode(report).decode()}

    def _inject(self, arguments: dict[str, str]) -> object:
        guest = self.guest
        if guest is None:
            raise QemuError("SEV not enabled for guest")
        state = self._state(guest)
        if state is not GuestState.LSECRET:
            raise QemuError(f"SEV: Not in correct state. (LSECRET) {state.value:x}")
        header, secret = (base64.b64decode(arguments[n]) for n in ("packet-header", "secret"))
        for guid, data in guest.inject(header, secret).items():
            self._note(f"secret {guid}: {len(data)} bytes\n")
        return {}


def firmware_words(error: FirmwareError) -> str:
    """Name a status code as QEMU does."""
    return error.status.name.replace("_", " ").capitalize()


def _error(words: str) -> dict[str, object]:
    return {"error": {"class": "GenericError", "desc": words}}


def serve(
    listener: socket.socket,
    life: int,
    connect: Callable[[], socket.socket],
    answer: Answer,
) -> None:
    """Take clients, one after the other, until QEMU is gone.

    QEMU alone holds the other end of the pipe ``life``; ``connect`` gives its monitor.
    """
    while True:
        ready, _, _ = select.select([listener.fileno(), life], [], [])
        if life in ready:
            return
        client, _ = listener.accept()
        with client, suppress(OSError), connect() as qemu:
            relay(client, qemu, answer)


def relay(client: socket.socket, qemu: socket.socket, answer: Answer) -> None:
    """Pass whole messages, and descriptors with them, until one of both hangs up."""
    replies = _Direction(qemu, client, lambda _message: None)
    requests = _Direction(client, qemu, answer)
    with suppress(ConnectionError):  # that is hanging up, with messages still under way
        while True:
            ready, _, _ = select.select([client, qemu], [], [])
            for direction in (replies, requests):
                if direction.source in ready and not direction.pump():
                    return


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """Take whole messages off a stream, which need no newline behind them; gives also the rest."""
    text = data.decode("latin-1")  # a character for each byte
    found: list[bytes] = []
    at = 0
    while text[at:].strip():
        at += len(text) - at - len(text[at:].lstrip())
        try:
            _, end = json.JSONDecoder().raw_decode(text, at)
        except (ValueError, RecursionError):
            end = text.find("\n", at)
            if end < 0:
                break
        found.append(data[at:end])
        at = end
    return found, data[at:].lstrip()


class _Direction:
    def __init__(self, source: socket.socket, sink: socket.socket, answer: Answer) -> None:
        self.source = source
        self._sink = sink
        self._answer = answer
        self._rest = b""
        self._descriptors: list[int] = []

    def pump(self) -> bool:
        """Pass on what has arrived; False if nothing will any more."""
        data, descriptors, _, _ = socket.recv_fds(self.source, _CHUNK, _MOST_DESCRIPTORS)
        self._descriptors += descriptors
        messages, self._rest = split(self._rest + data)
        for message in messages:
            reply = self._answer(message)
            if reply is None:
                self._pass(message + b"\r\n")
            else:
                self.source.sendall(reply)
        return bool(data)

    def _pass(self, message: bytes) -> None:
        descriptors, self._descriptors = self._descriptors, []
        try:
            sent = socket.send_fds(self._sink, [message], descriptors)
            self._sink.sendall(message[sent:])
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
