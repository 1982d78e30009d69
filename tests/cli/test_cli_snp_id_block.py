"""`sev-attest snp id-block`: what an owner makes, shows and checks."""

import base64
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from conftest import Ran, Run
from id_material import AUTHOR_KEY, ID_KEY, LD, auth, block, digest, pem, verified
from sev_attest.cli.commands import snp_id_block_check as check_command
from sev_attest.cli.commands import snp_id_block_show as show_command
from sev_attest.cli.commands.snp_id_block_build import _KERNEL
from sev_attest.cli.id_block_domain import CHECKS as DOMAIN_CHECKS
from sev_attest.cli.snp_fields import DEBUG, MIGRATION
from sev_attest.snp.id_block_verify import CHECKS, REPORT_CHECKS
from sev_attest.testing import ovmf_image
from sev_attest.testing.images import SNP_SECTIONS
from snp_reports import PACKAGINGS, report

BLOCK = block()
PAGE = auth(BLOCK, author_key=AUTHOR_KEY)
PLAIN = auth(BLOCK)
BUILD = ("snp", "id-block", "build")
CHECK = ("snp", "id-block", "check")
SHOW = ("snp", "id-block", "show")
KEYS = ("--id-key", "id.pem", "--author-key", "author.pem")
DIGEST = ("--launch-digest", LD.hex())
REPORT: dict[str, int | bytes] = {
    "measurement": LD, "family_id": bytes(16), "image_id": bytes(16), "guest_svn": 0,
    "policy": 0x30000, "id_key_digest": digest(ID_KEY), "author_key_digest": digest(AUTHOR_KEY),
    "key_info": 1,
}  # fmt: skip
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "binary": lambda data: data,
    "base64": base64.b64encode,
    "wrapped base64": base64.encodebytes,
    "hex": lambda data: data.hex().encode() + b"\r\n",
}


@pytest.fixture
def files(here: Path) -> Path:
    """Lay out keys, a guest, and a pair of ID block and ID auth."""
    for name, data in (
        ("id.pem", pem(ID_KEY)), ("author.pem", pem(AUTHOR_KEY)), ("block", BLOCK), ("auth", PAGE),
        ("plain", PLAIN), ("report.bin", report(3, **REPORT)), ("vmlinuz", b"kernel"),
        ("OVMF.fd", ovmf_image(sections=SNP_SECTIONS)),
    ):  # fmt: skip
        (here / name).write_bytes(data)
    return here


def domain(text: str = "", attributes: str = " authorKey='yes'", outside: str = "") -> None:
    """Write a domain's XML; without ``text``, one that has the pair."""
    text = text or f"<policy>0x30000</policy>{blobs()}"
    Path("guest.xml").write_text(
        f"<domain>{outside}<launchSecurity type='sev-snp'{attributes}>{text}</launchSecurity>"
        "</domain>"
    )


def blobs(signed: bytes = BLOCK, page: bytes = PAGE) -> str:
    first, second = (base64.encodebytes(data).decode() for data in (signed, page))
    return f"<idBlock>{first}</idBlock><idAuth>{second}</idAuth>"


def made(ran: Ran, name: str = "vm") -> tuple[bytes, bytes]:
    """Return what a build wrote: one line of base64 each, which standard output has too."""
    assert ran.code == 0, ran.err
    found = []
    for end, element in (("idblock", "idBlock"), ("idauth", "idAuth")):
        text = Path(f"{name}_{end}.b64").read_text()
        assert re.fullmatch("[A-Za-z0-9+/]+=*", text)
        assert f"<{element}>{text}</{element}>" in ran.out
        found.append(base64.b64decode(text))
    return found[0], found[1]


# build


