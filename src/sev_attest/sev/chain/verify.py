"""Verify a platform's certificate chain, from its PDH up to a trusted root.

The steps, each under its number in the code:

1. The ARK is a trusted root, compared by its key and never by name or id. The root gives the
   generation.
2. The ARK signs itself; one without signature (the Naples ARK that AMD publishes) must be a trusted
   root's to the byte.
3. The ARK signs the ASK.
4. Each platform certificate has the usage, algorithm and curve of its role, and a point on that
   curve.
5. The ASK signs the CEK, with the hash for the root's key size.
6. The OCA signs itself.
7. The OCA and the CEK both sign the PEK.
8. The PEK signs the PDH.

Every failed step is reported, not only the first. A step that cannot be made (an unsigned CEK) does
not count as held. Parsing has already checked each certificate's exact length, its version 1, and
that unsigned bytes are zero.

The signatures of a trusted root itself (steps 2 and 3, if ARK and ASK are identical to the root's)
are computed once per process. Everything else in a chain is computed each time.

Assumed for all generations: platform keys are P-384 with SHA-256. This was seen on Naples and in
published Rome chains, and AMD's own tool expects it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass, replace
from functools import lru_cache

from sev_attest import _crypto
from sev_attest._keys import Algorithm, Curve
from sev_attest._seal import Seal
from sev_attest.errors import ChainInvalid, Failure, Unsupported
from sev_attest.sev.chain.ca import AmdCaCertificate
from sev_attest.sev.chain.certificate import Certificate, Signature, cek_address
from sev_attest.sev.chain.chain import Chain
from sev_attest.sev.chain.roots import Generation, Root, amd_roots
from sev_attest.sev.spec import Usage

CHECKS = {
    "chain.ark.trusted": "the ARK is a trusted root, by its key",
    "chain.ark.self-signed": "the ARK signs itself",
    "chain.ask.signed-by-ark": "the ARK signs the ASK",
    **{
        f"chain.{name.lower()}.{check}": f"the {name}'s {words}"
        for name in ("CEK", "OCA", "PEK", "PDH")
        for check, words in (
            ("role", "certificate says that it has this role"),
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
"""Every check id of a chain, in the order of the steps, and what it guarantees."""

_SEAL = Seal("verify_chain()")
_SHOWN = 16
"""Hex digits of a fingerprint that a message shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedChain:
    """A chain that ends in a trusted root. Only :func:`verify_chain` makes one.

    Does not verify: that the platform's keys have not leaked, or which firmware it runs.
    """

    chain: Chain
    """With the ASK and the ARK that it was verified with."""
    root: Root
    _seal: InitVar[object] = None

    def __post_init__(self, _seal: object) -> None:
        """Raise TypeError for a value made by hand: the type is the proof."""
        _SEAL.require(_seal, self)

    @property
    def generation(self) -> Generation | None:
        """EPYC generation of the root; None if the root is not AMD's."""
        return self.root.generation

    @property
    def pdh(self) -> Certificate:
        """The platform's Diffie-Hellman certificate, verified."""
        return self.chain.pdh


def verify_chain(chain: Chain, *, roots: Sequence[Root] | None = None) -> VerifiedChain:
    """Verify a platform's chain up to one of ``roots`` (default: AMD's pinned roots).

    To accept another root, name it: ``roots=[*amd_roots(), my_root]``.

    Raises ChainInvalid with every failed step in ``failures``; Unsupported for an empty list of
    roots; MalformedInput for a chain made by hand that cannot be parsed.
    """
    if roots is None:
        roots = amd_roots()
    if not roots:
        raise Unsupported("no trusted root was given: nothing can be verified", check="chain.roots")
    given = chain.as_parsed()
    chain = complete(given, roots)
    # complete() only adds an ASK that signs the CEK, so step 5 need not compute it again.
    fits = given.ask is None and chain.ask is not None
    root = _trusted(chain.ark, roots)
    points = {role: _crypto.p384_point(c.public_key) for c, role in _platform(chain)}
    steps = (
        *_ca_steps(chain, root, roots),
        *(step for c, role in _platform(chain) for step in _key_steps(c, role, points[role])),
        *_link_steps(chain, points, ask_fits=fits),
    )
    failures = tuple(failure for _, failure in steps if failure is not None)
    held = frozenset(check for check, failure in steps if failure is None)
    # Fail closed: a check that was not made does not hold.
    if failures or root is None or held != CHECKS.keys():
        raise ChainInvalid(failures, held)
    return VerifiedChain(chain=chain, root=root, _seal=_SEAL)


