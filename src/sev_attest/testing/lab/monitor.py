"""A relay between a QMP client and the real QEMU, which answers the commands about SEV.

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

from sev_attest.sev.states import GuestState
from sev_attest.testing.platform import FirmwareError, Platform
from sev_attest.testing.qemu import Guest, QemuError

_CHUNK = 1 << 16
_MAX_DESCRIPTORS = 16
"""Descriptors that a client may pass in one message."""
_C_BIT = 51
_STATES = {
    GuestState.LUPDATE: "launch-update",
    GuestState.LSECRET: "launch-secret",
    GuestState.RUNNING: "running",
}
Answer = Callable[[bytes], bytes | None]
"""Takes a client's message; returns the reply, or None if QEMU is to answer."""


class SevMonitor:
    """QMP's commands about SEV, for one guest.

    Without a guest it answers for the platform, as when libvirt probes QEMU.
    """

    def __init__(
        self,
        platform: Platform,
        guest: Guest | None = None,
        note: Callable[[str], object] = lambda _line: None,
    ) -> None:
        """Answer for a guest on a platform. ``note`` is called with a line for each secret."""
        self.platform: Platform = platform
        self.guest: Guest | None = guest
        self._note = note
        self._commands: dict[str, Callable[[Any], object]] = {
            "query-sev": self._query_sev,
            "query-sev-capabilities": self._capabilities,
            "query-sev-launch-measure": self._measure,
            "query-sev-attestation-report": self._report,
            "sev-inject-launch-secret": self._inject,
        }

    def __call__(self, message: bytes) -> bytes | None:
        """Answer a client's message (:data:`Answer`)."""
        try:
            request = json.loads(message)
            name = request["execute"]
        except (ValueError, KeyError, TypeError):
            return None  # QEMU answers with an error
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
        # The launch is finished once; a guest can be stopped and resumed after that.
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
    """Return the name of a status code, as QEMU writes it."""
    return error.status.name.replace("_", " ").capitalize()


def _error(words: str) -> dict[str, object]:
    return {"error": {"class": "GenericError", "desc": words}}


def serve(
    listener: socket.socket,
    life: int,
    connect: Callable[[], socket.socket],
    answer: Answer,
) -> None:
    """Serve clients, one after the other, until QEMU ends.

    ``life`` is a pipe whose other end only QEMU holds. ``connect`` returns a connection to QEMU's
    monitor.
    """
    while True:
        ready, _, _ = select.select([listener.fileno(), life], [], [])
        if life in ready:
            return
        client, _ = listener.accept()
        with client, suppress(OSError), connect() as qemu:
            relay(client, qemu, answer)


def relay(client: socket.socket, qemu: socket.socket, answer: Answer) -> None:
    """Pass whole messages, with their descriptors, until one side hangs up."""
    replies = _Direction(qemu, client, lambda _message: None)
    requests = _Direction(client, qemu, answer)
    with suppress(ConnectionError):  # it hung up, with messages in flight
        while True:
            ready, _, _ = select.select([client, qemu], [], [])
            for direction in (replies, requests):
                if direction.source in ready and not direction.pump():
                    return


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """Return the whole messages at the start of a stream, and the rest.

    Messages need no newline between them.
    """
    text = data.decode("latin-1")  # one character for each byte
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
    """The messages in one direction."""

    def __init__(self, source: socket.socket, sink: socket.socket, answer: Answer) -> None:
        self.source: socket.socket = source
        self._sink = sink
        self._answer = answer
        self._rest = b""
        self._descriptors: list[int] = []

    def pump(self) -> bool:
        """Pass on what has arrived. Returns False at the end of the stream."""
        data, descriptors, _, _ = socket.recv_fds(self.source, _CHUNK, _MAX_DESCRIPTORS)
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
