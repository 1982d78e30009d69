"""Verify an ID block: who approved it, and whether a report is of the launch that it approves.

The steps of :func:`verify_id_block`, each under its number in the code:

1. If a digest was given: the ID key is the one of that digest.
2. The ID key signs the ID block.
3. If a digest was given: there is an author key, and it is the one of that digest.
4. If there is an author key: it signs the ID key.

Every failed step is reported, not only the first.

Source: see :mod:`sev_attest.snp.id_block`; the fields of a report: AMD 56860, ATTESTATION_REPORT.
"""

import hmac
from collections.abc import Iterator
from dataclasses import InitVar, dataclass

from sev_attest._seal import Seal
from sev_attest.errors import Failure, IdBlockInvalid, Unsupported
from sev_attest.snp.id_block import IdAuth, IdBlock
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.verify import VerifiedReport

CHECKS = {
    "snp.id-block.id-key": "the ID key is the one that was expected",
    "snp.id-block.signature": "the ID key signs the ID block",
    "snp.id-block.author-key": "the author key is the one that was expected",
    "snp.id-block.author-signature": "the author key signs the ID key",
}
"""Every check id of an ID block, in the order of the steps, and what it guarantees."""

REPORT_CHECKS = {
    "snp.id-block.report.launch-digest": "the report's launch digest is the block's",
    "snp.id-block.report.family-id": "the report's family_id is the block's",
    "snp.id-block.report.image-id": "the report's image_id is the block's",
    "snp.id-block.report.guest-svn": "the report's guest_svn is the block's",
    "snp.id-block.report.policy": "the report's guest policy is the block's",
    "snp.id-block.report.id-key": "the report names the ID key",
    "snp.id-block.report.author-key": "the report names the author key, or none if there is none",
}
"""Every check id of a report that is held against an ID block, and what it guarantees."""

_DIGEST_SIZE = 48
_NO_BLOCK = bytes(_DIGEST_SIZE)
_SEAL = Seal("snp.verify_id_block()")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedIdBlock:
    """An ID block that its keys sign. Only :func:`verify_id_block` makes one.

    Does not verify: whose keys these are, unless their digests were given; that a guest was started
    with the block, which only a report shows (:meth:`require`).
    """

    block: IdBlock
    auth: IdAuth
    held: frozenset[str]
    """The ids of the checks that were made, and held."""
    _seal: InitVar[object] = None

    def __post_init__(self, _seal: object) -> None:
        """Raise TypeError for a value made by hand: the type is the proof."""
        _SEAL.require(_seal, self)

    @property
    def id_key_digest(self) -> bytes:
        """What a report of the guest carries as ``id_key_digest``, 48 bytes."""
        return self.auth.id_key.digest

    @property
    def author_key_digest(self) -> bytes | None:
        """What a report carries as ``author_key_digest``, 48 bytes; None without author key."""
        key = self.auth.author_key
        return None if key is None else key.digest

    def require(self, verified: VerifiedReport) -> None:
        """Raise IdBlockInvalid if a report is not of a launch with this block, with every failure.

        Does not verify: that the report is fresh.
        """
        found = tuple(report_failures(self.block, self.auth, verified.report))
        if found:
            failed = {failure.check for failure in found}
            raise IdBlockInvalid(found, self.held | (REPORT_CHECKS.keys() - failed))


def verify_id_block(
    block: IdBlock,
    auth: IdAuth,
    *,
    id_key_digest: bytes | None = None,
    author_key_digest: bytes | None = None,
) -> VerifiedIdBlock:
    """Verify that the ID key signs an ID block, and the author key, if there is one, the ID key.

    ``id_key_digest`` and ``author_key_digest`` are 48 bytes, of the keys that are trusted; without
    them it is not verified whose keys these are.

    Raises IdBlockInvalid with every failed step in ``failures``; Unsupported for a digest of
    another size.
    """
    for name, value in (("ID", id_key_digest), ("author", author_key_digest)):
        if value is not None and len(value) != _DIGEST_SIZE:
            words = f"the digest of an {name} key has {_DIGEST_SIZE} bytes, not {len(value)}"
            raise Unsupported(words, check="snp.id-block.digest")
    steps = {
        "snp.id-block.id-key": _id_key(auth, id_key_digest),
        "snp.id-block.signature": _signature(block, auth),
        "snp.id-block.author-key": _author_key(auth, author_key_digest),
        "snp.id-block.author-signature": _author_signature(auth),
    }
    failures = tuple(
        Failure(check, *found) for check, found in steps.items() if isinstance(found, tuple)
    )
    held = frozenset(check for check, found in steps.items() if found is True)
    if failures:
        raise IdBlockInvalid(failures, held)
    return VerifiedIdBlock(block=block, auth=auth, held=held, _seal=_SEAL)