def verify_owned(*, pek: Certificate, oca: Certificate) -> None:
    """Verify that a platform's owner signed a PEK: steps 4, 6 and 7, without the CEK.

    Raises ChainInvalid with every failed step in ``failures``.

    Does not verify: that the PEK is a platform's, which only the CEK's signature shows.
    """
    links = ((oca, Usage.OCA), (pek, Usage.PEK))
    point = _crypto.p384_point(oca.public_key)
    signed = ((c, role, _ecdsa_signs(point, Usage.OCA, c)) for c, role in links)
    steps = (
        *_key_steps(oca, Usage.OCA, point),
        *_key_steps(pek, Usage.PEK, _crypto.p384_point(pek.public_key)),
        *(_link(c, role, Usage.OCA, holds=holds) for c, role, holds in signed),
    )
    failures = tuple(failure for _, failure in steps if failure is not None)
    if failures:
        raise ChainInvalid(failures, frozenset(check for check, failed in steps if failed is None))


def complete(chain: Chain, roots: Sequence[Root]) -> Chain:
    """Return the chain with a root's ASK and ARK in place of missing ones.

    Chooses those that sign what is there. Does not verify: anything.
    """
    if chain.ask is None:
        asks = [root.ask for root in roots if root.ask and _same_key(root.ark, chain.ark)]
        ask = next((ask for ask in asks if _ask_signs(ask, chain.cek)), None)
        chain = replace(chain, ask=ask)
    if chain.ark is None and chain.ask is not None:
        signers = (root.ark for root in roots if _ark_signs(root.ark, chain.ask, root))
        ark = next(signers, None)
        chain = replace(chain, ark=ark)
    return chain


def _same_key(root: AmdCaCertificate, ark: AmdCaCertificate | None) -> bool:
    return ark is None or root.public_key == ark.public_key


def _trusted(ark: AmdCaCertificate | None, roots: Sequence[Root]) -> Root | None:
    if ark is None:
        return None
    return next((root for root in roots if root.ark.public_key == ark.public_key), None)


def _ark_signs(ark: AmdCaCertificate, signed: AmdCaCertificate, root: Root | None) -> bool:
    """Return whether the ARK signs ``signed`` (itself or an ASK); ``root`` may be its root."""
    if root is not None and ark == root.ark and signed in (root.ark, root.ask):
        return _root_signs(root.ark, signed)
    return _rsa_signs(ark, signed)


@lru_cache(maxsize=64)
def _root_signs(ark: AmdCaCertificate, signed: AmdCaCertificate) -> bool:
    """Return whether a trusted root signs; cached, since only trusted certificates get here."""
    return _rsa_signs(ark, signed)


def _rsa_signs(ark: AmdCaCertificate, signed: AmdCaCertificate) -> bool:
    return ark.public_key.bits == signed.public_key.bits and _crypto.rsa_pss_holds(
        ark.public_key, signed.signature, signed.body
    )


