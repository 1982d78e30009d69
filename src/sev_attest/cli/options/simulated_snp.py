"""The options of a simulated SEV-SNP guest, and of its reports."""

from collections.abc import Iterator

import click

from sev_attest._encoding import blob
from sev_attest.cli.bundle import Options, option
from sev_attest.cli.inputs import FILE, OUTPUT, Number, read_small, stdin_errors
from sev_attest.cli.options.simulated import StartOptions
from sev_attest.cli.options.snp import HexBytes
from sev_attest.cli.usage import usage
from sev_attest.errors import Unsupported, reading
from sev_attest.snp.certificates import Kind
from sev_attest.snp.spec import VERSIONS
from sev_attest.testing.host import Fault, fault_name
from sev_attest.testing.snp_fault import SnpFault
from sev_attest.testing.snp_host import ReportChoices
from sev_attest.testing.snp_launch import ID_AUTH_SIZE, ID_BLOCK_SIZE
from sev_attest.testing.snp_qemu import SNP_POLICY, SnpInputs

_FEATURES = Number(0xFFFF_FFFF_FFFF_FFFF)
_SEV_ONLY = ("xml", "godh", "session")
_SNP_ONLY = ("guest_features", "host_data", "id_block", "id_auth")
_KINDS = {"vcek": Kind.VCEK, "vlek": Kind.VLEK}


class SnpStartOptions(Options, title="SEV-SNP"):
    """What an SEV-SNP guest has beside what other guests have."""

    snp: bool = option("--snp", is_flag=True, help="Start an SEV-SNP guest; it runs at once.")
    guest_features: int | None = option(
        "--guest-features",
        type=_FEATURES,
        metavar="HEX",
        help="Bits of SEV_FEATURES; bit 0, SNP active, is always set.",
    )
    host_data: bytes | None = option(
        "--host-data", type=HexBytes(32), metavar="HEX", help="32 bytes for the report's HOST_DATA."
    )
    id_block: str | None = option(
        "--id-block", type=FILE, metavar="FILE", help="ID block, 96 bytes, binary, hex or base64."
    )
    id_auth: str | None = option(
        "--id-auth", type=FILE, metavar="FILE", help="Its authentication, 4096 bytes."
    )

    def errors(self, guest: StartOptions) -> Iterator[Unsupported]:
        """Yield an error for each option that is missing or contradicts another."""
        if not self.snp:
            if self.stated(*_SNP_ONLY):
                yield usage(f"--snp is needed for {', '.join(self.stated(*_SNP_ONLY))}")
            return
        if guest.stated(*_SEV_ONLY):
            yield usage(f"--snp excludes {', '.join(guest.stated(*_SEV_ONLY))}")
        if len(self.stated("id_block", "id_auth")) == 1:
            yield usage("--id-block and --id-auth go together")
        if guest.fault is not None and _snp_fault(guest.fault) is None:
            yield usage(f"--fault {fault_name(guest.fault)} is no fault of an SEV-SNP launch")
        yield from stdin_errors(
            guest.firmware, guest.kernel, guest.initrd, self.id_block, self.id_auth
        )

    def guest(self, guest: StartOptions) -> tuple[str, SnpInputs, SnpFault | None]:
        """Return the guest's name, what it is launched with, and the fault of its launch.

        Raises OSError, MalformedInput.
        """
        inputs = SnpInputs(
            policy=SNP_POLICY if guest.policy is None else guest.policy,
            features=self.guest_features or 0,
            host_data=self.host_data or bytes(32),
            id_block=_sized(self.id_block, ID_BLOCK_SIZE, "ID block"),
            id_auth=_sized(self.id_auth, ID_AUTH_SIZE, "ID authentication") or b"",
            **guest.boot("qemu"),
        )
        return guest.name or "", inputs, guest.fault and _snp_fault(guest.fault)


def _snp_fault(fault: Fault) -> SnpFault | None:
    """Return the fault of an SEV-SNP launch with the same name."""
    found = SnpFault.__members__.get(fault.name)
    return found if found is not None and found.in_launch else None


def _sized(path: str | None, size: int, what: str) -> bytes | None:
    if path is None:
        return None
    with reading(path):
        return blob(read_small(path, what), (size,), what)


class SnpReportOptions(Options, title="Report"):
    """What the guest asks for, and what it gets."""

    report_data: bytes = option(
        "--report-data",
        type=HexBytes(64),
        metavar="HEX",
        required=True,
        help="The 64 bytes that the guest puts into the report.",
    )
    vmpl: int = option("--vmpl", type=Number(3), default=0, help="VMPL that asks (default: 0).")
    report_version: str = option(
        "--report-version",
        type=click.Choice([str(version) for version in VERSIONS]),
        default="3",
        help="Version of the report (default: 3).",
    )
    key: str = option(
        "--key",
        type=click.Choice(list(_KINDS)),
        default="vcek",
        help="The key that signs: the chip's, or a cloud provider's (default: vcek).",
    )
    fault: SnpFault | None = option(
        "--fault",
        type=click.Choice([fault_name(fault) for fault in SnpFault if not fault.in_launch]),
        help="What is wrong with the answer.",
        callback=lambda _ctx, _param, value: value and _by_option(value),
    )
    out: str | None = option(
        "--out", type=OUTPUT, metavar="DIR", help="Folder to write (default: NAME.report)."
    )
    force: bool = option("--force", is_flag=True, help="Write over files that exist.")

    @property
    def choices(self) -> ReportChoices:
        """How the report is made."""
        return ReportChoices(
            kind=_KINDS[self.key], version=int(self.report_version), vmpl=self.vmpl
        )


def _by_option(name: str) -> SnpFault:
    return next(fault for fault in SnpFault if fault_name(fault) == name)
