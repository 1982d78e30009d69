"""The options of ``evidence verify``: what is at hand beside the file."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sev_attest.cli.bundle import Options, option
from sev_attest.cli.environment import REQUIREMENTS, from_environment
from sev_attest.cli.evidence.claims import AtHand
from sev_attest.cli.evidence.document import Evidence
from sev_attest.cli.evidence.recompute import meant_digest
from sev_attest.cli.evidence.values import measured_part
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
    from sev_attest.owner.record import LaunchRecord
    from sev_attest.owner.requirements import Requirements
    from sev_attest.sev.chain.roots import Root
    from sev_attest.snp.roots import Root as SnpRoot

_SNP_ALONE = ("guest_features", "firmware_digest", "svsm", "vars_size")


class RecomputeOptions(Options, title="Recomputing"):
    """Keys and roots, and what is accepted of the file."""

    tik: str | None = option("--tik", type=FILE, metavar="FILE", help="TIK of the session.")
    tek: str | None = option(
        "--tek", type=FILE, metavar="FILE", help="TEK of the session, for --record."
    )
    tk: str | None = option(
        "--tk", type=FILE, metavar="FILE", help="TEK and TIK in one file, in this order."
    )
    record: str | None = option(
        "--record",
        type=FILE,
        metavar="FILE",
        help="NAME.launch.json of the session: what its owner knows of the platform.",
    )
    requirements: str | None = option(
        "--requirements",
        type=FILE,
        metavar="FILE",
        envvar=REQUIREMENTS,
        help="Judge this owner.toml again, that of the verdict.",
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
        keys = (self.tik, self.tek, self.tk)
        more = (self.record, self.requirements, *self.trust_root)
        yield from stdin_errors(file, *keys, *more, *guest.files)
        if self.tk is not None and self.stated("tik", "tek"):
            yield usage("--tk excludes --tik and --tek")
        if self.tek is not None and self.record is None:
            yield usage("--tek needs --record")
        if self.record is not None and self.tk is None and None in (self.tik, self.tek):
            yield usage("--record needs --tik and --tek, or --tk: they show whose record it is")

    def guest_errors(self, evidence: Evidence, guest: SnpGuestOptions) -> Iterator[Unsupported]:
        """Yield an error for options that this evidence has no use for, or that miss a part."""
        launch, report = evidence["launch"], evidence["report"]
        if launch is None:
            for name in self.stated("tik", "tk", "record"):
                yield usage(f"{name} is for the evidence of an SEV launch")
        if self.requirements is not None and not from_environment("requirements"):
            if evidence["requirements"] is None:
                yield usage("--requirements: the verdict did not rest on any")
            elif not self._can_judge(evidence):
                yield usage("--requirements needs --record: it knows the platform of the session")
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
        record, tik = self._session()
        return AtHand(
            tik=tik,
            record=record,
            requirements=self._requirements() if self._can_judge(evidence) else None,
            roots=self._roots() if evidence["chain"] else [],
            snp_roots=self._snp_roots() if evidence["report"] else [],
            measured=measured and measured_part(measured),
        )

    def _tik(self) -> bytes | None:
        if self.tk is not None:
            with reading(self.tk):
                return TransportKeys.from_tk(read_small(self.tk, "TK")).tik
        return None if self.tik is None else read_key(self.tik, "TIK")

    def _session(self) -> "tuple[LaunchRecord | None, bytes | None]":
        """Read the record and the TIK; raises LaunchRefused unless the keys are the record's."""
        if self.record is None:
            return None, self._tik()
        from sev_attest.cli.options.keys import KeyOptions
        from sev_attest.owner.record import LaunchRecord

        with reading(self.record):
            record = LaunchRecord.from_bytes(read_small(self.record, "launch record"))
        keys = KeyOptions(tik=self.tik, tek=self.tek, tk=self.tk).read()
        record.require(keys)
        return record, keys.tik

    def _can_judge(self, evidence: Evidence) -> bool:
        """Return whether the evidence has requirements, and what they are asked of is at hand."""
        known = evidence["launch"] is None or self.record is not None
        return known and evidence["requirements"] is not None

    def _requirements(self) -> "Requirements | None":
        if self.requirements is None:
            return None
        from sev_attest.cli.commands.requirements import read_requirements

        return read_requirements(self.requirements)

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
