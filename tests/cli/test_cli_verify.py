"""``sev-attest verify``."""

import base64
import json
import sys
from dataclasses import replace
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from conftest import Run
from sev_attest import sev
from sev_attest.cli import many_chains
from sev_attest.testing import Authority, Platform

LEGEND = " • = self signed, ⬑ = signs, •̷ = invalid self sign, ⬑̸ = invalid signs"


@pytest.fixture
def files(platform: Platform, here: Path) -> sev.Chain:
    """Lay out a platform's files: whole chain, its root, each certificate."""
    ask, ark = platform.authority.ask, platform.authority.ark
    chain = replace(platform.export(), ask=ask, ark=ark)
    Path("chain").write_bytes(platform.export().to_bytes())
    Path("full").write_bytes(chain.to_bytes())
    Path("root").write_bytes(ark.to_bytes())
    Path("ca").write_bytes(ask.to_bytes() + ark.to_bytes())
    Path("single").mkdir()
    for name in ("pdh", "pek", "oca", "cek", "ask", "ark"):
        Path(f"single/{name}.cert").write_bytes(getattr(chain, name).to_bytes())
    return chain


def tree(chain: sev.Chain, broken: str = "") -> list[str]:
    """Draw the tree by hand; ``broken`` names the links to strike through, by the signer."""
    assert chain.ask is not None
    assert chain.ark is not None
    bits = chain.ark.public_key.bits
    rsa = f"R{bits} R{256 if bits == 2048 else 384}"
    mark = {
        name: "⬑̸" if name in broken.split() else "⬑" for name in ("PEK", "OCA", "CEK", "ASK", "ARK")
    }
    own = {name: "•̷" if f"{name}*" in broken.split() else "•" for name in ("OCA", "ARK")}
    return [
        f"PDH EP384 D256 {chain.pdh.fingerprint}",
        f" {mark['PEK']} PEK EP384 E256 {chain.pek.fingerprint}",
        f"   {own['OCA']}{mark['OCA']} OCA EP384 E256 {chain.oca.fingerprint}",
        f"    {mark['CEK']} CEK EP384 E256 {chain.cek.fingerprint}",
        f"       {mark['ASK']} ASK {rsa} {chain.ask.fingerprint}",
        f"         {own['ARK']}{mark['ARK']} ARK {rsa} {chain.ark.fingerprint}",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        "full",
        "single",
        "chain --ca ca",
        "--sev full",
        "single/pdh.cert single/pek.cert chain --ca ca",
    ],
)
def test_a_chain_verifies_with_its_root_named(run: Run, files: sev.Chain, arguments: str) -> None:
    ran = run("verify", *arguments.split(), "--trust-root", "root")
    assert ran.code == 0
    assert ran.lines[:6] == tree(files)
    assert files.ark is not None
    assert ran.lines[6] == (
        f"OK: the chain leads to a trusted root: not AMD's: ARK {files.ark.fingerprint[:16]}"
    )
    assert ran.notes[0].startswith("note: this root is not AMD's")
    assert ran.errors == []


def test_ask_and_ark_come_from_the_named_root(run: Run, files: sev.Chain) -> None:
    assert run("verify", "chain", "--trust-root", "ca").code == 0
    ran = run("verify", "chain", "--trust-root", "root")
    assert ran.code == 1
    assert ran.lines[4:6] == [
        "       ⬑̸ ASK (none that fits)",
        "         •̷⬑̸ ARK (none that fits)",
    ]
    checks = json.loads(run("verify", "chain", "--trust-root", "root", "--json").out)["checks"]
    ok = {check["id"]: check["ok"] for check in checks}
    assert ok["chain.cek.signed-by-ask"] is False
    assert ok["chain.ark.trusted"] is ok["chain.ark.self-signed"] is None
    assert "-    chain.ark.trusted" in run("verify", "chain", "--trust-root", "root", "-v").out


