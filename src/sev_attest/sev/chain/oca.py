"""The platform owner's side: an OCA of one's own, and a PEK signed with it.

Source: AMD 55766, "PEK_CSR" and "PEK_CERT_IMPORT". The platform's PEK_CSR gives the PEK without
signatures; the owner signs it with the OCA key, and PEK_CERT_IMPORT takes both certificates.
"""

from dataclasses import dataclass, field, replace

from sev_attest import _crypto
from sev_attest._keys import Algorithm
from sev_attest.errors import MalformedInput, NotVerified
from sev_attest.sev.chain.certificate import Certificate, Signature
from sev_attest.sev.spec import Usage


@dataclass(frozen=True, slots=True)
class OwnerKey:
    """An OCA key, P-384. It never shows in a repr."""

    _key: _crypto.P384PrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> "OwnerKey":
        """Return a new key, from OpenSSL's random generator."""
        return cls(_crypto.new_p384_key())

    @classmethod
    def from_pem(cls, data: bytes) -> "OwnerKey":
        """Read an unencrypted P-384 key in PEM; raises MalformedInput for anything else."""
        key = _crypto.p384_private_key(data)
        if key is None:
            raise MalformedInput("OCA key", "format", "not an unencrypted P-384 key in PEM")
        return cls(key)

    def to_pem(self) -> bytes:
        """Return the key as unencrypted PKCS #8 PEM: keep it private."""
        return _crypto.private_pem(self._key)

    def certificate(self) -> Certificate:
        """Return the self-signed OCA certificate."""
        unsigned = Certificate.build(
            usage=Usage.OCA,
            algorithm=Algorithm.ECDSA_SHA256,
            public_key=_crypto.p384_numbers(self._key.public_key()),
        )
        return self.sign(unsigned)

    def sign_pek(self, csr: Certificate) -> Certificate:
        """Return the PEK of a PEK_CSR, signed; raises NotVerified for another certificate."""
        right = csr.usage is Usage.PEK and csr.algorithm is Algorithm.ECDSA_SHA256
        if not right or _crypto.p384_point(csr.public_key) is None:
            raise NotVerified("this is not a PEK with a point on P-384", check="csr.pek")
        return self.sign(csr)

    def sign(self, certificate: Certificate) -> Certificate:
        """Return a certificate with its body signed. Does not verify: anything about it."""
        r, s = _crypto.ecdsa_sha256(self._key, certificate.body)
        signature = Signature.ecdsa(Usage.OCA, r, s)
        return replace(certificate, signatures=(signature, Signature()))