def test_a_block_is_built_for_libvirt_and_qemu(run: Run, files: Path) -> None:
    ran = run(*BUILD, *DIGEST, *KEYS, "--name", "vm")
    signed, page = made(ran)
    assert signed == BLOCK
    assert verified(signed, page) == (digest(ID_KEY), digest(AUTHOR_KEY))
    assert (ran.lines[0], ran.lines[1]) == (
        "<launchSecurity type='sev-snp' authorKey='yes'>",
        "  <policy>0x30000</policy>",
    )
    assert ran.lines[-1] == "</launchSecurity>"
    files_read = 'id-block="$(cat vm_idblock.b64)",id-auth="$(cat vm_idauth.b64)"'
    properties = f"policy=0x30000,{files_read},author-key-enabled=on"
    assert ran.err.splitlines() == [
        f"launch digest: {LD.hex()}",
        f"id_key_digest: {digest(ID_KEY).hex()}",
        f"author_key_digest: {digest(AUTHOR_KEY).hex()}",
        f"QEMU: {properties}",
        f"note: {_KERNEL}",
    ]
    assert os.stat("vm_idauth.b64").st_mode & 0o777 == 0o600  # noqa: PTH116 - as others read it


def test_every_field_can_be_chosen(run: Run, files: Path) -> None:
    ids = "00112233445566778899aabbccddeeff", "ff" * 16
    (files / "out put").mkdir()
    ran = run(
        *BUILD, "--launch-digest", base64.b64encode(LD).decode(), "--id-key", "id.pem",
        "--family-id", ids[0], "--image-id", ids[1], "--guest-svn", "0x7", "--policy", "0xe001f",
        "--name", "vm", "--out", "out put", "-v",
    )  # fmt: skip
    signed, page = made(ran, "out put/vm")
    assert signed == block(LD, bytes.fromhex("".join(ids)), svn=7, policy=0xE001F)
    assert verified(signed, page) == (digest(ID_KEY), None)
    assert ran.lines[0] == "<launchSecurity type='sev-snp'>"
    lines = ran.err.splitlines()
    assert "ok   snp.id-block.signature        the ID key signs the ID block" in lines
    assert "wrote out put/vm_idblock.b64" in lines
    assert "author_key_digest: none" in lines
    assert [*lines[-2:]] == [f"note: {DEBUG}", f"note: {MIGRATION}"]
    properties = next(line for line in lines if line.startswith("QEMU: "))
    assert "policy=0xe001f,id-block=\"$(cat 'out put/vm_idblock.b64')\"" in properties
    assert "author-key" not in properties


GUEST = ("--firmware", "OVMF.fd", "--num-cpus", "2", "--cpu-model-name", "EPYC-Milan")


def test_the_launch_digest_is_that_of_snp_measure(run: Run, files: Path) -> None:
    for kernel, hashes in (((), ""), (("--kernel", "vmlinuz"), " kernelHashes='yes'")):
        measured = run("snp", "measure", *GUEST, *kernel).out.strip()
        ran = run(*BUILD, *GUEST, *kernel, "--id-key", "id.pem", "--name", "vm", "--force")
        assert made(ran)[0] == block(bytes.fromhex(measured))
        assert ran.lines[0] == f"<launchSecurity type='sev-snp'{hashes}>"
        assert (",kernel-hashes=on\n" in ran.err) is bool(hashes)
        assert f"launch digest: {measured}\n" in ran.err
        assert "note: " not in ran.err


def test_json_has_what_the_files_have(run: Run, files: Path) -> None:
    for keys, author in ((KEYS, digest(AUTHOR_KEY).hex()), (KEYS[:2], None)):
        ran = run(*BUILD, *DIGEST, *keys, "--name", "vm", "--force", "--json")
        document = json.loads(ran.out)
        assert (document["schema"], document["ok"]) == ("sev-attest/snp-id-block-build/1", True)
        signed, page = document["id_block_base64"], document["id_auth_base64"]
        assert document["files"] == ["vm_idblock.b64", "vm_idauth.b64"]
        assert [signed, page] == [Path(name).read_text() for name in document["files"]]
        assert verified(*map(base64.b64decode, (signed, page)))
        assert document["id_key_digest"] == digest(ID_KEY).hex()
        assert document["author_key_digest"] == author
        assert document["qemu"].startswith(f"policy=0x30000,id-block={signed},id-auth={page}")
        assert f"<idAuth>{page}</idAuth>" in document["launch_security"]
        assert document["id_block"]["ld"] == LD.hex()
        assert document["id_auth"]["id_key"]["digest"] == document["id_key_digest"]
        assert document["notes"] == [_KERNEL]


