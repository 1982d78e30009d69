"""A guest of SEV-SNP that may get its secret, and how a report fits it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sev_attest.errors import Failure
from sev_attest.snp.report import AttestationReport

NO_HOST_DATA = bytes(32)
"""``host_data`` of a guest whose host chose none."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SnpReferenceValue:
    """A guest that may get its secret, known by its launch digests, by who signed it, or by both.

    ``digests`` are launch digests (48 bytes), each with a description. ``id_keys`` and
    ``author_keys`` are digests of the keys (48 bytes, SHA-384) that signed its ID block, as the
    report has them. None asks for nothing, but an empty one fits no report, and one of the three
    has to be there. ``family_id`` and ``image_id`` are 16 bytes of the ID block; None asks for
    nothing. ``guest_svn`` is the lowest, 0 to 2^32-1. They prove something only beside a key.
    ``host_data`` is 32 bytes; None allows any.
    """

    name: str
    digests: Mapping[bytes, str] | None = None
    id_keys: frozenset[bytes] | None = None
    author_keys: frozenset[bytes] | None = None
    family_id: bytes | None = None
    image_id: bytes | None = None
    guest_svn: int = 0
    host_data: bytes | None = NO_HOST_DATA
    expires: datetime | None = None
    note: str = ""

    def __repr__(self) -> str:
        """Return its name and the number of its digests and keys."""
        keys = len(self.id_keys or ()) + len(self.author_keys or ())
        return f"SnpReferenceValue({self.name!r}, {len(self.digests or ())} digests, {keys} keys)"

    def required(self) -> list[object]:
        """Return what counts of it, for JSON."""
        return [
            self.name,
            *(
                None if many is None else sorted(one.hex() for one in many)
                for many in (self.digests, self.id_keys, self.author_keys)
            ),
            *(one and one.hex() for one in (self.family_id, self.image_id)),
            self.guest_svn,
            None if self.host_data is None else self.host_data.hex(),
            self.expires and self.expires.astimezone(UTC).isoformat(),
        ]

    def expired(self, at: datetime) -> bool:
        """Return whether its time is over; ``at`` has a time zone."""
        return self.expires is not None and at >= self.expires

    @property
    def unproven(self) -> str:
        """Name of what is asked of an ID block of which nobody says who signed it, or ""."""
        if self.id_keys is not None or self.author_keys is not None:
            return ""
        asked = {
            "family_id": self.family_id is not None,
            "image_id": self.image_id is not None,
            "guest_svn": self.guest_svn > 0,
        }
        return next((name for name, wanted in asked.items() if wanted), "")

    def describes(self, report: AttestationReport) -> bool:
        """Return whether it is this guest, by its digest, or without digests by its keys."""
        if self.digests is not None:
            return report.measurement in self.digests
        keyed = self.id_keys is not None or self.author_keys is not None
        return keyed and not [*self._keys(report)]

    def failures(self, report: AttestationReport, at: datetime) -> Iterator[Failure]:
        """Yield what keeps the guest that this describes from its secret at a time."""
        yield from self._keys(report)
        if self.expired(at):
            yield _failure("expired", f"launch {self.name!r} expired: {self.expires}")
        for check, words, found, wanted in (
            ("family-id", "family_id", report.family_id, self.family_id),
            ("image-id", "image_id", report.image_id, self.image_id),
            ("host-data", "host_data", report.host_data, self.host_data),
        ):
            if wanted is not None and found != wanted:
                said = f"launch {self.name!r}: {words} is {found.hex()}, expected {wanted.hex()}"
                yield _failure(check, said)
        if report.guest_svn < self.guest_svn:
            said = f"launch {self.name!r}: guest SVN {report.guest_svn} is below {self.guest_svn}"
            yield _failure("guest-svn", said)

    def _keys(self, report: AttestationReport) -> Iterator[Failure]:
        """Yield a failure for each kind of key that is asked for and did not sign the guest."""
        # The digest is zero without an ID block, and then the author's means nothing either.
        signed = any(report.id_key_digest)
        authored = signed and report.key_info.author_key_en and any(report.author_key_digest)
        for check, words, there, found, trusted in (
            ("id-key", "ID key", signed, report.id_key_digest, self.id_keys),
            ("author-key", "author key", authored, report.author_key_digest, self.author_keys),
        ):
            if trusted is not None and not (there and found in trusted):
                whose = f"its {words} {found.hex()} is not" if there else f"it has no {words}"
                said = f"launch {self.name!r}: {whose}{' among those trusted' * there}"
                yield _failure(check, said)


def allowed_by(
    launches: tuple[SnpReferenceValue, ...], report: AttestationReport, at: datetime
) -> tuple[SnpReferenceValue | None, tuple[Failure, ...]]:
    """Return the launch that allows a report, or None and what keeps every one from it."""
    described = [one for one in launches if one.describes(report)]
    failures: list[Failure] = []
    for one in described:
        found = tuple(one.failures(report, at))
        if not found:
            return one, ()
        failures += found
    if not described:
        words = f"its launch digest {report.measurement.hex()} is not among those allowed"
        if any(one.digests is None for one in launches):
            words += ", and no key that an allowed launch trusts signed it"
        failures.append(_failure("digest", words))
    return None, tuple(failures)


def _failure(check: str, message: str) -> Failure:
    return Failure(f"requirements.snp.launch.{check}", message)
