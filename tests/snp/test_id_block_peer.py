"""sev-snp-measure's ID blocks verify here, ours have its layout; three real pairs verify."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
from sevsnpmeasure import id_block as peer

from id_material import AUTHOR_KEY, ID_KEY, LD, auth, block, digest, pem, verified
from sev_attest import IdBlockInvalid, snp
from sev_attest.snp.policy import GuestPolicy

REAL = ("virtee", "sev-snp-measure", "lit")


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """Write the ID key and the author key as PEM."""
    found = tmp_path / "id.pem", tmp_path / "author.pem"
    for path, key in zip(found, (ID_KEY, AUTHOR_KEY), strict=True):
        path.write_bytes(pem(key))
    return found


def test_what_the_peer_s_program_makes_verifies(keys: tuple[Path, Path]) -> None:
    program = Path(sys.executable).with_name("snp-create-id-block")
    options = [f"--idkey={keys[0]}", f"--authorkey={keys[1]}"]
    ran = subprocess.run(
        [program, "--measurement", base64.b64encode(LD), *options],
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    properties, id_hash, author_hash = ran.stdout.splitlines()
    parts = [base64.b64decode(one.partition("=")[2]) for one in properties.split(",")]
    made = snp.verify_id_block(snp.IdBlock.from_bytes(parts[0]), snp.IdAuth.from_bytes(parts[1]))
    assert made.block == snp.IdBlock(ld=LD, policy=GuestPolicy(0x30000))
    assert base64.b64decode(id_hash.split()[1]) == made.id_key_digest == digest(ID_KEY)
    assert base64.b64decode(author_hash.split()[1]) == made.author_key_digest
    assert verified(*parts) == (digest(ID_KEY), digest(AUTHOR_KEY))


def test_what_is_made_here_has_the_peer_s_layout() -> None:
    made = snp.IdBlock(ld=LD, policy=GuestPolicy(0x30000))
    private = [snp.IdPrivateKey.from_pem(pem(key)) for key in (ID_KEY, AUTHOR_KEY)]
    page = snp.sign_id_block(made, *private)
    theirs = peer.IdAuth.from_buffer_copy(page.to_bytes())
    for key, field, found in (
        (ID_KEY, theirs.id_key, page.id_key),
        (AUTHOR_KEY, theirs.author_key, page.author_key),
    ):
        assert found is not None
        assert bytes(field) == peer.marshal_ec_public_key(key) == found.to_bytes()
        assert peer.pub_to_digest(key) == found.digest
    # The signatures in the places where the peer has them: each signs what it should.
    laid = auth(made.to_bytes(), author_key=AUTHOR_KEY)
    laid = laid[:0x40] + bytes(theirs.block_sig) + laid[0x240:0x680]
    laid += bytes(theirs.id_key_sig) + bytes(theirs.author_key) + bytes(892)
    assert verified(made.to_bytes(), laid) == (digest(ID_KEY), digest(AUTHOR_KEY))
    assert bytes(peer.IdBlock.from_buffer_copy(made.to_bytes())) == block()


@pytest.mark.parametrize("name", REAL)
def test_real_pairs_verify(real: Path, name: str) -> None:
    expected = json.loads((real / "snp" / "expected.json").read_text())["id_blocks"][name]
    signed, page = ((real / "snp" / expected[one]).read_bytes() for one in ("block", "auth"))
    made = snp.verify_id_block(snp.IdBlock.from_bytes(signed), snp.IdAuth.from_bytes(page))
    digests = expected["keys"]
    assert made.id_key_digest.hex() == digests["id_key_digest"]
    assert made.author_key_digest == bytes.fromhex(digests["author_key_digest"])
    assert verified(signed, page) == (made.id_key_digest, made.author_key_digest)
    for other in set(REAL) - {name}:
        block = snp.IdBlock.from_bytes((real / "snp" / "id" / f"{other}.block.bin").read_bytes())
        with pytest.raises(IdBlockInvalid):
            snp.verify_id_block(block, made.auth)


@pytest.mark.parametrize("name", REAL[:2])
def test_real_blocks_are_made_of_their_launch_digests(real: Path, name: str) -> None:
    expected = json.loads((real / "snp" / "expected.json").read_text())["id_blocks"][
        f"{name}-block"
    ]
    made = snp.IdBlock(ld=bytes.fromhex(expected["ld"]), policy=GuestPolicy(0x30000))
    assert made.to_bytes().hex() == expected["block_hex"]
