"""Fix a domain's XML and put a session in it, by edits of the text: everything else stays."""

import base64
import hashlib
from bisect import bisect, insort
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from sev_attest._encoding import blob
from sev_attest.domain_xml.diff import Span, kept, through, unified
from sev_attest.domain_xml.domain import STRUCTURE, Domain, parse_domain
from sev_attest.domain_xml.launch_security import BLOB_SIZES
from sev_attest.domain_xml.rule import Finding, Severity, Subject, Used
from sev_attest.domain_xml.rules import apply_rules
from sev_attest.domain_xml.snp_launch import SnpLaunch
from sev_attest.domain_xml.xml import MAX_ELEMENTS, MAX_SIZE, Edit, apply
from sev_attest.errors import Insecure, MalformedInput
from sev_attest.owner.record import LaunchRecord

NEEDED: frozenset[str] = frozenset({"domain.loader.rom", "domain.loader.stateless"})
"""Rules that are always mended, although not errors: attestation depends on them."""
_SESSION = ("domain.launch-security.missing", "domain.kernel-hashes.differs", "domain.policy.",
            "domain.session.", "domain.snp.")  # fmt: skip
"""How the ids of the rules begin whose edits put a session in, or what an SEV-SNP guest has."""
_PASSES = 64
"""An edit may reveal a finding; no XML in the tests takes more than a few passes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFiles:
    """The files of a session that hold no secret: its record, and what goes to the host."""

    record: LaunchRecord
    godh: bytes
    """2084 bytes."""
    blob: bytes
    """128 bytes."""

    def __post_init__(self) -> None:
        """Raise MalformedInput if a blob is not the one of the record."""
        for name, data, recorded in (
            ("GODH", self.godh, self.record.godh_sha256),
            ("session blob", self.blob, self.record.session_sha256),
        ):
            if hashlib.sha256(data).hexdigest() != recorded:
                reason = f"it does not belong to the record of {self.record.name}"
                raise MalformedInput(name, "conflict", reason, hint="use the files of one session")

    @classmethod
    def from_files(cls, record: bytes, godh: bytes, session: bytes) -> "SessionFiles":
        """Read NAME.launch.json, NAME_godh.b64 and NAME_session.b64. Raises MalformedInput."""
        return cls(
            record=LaunchRecord.from_bytes(record),
            godh=blob(godh, (BLOB_SIZES["dhCert"],), "GODH"),
            blob=blob(session, (BLOB_SIZES["session"],), "session blob"),
        )

    def require_unused(self, used: Used | None) -> None:
        """Raise Insecure if the session was used already."""
        state = used(self.record.session_sha256) if used else None
        if state is not None:
            raise Insecure(
                f"the session {self.record.name} was used already: {state}",
                check="domain.session.reused",
                hint="make a new session: each is for one launch only",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The result of :func:`prepare`: the mended XML, what was mended, and what is left."""

    source: bytes = field(repr=False)
    """The XML as it was."""
    xml: bytes = field(repr=False)
    """The mended XML."""
    mended: tuple[Finding, ...]
    remaining: tuple[Finding, ...]
    kept: list[Span] = field(repr=False)
    """The parts of the source that are in the mended XML."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The errors that are left."""
        return tuple(one for one in self.remaining if one.severity is Severity.ERROR)

    def diff(self, old: str, new: str) -> Iterator[str]:
        """Return the lines of a unified diff of files ``old`` and ``new``, without newlines."""
        return unified(self.source, self.xml, self.kept, (old, new))


def prepare(
    subject: Subject,
    launch: SessionFiles | SnpLaunch,
    *,
    also: Collection[str] = (),
    everything: bool = False,
    fix: bool = True,
) -> Prepared:
    """Put a session into a domain's XML, and fix what prevents attestation.

    For an SEV-SNP guest, which has no session, ``launch`` is what goes into its element. Fixed is
    every error for which the XML and ``launch`` are enough, and what the rules in
    :data:`NEEDED` find. ``also`` names more rules; ``everything`` stands for all that can be fixed.
    Without ``fix``, only ``launch`` is put in. A second run changes nothing.

    Raises Unsupported for a session and an SEV-SNP guest, and the reverse; MalformedInput for
    firmware whose footer table is malformed, and if the XML would become larger than
    ``parse_domain`` accepts.
    """
    subject = _with(subject, launch)
    wanted = NEEDED | set(also)
    source = subject.document.source
    left = [Span(0, 0, len(source))]
    mended: list[Finding] = []
    for _ in range(_PASSES):
        edits: list[Edit] = []
        for finding in apply_rules(subject):
            chosen = everything or finding.severity is Severity.ERROR or finding.id in wanted
            chosen = chosen and (fix or finding.id.startswith(_SESSION))
            if chosen and finding.edits and all(_free(edit, edits) for edit in finding.edits):
                mended.append(finding)
                for edit in finding.edits:
                    insort(edits, edit, key=_start)
        if not edits:
            break
        left = through(left, kept(len(subject.document.source), edits))
        xml = apply(subject.document.source, edits)
        subject = subject._replace(domain=_mended(xml))
    return Prepared(
        source=source,
        xml=subject.document.source,
        mended=tuple(mended),
        remaining=tuple(apply_rules(subject)),
        kept=left,
    )


def _with(subject: Subject, launch: SessionFiles | SnpLaunch) -> Subject:
    """Return the subject with what is to be put in."""
    if isinstance(launch, SnpLaunch):
        subject.domain.refuse_sev()
        return subject._replace(launch=launch)
    subject.domain.refuse_snp()
    return subject._replace(
        record=launch.record,
        godh=base64.b64encode(launch.godh).decode(),
        blob=base64.b64encode(launch.blob).decode(),
    )


def _mended(xml: bytes) -> Domain:
    try:
        return parse_domain(xml)
    except MalformedInput as error:
        reason = "the XML would become too large"
        hint = f"the limits are {MAX_SIZE >> 20} MiB and {MAX_ELEMENTS} elements"
        raise MalformedInput(STRUCTURE, error.field, reason, hint=hint) from None


def _start(edit: Edit) -> int:
    return edit.start


def _free(edit: Edit, taken: list[Edit]) -> bool:
    """Return whether an edit touches none of ``taken``, which are sorted by their start."""
    at = bisect(taken, edit.start, key=_start)
    return not any(edit.touches(other) for other in taken[max(at - 1, 0) : at + 1])
