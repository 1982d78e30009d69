"""A host that is honest, or lies in one way that you choose."""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Unpack

from sev_attest.sev.chain.certificate import Certificate, Signature
from sev_attest.sev.chain.chain import Chain
from sev_attest.sev.chain.roots import amd_roots
from sev_attest.sev.spec import GuestState, Usage
from sev_attest.testing.authority import Authority
from sev_attest.testing.platform import Platform
from sev_attest.testing.qemu import Guest, GuestInputs, launch_guest


class Fault(Enum):
    """What a host can do wrong; the value begins with the check id that must name it."""

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
        """The check id (or status name) of the refusal."""
        return self.value.partition(":")[0]


@dataclass(slots=True)
class Host:
    """A host with one platform. With a ``fault`` it does that one thing wrong, and nothing else.

    The faults, where they show and what refuses them:

    - FORGED_ROOT, OFF_CURVE_PDH: :meth:`chain` gives certificates that verify_chain refuses.
    - OTHER_POLICY: the guest runs under a policy of the host's choice, without the owner's session.
    - DOWNGRADED_BUILD: the platform runs build 0; the owner's ``min_build`` refuses it.
    - WRONG_FIRMWARE_BYTE, OTHER_VCPU_COUNT: another guest is measured.
    - REPLAYED_MEASUREMENT: reports what an earlier guest measured, in a session of its own.
    - SWAPPED_KEYS: the owner's TEK file and TIK file have changed places.
    - REUSED_SESSION: the guest that was measured is not the one that gets the secret: a second one
      was launched in the same session. The firmware refuses the packet, which is for the first.
    """

    platform: Platform
    fault: Fault | None = None

    def chain(self) -> Chain:
        """Give the platform's certificates, as ``sevctl export --full`` does."""
        authority = self.platform.authority
        chain = self.platform.export()
        if self.fault is Fault.FORGED_ROOT:
            bits = authority.ark.public_key.bits
            amd = next(root for root in amd_roots() if root.ark.public_key.bits == bits)
            ids = (amd.ark.key_id, amd.ask.key_id if amd.ask else b"")
            authority = Authority(bits, key_ids=ids, forged=True)
            chain = chain.with_cek(authority.sign_cek(chain.cek))
        if self.fault is Fault.OFF_CURVE_PDH:
            key = chain.pdh.public_key
            pdh = Certificate.build(
                usage=Usage.PDH,
                algorithm=chain.pdh.algorithm,
                public_key=replace(key, y=key.y ^ 1),
                api=self.platform.api,
            )
            signature = self.platform.sign(Usage.PEK, pdh.body)
            chain = replace(chain, pdh=replace(pdh, signatures=(signature, Signature())))
        return replace(chain, ask=authority.ask, ark=authority.ark)

    def launch(self, **inputs: Unpack[GuestInputs]) -> Guest:
        """Start the guest that the owner asked for, or something near it."""
        platform, fault = self.platform, self.fault
        if fault is Fault.OTHER_POLICY:
            inputs["policy"] ^= 2
            inputs["godh"] = inputs["session"] = None
        if fault is Fault.WRONG_FIRMWARE_BYTE:
            firmware = inputs["firmware"]
            inputs["firmware"] = bytes((firmware[0] ^ 1,)) + firmware[1:]
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
            context = platform._guests[guest.handle]  # noqa: SLF001 - its own side of the model
            context.tek, context.tik = context.tik, context.tek
            context.state = GuestState.LUPDATE
            guest.measurement = platform.launch_measure(guest.handle)
        if fault is Fault.REUSED_SESSION:
            guest.handle = launch_guest(platform, **inputs).handle
        return guest
