"""The options of ``domain``: what is known of a domain, and what is put into its XML."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sev_attest._encoding import blob
from sev_attest.cli.bundle import Options, option
from sev_attest.cli.inputs import FILE, OUTPUT, RELEASE, Number, read_small
from sev_attest.cli.options.connect import ConnectOptions
from sev_attest.cli.usage import usage
from sev_attest.domain_xml.launch_security import SNP_BLOB_SIZES
from sev_attest.domain_xml.rules import RULES
from sev_attest.errors import Unsupported, reading

if TYPE_CHECKING:
    from sev_attest.domain_xml.snp_launch import SnpLaunch

_POLICY = Number(0xFFFF_FFFF_FFFF_FFFF)
_HEX = re.compile(r"[0-9A-Fa-f]+")
_HOST_DATA = re.compile(r"[0-9A-Fa-f]{64}")
"""Host data as hex; anything else is the name of a file."""


class SurroundingsOptions(ConnectOptions, title="The host and the guest"):
    """What is known of the host and the guest; versions that are not given are current ones.

    A host that is connected to is asked for its versions.
    """

    libvirt: str | None = option(
        "--libvirt", type=RELEASE, metavar="V", help="The host's libvirt (9.0, 11.3.0)."
    )
    qemu: str | None = option("--qemu", type=RELEASE, metavar="V", help="The host's QEMU.")
    host_kernel: str | None = option(
        "--host-kernel", type=RELEASE, metavar="V", help="The host's kernel (for SEV-SNP)."
    )
    guest_kernel: str | None = option(
        "--guest-kernel", type=RELEASE, metavar="V", help="The kernel in the guest."
    )
    firmware: str | None = option(
        "--firmware", type=FILE, metavar="FILE", help="Your own copy of the guest's firmware."
    )
    capabilities: str | None = option(
        "--capabilities", type=FILE, metavar="FILE", help="What `virsh domcapabilities` prints."
    )


class SnpOptions(Options, title="SEV-SNP"):
    """What goes into the element of an SEV-SNP guest."""

    policy: int | None = option(
        "--policy", type=_POLICY, help="Guest policy (default: the ID block's)."
    )
    id_block: str | None = option(
        "--id-block", type=FILE, metavar="FILE", help="ID block: binary, base64 or hex."
    )
    id_auth: str | None = option(
        "--id-auth", type=FILE, metavar="FILE", help="ID authentication that belongs to it."
    )
    host_data: str | None = option(
        "--host-data",
        type=FILE,
        metavar="HEX|FILE",
        help="Host data: 64 hex digits, or a file with the 32 bytes.",
    )
    kernel_hashes: bool = option(
        "--kernel-hashes", is_flag=True, help="Ask for the hashes of the kernel in the XML."
    )

    @property
    def named(self) -> list[str]:
        """The names of the options that were given."""
        return [
            *self.stated("policy", "id_block", "id_auth", "host_data"),
            *(["--kernel-hashes"] if self.kernel_hashes else []),
        ]

    def errors(self, *, session: bool) -> Iterator[Unsupported]:
        """Yield errors for options that contradict each other."""
        if session and self.named:
            yield usage(f"--session is for SEV and SEV-ES, {self.named[0]} for SEV-SNP")
        if (self.id_block is None) != (self.id_auth is None):
            yield usage("--id-block and --id-auth are given together")

    def read(self) -> "SnpLaunch":
        """Read the files. Raises OSError, MalformedInput."""
        from sev_attest.domain_xml.snp_launch import SnpLaunch

        host_data = None
        if self.host_data is not None and _HOST_DATA.fullmatch(self.host_data):
            host_data = bytes.fromhex(self.host_data)
        elif self.host_data is not None:
            host_data = self._host_data(self.host_data)
        return SnpLaunch(
            policy=self.policy,
            id_block=_read_blob(self.id_block, "idBlock", "ID block"),
            id_auth=_read_blob(self.id_auth, "idAuth", "ID authentication"),
            host_data=host_data,
            kernel_hashes=self.kernel_hashes,
        )

    def _host_data(self, path: str) -> bytes | None:
        try:
            return _read_blob(path, "hostData", "host data")
        except FileNotFoundError:
            if not _HEX.fullmatch(path):
                raise
            found = f"{len(path)} hex digits, expected 64, and no file has this name"
            raise usage(f"--host-data {path}: {found}") from None


def _read_blob(path: str | None, name: str, what: str) -> bytes | None:
    if path is None:
        return None
    with reading(path):
        return blob(read_small(path, what), (SNP_BLOB_SIZES[name],), what)


class PrepareOptions(Options, title="What is changed"):
    """The session to put in, the rules to apply, and where the XML goes."""

    session: str | None = option(
        "--session",
        type=FILE,
        metavar="NAME",
        help="The session to put in, by the NAME that `session` was given (a folder may precede "
        "it); for SEV and SEV-ES.",
    )
    output: str | None = option(
        "-o", "--output", type=OUTPUT, metavar="FILE", help="Write to a file instead."
    )
    also: tuple[str, ...] = option(
        "--also",
        multiple=True,
        metavar="RULE",
        help="Also fix what this rule finds; can be repeated.",
    )
    everything: bool = option("--all", is_flag=True, help="Fix everything that can be fixed.")
    insecure: bool = option(
        "--insecure", is_flag=True, help="Accept a session that was used already."
    )
    force: bool = option("--force", is_flag=True, help="Write over a file that exists.")

    def errors(self) -> Iterator[Unsupported]:
        """Yield an error for rules of --also that are unknown or fix nothing."""
        unknown = [rule for rule in self.also if rule not in RULES or not RULES[rule].mends]
        if unknown:
            mendable = ", ".join(rule.id for rule in RULES.values() if rule.mends)
            yield usage(
                f"--also {unknown[0]}: no rule of that name fixes anything",
                hint=f"these do: {mendable}",
            )
