"""A simulated host that is honest, or wrong in one chosen way."""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Unpack

from sev_attest.sev.chain.certificate import Certificate, Signature
from sev_attest.sev.chain.chain import Chain
from sev_attest.sev.chain.roots import Generation, amd_roots
from sev_attest.sev.spec import Usage
from sev_attest.sev.states import GuestState
from sev_attest.testing.authority import Authority
from sev_attest.testing.platform import Platform
from sev_attest.testing.qemu import Guest, GuestInputs, launch_guest


class Fault(Enum):
    """What a host can do wrong. A value begins with the check id that must refuse it."""

    FORGED_ROOT = "chain.ark.trusted"
    OFF_CURVE_PDH = "chain.pdh.point"
    OTHER_POLICY = "launch.policy"
    DOWNGRADED_BUILD = "launch.build"
    WRONG_FIRMWARE_BYTE = "launch.measurement: firmware"
    OTHER_VCPU_COUNT = "launch.measurement: vCPUs"
    REPLAYED_MEASUREMENT = "launch.measurement: replay"
    SWAPPED_KEYS = "launch.measurement: keys"
    REUSED_SESSION = "BAD_MEASUREMENT"

    @property
    def check(self) -> str:
        """The check id of the refusal, or the name of the firmware's status code."""
        return self.value.partition(":")[0]

    @property
    def in_chain(self) -> bool:
        """Whether it shows in the exported chain; otherwise in a launch."""
        return self.check.startswith("chain.")


def fault_name(fault: Enum) -> str:
    """Return a fault's name as options have it: in small letters, with dashes."""
    return fault.name.lower().replace("_", "-")


@dataclass(slots=True)
class Host:
    """A simulated host with one platform. It does nothing wrong but its ``fault``, if it has one.

    The faults, where they show and what refuses them:

    - FORGED_ROOT, OFF_CURVE_PDH: :meth:`chain` returns certificates that verify_chain refuses.
    - OTHER_POLICY: the guest runs under a policy of the host's choice, without the owner's session.
    - DOWNGRADED_BUILD: the platform runs build 0; the owner's ``min_build`` refuses it.
    - WRONG_FIRMWARE_BYTE, OTHER_VCPU_COUNT: another guest is measured.
    - REPLAYED_MEASUREMENT: the host reports the measurement of another guest, launched in a
      session of its own.
    - SWAPPED_KEYS: the owner's TEK file and TIK file are swapped.
    - REUSED_SESSION: a second guest is launched in the same session, and gets the secret of the
      first one, which was measured. The firmware refuses the packet.
    """

    platform: Platform
    fault: Fault | None = None
    generation: Generation | None = None
    """Whose root FORGED_ROOT passes for; None for any with keys of that size."""

    def chain(self) -> Chain:
        """Return the platform's certificates, as ``sevctl export --full`` writes them."""
        chain = self.platform.export()
        authority = self.platform.authority
        if self.fault is Fault.FORGED_ROOT:
            authority = self._forged_authority()
            chain = chain.with_cek(authority.sign_cek(chain.cek))
        if self.fault is Fault.OFF_CURVE_PDH:
            chain = replace(chain, pdh=self._off_curve(chain.pdh))
        return replace(chain, ask=authority.ask, ark=authority.ark)

    def _forged_authority(self) -> Authority:
        """Return an authority of other keys, with the key ids of AMD's."""
        bits = self.platform.authority.ark.public_key.bits
        roots = [root for root in amd_roots() if root.ark.public_key.bits == bits]
        amd = next((root for root in roots if root.generation is self.generation), roots[0])
        ids = (amd.ark.key_id, amd.ask.key_id if amd.ask else b"")
        return Authority(bits, key_ids=ids, forged=True)

    def _off_curve(self, pdh: Certificate) -> Certificate:
        """Return a PDH whose key is not a point on the curve, signed by the platform's PEK."""
        key = pdh.public_key
        forged = Certificate.build(
            usage=Usage.PDH,
            algorithm=pdh.algorithm,
            public_key=replace(key, y=key.y ^ 1),
            api=self.platform.api,
        )
        signature = self.platform.sign(Usage.PEK, forged.body)
        return replace(forged, signatures=(signature, Signature()))

    def launch(self, **inputs: Unpack[GuestInputs]) -> Guest:
        """Return the guest that was asked for, or what the fault makes of it, launched and paused.

        Takes the arguments of :func:`launch_guest`, and raises as it does.
        """
        platform, fault = self.platform, self.fault
        if fault is Fault.OTHER_POLICY:
            inputs["policy"] ^= 2
            inputs["godh"] = inputs["session"] = None
        if fault is Fault.WRONG_FIRMWARE_BYTE:
            firmware = inputs["firmware"]
            inputs["firmware"] = bytes(byte ^ 1 for byte in firmware[:1]) + firmware[1:]
        if fault is Fault.OTHER_VCPU_COUNT:
            inputs["vcpus"] = inputs.get("vcpus", 1) + 1
        build = platform.build
        platform.build = 0 if fault is Fault.DOWNGRADED_BUILD else build
        try:
            guest = launch_guest(platform, **inputs)
        finally:
            platform.build = build
        if fault is Fault.REPLAYED_MEASUREMENT:
            earlier = inputs.copy()
            earlier["godh"] = earlier["session"] = None
            guest.measurement = launch_guest(platform, **earlier).measurement
        if fault is Fault.SWAPPED_KEYS:
            context = platform.guest_context(guest.handle)
            context.tek, context.tik = context.tik, context.tek
            context.state = GuestState.LUPDATE
            guest.measurement = platform.launch_measure(guest.handle)
        if fault is Fault.REUSED_SESSION:
            guest.handle = launch_guest(platform, **inputs).handle
        return guest