_Result = bool | tuple[str, str]
"""What a step finds: True if it holds, False if it was not to be made; else message and hint."""


def _id_key(auth: IdAuth, expected: bytes | None) -> _Result:
    # 1. the ID key is the expected one
    if expected is None:
        return False
    if hmac.compare_digest(auth.id_key.digest, expected):
        return True
    words = f"the ID key has the digest {auth.id_key.digest.hex()}, expected {expected.hex()}"
    return words, "somebody else approved this launch"


def _signature(block: IdBlock, auth: IdAuth) -> _Result:
    # 2. the ID key signs the block
    if auth.id_key.signs(auth.block_signature, block.to_bytes()):
        return True
    hint = "the block was changed, or the ID auth is of another block"
    return "the ID key does not sign this ID block", hint


def _author_key(auth: IdAuth, expected: bytes | None) -> _Result:
    # 3. the author key is the expected one
    if expected is None:
        return False
    if auth.author_key is None:
        return "there is no author key", "sign the ID key with it"
    if hmac.compare_digest(auth.author_key.digest, expected):
        return True
    found = auth.author_key.digest.hex()
    words = f"the author key has the digest {found}, expected {expected.hex()}"
    return words, "somebody else signed the ID key"


def _author_signature(auth: IdAuth) -> _Result:
    # 4. the author key signs the ID key
    if auth.author_key is None or auth.id_key_signature is None:
        return False
    if auth.author_key.signs(auth.id_key_signature, auth.id_key.to_bytes()):
        return True
    return "the author key does not sign the ID key", "the ID key or its signature was changed"


def report_failures(block: IdBlock, auth: IdAuth, report: AttestationReport) -> Iterator[Failure]:
    """Yield how a report differs from what a launch with this ID block has.

    Says nothing about who made the report, or signed the block.
    """
    if report.id_key_digest == _NO_BLOCK:
        words = "the report names no ID key: the guest was started without an ID block"
        yield Failure("snp.id-block.report.id-key", words, "put the block into its configuration")
    elif report.id_key_digest != auth.id_key.digest:
        found, expected = report.id_key_digest.hex(), auth.id_key.digest.hex()
        words = f"the report names the ID key {found}, not {expected}"
        yield Failure("snp.id-block.report.id-key", words, "another owner approved that launch")
    for check, name, expected, found in (
        ("launch-digest", "launch digest", block.ld.hex(), report.measurement.hex()),
        ("family-id", "family_id", block.family_id.hex(), report.family_id.hex()),
        ("image-id", "image_id", block.image_id.hex(), report.image_id.hex()),
        ("guest-svn", "guest_svn", str(block.guest_svn), str(report.guest_svn)),
        ("policy", "guest policy", str(block.policy), str(report.policy)),
    ):
        if expected != found:
            words = f"the report's {name} is {found}, the ID block's {expected}"
            yield Failure(f"snp.id-block.report.{check}", words, "it is a report of another launch")
    fault = _author_fault(auth, report)
    if fault:
        yield Failure("snp.id-block.report.author-key", *fault)


def _author_fault(auth: IdAuth, report: AttestationReport) -> tuple[str, str] | None:
    """Return how the author key in a report differs: the message and the hint; None if it fits."""
    if not report.key_info.author_key_en:
        if auth.author_key is None:
            return None
        hint = "enable the author key in the guest's configuration"
        return "the report names no author key: it was not enabled at launch", hint
    found = report.author_key_digest.hex()
    if auth.author_key is None:
        return f"the report names the author key {found}, the ID auth has none", ""
    expected = auth.author_key.digest.hex()
    if found == expected:
        return None
    return f"the report names the author key {found}, not {expected}", ""