def test_quiet_prints_the_element_alone(run: Run, files: Path) -> None:
    ran = run(*BUILD, *DIGEST, *KEYS, "--name", "vm", "-q")
    assert (ran.lines[0][:15], ran.err) == ("<launchSecurity", "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--policy", "0x10000"), "policy 0x10000: bit 17 must be one"),
        (("--policy", "0x4030000"), "policy 0x4030000: bits 26 to 63 must be zero"),
        (("--policy", "0x1ffffffffffffffff"), "is no number"),
        (("--policy", "debug"), "'debug' is no number"),
        (("--guest-svn", "0x100000000"), "is not in 0..4294967295"),
        (("--guest-svn", "-1"), "-1 is not in 0..4294967295"),
        (("--family-id", "00"), "1 bytes, expected 16 (32 hex digits)"),
        (("--image-id", "x"), "x is not hex"),
        (("--name", "../vm"), "'../vm' cannot begin a file's name"),
        (("--firmware", "OVMF.fd"), "--launch-digest excludes --firmware"),
        (("--num-cpus", "1-2"), "--launch-digest excludes --num-cpus"),
        (("--id-key", "-", "--author-key", "-"), "only one input can be standard input (-)"),
    ],
)
def test_options_out_of_range_are_usage_errors(
    run: Run, files: Path, options: tuple[str, ...], words: str
) -> None:
    ran = run(*BUILD, *DIGEST, *KEYS[:2], "--name", "vm", *options)
    assert ran.code == 2
    assert words in ran.err
    assert not Path("vm_idblock.b64").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "error: --launch-digest is needed, or the options of the guest (--firmware ...)"),
        ((*GUEST, "--num-cpus", "1-2"), "one number of vCPUs"),
        (GUEST[:2], "error: an SEV-SNP guest needs the number of vCPUs: --num-cpus"),
        (GUEST[2:], "error: --firmware is needed"),
    ],
)
def test_one_launch_digest_is_needed(
    run: Run, files: Path, options: tuple[str, ...], words: str
) -> None:
    ran = run(*BUILD, *KEYS, "--name", "vm", *options)
    assert ran.code == 2
    assert words in ran.err


def test_keys_and_a_name_are_needed(run: Run, files: Path) -> None:
    ran = run(*BUILD, *DIGEST)
    assert ran.code == 2
    for name in ("--id-key", "--name"):
        assert f"Missing option '{name}'" in ran.err


@pytest.mark.parametrize(
    ("digest_text", "words"),
    [("00" * 32, "this is a SHA-256"), ("00" * 47, "expected 48"), ("", "expected 48")],
)
def test_a_launch_digest_of_another_size_is_malformed(
    run: Run, files: Path, digest_text: str, words: str
) -> None:
    ran = run(*BUILD, "--launch-digest", digest_text, *KEYS, "--name", "vm")
    assert ran.code == 6
    assert words in ran.err


def test_a_file_that_exists_is_kept(run: Run, files: Path) -> None:
    Path("vm_idauth.b64").write_text("mine")
    ran = run(*BUILD, *DIGEST, *KEYS, "--name", "vm")
    assert ran.code == 6
    assert ran.err.startswith("error: vm_idauth.b64: exists already\n")
    assert not Path("vm_idblock.b64").exists()
    assert Path("vm_idauth.b64").read_text() == "mine"
    made(run(*BUILD, *DIGEST, *KEYS, "--name", "vm", "--force"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (pem(ID_KEY, password=b"word"), "the key is encrypted"),
        (pem(ec.derive_private_key(7, ec.SECP256R1())), "not a P-384 key, or damaged"),
        (b"x" * (1 << 20) + b"x", "more than 1048576 bytes"),
    ],
    ids=["encrypted", "P-256", "huge"],
)
@pytest.mark.parametrize("name", ["id.pem", "author.pem"])
def test_a_key_that_cannot_sign_is_named_and_not_shown(
    run: Run, files: Path, name: str, data: bytes, words: str
) -> None:
    Path(name).write_bytes(data)
    for option in ("-v", "--json"):
        ran = run(*BUILD, *DIGEST, *KEYS, "--name", "vm", option)
        assert ran.code == 6
        assert f"{name}: private key: {words}" in ran.err + ran.out
        assert data[40:60].decode() not in ran.err + ran.out
        assert not Path("vm_idblock.b64").exists()