def _ask_signs(ask: AmdCaCertificate | None, cek: Certificate) -> bool:
    signature = cek.signature_by(Usage.ASK)
    if ask is None or signature is None:
        return False
    if signature.algorithm is not ask.public_key.algorithm:
        return False
    value = signature.rsa_value(ask.public_key.bits // 8)
    return _crypto.rsa_pss_holds(ask.public_key, value, cek.body)


ChainStep = tuple[str, Failure | None]
"""A check that was made: its id, and the failure if it failed."""


def _step(
    check: str, certificate: str, *, holds: bool, otherwise: str, hint: str = ""
) -> ChainStep:
    return check, None if holds else Failure(check, otherwise, hint, certificate=certificate)


def _ca_steps(chain: Chain, root: Root | None, roots: Sequence[Root]) -> Iterator[ChainStep]:
    ark, ask = chain.ark, chain.ask
    # 1. the root, by key (without ASK and ARK, step 5 reports that no root's ASK signs the CEK)
    if ark is not None or ask is not None:
        yield _step(
            "chain.ark.trusted",
            "ARK",
            holds=root is not None,
            otherwise="" if root else _untrusted(chain, roots),
            hint="a test platform's root can be named on purpose",
        )
    # 2. the ARK signs itself
    if ark is not None:
        known = not ark.signature and root is not None and ark.body == root.ark.body
        yield _step(
            "chain.ark.self-signed",
            "ARK",
            holds=ark.usage is Usage.ARK and (known or _ark_signs(ark, ark, root)),
            otherwise=f"the ARK's signature over itself {_wrong(ark)}",
        )
    # 3. the ARK signs the ASK
    if ask is not None and ark is not None:
        yield _step(
            "chain.ask.signed-by-ark",
            "ASK",
            holds=ask.usage is Usage.ASK and _ark_signs(ark, ask, root),
            otherwise=f"the ARK's signature over the ASK {_wrong(ask)}{_impostor(ask, roots)}",
        )


def _wrong(signed: AmdCaCertificate) -> str:
    empty = not signed.signature.strip(b"\0")
    return "is empty: all zeros, or missing" if empty else "does not hold"


def _untrusted(chain: Chain, roots: Sequence[Root]) -> str:
    if chain.ark is not None:
        impostor = _impostor(chain.ark, roots)
        return f"the ARK is no trusted root: its key is none of AMD's{impostor}"
    impostor = _impostor(chain.ask, roots) if chain.ask is not None else ""
    return f"the chain has no ARK, and no trusted root signs its ASK{impostor}"


def _impostor(found: AmdCaCertificate, roots: Sequence[Root]) -> str:
    """Return that a certificate has the id of a known one, but another key; "" if it has not."""
    for root in (*amd_roots(), *roots):
        known = root.ark if found.usage is Usage.ARK else root.ask
        if known is None or known.key_id != found.key_id or known.public_key == found.public_key:
            continue
        name = f"the {root.name} {known.role}"
        if root.generation is None:
            name = f"the trusted {known.role} {known.fingerprint[:_SHOWN]}"
        return f" (it carries the id of {name}, but another key)"
    return ""


Point = _crypto.P384PublicKey | None
Points = Mapping[Usage, Point]
"""The platform's keys by role; None if it is not a point on P-384."""


def _platform(chain: Chain) -> tuple[tuple[Certificate, Usage], ...]:
    """Return the platform's certificates, signers first, with the role of each."""
    return (
        (chain.cek, Usage.CEK),
        (chain.oca, Usage.OCA),
        (chain.pek, Usage.PEK),
        (chain.pdh, Usage.PDH),
    )


def _key_steps(certificate: Certificate, role: Usage, point: Point) -> Iterator[ChainStep]:
    # 4. the key fits its role
    name, key = role.name, certificate.public_key
    algorithm = Algorithm.ECDH_SHA256 if role is Usage.PDH else Algorithm.ECDSA_SHA256
    on_p384 = key.curve is Curve.P384

    def step(what: str, *, holds: bool, otherwise: str) -> ChainStep:
        check = f"chain.{name.lower()}.{what}"
        return _step(check, name, holds=holds, otherwise=f"the {name}'s {otherwise}")

    found = certificate.algorithm
    yield step(
        "role", holds=certificate.usage is role, otherwise=f"place holds a {certificate.role}"
    )
    yield step(
        "algorithm",
        holds=found is algorithm,
        otherwise=f"key is for {found.name}, expected {algorithm.name}",
    )
    yield step("curve", holds=on_p384, otherwise=f"key is on curve {key.curve.name}, expected P384")
    if on_p384:
        yield step("point", holds=point is not None, otherwise="key is no point on its curve")


def _link_steps(chain: Chain, points: Points, *, ask_fits: bool) -> Iterator[ChainStep]:
    def link(certificate: Certificate, role: Usage, signer: Usage) -> ChainStep:
        holds = _ecdsa_signs(points[signer], signer, certificate)
        return _link(certificate, role, signer, holds=holds)

    # 5. the ASK signs the CEK
    signed = not chain.cek.unsigned
    yield "chain.cek.unsigned", None if signed else _unsigned_cek(chain)
    if signed:
        holds = ask_fits or _ask_signs(chain.ask, chain.cek)
        yield _link(chain.cek, Usage.CEK, Usage.ASK, holds=holds)
    # 6. the OCA signs itself
    yield link(chain.oca, Usage.OCA, Usage.OCA)
    # 7. the OCA and the CEK both sign the PEK
    yield link(chain.pek, Usage.PEK, Usage.OCA)
    yield link(chain.pek, Usage.PEK, Usage.CEK)
    # 8. the PEK signs the PDH
    yield link(chain.pdh, Usage.PDH, Usage.PEK)


def _ecdsa_signs(point: Point, signer: Usage, certificate: Certificate) -> bool:
    signature: Signature | None = certificate.signature_by(signer)
    if point is None or signature is None or signature.algorithm is not Algorithm.ECDSA_SHA256:
        return False
    return _crypto.ecdsa_sha256_holds(point, signature.ecdsa_numbers(), certificate.body)


def _link(certificate: Certificate, role: Usage, signer: Usage, *, holds: bool) -> ChainStep:
    name, by = role.name, signer.name
    itself = role is signer
    how = "self-signed" if itself else f"signed-by-{by.lower()}"
    check = f"chain.{name.lower()}.{how}"
    if holds:
        return check, None
    signature = certificate.signature_by(signer)
    if signature is None:
        message = f"the {name} carries no signature of {'its own' if itself else f'the {by}'}"
    else:
        over = "itself" if itself else f"the {name}"
        message = f"the {by}'s signature over {over} does not hold ({signature.algorithm.name})"
    return check, Failure(check, message, certificate=name)


def _unsigned_cek(chain: Chain) -> Failure:
    return Failure(
        "chain.cek.unsigned",
        "the CEK is as the firmware exports it, without AMD's signature",
        f"AMD serves the signed CEK at {cek_address(chain.platform_id)}",
        certificate="CEK",
    )