def test_the_unnamed_root_is_refused_and_marked(run: Run, files: sev.Chain) -> None:
    ran = run("verify", "full")
    assert ran.code == 1
    assert ran.lines == [*tree(files, "ARK"), LEGEND, "NOT VERIFIED: do not trust this platform"]
    assert ran.err == (
        "error: the ARK is no trusted root: its key is none of AMD's\n"
        "hint: a test platform's root can be named on purpose (--trust-root)\n"
    )


@pytest.mark.parametrize(
    ("name", "marks", "words"),
    [
        ("pdh", "PEK", ["the PEK's signature over the PDH does not hold (ECDSA_SHA256)"]),
        (
            "oca",
            "OCA* OCA",
            [
                "the OCA's signature over itself does not hold (ECDSA_SHA256)",
                "the OCA's signature over the PEK does not hold (ECDSA_SHA256)",
            ],
        ),
    ],
)
def test_a_broken_link_is_struck_through_and_named(
    run: Run, files: sev.Chain, name: str, marks: str, words: list[str]
) -> None:
    other = getattr(Platform(b"another").export(), name)
    foreign = replace(other, signatures=getattr(files, name).signatures)
    chain = replace(files, **{name: foreign})
    Path("bad").write_bytes(chain.to_bytes())
    ran = run("verify", "bad", "--trust-root", "root")
    assert ran.code == 1
    assert ran.lines[:6] == tree(chain, marks)
    assert ran.err.splitlines() == [f"error: {line}" for line in words]


def test_json_has_every_fingerprint_and_check(run: Run, files: sev.Chain) -> None:
    assert files.ark is not None
    good = json.loads(run("verify", "full", "--trust-root", "root", "--json").out)
    assert (good["schema"], good["ok"]) == ("sev-attest/verify/1", True)
    assert good["fingerprints"]["ARK"] == files.ark.fingerprint
    assert good["generation"] is None
    assert good["notes"]
    assert all(check["ok"] for check in good["checks"])
    bad = json.loads(run("verify", "full", "--json").out)
    assert (bad["ok"], bad["exit"]) == (False, 1)
    assert bad["errors"][0]["check"] == "chain.ark.trusted"
    assert [c["id"] for c in bad["checks"] if not c["ok"]] == ["chain.ark.trusted"]
    assert bad["fingerprints"] == good["fingerprints"]


def test_quiet_prints_only_errors_and_verbose_every_step(run: Run, files: sev.Chain) -> None:
    assert run("verify", "full", "--trust-root", "root", "-q").out == ""
    quiet = run("verify", "full", "-q")
    assert (quiet.code, quiet.out) == (1, "")
    assert quiet.err.startswith("error: ")
    verbose = run("verify", "full", "-v")
    assert "FAIL chain.ark.trusted" in verbose.out
    assert "ok   chain.pdh.signed-by-pek" in verbose.out


def test_a_chain_comes_through_standard_input(
    run: Run, files: sev.Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    for form in (Path("full").read_bytes(), base64.encodebytes(Path("full").read_bytes())):
        monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(form)))
        assert run("verify", "-", "--trust-root", "root").code == 0
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"hello?")))
    assert run("verify", "-").err.startswith("error: standard input: chain")


