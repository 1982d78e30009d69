"""Mend a domain's XML, and put a session in it: by editing its text, so that all else stays."""

import base64
import hashlib
from bisect import bisect, insort
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace

from sev_attest._encoding import blob
from sev_attest.domain_xml.check import look
from sev_attest.domain_xml.diff import Span, kept, through, unified
from sev_attest.domain_xml.domain import STRUCTURE, Domain, parse_domain
from sev_attest.domain_xml.lint import Finding, Severity, Subject, Used
from sev_attest.domain_xml.xml import MAX_ELEMENTS, MAX_SIZE, Edit, apply
from sev_attest.errors import Insecure, MalformedInput
from sev_attest.owner.record import LaunchRecord

NEEDED = frozenset({"domain.loader.stateless"})
"""Rules that are mended without being asked, beside every error: attestation rests on them."""
_PASSES = 64
_GODH_SIZE = 2084
_SESSION_SIZE = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFiles:
    """What `sev-attest session` wrote for the host, and the record of it. No secret is in it."""

    record: LaunchRecord
    godh: bytes
    """2084 bytes."""
    blob: bytes
    """128 bytes."""

    def __post_init__(self) -> None:
        """Hold the blobs to the record (MalformedInput)."""
        for name, data, recorded in (
            ("GODH", self.godh, self.record.godh_sha256),
            ("session blob", self.blob, self.record.session_sha256),
        ):
            if hashlib.sha256(data).hexdigest() != recorded:
                reason = f"this is not that of the record of {self.record.name}"
                raise MalformedInput(name, "conflict", reason, hint="take the files of one session")

    @classmethod
    def from_files(cls, record: bytes, godh: bytes, session: bytes) -> "SessionFiles":
        """Read NAME.launch.json, NAME_godh.b64 and NAME_session.b64; raises MalformedInput."""
        return cls(
            record=LaunchRecord.from_bytes(record),
            godh=blob(godh, (_GODH_SIZE,), "GODH"),
            blob=blob(session, (_SESSION_SIZE,), "session blob"),
        )

    def require_unused(self, used: Used | None) -> None:
        """Refuse a session that was used already; raises Insecure."""
        state = used(self.record.session_sha256) if used else None
        if state is not None:
            raise Insecure(
                f"the session {self.record.name} was used already: {state}",
                check="domain.session.reused",
                hint="make a new one with `sev-attest session`: each is for one launch only",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The mended XML; what was mended; what is left."""

    source: bytes = field(repr=False)
    """The XML as it was."""
    xml: bytes = field(repr=False)
    mended: tuple[Finding, ...]
    remaining: tuple[Finding, ...]
    kept: list[Span] = field(repr=False)
    """What of the source is in the mended XML."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What is left that stands against attestation."""
        return tuple(one for one in self.remaining if one.severity is Severity.ERROR)

    def diff(self, old: str, new: str) -> Iterator[str]:
        """Write the lines of a unified diff between two files of these names, without newlines."""
        return unified(self.source, self.xml, self.kept, (old, new))


def prepare(
    subject: Subject, session: SessionFiles, *, also: Collection[str] = (), everything: bool = False
) -> Prepared:
    """Put a session into a domain's XML, and mend what attestation needs.

    That is every error that can be mended without knowing more than the XML and the session, and
    the rules in :data:`NEEDED`; ``also`` names further rules, ``everything`` means all of them.
    What is mended once stays as it is the next time. Raises MalformedInput as ``check_domain``, and
    where the mended XML would be more than ``parse_domain`` takes.
    """
    subject = replace(
        subject,
        record=session.record,
        godh=base64.b64encode(session.godh).decode(),
        blob=base64.b64encode(session.blob).decode(),
    )
    wanted = NEEDED | set(also)
    source = subject.document.source
    left = [Span(0, 0, len(source))]
    mended: list[Finding] = []
    for _ in range(_PASSES):
        findings = look(subject)
        edits: list[Edit] = []
        for finding in findings:
            chosen = everything or finding.severity is Severity.ERROR or finding.id in wanted
            if chosen and finding.edits and all(_free(edit, edits) for edit in finding.edits):
                mended.append(finding)
                for edit in finding.edits:
                    insort(edits, edit, key=_start)
        if not edits:
            break
        left = through(left, kept(len(subject.document.source), edits))
        xml = apply(subject.document.source, edits)
        subject = replace(subject, domain=_mended(xml))
    return Prepared(
        source=source,
        xml=subject.document.source,
        mended=tuple(mended),
        remaining=tuple(look(subject)),
        kept=left,
    )


def _mended(xml: bytes) -> Domain:
    try:
        return parse_domain(xml)
    except MalformedInput as error:
        reason = "the mended XML would be too large"
        hint = f"at most {MAX_SIZE >> 20} MiB, and {MAX_ELEMENTS} elements, are read"
        raise MalformedInput(STRUCTURE, error.field, reason, hint=hint) from None


def _start(edit: Edit) -> int:
    return edit.start


def _free(edit: Edit, taken: list[Edit]) -> bool:
    """Tell whether an edit touches none of ``taken``, which are in order."""
    at = bisect(taken, edit.start, key=_start)
    return not any(edit.touches(other) for other in taken[max(at - 1, 0) : at + 1])