def test_a_key_is_never_written_nor_shown(run: Run, files: Path) -> None:
    ran = run(*BUILD, *DIGEST, *KEYS, "--name", "vm", "-v")
    made(ran)
    written = [path.read_bytes() for path in files.glob("vm_*")]
    everything = b"".join([*written, *map(base64.b64decode, written), f"{ran}".encode()])
    for key in (ID_KEY, AUTHOR_KEY):
        number = key.private_numbers().private_value
        for order in ("big", "little"):
            secret = number.to_bytes(48, order)
            assert secret not in everything
            assert secret.hex().encode() not in everything
        assert pem(key)[60:100] not in everything


# show


@pytest.mark.parametrize("form", PACKED)
def test_both_are_shown_field_by_field(run: Run, files: Path, form: str) -> None:
    for name, data in (("block", BLOCK), ("auth", PAGE), ("plain", PLAIN)):
        Path(name).write_bytes(PACKED[form](data))
    ran = run(*SHOW, "block", "auth", "plain")
    assert (ran.code, ran.errors) == (0, [])
    for title in ("block: an ID block", "auth: an ID auth", "plain: an ID auth"):
        assert f"{title} (not verified)" in ran.lines
    assert ran.notes[-1] == f"note: {show_command._CAUTION}"
    numbers = ID_KEY.public_key().public_numbers()
    for line in (
        f"  ld                   {LD.hex()}  (launch digest)",
        f"  family_id            {bytes(16).hex()}",
        "  version              1",
        "  guest_svn            0",
        "  policy               0x30000",
        "      set   permits smt                       the host may have SMT on",
        f"  id_key x             {numbers.x:096x}",
        f"  id_key y             {numbers.y:096x}",
        f"  id_key_digest        {digest(ID_KEY).hex()}  (a report names the key so)",
        f"  id_block_sig R       {PAGE[0x40:0x70][::-1].hex()}",
        f"  id_key_sig S         {PAGE[0x6C8:0x6F8][::-1].hex()}",
        f"  author_key_digest    {digest(AUTHOR_KEY).hex()}  (a report names the key so)",
        "  author_key           none",
    ):
        assert line in ran.lines, line


def test_show_verifies_nothing(run: Run, files: Path) -> None:
    Path("block").write_bytes(block(bytes(48)))
    assert run(*SHOW, "block", "auth", "-q").code == 0
    document = json.loads(run(*SHOW, "block", "auth", "plain", "--json").out)
    assert (document["schema"], document["ok"]) == ("sev-attest/snp-id-block-show/1", True)
    assert document["notes"] == [show_command._CAUTION]
    first, second, third = document["inputs"]
    assert (first["source"], first["kind"]) == ("block", "id-block")
    assert first["id_block"] == {
        "ld": "00" * 48, "family_id": "00" * 16, "image_id": "00" * 16, "version": 1,
        "guest_svn": 0, "policy": 0x30000,
    }  # fmt: skip
    assert first["meaning"]["policy"]["permits"] == ["smt"]
    assert second["kind"] == "id-auth"
    assert second["id_auth"]["author_key"]["digest"] == digest(AUTHOR_KEY).hex()
    assert third["id_auth"]["author_key"] is third["id_auth"]["id_key_sig"] is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (LD.hex().encode(), "expected 96 or 4096"),
        (b"", "expected 96 or 4096"),
        (BLOCK + b"\0", "97 bytes, expected 96 or 4096"),
        (b"<idBlock/>", "expected 96 or 4096"),
        (block(version=2), "ID block version at byte 0x50: 2, expected 1"),
        (bytes(4096), "ID auth id_key_algo at byte 0x0: there is no ID key"),
    ],
)
def test_what_is_neither_is_refused(run: Run, files: Path, data: bytes, words: str) -> None:
    Path("odd").write_bytes(data)
    ran = run(*SHOW, "odd")
    assert (ran.code, ran.out) == (6, "")
    assert ran.err.startswith("error: odd: ID ")
    assert words in ran.err