def test_a_signed_cek_or_another_oca_takes_the_place_of_the_chain_s(
    run: Run, platform: Platform, files: sev.Chain
) -> None:
    Path("exported").write_bytes(platform.export(signed_cek=False).to_bytes())
    refused = run("verify", "exported", "--trust-root", "ca")
    assert refused.code == 1
    assert refused.err.startswith("error: the CEK is as the firmware exports it, without AMD's sig")
    assert "hint: AMD serves the signed CEK at https://kdsintf.amd.com/cek/id/" in refused.err
    assert refused.err.count("error: ") == 1
    assert run("verify", "exported", "--cek", "single/cek.cert", "--trust-root", "ca").code == 0
    Path("other-oca").write_bytes(Platform(b"another").export().oca.to_bytes())
    assert run("verify", "chain", "--oca", "other-oca", "--trust-root", "ca").code == 1
    assert run("verify", "chain", "--oca", "single/oca.cert", "--trust-root", "ca").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("nowhere", 6, "nowhere: No such file or directory"),
        ("- --cek -", 2, "only one input can be standard input"),
        ("/proc/self/mem", 6, "/proc/self/mem: Input/output error"),
        ("empty", 6, "empty: chain: the file is empty"),
        ("single/pdh.cert", 6, "no PEK, OCA, CEK certificate (found only PDH"),
        ("short", 6, "short: SEV certificate (PDH): 2083 bytes, expected 2084"),
        ("chain --cek single/pdh.cert", 6, "single/pdh.cert: chain cek: this is PDH; one CEK"),
        ("chain --cek nowhere", 6, "nowhere: No such file"),
        ("chain --ca single/ask.cert", 6, "single/ask.cert: chain ark: this is ASK; one ARK"),
        ("chain --trust-root single/ask.cert", 6, "there is no ARK certificate in this file"),
        ("chain --trust-root single", 6, "single: this is a folder, not a file"),
        ("chain --trust-root large", 6, "large: root: more than 1048576 bytes"),
        ("large", 6, "large: chain: more than 1048576 bytes"),
        ("notbase64", 6, "notbase64: chain base64 at byte 0x4: not base64: character '*'"),
    ],
)
def test_bad_input_gets_one_clear_line(
    run: Run, files: sev.Chain, arguments: str, code: int, words: str
) -> None:
    Path("empty").touch()
    Path("short").write_bytes(files.pdh.to_bytes()[:-1])
    Path("large").write_bytes(bytes((1 << 20) + 1))
    Path("notbase64").write_text("AAAA*AAA")
    ran = run("verify", *arguments.split())
    assert ran.code == code
    assert words.replace("chain base64 at", "chain at") in ran.err
    assert len([line for line in ran.err.splitlines() if line.startswith("error: ")]) == 1


def test_a_file_of_up_to_a_mebibyte_is_read_whole(run: Run, files: sev.Chain) -> None:
    whole = base64.b64encode(Path("full").read_bytes())
    Path("wide").write_bytes(whole[:9000] + b"\n" * ((1 << 20) - len(whole)) + whole[9000:])
    assert Path("wide").stat().st_size == 1 << 20
    assert run("verify", "wide", "--trust-root", "root").code == 0


@pytest.mark.parametrize("option", ["", "--sev", "--oca", "--cek", "--ca", "--trust-root"])
def test_an_empty_name_is_a_usage_error(run: Run, files: sev.Chain, option: str) -> None:
    ran = run("verify", "chain", *([option] if option else []), "")
    assert (ran.code, ran.out) == (2, "")
    assert "the file's name is empty" in ran.err


@pytest.mark.parametrize("generation", list(sev.Generation))
def test_a_forged_chain_with_amd_s_ids_is_refused(
    run: Run, here: Path, generation: sev.Generation
) -> None:
    amd = next(root for root in sev.amd_roots() if root.generation is generation)
    assert amd.ask is not None
    forger = Authority(amd.ark.public_key.bits, key_ids=(amd.ark.key_id, amd.ask.key_id))
    chain = replace(Platform(b"f", authority=forger).export(), ask=forger.ask, ark=forger.ark)
    Path("forged").write_bytes(chain.to_bytes())
    ran = run("verify", "forged")
    assert ran.code == 1
    assert f"carries the id of the AMD {generation.title()} ARK, but another key" in ran.err


# many chains


