"""Reading ID blocks and ID auths, showing their fields, and handing them to libvirt and QEMU."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sev_attest._encoding import blob, looks_like_text
from sev_attest.cli.inputs import read_small
from sev_attest.cli.snp_fields import DEBUG, MIGRATION, policy_lines, policy_meaning
from sev_attest.errors import reading
from sev_attest.snp.id_block import AUTH, AUTH_SIZE, BLOCK, BLOCK_SIZE, VERSION, IdAuth, IdBlock
from sev_attest.snp.id_block_verify import VerifiedIdBlock
from sev_attest.snp.id_key import IdKey, Signature

if TYPE_CHECKING:
    from sev_attest.cli.documents.id_blocks import BlockMeaning
    from sev_attest.cli.documents.id_blocks import IdAuth as AuthFacts
    from sev_attest.cli.documents.id_blocks import IdBlock as BlockFacts
    from sev_attest.cli.documents.id_blocks import IdKey as KeyFacts
    from sev_attest.cli.documents.snp import Signature as SignatureFacts


def read_block(path: str) -> IdBlock:
    """Read an ID block in binary, base64 or hex; raises OSError, MalformedInput."""
    with reading(path):
        return IdBlock.from_bytes(_content(path, BLOCK, BLOCK_SIZE))


def read_auth(path: str) -> IdAuth:
    """Read an ID auth in binary, base64 or hex; raises OSError, MalformedInput."""
    with reading(path):
        return IdAuth.from_bytes(_content(path, AUTH, AUTH_SIZE))


def read_either(path: str) -> IdBlock | IdAuth:
    """Read an ID block or an ID auth, told apart by its size."""
    with reading(path):
        data = _content(path, f"{BLOCK} or {AUTH}", BLOCK_SIZE, AUTH_SIZE)
        return (IdBlock if len(data) == BLOCK_SIZE else IdAuth).from_bytes(data)


def _content(path: str, what: str, *sizes: int) -> bytes:
    data = read_small(path, what)
    # Neither is ever printable: 96 hex digits are a launch digest, no ID block.
    return blob(data, sizes, what, only_text=looks_like_text(data))


def block_facts(found: IdBlock) -> "BlockFacts":
    """Return every field of an ID block, for JSON."""
    return {
        "ld": found.ld.hex(),
        "family_id": found.family_id.hex(),
        "image_id": found.image_id.hex(),
        "version": VERSION,
        "guest_svn": found.guest_svn,
        "policy": int(found.policy),
    }


def auth_facts(found: IdAuth) -> "AuthFacts":
    """Return every field of an ID auth, for JSON."""
    author, signature = found.author_key, found.id_key_signature
    return {
        "id_key": _key_facts(found.id_key),
        "id_block_sig": _signature_facts(found.block_signature),
        "author_key": _key_facts(author) if author else None,
        "id_key_sig": _signature_facts(signature) if signature else None,
    }


def meaning(block: IdBlock) -> "BlockMeaning":
    """Return what the bits of a block's policy stand for, for JSON."""
    return {"policy": policy_meaning(block.policy)}


def _key_facts(key: IdKey) -> "KeyFacts":
    return {"x": f"{key.x:096x}", "y": f"{key.y:096x}", "digest": key.digest.hex()}


def _signature_facts(signature: Signature) -> "SignatureFacts":
    r, s = signature
    return {"r": f"{r:096x}", "s": f"{s:096x}"}


def lines(found: IdBlock | IdAuth) -> Iterator[str]:
    """Yield every field of an ID block or ID auth, for people."""
    if isinstance(found, IdBlock):
        yield f"{'ld':<20} {found.ld.hex()}  (launch digest)"
        yield f"{'family_id':<20} {found.family_id.hex()}"
        yield f"{'image_id':<20} {found.image_id.hex()}"
        yield f"{'version':<20} {VERSION}"
        yield f"{'guest_svn':<20} {found.guest_svn}"
        yield f"{'policy':<20} {found.policy}"
        yield from (f"    {line}" for line in policy_lines(found.policy))
        return
    yield from _key_lines("id_key", found.id_key)
    yield from _signature_lines("id_block_sig", found.block_signature)
    if found.author_key is None or found.id_key_signature is None:
        yield f"{'author_key':<20} none"
        return
    yield from _key_lines("author_key", found.author_key)
    yield from _signature_lines("id_key_sig", found.id_key_signature)


def _key_lines(name: str, key: IdKey) -> Iterator[str]:
    yield f"{f'{name} x':<20} {key.x:096x}"
    yield f"{f'{name} y':<20} {key.y:096x}"
    yield f"{f'{name}_digest':<20} {key.digest.hex()}  (a report names the key so)"


def _signature_lines(name: str, signature: Signature) -> Iterator[str]:
    for part, number in zip("RS", signature, strict=True):
        yield f"{f'{name} {part}':<20} {number:096x}"


def policy_notes(block: IdBlock) -> list[str]:
    """Return a note for each thing that a policy permits the host and that few owners want."""
    said = {DEBUG: block.policy.debug, MIGRATION: block.policy.migration_agent}
    return [words for words, true in said.items() if true]


def element(made: VerifiedIdBlock, block: str, auth: str, *, hashes: bool) -> str:
    """Return libvirt's <launchSecurity> element, without a newline at the end.

    ``block`` and ``auth`` are base64; ``hashes`` says whether a kernel's hashes are measured.
    """
    kernel = " kernelHashes='yes'" if hashes else ""
    author = " authorKey='yes'" if made.author_key_digest else ""
    return (
        f"<launchSecurity type='sev-snp'{kernel}{author}>\n"
        f"  <policy>{made.block.policy}</policy>\n"
        f"  <idBlock>{block}</idBlock>\n"
        f"  <idAuth>{auth}</idAuth>\n"
        "</launchSecurity>"
    )


def qemu_properties(made: VerifiedIdBlock, block: str, auth: str, *, hashes: bool) -> str:
    """Return what QEMU's sev-snp-guest object needs for the block; arguments as :func:`element`."""
    kernel = ",kernel-hashes=on" if hashes else ""
    author = ",author-key-enabled=on" if made.author_key_digest else ""
    return f"policy={made.block.policy},id-block={block},id-auth={auth}{author}{kernel}"