def test_standard_input_is_shown_too(
    run: Run, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("auth").open() as file:
        monkeypatch.setattr("sys.stdin", file)
        assert run(*SHOW, "-").lines[0] == "standard input: an ID auth (not verified)"
    assert run(*SHOW, "-", "-").code == 2


# check


def failed(ran: Ran) -> list[str]:
    """Return the ids of the checks that fail in a JSON document."""
    document = json.loads(ran.out)
    assert document["schema"] == "sev-attest/snp-id-block-check/1"
    assert (ran.code, document["exit"], document["ok"]) == (1, 1, False)
    assert document["failed"] == [one["check"] for one in document["errors"]]
    states: dict[str, bool | None] = {one["id"]: one["ok"] for one in document["checks"]}
    assert [check for check, ok in states.items() if ok is False] == sorted(
        document["failed"], key=[*states].index
    )
    found: list[str] = document["failed"]
    return found


def test_a_pair_that_its_keys_sign_is_ok(run: Run, files: Path) -> None:
    ran = run(*CHECK, "block", "auth")
    assert (ran.code, ran.errors) == (0, [])
    assert ran.lines == [
        f"OK: the ID block is signed by the ID key {digest(ID_KEY).hex()}",
        f"it approves the launch digest {LD.hex()}, policy 0x30000",
        f"the ID key is signed by the author key {digest(AUTHOR_KEY).hex()}",
    ]
    assert ran.notes == [f"note: {check_command._WHOSE}", f"note: {check_command._LAUNCH}"]
    ran = run(*CHECK, "block", "plain", "--id-key-digest", digest(ID_KEY).hex(), "-v")
    assert ran.code == 0
    assert "ok   snp.id-block.id-key           the ID key is the one" in ran.out
    assert "-    snp.id-block.author-signature " in ran.out
    assert check_command._WHOSE not in ran.err
    ran = run(*CHECK, "block", "plain", "-q")
    assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_a_pinned_key_is_compared(run: Run, files: Path) -> None:
    author = base64.b64encode(digest(AUTHOR_KEY)).decode()
    assert run(*CHECK, "block", "auth", "--author-key-digest", author).code == 0
    ran = run(*CHECK, "block", "auth", "--id-key-digest", digest(AUTHOR_KEY).hex(), "-v")
    assert ran.code == 1
    assert ran.lines[0].startswith("NOT VERIFIED: the ID key has the digest ")
    assert "FAIL snp.id-block.id-key " in ran.out
    ran = run(*CHECK, "block", "plain", "--author-key-digest", author, "--json")
    assert failed(ran) == ["snp.id-block.author-key"]
    assert run(*CHECK, "block", "plain", "--id-key-digest", "00").code == 6


def test_a_block_that_was_changed_is_refused(run: Run, files: Path) -> None:
    Path("block").write_bytes(block(bytes(48)))
    ran = run(*CHECK, "block", "auth")
    assert (ran.code, ran.lines) == (1, ["NOT VERIFIED: the ID key does not sign this ID block"])
    assert ran.err.splitlines() == [
        "error: the ID key does not sign this ID block",
        "hint: the block was changed, or the ID auth is of another block",
    ]
    assert failed(run(*CHECK, "block", "auth", "--json")) == ["snp.id-block.signature"]
    assert run(*CHECK, "block", "auth", "-q").out == ""


def test_block_and_auth_are_not_mistaken_for_each_other(run: Run, files: Path) -> None:
    ran = run(*CHECK, "auth", "block")
    assert (ran.code, ran.out) == (6, "")
    assert ran.err == "error: auth: ID block: 4096 bytes, expected 96\n"
    assert run(*CHECK, "-", "-").code == 2


@pytest.mark.parametrize("form", PACKAGINGS)
def test_a_report_of_the_launch_fits_in_every_packaging(run: Run, files: Path, form: str) -> None:
    Path("r").write_bytes(PACKAGINGS[form](report(3, **REPORT)))
    ran = run(*CHECK, "block", "auth", "--report", "r", "-v")
    assert (ran.code, ran.errors) == (0, [])
    for check in REPORT_CHECKS:
        assert f"ok   {check} " in ran.out
    assert f"note: {check_command._REPORT}" in ran.notes
    assert f"note: {check_command._LAUNCH}" not in ran.notes


def test_everything_that_differs_is_told_at_once(run: Run, files: Path) -> None:
    Path("block").write_bytes(block(bytes(48)))
    Path("r").write_bytes(report(3, **REPORT | {"guest_svn": 1}))
    domain(attributes="")
    ran = run(*CHECK, "block", "auth", "--report", "r", "--domain", "guest.xml", "--json")
    assert failed(ran) == [
        "snp.id-block.signature",
        "snp.id-block.report.launch-digest",
        "snp.id-block.report.guest-svn",
        "snp.id-block.domain.block",
        "snp.id-block.domain.author-key",
    ]
    document = json.loads(ran.out)
    assert [one["id"] for one in document["checks"]] == [*CHECKS, *REPORT_CHECKS, *DOMAIN_CHECKS]


DOMAINS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "fits": ([], {}),
    "policy without 0x": ([], {"text": f"<policy> 030000</policy>{blobs()}"}),
    "kernel with hashes": (
        [],
        {"outside": "<os><kernel>/k</kernel></os>",
         "attributes": " authorKey='yes' kernelHashes='yes'"},
    ),
    "kernel": (["kernel-hashes"], {"outside": "<os><kernel>/k</kernel></os>"}),
    "no hashes": (
        ["kernel-hashes"],
        {"outside": "<os><kernel>/k</kernel></os>",
         "attributes": " authorKey='yes' kernelHashes='no'"},
    ),
    "no author key": (["author-key"], {"attributes": ""}),
    "author key off": (["author-key"], {"attributes": " authorKey='no'"}),
    "no policy": (["policy"], {"text": blobs()}),
    "policy in words": (["policy"], {"text": f"<policy>smt</policy>{blobs()}"}),
    "another policy": (["policy"], {"text": f"<policy>0xb0000</policy>{blobs()}"}),
    "policy of 64 bits": (["policy"], {"text": f"<policy>100030000</policy>{blobs()}"}),
    "decimal policy": (["policy"], {"text": f"<policy>196608</policy>{blobs()}"}),
    "no blobs": (["block", "auth"], {"text": "<policy>0x30000</policy>"}),
    "other blobs": (
        ["block", "auth"], {"text": f"<policy>0x30000</policy>{blobs(bytes(96), PLAIN)}"},
    ),
    "no base64": (
        ["block", "auth"],
        {"text": "<policy>0x30000</policy><idBlock>?</idBlock><idAuth>&#xe9;</idAuth>"},
    ),
}  # fmt: skip
"""What a domain has, and the last part of each check that it fails."""


