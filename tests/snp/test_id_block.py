"""ID blocks of `sev_attest.snp`: formats, keys, signatures, and what a report must say of them."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from id_material import (
    AUTHOR_KEY,
    ID_KEY,
    LD,
    SEC1,
    auth,
    block,
    digest,
    key,
    pem,
    signature,
    verified,
)
from sev_attest.errors import IdBlockInvalid, MalformedInput, SevAttestError, Unsupported
from sev_attest.snp.id_block import IdAuth, IdBlock, sign_id_block
from sev_attest.snp.id_block_verify import (
    CHECKS,
    REPORT_CHECKS,
    VerifiedIdBlock,
    report_failures,
    verify_id_block,
)
from sev_attest.snp.id_key import IdKey, IdPrivateKey
from sev_attest.snp.policy import GuestPolicy
from sev_attest.snp.report import AttestationReport
from snp_material import MILAN, verify
from snp_reports import report

BLOCK = block()
PLAIN, AUTHORED = auth(BLOCK), auth(BLOCK, author_key=AUTHOR_KEY)
AUTHS = {"without author key": PLAIN, "with author key": AUTHORED}
PRIME = 2**384 - 2**128 - 2**96 + 2**32 - 1
ORDER = 2**384 - 0x389CB27E0BC8D220A7E5F24DB74F58851313E695333AD68D
SIGNATURE, AUTHOR = "snp.id-block.signature", "snp.id-block.author-signature"


def check(signed: bytes, page: bytes, **pinned: bytes) -> VerifiedIdBlock:
    return verify_id_block(IdBlock.from_bytes(signed), IdAuth.from_bytes(page), **pinned)


def put(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def refused(signed: bytes, page: bytes) -> str:
    """Return the check that refuses a pair; the test fails if none does."""
    with pytest.raises((MalformedInput, IdBlockInvalid)) as caught:
        check(signed, page)
    return caught.value.check


# the block


def test_a_block_has_the_bytes_of_the_table() -> None:
    ids = bytes(range(100, 132))
    made = IdBlock(
        ld=LD, family_id=ids[:16], image_id=ids[16:], guest_svn=0x1020304,
        policy=GuestPolicy(0x3001F),
    )  # fmt: skip
    laid = block(LD, ids, 1, 0x1020304, 0x3001F)
    assert made.to_bytes() == laid
    assert IdBlock.from_bytes(laid) == made
    assert IdBlock(ld=LD, policy=GuestPolicy(0x30000)).to_bytes() == BLOCK


@pytest.mark.parametrize("size", [*range(0, 96, 5), 95, 97, 4096])
def test_a_block_of_another_size_is_malformed(size: int) -> None:
    with pytest.raises(MalformedInput, match=f"^ID block: {size} bytes, expected 96$"):
        IdBlock.from_bytes(BLOCK.ljust(size, b"\0")[:size])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 0}, "version at byte 0x50: 0, expected 1"),
        ({"version": 2}, "version at byte 0x50: 2, expected 1"),
        ({"policy": 0x10000}, "policy: policy 0x10000: bit 17 must be one"),
        ({"policy": 0x4030000}, "policy: policy 0x4030000: bits 26 to 63 must be zero"),
        ({"policy": 1 << 63 | 0x20000}, "bits 26 to 63 must be zero"),
    ],
)
def test_a_block_that_no_guest_can_start_with_is_malformed(
    changes: dict[str, int], words: str
) -> None:
    with pytest.raises(MalformedInput, match=words):
        IdBlock.from_bytes(block(**changes))  # type: ignore[arg-type]


def test_a_block_cannot_be_made_of_values_that_do_not_fit() -> None:
    right = IdBlock(ld=LD, policy=GuestPolicy(0x20000))
    for name, value in (
        ("ld", bytes(47)), ("family_id", bytes(15)), ("image_id", bytes(17)),
        ("guest_svn", -1), ("guest_svn", 1 << 32), ("policy", GuestPolicy(0)),
    ):  # fmt: skip
        with pytest.raises(MalformedInput, match=f"^ID block {name}: "):
            replace(right, **{name: value})  # type: ignore[arg-type]
    assert replace(right, guest_svn=0xFFFF_FFFF).to_bytes()[0x54:0x58] == b"\xff" * 4


# keys


def test_a_key_has_the_bytes_and_the_digest_of_the_table() -> None:
    made = IdPrivateKey.from_pem(pem(ID_KEY)).public
    assert made.to_bytes() == key(ID_KEY)
    assert made.digest == digest(ID_KEY)
    assert IdKey.from_bytes(key(ID_KEY)) == made
    assert repr(made) == f"IdKey(digest={digest(ID_KEY).hex()})"


@pytest.mark.parametrize(
    ("at", "new", "words"),
    [
        (0, b"\1", "key curve at byte 0x0: P256, expected P384"),
        (0, b"\0", "key curve at byte 0x0: INVALID, expected P384"),
        (0, b"\3", "key curve at byte 0x0: unknown code 0x3"),
        (4, b"\0" * 72, "key at byte 0x0: it is not on P-384"),
        (4, PRIME.to_bytes(72, "little"), "it is not on P-384"),
        (52, b"\1", "it is not on P-384"),
        (147, b"\1", "it is not on P-384"),
        (148, b"\1", "key at byte 0x94: reserved bytes are not zero"),
        (0x403, b"\1", "key at byte 0x403: reserved bytes are not zero"),
    ],
)
def test_bytes_of_no_key_are_malformed(at: int, new: bytes, words: str) -> None:
    with pytest.raises(MalformedInput, match=words):
        IdKey.from_bytes(put(key(ID_KEY), at, new))


def test_numbers_of_no_key_make_none() -> None:
    right = IdKey.from_bytes(key(ID_KEY))
    # Reduced, the first would be the key again.
    for x, y in ((right.x + PRIME, right.y), (right.x, right.y ^ 1), (0, 0)):
        with pytest.raises(MalformedInput, match="it is not on P-384"):
            IdKey(x=x, y=y)
    with pytest.raises(MalformedInput, match="1027 bytes, expected 1028"):
        IdKey.from_bytes(key(ID_KEY)[:-1])


EC_PARAMETERS = b"-----BEGIN EC PARAMETERS-----\nBgUrgQQAIg==\n-----END EC PARAMETERS-----\n"
"""What `openssl ecparam -genkey` writes before the key."""


@pytest.mark.parametrize(
    "text",
    [
        pem(ID_KEY),
        pem(ID_KEY, SEC1),
        EC_PARAMETERS + pem(ID_KEY, SEC1),
        pem(ID_KEY).replace(b"\n", b"\r\n"),
    ],
    ids=["PKCS8", "SEC1", "openssl ecparam", "CRLF"],
)
def test_a_private_key_is_read_from_every_form_of_pem(text: bytes) -> None:
    private = IdPrivateKey.from_pem(text)
    assert private.public.to_bytes() == key(ID_KEY)
    assert repr(private) == "IdPrivateKey()"


P256 = ec.derive_private_key(7, ec.SECP256R1())
PUBLIC = ID_KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
ENCRYPTED = pem(ID_KEY, password=b"word")
OLD_ENCRYPTED = pem(ID_KEY, SEC1, b"word")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ENCRYPTED, "the key is encrypted"),
        (OLD_ENCRYPTED, "the key is encrypted"),
        (pem(P256), "not a P-384 key, or damaged"),
        (pem(ID_KEY).replace(b"MIG2", b"MIG3"), "not a P-384 key, or damaged"),
        (PUBLIC, "no private key is in this PEM file"),
        (b"", "not a private key in PEM"),
        (b"\x30\x81", "not a private key in PEM"),
    ],
    ids=["encrypted", "encrypted SEC1", "P-256", "damaged", "public", "empty", "DER"],
)
def test_what_is_no_private_key_is_told_and_never_shown(text: bytes, words: str) -> None:
    with pytest.raises(MalformedInput) as caught:
        IdPrivateKey.from_pem(text)
    assert str(caught.value) == f"private key: {words}"
    assert caught.value.check == "private-key.format"
    assert caught.value.hint
    body = [line for line in text.decode("latin-1").splitlines() if len(line) > 30]
    assert not any(line in f"{caught.value!r} {caught.value.hint}" for line in body)


# the page


@pytest.mark.parametrize("page", AUTHS.values(), ids=AUTHS)
def test_an_auth_is_read_as_it_was_laid_out(page: bytes) -> None:
    found = IdAuth.from_bytes(page)
    assert found.to_bytes() == page
    assert found.id_key.to_bytes() == key(ID_KEY)
    r, s = found.block_signature
    assert r.to_bytes(72, "little") + s.to_bytes(72, "little") == page[0x40:0xD0]
    assert (found.author_key is None) == (found.id_key_signature is None) == (page is PLAIN)
    if found.author_key:
        assert found.author_key.to_bytes() == key(AUTHOR_KEY)
    assert digest(ID_KEY).hex() in repr(found)


@pytest.mark.parametrize("size", [0, 8, 96, 2048, 4095, 4097])
def test_an_auth_of_another_size_is_malformed(size: int) -> None:
    with pytest.raises(MalformedInput, match=f"^ID auth: {size} bytes, expected 4096$"):
        IdAuth.from_bytes(AUTHORED.ljust(size, b"\0")[:size])


def malformed() -> Iterator[tuple[str, bytes, int, bytes, str]]:
    """Yield pages with one fault: a name, the page, where, what, and the message."""
    zeros = {
        "id_block_sig": (0xD0, 0x23F),
        "id_key": (0x2D4, 0x643),
        "id_key_sig": (0x710, 0x87F),
        "author_key": (0x914, 0xC83),
        "reserved": (8, 0x3F, 0x644, 0x67F, 0xC84, 0xFFF),
    }
    for name, places in zeros.items():
        for at in places:
            words = f"ID auth {name} at byte {at:#x}: reserved bytes are not zero"
            yield f"{name} {at:#x}", AUTHORED, at, b"\1", words
    for at, name in ((0x680, "id_key_sig"), (0x87F, "id_key_sig"), (0x880, "author_key")):
        unused = "bytes of an author key, though auth_key_algo is 0, are not zero"
        yield f"unused {at:#x}", PLAIN, at, b"\1", f"{name} at byte {at:#x}: {unused}"
    yield "no ID key", AUTHORED, 0, b"\0", "id_key_algo at byte 0x0: there is no ID key"
    yield "algorithm", AUTHORED, 0, b"\2", "id_key_algo at byte 0x0: unknown code 0x2"
    yield "author's algorithm", AUTHORED, 4, b"\2", "auth_key_algo at byte 0x4: unknown code 0x2"
    yield "unnamed author", AUTHORED, 4, b"\0", "id_key_sig at byte 0x"
    yield "curve", AUTHORED, 0x240, b"\1", "id_key curve at byte 0x240: P256, expected P384"
    yield "author's curve", AUTHORED, 0x880, b"\1", "author_key curve at byte 0x880: P256"
    yield "point", AUTHORED, 0x244, bytes(48), "id_key at byte 0x240: it is not on P-384"
    yield "author's point", AUTHORED, 0x8CC, bytes(48), "author_key at byte 0x880: it is not on P-3"
    for name, start in (("id_block_sig", 0x40), ("id_key_sig", 0x680)):
        for part in (start, start + 72):
            for value in (0, ORDER, ORDER + 1, 1 << 384, (1 << 576) - 1):
                words = f"{name} at byte {start:#x}: R or S is out of range"
                yield f"{name} {value % 97}", AUTHORED, part, value.to_bytes(72, "little"), words


MALFORMED = [pytest.param(*one, id=name) for name, *one in malformed()]


@pytest.mark.parametrize(("page", "at", "new", "words"), MALFORMED)
def test_a_page_with_a_fault_is_malformed(page: bytes, at: int, new: bytes, words: str) -> None:
    with pytest.raises(MalformedInput) as caught:
        IdAuth.from_bytes(put(page, at, new))
    assert words in str(caught.value)


def test_the_largest_numbers_of_a_signature_are_read() -> None:
    at_the_end = put(PLAIN, 0x40, (ORDER - 1).to_bytes(72, "little") * 2)
    assert IdAuth.from_bytes(at_the_end).block_signature == (ORDER - 1, ORDER - 1)
    assert refused(BLOCK, at_the_end) == SIGNATURE


# signatures


@pytest.mark.parametrize("page", AUTHS.values(), ids=AUTHS)
def test_what_another_implementation_signs_verifies(page: bytes) -> None:
    made = check(BLOCK, page)
    assert made.id_key_digest == digest(ID_KEY)
    authored = page is AUTHORED
    assert made.author_key_digest == (digest(AUTHOR_KEY) if authored else None)
    assert made.held == ({SIGNATURE, AUTHOR} if authored else {SIGNATURE})


@pytest.mark.parametrize("author", [None, AUTHOR_KEY], ids=AUTHS)
def test_what_is_signed_here_verifies_in_another_implementation(
    author: ec.EllipticCurvePrivateKey | None,
) -> None:
    made = IdBlock(ld=LD, policy=GuestPolicy(0x30000), guest_svn=3)
    private = IdPrivateKey.from_pem(pem(author)) if author else None
    page = sign_id_block(made, IdPrivateKey.from_pem(pem(ID_KEY)), private)
    expected = digest(ID_KEY), author and digest(author)
    assert verified(made.to_bytes(), page.to_bytes()) == expected
    assert verify_id_block(made, page).auth is page


@pytest.mark.parametrize("page", AUTHS.values(), ids=AUTHS)
def test_no_byte_of_block_or_auth_can_be_changed(page: bytes) -> None:
    for at in range(96):
        assert refused(put(BLOCK, at, bytes([BLOCK[at] ^ 1 << at % 8])), page)
    for at in range(4096):
        assert refused(BLOCK, put(page, at, bytes([page[at] ^ 1 << at % 8])))


def test_each_signature_that_fails_is_named() -> None:
    other = block(bytes(48))
    own = auth(BLOCK, AUTHOR_KEY, ID_KEY)
    for signed, page, failed in (
        (other, PLAIN, [SIGNATURE]),
        (other, AUTHORED, [SIGNATURE]),
        (BLOCK, put(AUTHORED, 0x680, signature(AUTHOR_KEY, BLOCK)), [AUTHOR]),
        (BLOCK, put(AUTHORED, 0x680, own[0x680:0xC84]), [AUTHOR]),
        (BLOCK, put(AUTHORED, 0x40, signature(AUTHOR_KEY, BLOCK)), [SIGNATURE]),
        (BLOCK, put(AUTHORED, 0x40, own[0x40:0x644]), [AUTHOR]),
        (other, put(AUTHORED, 0x680, signature(ID_KEY, key(ID_KEY))), [SIGNATURE, AUTHOR]),
    ):
        with pytest.raises(IdBlockInvalid) as caught:
            check(signed, page)
        assert [one.check for one in caught.value.failures] == failed
        assert caught.value.exit_code == 1
        assert not caught.value.held & set(failed)


def test_pinned_keys_hold_and_others_are_refused() -> None:
    right = {"id_key_digest": digest(ID_KEY), "author_key_digest": digest(AUTHOR_KEY)}
    assert check(BLOCK, AUTHORED, **right).held == CHECKS.keys()
    swapped = {"id_key_digest": digest(AUTHOR_KEY), "author_key_digest": digest(ID_KEY)}
    with pytest.raises(IdBlockInvalid) as caught:
        check(BLOCK, AUTHORED, **swapped)
    failed = [one.check for one in caught.value.failures]
    assert failed == ["snp.id-block.id-key", "snp.id-block.author-key"]
    assert caught.value.held == {SIGNATURE, AUTHOR}
    with pytest.raises(IdBlockInvalid, match="there is no author key"):
        check(BLOCK, PLAIN, **right)


@pytest.mark.parametrize("name", ["id_key_digest", "author_key_digest"])
@pytest.mark.parametrize("size", [0, 32, 47, 49])
def test_a_digest_of_another_size_pins_nothing(name: str, size: int) -> None:
    with pytest.raises(Unsupported, match=f"key has 48 bytes, not {size}"):
        check(BLOCK, AUTHORED, **{name: bytes(size)})


def test_nobody_else_makes_a_proof() -> None:
    made = check(BLOCK, PLAIN)
    with pytest.raises(TypeError, match=r"only snp\.verify_id_block\(\) makes a VerifiedIdBlock"):
        VerifiedIdBlock(block=made.block, auth=made.auth, held=made.held)


# a report of the launch

REPORT: dict[str, int | bytes] = {
    "measurement": LD, "family_id": bytes(16), "image_id": bytes(16), "guest_svn": 0,
    "policy": 0x30000, "id_key_digest": digest(ID_KEY), "author_key_digest": digest(AUTHOR_KEY),
    "key_info": 1,
}  # fmt: skip
PREFIX = "snp.id-block.report."


def differences(page: bytes, **changes: int | bytes) -> dict[str, str]:
    """Return how a report differs: the messages by the last part of the check."""
    found = AttestationReport.from_bytes(report(3, **REPORT | changes))
    failures = [*report_failures(IdBlock.from_bytes(BLOCK), IdAuth.from_bytes(page), found)]
    named = {one.check.removeprefix(PREFIX): one.message for one in failures}
    assert len(named) == len(failures)
    return named


def test_a_report_of_the_launch_fits() -> None:
    assert differences(AUTHORED) == {}
    assert differences(PLAIN, key_info=0) == {}
    assert differences(PLAIN, key_info=0, author_key_digest=bytes(48)) == {}


@pytest.mark.parametrize(
    ("check_id", "changes", "words"),
    [
        ("launch-digest", {"measurement": bytes(48)}, "launch digest is 0000"),
        ("family-id", {"family_id": bytes(15) + b"\1"}, "family_id is 0000"),
        ("image-id", {"image_id": b"\1" * 16}, "image_id is 0101"),
        ("guest-svn", {"guest_svn": 1}, "guest_svn is 1, the ID block's 0"),
        ("policy", {"policy": 0xB0000}, "guest policy is 0xb0000, the ID block's 0x30000"),
        ("id-key", {"id_key_digest": digest(AUTHOR_KEY)}, "the report names the ID key"),
        ("id-key", {"id_key_digest": bytes(48)}, "was started without an ID block"),
        ("author-key", {"author_key_digest": digest(ID_KEY)}, "the report names the author key"),
        ("author-key", {"key_info": 0}, "it was not enabled at launch"),
    ],
)
def test_each_field_of_a_report_that_differs_is_the_only_one_named(
    check_id: str, changes: dict[str, int | bytes], words: str
) -> None:
    found = differences(AUTHORED, **changes)
    assert found.keys() == {check_id}
    assert words in found[check_id]


def test_an_author_key_that_the_auth_lacks_is_named() -> None:
    assert differences(PLAIN).keys() == {"author-key"}
    assert "the ID auth has none" in differences(PLAIN)["author-key"]


def test_of_a_report_of_another_launch_everything_is_named() -> None:
    other: dict[str, int | bytes] = {
        "measurement": bytes(48),
        "family_id": b"\1" * 16,
        "image_id": b"\2" * 16,
        "guest_svn": 9,
        "policy": 0x20000,
        "id_key_digest": bytes(48),
        "key_info": 0,
    }
    assert {PREFIX + one for one in differences(AUTHORED, **other)} == REPORT_CHECKS.keys()


def test_a_verified_report_is_held_against_a_verified_block() -> None:
    made = check(BLOCK, PLAIN)
    right = {name: REPORT[name] for name in ("measurement", "id_key_digest", "policy")}
    right |= {"family_id": bytes(16), "image_id": bytes(16), "guest_svn": 0}
    made.require(verify(MILAN.report(**right), MILAN.certificates()))  # type: ignore[arg-type]
    other = verify(MILAN.report(**right | {"guest_svn": 1}), MILAN.certificates())  # type: ignore[arg-type]
    with pytest.raises(IdBlockInvalid) as caught:
        made.require(other)
    assert caught.value.check == f"{PREFIX}guest-svn"
    assert caught.value.held == {SIGNATURE} | REPORT_CHECKS.keys() - {f"{PREFIX}guest-svn"}


def test_a_stranger_s_bytes_raise_our_errors_only() -> None:
    for size, reader in ((96, IdBlock.from_bytes), (4096, IdAuth.from_bytes)):
        for fill in (0x00, 0x01, 0x7F, 0xFF):
            with pytest.raises(SevAttestError):
                reader(bytes([fill]) * size)
