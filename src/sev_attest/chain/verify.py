"""The chain check: it leads from a platform's PDH up to a trusted root.

The steps, each under its number in the code:

1. The ARK is a trusted root, compared by its key and never by name or id. The root gives the
   generation.
2. The ARK signs itself; one without signature (the Naples ARK that AMD publishes) must be a trusted
   root's to the byte.
3. The ARK signs the ASK.
4. Each platform certificate's key is what its role calls for: usage, algorithm, curve, and a point
   on that curve.
5. The ASK signs the CEK, with the hash that goes with the root's key size.
6. The OCA signs itself.
7. The OCA and the CEK both sign the PEK.
8. The PEK signs the PDH.

Every failed step is reported, not only the first. Parsing has already held each certificate to its
exact length, version 1 and zeros in reserved places.

Relied on, marked second-hand in our facts: every generation's platform keys are P-384 with SHA-256
(seen on Naples and in published Rome chains; AMD's own tool expects the same of all).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import InitVar, dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from sev_attest import _crypto
from sev_attest.chain.ca import CaCertificate
from sev_attest.chain.certificate import Certificate, Signature
from sev_attest.chain.files import Chain
from sev_attest.chain.roots import Generation, Root, amd_roots
from sev_attest.errors import ChainFailure, ChainInvalid, Unsupported
from sev_attest.spec import Algorithm, Curve, Usage

CEK_ADDRESS = "https://kdsintf.amd.com/cek/id/"
"""Where AMD serves the signed CEK of a platform id (128 hex digits behind it)."""

CHECKS = {
    "chain.ark.trusted": "the ARK is a trusted root, by its key",
    "chain.ark.self-signed": "the ARK signs itself",
    "chain.ask.signed-by-ark": "the ARK signs the ASK",
    **{
        f"chain.{name.lower()}.{check}": f"the {name}'s {words}"
        for name in ("CEK", "OCA", "PEK", "PDH")
        for check, words in (
            ("role", "certificate is one"),
            ("algorithm", "key is for the algorithm of its role"),
            ("curve", "key is on P-384"),
            ("point", "key is a point on its curve"),
        )
    },
    "chain.cek.unsigned": "the CEK carries a signature",
    "chain.cek.signed-by-ask": "the ASK signs the CEK",
    "chain.oca.self-signed": "the OCA signs itself",
    "chain.pek.signed-by-oca": "the OCA signs the PEK",
    "chain.pek.signed-by-cek": "the CEK signs the PEK",
    "chain.pdh.signed-by-pek": "the PEK signs the PDH",
}
"""Every check id of a chain, in the order of the steps, and what it holds."""

_SEAL = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedChain:
    """A chain that leads to a trusted root. Only :func:`verify_chain` makes one.

    Does not verify: that the platform's keys have not leaked, or which firmware it runs.
    """

    chain: Chain
    """With the ASK and the ARK that it was verified with."""
    root: Root
    _seal: InitVar[object] = None

    def __post_init__(self, _seal: object) -> None:
        """Refuse to be made by hand (TypeError): the type is the proof."""
        if _seal is not _SEAL:
            raise TypeError("only verify_chain() makes a VerifiedChain")

    @property
    def generation(self) -> Generation | None:
        """EPYC generation, by the root; None if the root is not AMD's."""
        return self.root.generation

    @property
    def pdh(self) -> Certificate:
        """The platform's Diffie-Hellman certificate, now known to be the platform's."""
        return self.chain.pdh