def test_each_of_many_chains_gets_its_line(run: Run, files: sev.Chain) -> None:
    foreign = replace(Platform(b"another").export().pdh, signatures=files.pdh.signatures)
    Path("bad-pdh").write_bytes(replace(files, pdh=foreign).to_bytes())
    Path("junk").write_bytes(b"hello?")
    root = f"not AMD's: ARK {getattr(files.ark, 'fingerprint', '')[:16]}"
    good = run("verify", "--each", "full", "single", "full", "--trust-root", "root")
    assert (good.code, good.err) == (0, "")
    assert good.lines == [f"OK: full: {root}", f"OK: single: {root}", f"OK: full: {root}"]
    mixed = ("verify", "--each", "full", "bad-pdh", "junk", "nowhere", "--trust-root", "root")
    ran = run(*mixed)
    assert ran.code == 1
    assert ran.lines == [
        f"OK: full: {root}",
        "NOT VERIFIED: bad-pdh: the PEK's signature over the PDH does not hold (ECDSA_SHA256)",
        "NOT READ: junk: chain at byte 0x5: not base64: character '?'",
        "NOT READ: nowhere: No such file or directory",
    ]
    assert ran.err == "error: 1 of 4 chains are not verified: do not trust these platforms\n"
    quiet = run(*mixed, "-q")
    assert (quiet.code, quiet.out) == (1, "")
    assert quiet.err.splitlines()[1:] == [f"note: {line}" for line in ran.lines[1:]]


def test_each_of_many_chains_is_in_the_json(run: Run, files: sev.Chain) -> None:
    good = json.loads(run("verify", "--each", "full", "--trust-root", "root", "--json").out)
    assert (good["schema"], good["ok"]) == ("sev-attest/verify/1", True)
    assert [chain["input"] for chain in good["chains"]] == ["full"]
    Path("junk").write_bytes(b"hello?")
    ran = run("verify", "--each", "full", "junk", "--trust-root", "root", "--json")
    assert ran.code == 6
    document = json.loads(ran.out)
    assert [chain["ok"] for chain in document["chains"]] == [True, False]
    assert document["chains"][1]["errors"][0]["check"] == "chain.base64"
    assert document["errors"][0]["message"] == "chain: 1 of 2 could not be read"
    other = Platform(b"another").export()
    Path("bad").write_bytes(replace(files, oca=other.oca).to_bytes())
    refused = run("verify", "--each", "bad", "single/pdh.cert", "--trust-root", "root")
    assert refused.code == 1
    assert refused.lines[0].endswith(
        "the OCA's signature over the PEK does not hold (ECDSA_SHA256)"
    )
    assert refused.lines[1].startswith("NOT READ: single/pdh.cert: chain: no PEK, OCA, CEK")
    both = run("verify", "--each", "bad", "full")
    assert "NOT VERIFIED: bad: the ARK is no trusted root" in both.lines[0]
    assert both.lines[0].endswith("(and 1 more)")
    assert both.err.startswith("error: 2 of 2 chains are not verified")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "--each needs the chains as INPUT"),
        ("full --cek full", "--each excludes --cek"),
        ("full -", "--each takes no standard input"),
    ],
)
def test_each_takes_whole_chains_alone(
    run: Run, files: sev.Chain, arguments: str, words: str
) -> None:
    ran = run("verify", "--each", *arguments.split())
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err


# real platforms


@pytest.mark.parametrize("form", ["folder", "full", "four", "any-order", "base64", "files"])
def test_a_real_naples_chain_shows_what_sevctl_shows(
    run: Run, real: Path, here: Path, form: str
) -> None:
    known = json.loads((real / "expected.json").read_bytes())["naples"]
    folder = real / "naples"
    order = {
        "four": ["pdh", "pek", "oca", "cek"],
        "any-order": ["ark", "cek", "pdh", "ask", "oca", "pek"],
    }.get(form, ["pdh", "pek", "oca", "cek", "ask", "ark"])
    data = b"".join((folder / f"{name}.cert").read_bytes() for name in order)
    Path("chain").write_bytes(base64.encodebytes(data) if form == "base64" else data)
    inputs = [folder] if form == "folder" else ["chain"]
    if form == "files":
        inputs = [folder / f"{name}.cert" for name in order]
    ran = run("verify", *inputs)
    assert ran.code == 0
    assert ran.lines[:6] == known["sevctl_verify_output"]
    assert ran.lines[6:] == ["OK: the chain leads to a trusted root: AMD Naples"]
    assert ran.err == ""


