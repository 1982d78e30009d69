"""The options of ``evidence verify``: what is at hand beside the file."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sev_attest.cli.bundle import Options, option
from sev_attest.cli.evidence.claims import AtHand
from sev_attest.cli.evidence.document import Evidence
from sev_attest.cli.evidence.recompute import meant_digest
from sev_attest.cli.evidence.values import ranges_of
from sev_attest.cli.inputs import FILE, read_small, stdin_errors
from sev_attest.cli.options.guest import GuestOptions, measure_guest
from sev_attest.cli.options.keys import read_key
from sev_attest.cli.options.snp_guest import SnpGuestOptions, measure_snp_guest
from sev_attest.cli.usage import usage
from sev_attest.errors import Unsupported, reading
from sev_attest.sev.keys import TransportKeys
from sev_attest.sev.policy import GuestPolicy

if TYPE_CHECKING:
    from sev_attest.cli.options.guest import Measured
    from sev_attest.cli.options.snp_guest import SnpMeasured
    from sev_attest.sev.chain.roots import Root
    from sev_attest.snp.roots import Root as SnpRoot

_SNP_ALONE = ("guest_features", "firmware_digest", "svsm", "vars_size")


class RecomputeOptions(Options, title="Recomputing"):
    """Keys and roots, and what is accepted of the file."""

    tik: str | None = option("--tik", type=FILE, metavar="FILE", help="TIK of the session.")
    tk: str | None = option(
        "--tk", type=FILE, metavar="FILE", help="TEK and TIK in one file, in this order."
    )
    trust_root: tuple[str, ...] = option(
        "--trust-root",
        type=FILE,
        metavar="FILE",
        multiple=True,
        help="Also trust this ARK, which is not AMD's (a test platform).",
    )
    insecure: bool = option(
        "-i",
        "--insecure",
        is_flag=True,
        help="Accept what the file says where it cannot be recomputed.",
    )

    def errors(self, file: str, guest: SnpGuestOptions) -> Iterator[Unsupported]:
        """Yield an error for options that contradict each other, or two inputs from stdin."""
        yield from stdin_errors(file, self.tik, self.tk, *self.trust_root, *guest.files)
        if self.tik is not None and self.tk is not None:
            yield usage("--tk excludes --tik")

    def guest_errors(self, evidence: Evidence, guest: SnpGuestOptions) -> Iterator[Unsupported]:
        """Yield an error for options that this evidence has no use for, or that miss a part."""
        launch, report = evidence["launch"], evidence["report"]
        if launch is None and self.stated("tik", "tk"):
            yield usage("--tik and --tk are for the evidence of an SEV launch")
        if not guest.described:
            return
        if meant_digest(evidence) is None or (launch is None and report is None):
            yield usage(f"{guest.described[0]}: the evidence has no launch digest to compare with")
        elif launch is None:
            yield from guest.errors()
        else:
            for name in guest.stated(*_SNP_ALONE):
                yield usage(f"{name} is for SEV-SNP, and this is the evidence of an SEV launch")
            options = _sev(guest)
            yield from options.errors()
            yield from options.vcpu_errors(GuestPolicy(launch["policy"]))

    def read(self, evidence: Evidence, guest: SnpGuestOptions, *, progress: bool) -> AtHand:
        """Read the files; raises OSError, MalformedInput."""
        measured: Measured | SnpMeasured | None = None
        launch = evidence["launch"]
        if guest.described and launch is not None:
            options, policy = _sev(guest), GuestPolicy(launch["policy"])
            measured = measure_guest(options, options.num_cpus, policy, progress=progress)
        elif guest.described:
            measured = measure_snp_guest(guest, progress=progress)
        return AtHand(
            tik=self._tik(),
            roots=self._roots() if evidence["chain"] else [],
            snp_roots=self._snp_roots() if evidence["report"] else [],
            digest=measured and measured.digest,
            ranges=ranges_of(measured) if measured else [],
        )

    def _tik(self) -> bytes | None:
        if self.tk is not None:
            with reading(self.tk):
                return TransportKeys.from_tk(read_small(self.tk, "TK")).tik
        return None if self.tik is None else read_key(self.tik, "TIK")

    def _roots(self) -> "list[Root]":
        from sev_attest.cli.options.chain import RootOptions

        return RootOptions(trust_root=self.trust_root).roots()

    def _snp_roots(self) -> "list[SnpRoot]":
        from sev_attest.cli.options.snp import SnpTrustOptions

        _, roots = SnpTrustOptions(trust_root=self.trust_root, crl=()).read((), ())
        return roots


def _sev(guest: SnpGuestOptions) -> GuestOptions:
    """Return the options of an SEV guest: its own have the same names."""
    shared = GuestOptions.declared().keys() & SnpGuestOptions.declared().keys()
    values: dict[str, object] = {name: getattr(guest, name) for name in shared}
    values["num_cpus"] = guest.num_cpus[0] if guest.num_cpus else None
    return GuestOptions.none().replace(**values)