def verify_chain(chain: Chain, *, roots: Sequence[Root] | None = None) -> VerifiedChain:
    """Verify a platform's chain up to one of ``roots`` (default: AMD's pinned ones).

    To admit a root that is not AMD's, name it: ``roots=[*amd_roots(), my_root]``.

    Raises ChainInvalid, whose ``failures`` hold every failed step; Unsupported for no root at all.
    """
    if roots is None:
        roots = amd_roots()
    if not roots:
        raise Unsupported("no trusted root was given: nothing can be verified", check="chain.roots")
    chain = complete(chain, roots)
    root = _trusted(chain.ark, roots)
    failures = (
        *_ca_failures(chain, root),
        *(failure for c in _platform(chain) for failure in _key_failures(*c)),
        *_link_failures(chain),
    )
    if failures or root is None:
        raise ChainInvalid(failures)
    return VerifiedChain(chain=chain, root=root, _seal=_SEAL)


def complete(chain: Chain, roots: Sequence[Root]) -> Chain:
    """Put a root's ASK and ARK where the chain leaves its own out.

    Chooses the ones that sign what is there; decides nothing else.
    """
    if chain.ask is None:
        asks = [root.ask for root in roots if root.ask and _same_key(root.ark, chain.ark)]
        ask = next((ask for ask in asks if _ask_signs(ask, chain.cek)), None)
        chain = replace(chain, ask=ask)
    if chain.ark is None and chain.ask is not None:
        ark = next((root.ark for root in roots if _ark_signs(root.ark, chain.ask)), None)
        chain = replace(chain, ark=ark)
    return chain


def _same_key(root: CaCertificate, ark: CaCertificate | None) -> bool:
    return ark is None or root.public_key == ark.public_key


def _trusted(ark: CaCertificate | None, roots: Sequence[Root]) -> Root | None:
    if ark is None:
        return None
    return next((root for root in roots if root.ark.public_key == ark.public_key), None)


def _ark_signs(ark: CaCertificate, signed: CaCertificate) -> bool:
    return ark.public_key.bits == signed.public_key.bits and _crypto.rsa_pss_holds(
        ark.public_key, signed.signature, signed.body
    )