def test_a_bug_that_one_of_many_inputs_finds_costs_one_line(
    run: Run, files: sev.Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert files.ark is not None

    def broken(chain: sev.Chain, **_roots: object) -> sev.VerifiedChain:
        if chain.pdh == files.pdh:
            raise OverflowError
        return sev.verify_chain(chain, roots=[sev.Root(ark=files.ark)])  # type: ignore[arg-type]

    monkeypatch.setattr(many_chains, "verify_chain", broken)
    ran = run("verify", "--each", "full", "full", "--trust-root", "root")
    assert ran.code == 6
    (line,) = set(ran.lines)
    assert len(ran.lines) == 2
    assert line.startswith("NOT READ: full: internal error (OverflowError in broken:")
    assert line.endswith("): this is a bug")


def owned(files: sev.Chain) -> None:
    """Write the chain of a platform whose owner's OCA has reserved bytes in use."""
    platform = Platform(b"owned", authority=AUTHORITY[files.ark])
    owner = sev.OwnerKey.generate()
    body = owner.certificate().body
    oca = owner.sign(replace(owner.certificate(), body=body[:-1] + b"\1"))
    platform.pek_cert_import(owner.sign_pek(platform.pek_csr()).to_bytes(), oca.to_bytes())
    Path("owned").write_bytes(platform.export().to_bytes())


AUTHORITY: dict[sev.AmdCaCertificate | None, Authority] = {
    Authority(bits).ark: Authority(bits) for bits in (2048, 4096)
}
NOTE = "the OCA has reserved bytes in use (pub_key); they are signed"


def test_reserved_bytes_in_use_are_a_note_in_every_command(run: Run, files: sev.Chain) -> None:
    owned(files)
    given = ("owned", "--ca", "ca", "--trust-root", "root")
    ran = run("verify", *given)
    assert (ran.code, ran.notes[-1]) == (0, f"note: {NOTE}")
    assert NOTE in json.loads(run("verify", *given, "--json").out)["notes"]
    each = json.loads(run("verify", "--each", *given, "--json").out)
    assert NOTE in each["chains"][0]["notes"]
    made = run("session", "--name", "vm", *given, "5")
    assert (made.code, f"note: {NOTE}" in made.err) == (0, True)
    shown = run("certs", "show", "owned", "-v")
    assert [line for line in shown.lines if "reserved" in line] == ["    reserved: pub_key"]


def test_another_chip_s_cek_is_told_in_one_sentence(run: Run, files: sev.Chain) -> None:
    other = Platform(b"another chip", authority=AUTHORITY[files.ark])
    Path("cek").write_bytes(other.export().cek.to_bytes())
    ran = run("verify", "full", "--cek", "cek", "--trust-root", "root")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines()[0] == (
        "error: cek: this is another chip's CEK: its key is not that of the CEK in the chain"
    )


def test_an_error_of_qmp_is_told_in_qemu_s_words(run: Run, files: sev.Chain) -> None:
    desc = "SEV: Failed to open /dev/sev: No such file or directory"
    reply = {"id": "libvirt-47", "error": {"class": "GenericError", "desc": desc}}
    Path("reply").write_text(json.dumps(reply))
    ran = run("verify", "reply")
    assert ran.code == 6
    assert ran.err.splitlines()[0] == f"error: reply: chain: QEMU answered with an error: {desc}"
    long = reply | {"error": {"class": "GenericError", "desc": "x" * 5000}}
    Path("reply").write_text(json.dumps(long))
    assert len(run("verify", "reply").err.splitlines()[0]) < 600
    Path("reply").write_text(json.dumps({"error": {"class": "GenericError", "desc": 1}}))
    assert "the JSON has no pdh" in run("verify", "reply").err
