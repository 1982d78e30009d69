"""Secrets sealed to the transport key of a verified report: HPKE (RFC 9180), base mode.

``info`` binds what is sealed to the report and the challenge that it was sealed for::

    size  field
    24    "sev-attest/snp/sealed/1", and a zero byte
    48    SHA-384 of the report: the 1184 bytes as received
    48    the challenge's digest

What is encrypted has the secrets' names too: see ``snp/content.py``.

HPKE's base mode does not say who sealed: anyone who has the public key can seal to it. What the
guest gets is confidential to it, and not authenticated.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from sev_attest import _crypto
from sev_attest._keys import Kem
from sev_attest.errors import Failure, MalformedInput, NotVerified, ReportInvalid
from sev_attest.snp.challenge import Challenge
from sev_attest.snp.content import BLOCK, MAX_CONTENT, read_content, write_content
from sev_attest.snp.document import Document, to_base64, write_document
from sev_attest.snp.expected import Expected
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.transport import (
    NONCE_SIZE,
    SIZES,
    TransportKey,
    TransportPrivateKey,
    read_kem,
)
from sev_attest.snp.verify import VerifiedReport

LABEL = b"sev-attest/snp/sealed/1\0"
_SCHEMA = "sev-attest/snp-sealed/1"
_STRUCTURE = "sealed secrets"
_HKDF_SHA256, _AES_256_GCM = 1, 2
"""Ids in HPKE's registry."""
_TAG, _DIGEST = 16, 48
_FIELDS = (
    "challenge", "nonce", "report_sha384", "kem", "kdf", "aead", "enc", "ciphertext",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedSecrets:
    """Secrets that only the guest with the private key can open. Nothing in it is secret.

    ``challenge`` and ``nonce`` are those of the challenge, ``report_digest`` is the SHA-384 of the
    report. They say what it is for; HPKE's ``info`` is what binds it.

    Does not verify: who sealed it.
    """

    challenge: str
    nonce: bytes
    report_digest: bytes
    kem: Kem
    enc: bytes = field(repr=False)
    ciphertext: bytes = field(repr=False)
    """With its tag of 16 bytes at the end."""

    def __post_init__(self) -> None:
        """Raise MalformedInput for sizes that nothing sealed has."""
        enc, size = SIZES[self.kem].enc, len(self.ciphertext) - _TAG
        if len(self.enc) != enc:
            raise MalformedInput(_STRUCTURE, "enc", f"has {len(self.enc)} bytes, expected {enc}")
        if size % BLOCK or not BLOCK <= size <= MAX_CONTENT:
            reason = f"has {len(self.ciphertext)} bytes, which nothing sealed has"
            raise MalformedInput(_STRUCTURE, "ciphertext", reason)

    def to_json(self) -> bytes:
        """Return the file that goes to the guest."""
        return write_document(
            _SCHEMA,
            challenge=self.challenge,
            nonce=self.nonce.hex(),
            report_sha384=self.report_digest.hex(),
            kem=int(self.kem),
            kdf=_HKDF_SHA256,
            aead=_AES_256_GCM,
            enc=to_base64(self.enc),
            ciphertext=to_base64(self.ciphertext),
        )

    @classmethod
    def from_json(cls, data: bytes) -> "SealedSecrets":
        """Read what :meth:`to_json` wrote; raises MalformedInput."""
        document = Document(data, _STRUCTURE, _SCHEMA, _FIELDS)
        for name, code in (("kdf", _HKDF_SHA256), ("aead", _AES_256_GCM)):
            if document.number(name) != code:
                raise document.error(name, f"is not {code}, the only one that is known")
        return cls(
            challenge=document.name("challenge"),
            nonce=document.hex("nonce", NONCE_SIZE),
            report_digest=document.hex("report_sha384", _DIGEST),
            kem=read_kem(document, "kem"),
            enc=document.base64("enc"),
            ciphertext=document.base64("ciphertext"),
        )


def seal(
    secrets: Mapping[str, bytes],
    *,
    key: TransportKey,
    report: VerifiedReport,
    challenge: Challenge,
) -> SealedSecrets:
    """Seal secrets to the transport key that a verified report binds to a challenge.

    ``secrets`` are 1 to 64, by name (1 to 128 letters, digits and ``_ . + -``); none is empty, and
    together they take at most 512 KiB. ``challenge`` is the owner's own copy. What leaks is the
    length, in steps of 1 KiB.

    Raises NotVerified with check ``snp.report-data`` (as ReportInvalid) if the report does not bind
    this key to this challenge, or ``snp.transport-key.kem`` if the challenge does not accept its
    kind; Unsupported for secrets that cannot be sealed, or an older ``cryptography``;
    MalformedInput if the key is no key.

    Does not verify: that the challenge is unused and has not expired, or that the guest is the one
    that the owner meant. Those are the ledger's and the requirements' part.
    """
    require_answer(report, key, challenge)
    content = write_content(secrets)
    info = _info(report.report, challenge)
    sealed = _crypto.hpke_sealed(key.kem, key.public, content, info)
    if sealed is None:
        raise MalformedInput("transport key", "public_key", "nothing can be sealed to this key")
    size = SIZES[key.kem].enc
    return SealedSecrets(
        challenge=challenge.name,
        nonce=challenge.nonce,
        report_digest=_report_digest(report.report),
        kem=key.kem,
        enc=sealed[:size],
        ciphertext=sealed[size:],
    )


def open_sealed(
    sealed: SealedSecrets,
    private_key: TransportPrivateKey,
    report: AttestationReport,
    challenge: Challenge,
) -> dict[str, bytes]:
    """Open sealed secrets in the guest; return them by name.

    ``report`` and ``challenge`` are the guest's own copies of what it asked with.

    Raises NotVerified, with check ``snp.sealed.challenge``, ``.report`` or ``.key`` if it was
    sealed for another one, ``snp.sealed.damaged`` if it, the report or the challenge was changed;
    Unsupported for an older ``cryptography``.

    Does not verify: who sealed them. See the module.
    """
    if not hmac.compare_digest(sealed.nonce, challenge.nonce):
        words = f"this was sealed for another challenge, {_named(sealed.challenge, sealed.nonce)}"
        own = f"this guest has {_named(challenge.name, challenge.nonce)}"
        raise _other("challenge", f"{words}: {own}", "use those of one request")
    if not hmac.compare_digest(sealed.report_digest, _report_digest(report)):
        words = "this was sealed for another report"
        raise _other("report", words, "use the report that was sent to the owner")
    if sealed.kem is not private_key.kem or not hmac.compare_digest(
        challenge.report_data(private_key.public), report.report_data
    ):
        words = "this was sealed to another transport key"
        raise _other("key", words, "use the key that was made for this report")
    info = _info(report, challenge)
    enc_and_text = sealed.enc + sealed.ciphertext
    content = _crypto.hpke_opened(sealed.kem, private_key.private, enc_and_text, info)
    if content is None:
        raise _damaged()
    try:
        return read_content(content)
    except MalformedInput:
        raise _damaged() from None


def require_answer(report: VerifiedReport, key: TransportKey, challenge: Challenge) -> None:
    """Require that a report answers a challenge with a key, of a kind that the challenge accepts.

    Raises ReportInvalid or NotVerified, as :func:`seal` does. What is compared is public: a
    comparison in constant time would hide nothing.
    """
    if not isinstance(report, VerifiedReport):
        raise TypeError("secrets are sealed for a VerifiedReport only: see verify_report()")
    challenge.require_kind(key)
    try:
        Expected(report_data=challenge.report_data(key)).require(report)
    except ReportInvalid as error:
        which = _named(challenge.name, challenge.nonce)
        words = f"the report does not bind this transport key to challenge {which}: {error}"
        hint = "report, transport key and challenge must be of one request of the guest"
        raise ReportInvalid((Failure(error.check, words, hint),), error.held) from None


def _named(name: str, nonce: bytes) -> str:
    return f"{name} (nonce {nonce.hex()[:16]}...)"


def _other(check: str, words: str, hint: str) -> NotVerified:
    return NotVerified(words, check=f"snp.sealed.{check}", hint=hint)


def _damaged() -> NotVerified:
    hint = "have it sent again; if that does not help, the owner must send a new challenge"
    words = "it cannot be opened: it was changed, or the challenge was (name, times or kems)"
    return _other("damaged", words, hint)


def _report_digest(report: AttestationReport) -> bytes:
    return hashlib.sha384(report.raw).digest()


def _info(report: AttestationReport, challenge: Challenge) -> bytes:
    return LABEL + _report_digest(report) + challenge.digest