def _ask_signs(ask: CaCertificate | None, cek: Certificate) -> bool:
    signature = cek.signature_by(Usage.ASK)
    if ask is None or signature is None:
        return False
    if signature.algorithm is not ask.public_key.algorithm:
        return False
    value = signature.rsa_value(ask.public_key.bits // 8)
    return value is not None and _crypto.rsa_pss_holds(ask.public_key, value, cek.body)


def _ca_failures(chain: Chain, root: Root | None) -> Iterator[ChainFailure]:
    ark, ask = chain.ark, chain.ask
    # 1. the root, by key
    if root is None:
        yield _untrusted(ark, ask)
    # 2. the ARK signs itself
    if ark is not None:
        usage = ark.usage is Usage.ARK
        known = not ark.signature and root is not None and ark.body == root.ark.body
        if not (usage and (known or _ark_signs(ark, ark))):
            yield ChainFailure(
                "chain.ark.self-signed", "ARK", "the ARK's signature over itself does not hold"
            )
    # 3. the ARK signs the ASK
    if ask is not None and ark is not None:
        usage = ask.usage is Usage.ASK
        if not (usage and _ark_signs(ark, ask)):
            yield ChainFailure(
                "chain.ask.signed-by-ark", "ASK", "the ARK's signature over the ASK does not hold"
            )


def _untrusted(ark: CaCertificate | None, ask: CaCertificate | None) -> ChainFailure:
    hint = "a test platform's root can be named on purpose (--trust-root)"
    if ark is not None:
        message = "the ARK is no trusted root: its key is none of AMD's"
        for amd in amd_roots():
            if amd.ark.key_id == ark.key_id:
                message += f" (it carries the id of the {amd.name} ARK, but another key)"
    elif ask is not None:
        message = "the chain has no ARK, and no trusted root signs its ASK"
    else:
        message = "the chain has no ASK and no ARK, and no trusted root's ASK signs its CEK"
    return ChainFailure("chain.ark.trusted", "ARK", message, hint)


Point = EllipticCurvePublicKey | None


def _platform(chain: Chain) -> tuple[tuple[Certificate, Usage], ...]:
    """List the platform's certificates, signers first, with the role each must have."""
    return (
        (chain.cek, Usage.CEK),
        (chain.oca, Usage.OCA),
        (chain.pek, Usage.PEK),
        (chain.pdh, Usage.PDH),
    )


def _key_failures(certificate: Certificate, role: Usage) -> Iterator[ChainFailure]:
    # 4. the key is what its role calls for
    name, key = role.name, certificate.public_key
    algorithm = Algorithm.ECDH_SHA256 if role is Usage.PDH else Algorithm.ECDSA_SHA256

    def failure(what: str, message: str) -> ChainFailure:
        return ChainFailure(f"chain.{name.lower()}.{what}", name, f"the {name}'s {message}")

    if certificate.usage is not role:
        yield failure("role", f"place holds a {certificate.role}")
    if certificate.algorithm is not algorithm:
        found = certificate.algorithm.name
        yield failure("algorithm", f"key is for {found}, expected {algorithm.name}")
    if key.curve is not Curve.P384:
        yield failure("curve", f"key is on curve {key.curve.name}, expected P384")
    elif _crypto.p384_point(key) is None:
        yield failure("point", "key is no point on its curve")


def _link_failures(chain: Chain) -> Iterator[ChainFailure]:
    points = {usage: _crypto.p384_point(c.public_key) for c, usage in _platform(chain)}

    def by_key(signer: Usage) -> Callable[[Certificate], bool]:
        return lambda certificate: _ecdsa_signs(points[signer], signer, certificate)

    # 5. the ASK signs the CEK
    if chain.cek.unsigned:
        yield _unsigned_cek(chain)
    else:
        yield from _link(chain.cek, Usage.CEK, Usage.ASK, lambda cek: _ask_signs(chain.ask, cek))
    # 6. the OCA signs itself
    yield from _link(chain.oca, Usage.OCA, Usage.OCA, by_key(Usage.OCA))
    # 7. the OCA and the CEK both sign the PEK
    yield from _link(chain.pek, Usage.PEK, Usage.OCA, by_key(Usage.OCA))
    yield from _link(chain.pek, Usage.PEK, Usage.CEK, by_key(Usage.CEK))
    # 8. the PEK signs the PDH
    yield from _link(chain.pdh, Usage.PDH, Usage.PEK, by_key(Usage.PEK))


def _ecdsa_signs(point: Point, signer: Usage, certificate: Certificate) -> bool:
    signature: Signature | None = certificate.signature_by(signer)
    if point is None or signature is None or signature.algorithm is not Algorithm.ECDSA_SHA256:
        return False
    numbers = signature.ecdsa_numbers()
    return numbers is not None and _crypto.ecdsa_sha256_holds(point, numbers, certificate.body)


def _link(
    certificate: Certificate, role: Usage, signer: Usage, holds: Callable[[Certificate], bool]
) -> Iterator[ChainFailure]:
    if holds(certificate):
        return
    name, by = role.name, signer.name
    signature = certificate.signature_by(signer)
    itself = role is signer
    whose, over = (f"the {name}'s", "itself") if itself else (f"the {by}'s", f"the {name}")
    if signature is None:
        message = f"the {name} carries no signature of {'its own' if itself else f'the {by}'}"
    else:
        message = f"{whose} signature over {over} does not hold ({signature.algorithm.name})"
    how = "self-signed" if itself else f"signed-by-{by.lower()}"
    yield ChainFailure(f"chain.{name.lower()}.{how}", name, message)


def _unsigned_cek(chain: Chain) -> ChainFailure:
    if chain.platform_id is None:
        where = f"{CEK_ADDRESS} followed by the platform's id (cpu0-id of `virsh nodesevinfo`)"
    else:
        where = f"{CEK_ADDRESS}{chain.platform_id.hex()}"
    return ChainFailure(
        "chain.cek.unsigned",
        "CEK",
        "the CEK is as the firmware exports it, without AMD's signature",
        f"AMD serves the signed CEK at {where}; pass it with --cek",
    )