@pytest.mark.parametrize("name", DOMAINS)
def test_a_domain_must_start_the_guest_with_the_pair(run: Run, files: Path, name: str) -> None:
    expected, has = DOMAINS[name]
    domain(**has)
    ran = run(*CHECK, "block", "auth", "--domain", "guest.xml", "--json")
    if expected:
        assert failed(ran) == [f"snp.id-block.domain.{one}" for one in expected]
    else:
        assert ran.code == 0
        states = {one["id"]: one["ok"] for one in json.loads(ran.out)["checks"]}
        assert all(states[check] for check in DOMAIN_CHECKS)


def test_an_author_key_that_the_auth_lacks_is_refused(run: Run, files: Path) -> None:
    domain(f"<policy>0x30000</policy>{blobs(page=PLAIN)}")
    ran = run(*CHECK, "block", "plain", "--domain", "guest.xml")
    assert ran.code == 1
    assert ran.lines == ["NOT VERIFIED: authorKey='yes', but the ID auth has no author key"]
    domain(f"<policy>0x30000</policy>{blobs(page=PLAIN)}", attributes="")
    assert run(*CHECK, "block", "plain", "--domain", "guest.xml").code == 0


SEV = "<domain><launchSecurity type='sev'><policy>1</policy></launchSecurity></domain>"


