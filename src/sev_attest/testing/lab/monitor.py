"""QMP's commands about SEV, answered for the simulated firmware.

Source: QEMU's qapi/misc-target.json and target/i386/sev.c.
"""

import base64
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from sev_attest.sev.states import GuestState
from sev_attest.testing.host import Fault, Host
from sev_attest.testing.lab.fault import AnyFault, MonitorFault
from sev_attest.testing.platform import FirmwareError, Platform
from sev_attest.testing.qemu import Guest, QemuError

_C_BIT = 51
_STATES = {
    GuestState.LUPDATE: "launch-update",
    GuestState.LSECRET: "launch-secret",
    GuestState.RUNNING: "running",
}
_MEASURE, _SECRET, _RESUME = "query-sev-launch-measure", "sev-inject-launch-secret", "cont"
_SILENT: Mapping[AnyFault | None, str] = {
    MonitorFault.SILENT_LAUNCH: "qmp_capabilities",
    MonitorFault.SILENT_MEASUREMENT: _MEASURE,
    MonitorFault.SILENT_SECRET: _SECRET,
    MonitorFault.SILENT_RESUME: _RESUME,
}
"""Commands that get no answer."""
_FAILED: Mapping[AnyFault | None, str] = {
    MonitorFault.FAILED_MEASUREMENT: _MEASURE,
    MonitorFault.FAILED_RESUME: _RESUME,
}
"""Commands that fail."""


class SevMonitor:
    """QMP's commands about SEV, for one guest.

    Without a guest it answers for the platform, as when libvirt probes QEMU.
    """

    def __init__(
        self,
        platform: Platform,
        guest: Guest | None = None,
        note: Callable[[str], object] = lambda _line: None,
        *,
        fault: AnyFault | None = None,
    ) -> None:
        """Answer for a guest on a platform. ``note`` is called with a line for each secret.

        ``fault`` is what the host does wrong.
        """
        self.platform: Platform = platform
        self.guest: Guest | None = guest
        self._note = note
        self._fault = fault
        self._commands: dict[str, Callable[[Any], object]] = {
            "query-sev": self._query_sev,
            "query-sev-capabilities": self._capabilities,
            _MEASURE: self._measure,
            "query-sev-attestation-report": self._report,
            _SECRET: self._inject,
        }

    def __call__(self, message: bytes) -> bytes | None:
        """Answer a client's message (:data:`~sev_attest.testing.lab.relay.Answer`)."""
        try:
            request = json.loads(message)
            name = request["execute"]
        except (ValueError, KeyError, TypeError):
            return None  # QEMU answers with an error
        reply = self._reply(name, request.get("arguments", {}))
        if self.guest is not None and name == _SILENT.get(self._fault):
            return b""
        if reply is None:
            return None
        if "id" in request:
            reply["id"] = request["id"]
        return json.dumps(reply).encode() + b"\r\n"

    def _reply(self, name: str, arguments: Any) -> dict[str, object] | None:
        """Carry out a command; return its reply, or None if QEMU is to answer."""
        if name == _FAILED.get(self._fault):
            return _error(f"{name} failed")
        if name == _RESUME:
            self._resume()
        if name not in self._commands:
            return None
        try:
            return {"return": self._commands[name](arguments)}
        except FirmwareError as error:
            what = f"ret=-5 fw_error={error.status.value} '{firmware_words(error)}'"
            return _error(f"SEV: failed to inject secret {what}")
        except (QemuError, ValueError, KeyError) as error:
            return _error(str(error))

    def _resume(self) -> None:
        # The launch is finished once; a guest can be stopped and resumed after that.
        with suppress(FirmwareError):
            if self.guest is not None:
                self.guest.resume()

    def _state(self, guest: Guest) -> GuestState:
        return self.platform.guest_status(guest.handle).state

    def _query_sev(self, _arguments: object) -> object:
        guest, fault = self.guest, self._fault
        launched = guest or self.platform
        policy = guest.policy if guest else 0
        return {
            "enabled": guest is not None,
            "api-major": launched.api[0],
            "api-minor": launched.api[1] ^ (fault is MonitorFault.CLAIMED_API),
            "build-id": launched.build ^ (fault is MonitorFault.CLAIMED_BUILD),
            "policy": policy ^ 2 if fault is MonitorFault.CLAIMED_POLICY else policy,
            "state": _STATES[self._state(guest)] if guest else "uninit",
            "handle": guest.handle if guest else 0,
        }

    def _capabilities(self, _arguments: object) -> object:
        pdh, links = self.platform.pdh_cert_export()
        if isinstance(self._fault, Fault) and self._fault.in_chain:
            chain = Host(self.platform, self._fault).chain()
            pdh = chain.pdh.to_bytes()
            links = b"".join(link.to_bytes() for link in (chain.pek, chain.oca, chain.cek))
        blobs = {"pdh": pdh, "cert-chain": links, "cpu0-id": self.platform.get_id()}
        texts = {name: base64.b64encode(blob).decode() for name, blob in blobs.items()}
        return {**texts, "cbitpos": _C_BIT, "reduced-phys-bits": 1}

    def _measure(self, _arguments: object) -> object:
        if self.guest is None:
            raise QemuError("SEV launch measurement is not available")
        if self._fault is MonitorFault.GARBLED_MEASUREMENT:
            return {"data": base64.b64encode(bytes(3)).decode()}
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
        if self._fault is MonitorFault.LOST_GUEST:
            raise ConnectionError("QEMU ended")
        return {}


def firmware_words(error: FirmwareError) -> str:
    """Return the name of a status code, as QEMU writes it."""
    return error.status.name.replace("_", " ").capitalize()


def _error(words: str) -> dict[str, object]:
    return {"error": {"class": "GenericError", "desc": words}}
