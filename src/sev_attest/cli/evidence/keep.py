"""What a command has at hand for its evidence, and the moment at which that is written.

Nothing else of this package is imported before evidence is written.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, Self

from sev_attest.errors import Failure, SevAttestError, Unsupported

if TYPE_CHECKING:
    from sev_attest.cli.evidence.document import OfCommand
    from sev_attest.cli.options.common import LedgerOptions
    from sev_attest.cli.options.guest import Measured
    from sev_attest.cli.options.reported import Reported
    from sev_attest.cli.options.snp_guest import SnpMeasured
    from sev_attest.cli.snp_verdict import SnpCase
    from sev_attest.owner.requirements import Requirements
    from sev_attest.sev.chain.chain import Chain
    from sev_attest.sev.chain.roots import Root
    from sev_attest.snp.certificate_files import X509Value
    from sev_attest.snp.verify import VerifiedReport


class Outcome(NamedTuple):
    """The verdict: what the command's JSON has of it, and every reason of a refusal."""

    facts: Mapping[str, object]
    notes: tuple[str, ...] = ()
    error: SevAttestError | None = None
    exit_code: int = 0
    failures: tuple[Failure, ...] = ()


class Kept:
    """What a command has at hand; it sets each attribute as soon as it knows it.

    Inside ``with kept:``, a refusal writes the evidence of it. Wrong usage writes none: nothing was
    judged. An error in writing never hides the refusal.
    """

    def __init__(self, command: "OfCommand", places: tuple[str, ...], *, force: bool) -> None:
        """Take the command's name and the files to write; none of them means no evidence."""
        self.command: OfCommand = command
        self.places: tuple[str, ...] = places
        self.began: datetime = datetime.now(UTC)
        self.chain: Chain | None = None
        self.root: Root | None = None
        self.reported: Reported | None = None
        self.measured: Measured | SnpMeasured | None = None
        self.case: SnpCase | None = None
        self.certificates: list[X509Value] = []
        self.at: datetime | None = None
        self.verified: VerifiedReport | None = None
        self.requirements: Requirements | None = None
        self.ledger: LedgerOptions | None = None
        self.session_id: str | None = None
        self._force = force

    def __enter__(self) -> Self:
        """Check the places of the files, before anything is done."""
        if self.places:
            from sev_attest.cli.outputs import check_writable

            check_writable(self.places, force=self._force)
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if not isinstance(error, SevAttestError) or isinstance(error, Unsupported):
            return
        if not self.places:
            return
        from sev_attest.cli.exits import explain

        code, failures = explain(error)
        notes = tuple(getattr(error, "__notes__", ()))
        try:
            self._write(Outcome(error.facts, notes, error, code, tuple(failures)))
        except Exception as failure:  # noqa: BLE001 - the refusal stands, even after a bug
            error.add_note(f"the evidence was not written: {explain(failure)[1][0].message}")

    def accepted(self, facts: Mapping[str, object], notes: Iterable[str]) -> None:
        """Write the evidence of a verdict that is about to be printed; raises OSError.

        ``facts`` are the fields of the command's JSON document.
        """
        if self.places:
            self._write(Outcome(facts, tuple(notes)))

    def files(self, facts: Mapping[str, object], notes: Iterable[str]) -> list[tuple[str, bytes]]:
        """Return what :meth:`accepted` writes, for a command that writes a file beside it."""
        return self._files(Outcome(facts, tuple(notes))) if self.places else []

    def _write(self, outcome: Outcome) -> None:
        from sev_attest.cli.outputs import write_all

        write_all(self._files(outcome), force=self._force)

    def _files(self, outcome: Outcome) -> list[tuple[str, bytes]]:
        from sev_attest.cli.evidence.parts import evidence_of
        from sev_attest.cli.evidence.reader import to_bytes

        evidence = evidence_of(self, outcome)
        files = []
        for place in self.places:
            if place.endswith(".json"):
                files.append((place, to_bytes(evidence)))
            else:
                from sev_attest.cli.evidence.page import page

                files.append((place, page(evidence)))
        return files