@pytest.mark.parametrize("text", ["<domain/>", SEV, "<domain><launchSecurity/></domain>"])
def test_of_a_domain_of_another_type_nothing_else_is_said(run: Run, files: Path, text: str) -> None:
    Path("guest.xml").write_text(text)
    ran = run(*CHECK, "block", "auth", "--domain", "guest.xml", "--json")
    assert failed(ran) == ["snp.id-block.domain.type"]
    states = {one["id"]: one["ok"] for one in json.loads(ran.out)["checks"]}
    assert {states[check] for check in DOMAIN_CHECKS} == {False, None}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<domain>", "guest.xml: domain XML: line 1"),
        ("<!DOCTYPE domain><domain/>", "a document type"),
        (f"<domain><launchSecurity type='sev-snp'>{blobs()}<idAuth/></launchSecurity></domain>",
         "<idAuth> is there twice"),
        (f"<domain><launchSecurity type='sev-snp'><idBlock/>{blobs()}</launchSecurity></domain>",
         "<idBlock> is there twice"),
    ],
    ids=["no XML", "document type", "idAuth", "idBlock"],
)  # fmt: skip
def test_a_domain_that_could_be_read_in_two_ways_is_malformed(
    run: Run, files: Path, text: str, words: str
) -> None:
    Path("guest.xml").write_text(text)
    ran = run(*CHECK, "block", "auth", "--domain", "guest.xml")
    assert (ran.code, ran.out) == (6, "")
    assert words in ran.err
    assert ran.err.startswith("error: guest.xml: ")


def test_what_is_built_is_what_a_domain_and_a_report_are_checked_against(
    run: Run, files: Path
) -> None:
    ran = run(*BUILD, *GUEST, *KEYS, "--name", "vm")
    signed, _ = made(ran)
    Path("guest.xml").write_text(f"<domain>{ran.out}</domain>")
    Path("r").write_bytes(report(3, **REPORT | {"measurement": signed[:48]}))
    pair = ("vm_idblock.b64", "vm_idauth.b64")
    ran = run(*CHECK, *pair, "--domain", "guest.xml", "--report", "r", "--json")
    document = json.loads(ran.out)
    assert (document["ok"], document["failed"]) == (True, [])
    said = run(*CHECK, *pair, "--domain", "guest.xml", "--report", "r").lines
    assert "the report says that its guest was launched with it" in said
    assert "the domain has it" in said
    assert document["id_block"]["ld"] == signed[:48].hex()
    assert document["id_auth"]["id_key"]["digest"] == digest(ID_KEY).hex()
    ran = run(*CHECK, "vm_idblock.b64", "auth", "--domain", "guest.xml")
    assert ran.code == 1


def test_no_word_says_more_than_was_compared(run: Run, files: Path) -> None:
    """Anybody can write a report, and a domain has more than its ID block."""
    domain()
    ran = run(*CHECK, "block", "auth", "--report", "report.bin", "--domain", "guest.xml", "--json")
    unverified, rest = json.loads(ran.out)["notes"][-2:]
    assert unverified.startswith("the report was not verified, and anybody can write one")
    assert rest.startswith("of the domain, only what the ID block needs was compared")


def test_a_debug_policy_is_noted(run: Run, files: Path) -> None:
    signed = block(policy=0xB0000)
    Path("block").write_bytes(signed)
    Path("auth").write_bytes(auth(signed))
    assert f"note: {DEBUG}" in run(*CHECK, "block", "auth").notes


@pytest.mark.parametrize("command", ["build", "show", "check"])
def test_errors_have_the_schema_of_their_command(run: Run, files: Path, command: str) -> None:
    document = json.loads(run("snp", "id-block", command, "--nope", "--json").out)
    assert document["schema"] == f"sev-attest/snp-id-block-{command}/1"
    assert (document["ok"], document["exit"]) == (False, 2)
