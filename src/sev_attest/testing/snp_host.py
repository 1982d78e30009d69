"""A simulated SEV-SNP host that is honest, or wrong in one chosen way."""

from dataclasses import dataclass
from typing import NotRequired, TypedDict, Unpack

from sev_attest.snp.certificates import Kind
from sev_attest.testing.snp import SnpPlatform
from sev_attest.testing.snp_answer import Request, SnpAnswer
from sev_attest.testing.snp_fault import SnpFault, change
from sev_attest.testing.snp_launch import SnpGuest
from sev_attest.testing.snp_qemu import SnpInputs, launch_snp_guest


class ReportChoices(TypedDict):
    """How a report is made: the key that signs, its version (2, 3 or 5), and the VMPL."""

    kind: NotRequired[Kind]
    version: NotRequired[int]
    vmpl: NotRequired[int]


@dataclass(slots=True)
class SnpHost:
    """A simulated host with one SEV-SNP platform.

    It does nothing wrong but its ``fault``, if it has one:

    - FORGED_ROOT: the certificates lead to an ARK with AMD's name, and another key.
    - UNSIGNED_CA, UNSIGNED_KEY: the ARK does not sign the ASK or ASVK, which does not sign the key.
    - OTHER_KIND: the report names the other kind of key than the one that signs it.
    - OTHER_PRODUCT, OTHER_TCB, OTHER_CHIP: the certificate's product, the report's TCB or the
      report's chip is another one.
    - EXPIRED_VLEK: a VLEK signs, whose year has passed (2020).
    - OTHER_KEY: another chip's key signs the report. MASKED_KEY: no key signs it.
    - ``RESERVED_...``: a reserved byte of the report at this offset is in use.
    - REPLAYED_REPORT, ASKED_BY_HOST: the report answers another request; the host asked for it.
    - WRONG_FIRMWARE_BYTE, OTHER_VCPU_COUNT: another guest is launched.
    - DEBUG_POLICY, OLD_TCB: the guest runs with debugging permitted; the firmware is older.
    """

    platform: SnpPlatform
    fault: SnpFault | None = None

    def launch(self, *, instance: bytes = b"", **inputs: Unpack[SnpInputs]) -> SnpGuest:
        """Return the guest that was asked for, or what the fault makes of it; it runs.

        Takes the arguments of :func:`launch_snp_guest`, and raises as it does.
        """
        if self.fault is SnpFault.WRONG_FIRMWARE_BYTE:
            firmware = inputs["firmware"]
            inputs["firmware"] = bytes(byte ^ 1 for byte in firmware[:1]) + firmware[1:]
        if self.fault is SnpFault.OTHER_VCPU_COUNT:
            inputs["vcpus"] = inputs.get("vcpus", 1) + 1
        return launch_snp_guest(self.platform, instance=instance, **inputs)

    def report(
        self,
        guest: SnpGuest,
        report_data: bytes,
        *,
        kind: Kind = Kind.VCEK,
        version: int = 3,
        vmpl: int = 0,
        **fields: int | bytes,
    ) -> SnpAnswer:
        """Return what the guest gets for its request, or what the fault makes of it.

        ``report_data`` has 64 bytes. ``kind`` is the key that signs, ``version`` 2, 3 or 5.
        ``fields`` are other values for fields of :data:`~sev_attest.snp.report.LAYOUT`.

        Raises Unsupported for a fault that this version of a report cannot have.
        """
        request = Request(
            guest=guest,
            platform=self.platform,
            kind=kind,
            version=version,
            fields={"report_data": report_data, "vmpl": vmpl, **fields},
        )
        if self.fault is not None:
            change(self.fault, request)
        return request.answer()
