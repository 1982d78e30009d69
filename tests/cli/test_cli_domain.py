"""``sev-attest domain``."""

import io
import json
import os
import pty
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conftest import Run
from sev_attest.cli import exits, inputs
from sev_attest.cli.main import cli
from sev_attest.domain_xml.rules import RULES
from sev_attest.owner.ledger import Ledger
from sev_attest.testing import Platform, ovmf_image
from terminals import shown_on
from test_domain_xml import (
    BAD,
    BLOB_B64,
    BOMB,
    CLEAN,
    GODH_B64,
    HASHES,
    HOLE,
    KERNEL,
    RECORD,
    domcapabilities,
)

DEBIAN_12 = ("--libvirt", "9.0", "--qemu", "7.2", "--guest-kernel", "6.1.0-13-amd64")
SESSION = ("--session", "keys/vm1")
# The two examples of libvirt's guide in miniature: what they have, and what they lack.
Q35 = CLEAN.replace(" stateless='yes'", "").replace(HOLE, "<nvram>/srv/vm1_VARS.fd</nvram>")
Q35 = Q35.replace("      <backend model='random'>/dev/urandom</backend>\n", "")
Q35 = re.sub(r"    <(dhCert|session)>.*\n", "", Q35).replace("0x0007", "0x0003")
PC = Q35.replace("pc-q35-7.2", "pc-i440fx-3.0")


def lay_out(folder: Path) -> None:
    """Write the files of a session."""
    keys = folder / "keys"
    keys.mkdir()
    (keys / "vm1.launch.json").write_bytes(RECORD.to_bytes())
    (keys / "vm1_godh.b64").write_text(GODH_B64)
    (keys / "vm1_session.b64").write_text(BLOB_B64)


def guide_examples(real: Path) -> list[str]:
    """Take the two domains out of libvirt's guide, which is not ours to ship."""
    guide = real.parent / "launch-security-sev.txt"
    if not guide.is_file():
        pytest.skip("libvirt's guide is not beside the data of real platforms")
    found = re.findall(
        r"^<domain type='kvm'>$.*?^</domain>$", guide.read_text(), re.MULTILINE | re.DOTALL
    )
    assert len(found) == 2
    return [f"{text}\n" for text in found]


@pytest.fixture
def files(here: Path) -> Path:
    """Lay out domains and a session."""
    lay_out(here)
    for name, text in {"clean": CLEAN, "q35": Q35, "pc": PC}.items():
        Path(f"{name}.xml").write_text(text)
    return here


def findings(text: str) -> set[str]:
    return set(re.findall(r"^[EWI] (domain\.[a-z0-9.-]+), line \d+, /domain", text, re.MULTILINE))


# check


def test_a_clean_domain_is_ok(run: Run, files: Path) -> None:
    ran = run("domain", "check", "clean.xml", *SESSION, *DEBIAN_12)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "OK: nothing in this domain prevents attestation\n"
    quiet = run("domain", "check", "clean.xml", "-q")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


def test_warnings_are_listed_and_leave_it_ok(run: Run, files: Path) -> None:
    Path("x.xml").write_text(CLEAN.replace("0x0007", "0x0001").replace("EPYC-Milan", "x\x85x"))
    ran = run("domain", "check", "x.xml", "--libvirt", "11.3.0")
    assert ran.code == 0
    assert ran.lines[0].startswith("OK: ")
    assert ran.lines[0].endswith("(2 warnings)")
    assert findings(ran.out) == {"domain.policy.key-sharing", "domain.policy.es"}
    Path("x.xml").write_text(CLEAN.replace("EPYC-Milan", "x\x85x"))
    assert r": x\x85x: the signature of this CPU model" in run("domain", "check", "x.xml").out


def test_what_is_wrong_with_the_guide_s_examples_is_named(run: Run, files: Path) -> None:
    ran = run("domain", "check", "q35.xml")
    assert ran.code == 4
    expected = {
        "domain.loader.nvram", "domain.rng.backend", "domain.session.missing", "domain.policy.es",
    }  # fmt: skip
    assert findings(ran.out) == expected
    line = next(at for at, text in enumerate(Q35.splitlines(), 1) if "<nvram>" in text)
    assert f"E domain.loader.nvram, line {line}, /domain/os/nvram: <nvram>: its UEFI" in ran.out
    assert "    fix: stateless='yes' on <loader>, and no <nvram>" in ran.out
    assert ran.err.startswith("error: q35.xml: this domain cannot be attested: domain.loader.nvram")
    assert "hint: `sev-attest domain prepare` fixes what it can\n" in ran.err
    assert ran.err.count("error: ") == 1
    old = run("domain", "check", "pc.xml", "--qemu", "5.2", "--libvirt", "8.0")
    assert old.code == 4
    assert findings(old.out) == expected | {"domain.machine.i440fx", "domain.virtio.model"}
    quiet = run("domain", "check", "q35.xml", "-q")
    assert (quiet.code, quiet.out) == (4, "")


def test_many_errors_are_counted_in_the_last_line(run: Run, files: Path) -> None:
    Path("x.xml").write_text("<domain><launchSecurity type='sev'/></domain>")
    ran = run("domain", "check", "x.xml")
    assert re.search(r"cannot be attested: (domain\.\S+ \(line 1\), ){4}\d more\n", ran.err)


def test_verbose_shows_every_rule(run: Run, files: Path) -> None:
    ran = run("domain", "check", "q35.xml", "-v")
    for rule in RULES:
        assert f" {rule} " in ran.out
    assert re.search(r"^E   domain\.loader\.nvram +no store keeps", ran.out, re.MULTILINE)
    assert re.search(r"^W   domain\.policy\.es ", ran.out, re.MULTILINE)
    assert re.search(r"^ok  domain\.smm ", ran.out, re.MULTILINE)


def test_check_as_json(run: Run, files: Path) -> None:
    good = json.loads(run("domain", "check", "clean.xml", "--json").out)
    assert (good["schema"], good["ok"]) == ("sev-attest/domain check/1", True)
    assert [finding["id"] for finding in good["findings"]] == ["domain.libvirt"]
    ran = run("domain", "check", "q35.xml", "--json")
    bad = json.loads(ran.out)
    assert (ran.code, bad["ok"], bad["exit"], ran.err) == (4, False, 4, "")
    assert bad["errors"][0]["check"] == "domain.loader.nvram"
    one = next(finding for finding in bad["findings"] if finding["id"] == "domain.loader.nvram")
    assert one.keys() == {
        "id", "severity", "line", "path", "message", "fix", "source", "mendable",
    }  # fmt: skip
    assert (one["severity"], one["path"], one["mendable"]) == ("E", "/domain/os/nvram", True)


def test_the_record_the_firmware_and_the_host_are_compared(run: Run, files: Path) -> None:
    Path("other.launch.json").write_bytes(replace(RECORD, policy=1).to_bytes())
    ran = run("domain", "check", "clean.xml", "--session", "other")
    assert ran.code == 4
    assert findings(ran.out) >= {"domain.policy.differs"}
    text = CLEAN
    for old, new in (HASHES, (HOLE, KERNEL)):
        text = text.replace(old, new)
    Path("hashes.xml").write_text(text)
    Path("fw").write_bytes(ovmf_image(8192, hash_table=None, reset_address=None))
    Path("host.xml").write_bytes(domcapabilities(maxESGuests=0))
    known = ("--firmware", "fw", "--capabilities", "host.xml")
    ran = run("domain", "check", "hashes.xml", *DEBIAN_12, *known)
    assert findings(ran.out) == {
        "domain.firmware.hash-area", "domain.firmware.es", "domain.host",
    }  # fmt: skip
    assert "hint: " in ran.err
    assert "prepare" not in ran.err


def test_a_session_that_was_used_is_named(run: Run, files: Path) -> None:
    with Ledger.open("ledger") as ledger:
        ledger.create("5" * 64)
        known = (*SESSION, "--ledger", "ledger")
        assert run("domain", "check", "clean.xml", *known).code == 0  # unknown there
        ledger.create(RECORD.session_id, name="vm1")
        assert run("domain", "check", "clean.xml", *known).code == 0  # fresh
        ledger.release(RECORD.session_id, bytes(48))
    ran = run("domain", "check", "clean.xml", *known)
    assert ran.code == 4
    assert "E domain.session.reused, " in ran.out
    refused = run("domain", "prepare", "q35.xml", *known)
    assert (refused.code, refused.out) == (3, "")
    assert "error: the session vm1 was used already: released: its secret left" in refused.err
    insecure = run("domain", "prepare", "q35.xml", *known, "--insecure")
    assert insecure.code == 4  # the finding stays
    assert "note: INSECURE: the session was used already: released: " in insecure.err
    for ledger_option in ("none", "nowhere"):
        asked = ("domain", "check", "clean.xml", *SESSION, "--ledger", ledger_option)
        assert run(*asked).code == 0
    assert not Path("nowhere").exists()
    Path("ledger").write_bytes(b"no ledger")
    ran = run("domain", "check", "clean.xml", *known)
    assert (ran.code, "error: ledger ledger: " in ran.err) == (6, True)


def test_a_session_whose_time_is_over_is_no_fresh_one(run: Run, files: Path) -> None:
    with Ledger.open("ledger") as ledger:
        ledger.create(RECORD.session_id, name="vm1", expires=datetime(2026, 1, 1, tzinfo=UTC))
    known = (*SESSION, "--ledger", "ledger")
    ran = run("domain", "check", "clean.xml", *known, *DEBIAN_12)
    assert (ran.code, findings(ran.out)) == (4, {"domain.session.reused"})
    refused = run("domain", "prepare", "q35.xml", *known)
    assert (refused.code, refused.out) == (3, "")
    assert "was used already: expired: its time was over on 2026-01-01T00:00:00" in refused.err


@pytest.mark.parametrize(("data", "words"), BAD.values(), ids=BAD)
def test_what_is_no_domain_gets_one_clear_line(
    run: Run, files: Path, data: bytes, words: str
) -> None:
    Path("bad.xml").write_bytes(data)
    for arguments in (("check", "bad.xml"), ("prepare", "bad.xml", *SESSION, "-o", "out.xml")):
        ran = run("domain", *arguments)
        assert (ran.code, ran.out) == (6, "")
        assert ran.err.startswith("error: bad.xml: domain XML")
        assert words in ran.err
        assert ran.err.count("error: ") == 1
    assert not Path("out.xml").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("check nowhere.xml", 6, "nowhere.xml: No such file or directory"),
        ("check keys", 6, "keys: this is a folder, not a file"),
        ("check clean.xml --session nowhere", 6, "nowhere.launch.json: No such file"),
        ("check clean.xml --session bad", 6, "bad.launch.json: launch record: this is not JSON"),
        ("check clean.xml --qemu new", 2, "'new' is not a version (9.0, or 11.3.0)"),
        ("check clean.xml --firmware nowhere", 6, "nowhere: No such file"),
        ("check clean.xml --firmware empty", 6, "empty: firmware: the file is empty"),
        ("check clean.xml --capabilities clean.xml", 6, "expected <domainCapabilities>"),
        ("check - --firmware -", 2, "only one input can be standard input"),
        ("prepare clean.xml --session keys/vm2", 6, "keys/vm2.launch.json: No such file"),
        ("prepare clean.xml --session keys/vm1 --also domain.x", 2, "--also domain.x: no rule"),
        ("prepare clean.xml --session keys/vm1 --also domain.type", 2, "these do: domain.cpu"),
        ("prepare clean.xml --session keys/vm1 -o clean.xml", 6, "clean.xml: exists already"),
        ("prepare clean.xml --session keys/vm1 -o -", 2, "not to standard output"),
        ("prepare clean.xml --session mixed", 6, "mixed: GODH: it does not belong to the record"),
        ("capabilities clean.xml", 6, "clean.xml: domcapabilities XML root: <domain>, expected"),
        ("capabilities nowhere", 6, "nowhere: No such file or directory"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_clear_line(
    run: Run, files: Path, arguments: str, code: int, words: str
) -> None:
    Path("bad.launch.json").write_text("no")
    Path("empty").write_bytes(b"")
    Path("mixed.launch.json").write_bytes(replace(RECORD, godh_sha256="0" * 64).to_bytes())
    Path("mixed_godh.b64").write_text(GODH_B64)
    Path("mixed_session.b64").write_text(BLOB_B64)
    ran = run("domain", *arguments.split())
    assert ran.code == code
    assert words.replace("domain.cpu", "domain.") in ran.err
    assert ran.err.count("error: ") == 1
    assert Path("clean.xml").read_text() == CLEAN


# prepare


def test_the_guide_s_examples_are_mended(run: Run, files: Path) -> None:
    for name in ("q35", "pc"):
        before = Path(f"{name}.xml").read_text()
        ran = run("domain", "prepare", f"{name}.xml", *SESSION)
        assert ran.code == 0
        assert f"<dhCert>{GODH_B64}</dhCert>" in ran.out
        assert f"<session>{BLOB_B64}</session>" in ran.out
        assert f"--- {name}.xml\n+++ prepared\n" in ran.err
        assert "-    <nvram>/srv/vm1_VARS.fd</nvram>\n" in ran.err
        assert "+    <policy>0x0007</policy>\n" in ran.err
        assert Path(f"{name}.xml").read_text() == before
        Path("out.xml").write_text(ran.out)
        assert run("domain", "check", "out.xml", *SESSION).code == 0
        again = run("domain", "prepare", "out.xml", *SESSION)
        assert (again.out, again.code) == (ran.out, 0)
        assert "---" not in again.err


def test_libvirt_s_guide_itself(run: Run, files: Path, real: Path) -> None:
    q35, pc = guide_examples(real)
    wrong = {
        "domain.launch-security.cbitpos", "domain.loader.nvram", "domain.policy.es",
        "domain.rng.backend", "domain.session.missing",
    }  # fmt: skip
    for text, beside in (
        (q35, {"domain.memory.unlimited"}),
        (pc, {"domain.machine.i440fx", "domain.libvirt"}),
    ):
        Path("guide.xml").write_text(text)
        checked = run("domain", "check", "guide.xml")
        assert (checked.code, findings(checked.out)) == (4, wrong | beside)
        ran = run("domain", "prepare", "guide.xml", *SESSION)
        assert ran.code == 0
        Path("guide.xml").write_text(ran.out)
        assert run("domain", "check", "guide.xml", *SESSION).code == 0


def test_a_real_session_goes_in(run: Run, files: Path, milan: Platform) -> None:
    authority = milan.authority
    Path("root").write_bytes(authority.ask.to_bytes() + authority.ark.to_bytes())
    Path("chain").write_bytes(milan.export().to_bytes())
    made = run("session", "--name", "vm2", "--out", "keys", "chain", "7", "--trust-root", "root")
    assert made.code == 0
    ran = run("domain", "prepare", "q35.xml", "--session", "keys/vm2", "-o", "out.xml", "-q")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    godh, blob = (Path(f"keys/vm2_{end}.b64").read_text() for end in ("godh", "session"))
    text = Path("out.xml").read_text()
    assert f"<dhCert>{godh}</dhCert>\n    <session>{blob}</session>" in text
    assert run("domain", "check", "out.xml", "--session", "keys/vm2").code == 0
    assert run("domain", "check", "out.xml", "--session", "keys/vm1").code == 4


def test_warnings_are_mended_when_asked(run: Run, files: Path) -> None:
    text = CLEAN.replace("<on_reboot>destroy", "<on_reboot>restart")
    text = text.replace("      <rom enabled='no'/>\n", "")
    Path("x.xml").write_text(text)
    assert run("domain", "prepare", "x.xml", *SESSION).out == text
    some = run("domain", "prepare", "x.xml", *SESSION, "--also", "domain.reboot").out
    assert some == text.replace("<on_reboot>restart", "<on_reboot>destroy")
    every = run("domain", "prepare", "x.xml", *SESSION, "--all", "-v")
    assert every.out == CLEAN
    assert "fixed: W domain.reboot, line " in every.err


def test_what_cannot_be_mended_is_listed_and_the_xml_is_written_all_the_same(
    run: Run, files: Path
) -> None:
    Path("x.xml").write_text(Q35.replace("type='kvm'", "type='qemu'"))
    Path("out.xml").write_text("old")
    ran = run("domain", "prepare", "x.xml", *SESSION, "-o", "out.xml", "--force")
    assert (ran.code, ran.out) == (4, "")
    assert "+++ out.xml\n" in ran.err
    assert "E domain.type, line 1, /domain: the domain's type is qemu" in ran.err
    assert "error: x.xml: this domain cannot be attested: domain.type (line 1)\n" in ran.err
    assert "hint: what is left: type='kvm'" in ran.err
    assert GODH_B64 in Path("out.xml").read_text()
    document = json.loads(run("domain", "prepare", "x.xml", *SESSION, "--json").out)
    assert (document["ok"], document["exit"]) == (False, 4)
    assert GODH_B64 in document["xml"]
    assert {one["id"] for one in document["mended"]} >= {"domain.loader.nvram"}


def test_prepare_as_json(run: Run, files: Path) -> None:
    ran = run("domain", "prepare", "q35.xml", *SESSION, "--json", *DEBIAN_12)
    document = json.loads(ran.out)
    assert (document["schema"], document["ok"]) == ("sev-attest/domain prepare/1", True)
    assert document["xml"].startswith("<domain type='kvm'>")
    assert document["diff"][:2] == ["--- q35.xml", "+++ prepared"]
    assert (document["output"], document["findings"], document["notes"]) == (None, [], [])
    written = json.loads(
        run("domain", "prepare", "q35.xml", *SESSION, "-o", "out.xml", "--json").out
    )
    assert (written["output"], written["xml"]) == ("out.xml", None)
    assert Path("out.xml").read_text() == document["xml"]


def test_an_unverified_platform_is_noted(run: Run, files: Path) -> None:
    record = replace(RECORD, root=None, generation=None)
    Path("keys/vm1.launch.json").write_bytes(record.to_bytes())
    ran = run("domain", "prepare", "clean.xml", *SESSION)
    assert (
        "note: INSECURE: nobody verified the platform that this session was made for\n" in ran.err
    )


STEERING = CLEAN.replace("<name>vm1</name>", "<name>\u202e\x9b2J</name>\r\n\t<title>\x85</title>")
STEERING = STEERING.replace("  <memory ", "  <pm><suspend-to-mem enabled='yes'/></pm>\n  <memory ")


def on_terminal(run: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what a terminal shows."""
    leader, follower = pty.openpty()
    seen: list[bytes] = []
    reader = threading.Thread(target=lambda: seen.append(shown_on(leader)))
    reader.start()
    with os.fdopen(follower, "w", encoding="utf-8") as terminal, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", terminal)
        patched.setattr(sys, "stderr", terminal)
        run()
        terminal.flush()
    reader.join()
    return seen[0].decode()


def test_a_stranger_s_text_does_not_steer_the_terminal(
    run: Run, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("x\u202e.xml").write_bytes(STEERING.encode())
    arguments = ("domain", "prepare", "x\u202e.xml", *SESSION, "--also", "domain.power")
    seen = on_terminal(lambda: exits.run(cli, [*arguments]), monkeypatch)
    assert "\r\n\x1b[31m-  <pm>" in seen
    seen = re.sub(r"\x1b\[[0-9]+m", "", seen)  # our own colours
    assert not {c for c in seen if not (c.isprintable() or c in "\r\n\t")}
    assert seen.count("<name>\\x202e\\x9b2J</name>\r\n\t<title>\\x85</title>") == 1
    assert "--- x\\x202e.xml\r\n" in seen  # a name is on one line anywhere
    assert "\r\n   <name>\\x202e\\x9b2J</name>\r\n \t<title>\\x85</title>\r\n" in seen
    assert "\r\n-  <pm><suspend-to-mem enabled='yes'/></pm>\r\n" in seen
    assert "\x9b" not in run("domain", "check", "x\u202e.xml").out


def test_files_and_pipes_keep_a_stranger_s_bytes(run: Run, files: Path) -> None:
    Path("x.xml").write_bytes(STEERING.encode())
    ran = run("domain", "prepare", "x.xml", *SESSION, "--also", "domain.power")
    same = "<name>\u202e\x9b2J</name>\r\n\t<title>\x85</title>\n"
    assert f"  {same}" in ran.out
    assert "\n   <name>\u202e\x9b2J</name>\r\n \t<title>\x85</title>\n" in ran.err
    run("domain", "prepare", "x.xml", *SESSION, "--also", "domain.power", "-o", "y.xml")
    assert Path("y.xml").read_bytes() == ran.out.encode()


def test_a_file_s_name_does_not_steer_the_terminal_beside_a_progress_bar(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "_PROGRESS_FROM", 1)
    Path("\u202e\x9b2J.fd").write_bytes(ovmf_image())
    seen = on_terminal(
        lambda: exits.run(cli, ["domain", "check", "clean.xml", "--firmware", "\u202e\x9b2J.fd"]),
        monkeypatch,
    )
    assert "hashing \\x202e\\x9b2J.fd" in seen
    assert not {"\u202e", "\x9b"} & {*seen}


def test_standard_input(run: Run, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for code, text in ((0, CLEAN), (4, Q35), (6, BOMB)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        ran = run("domain", "check", "-")
        assert ran.code == code
        assert not ran.err or ran.err.startswith("error: standard input: ")


# capabilities


def test_what_a_host_offers_is_shown(run: Run, files: Path) -> None:
    Path("host.xml").write_bytes(domcapabilities(reducedPhysBits=1))
    ran = run("domain", "capabilities", "host.xml", "-v")
    assert (ran.code, ran.errors) == (0, [])
    assert ran.lines[0] == "OK: this host offers SEV, SEV-ES and SEV-SNP"
    for words in ("up to 509, 99 of SEV-ES", "cbitpos", "sev, sev-snp", "rom, pflash"):
        assert words in ran.out
    document = json.loads(run("domain", "capabilities", "host.xml", "--json").out)
    assert (document["schema"], document["ok"]) == ("sev-attest/domain capabilities/1", True)
    assert (document["cbitpos"], document["max_es_guests"]) == (51, 99)
    assert run("domain", "capabilities", "host.xml", "-q").out == ""
    Path("host.xml").write_bytes(b"""<domainCapabilities><features><sev supported='yes'>
        <maxESGuests>0</maxESGuests></sev></features></domainCapabilities>""")
    plain = run("domain", "capabilities", "host.xml")
    assert plain.lines[0] == "OK: this host offers SEV"
    assert "up to not told, 0 of SEV-ES" in plain.out
    assert "note: no SEV-ES guests: the BIOS" in plain.err


def test_why_a_host_offers_none_is_said(run: Run, files: Path) -> None:
    Path("host.xml").write_bytes(domcapabilities(supported="no"))
    ran = run("domain", "capabilities", "host.xml")
    assert (ran.code, ran.out) == (4, "")
    assert ran.err.startswith("error: host.xml: this host does not offer SEV\n")
    for words in ("BIOS", "kvm_amd.sev=1", "/dev/sev", "/var/cache/libvirt/qemu/capabilities"):
        assert re.search(f"^note: .*{re.escape(words)}", ran.err, re.MULTILINE)
    document = json.loads(run("domain", "capabilities", "host.xml", "--json").out)
    assert (document["ok"], document["sev"]) == (False, False)
    assert len(document["obstacles"]) == 4


def test_a_host_that_counts_no_guests_offers_none(run: Run, files: Path) -> None:
    Path("host.xml").write_bytes(domcapabilities(maxGuests=0, maxESGuests=0))
    ran = run("domain", "capabilities", "host.xml")
    assert (ran.code, ran.out) == (4, "")
    assert ran.err.startswith("error: host.xml: this host does not offer SEV\n")
    assert "note: no guests, neither SEV nor SEV-ES" in ran.err
    document = json.loads(run("domain", "capabilities", "host.xml", "--json").out)
    assert (document["ok"], document["sev"], document["sev_es"]) == (False, False, False)
    Path("host.xml").write_bytes(domcapabilities(maxGuests=0))
    ran = run("domain", "capabilities", "host.xml")
    assert (ran.code, ran.lines[0]) == (0, "OK: this host offers SEV-ES and SEV-SNP")
    assert "note: no plain SEV guests" in ran.err


def test_a_host_of_another_kind_is_named(run: Run, files: Path) -> None:
    arm = b"<domainCapabilities><arch>aarch64</arch><features><sev supported='no'/></features>"
    Path("host.xml").write_bytes(arm + b"</domainCapabilities>")
    ran = run("domain", "capabilities", "host.xml")
    assert (ran.code, ran.out) == (4, "")
    words = "these are the capabilities for aarch64 guests"
    assert ran.err.startswith(f"error: host.xml: {words}")
    assert len(ran.err.splitlines()) == 1
    document = json.loads(run("domain", "capabilities", "host.xml", "--json").out)
    assert document["errors"][0]["message"].startswith(f"host.xml: {words}")
    assert document["arch"] == "aarch64"
    ran = run("domain", "check", "clean.xml", "--capabilities", "host.xml")
    assert ran.code == 4
    assert f", /domain/launchSecurity: {words}" in ran.out
    tdx = domcapabilities(supported="no").replace(b"<value>sev</value>", b"<value>tdx</value>")
    Path("host.xml").write_bytes(tdx)
    ran = run("domain", "capabilities", "host.xml")
    assert (ran.code, "host with Intel TDX" in ran.err) == (4, True)


def test_the_page_s_commands_exist(run: Run) -> None:
    page = (Path(__file__).parents[2] / "docs" / "domain.md").read_text()
    lines = re.findall(r"^\$ (?:virsh .*\| )?sev-attest (domain \w+)(.*)$", page, re.MULTILINE)
    assert len(lines) == 5
    for command, options in lines:
        shown = run(*command.split(), "--help").out
        for option in re.findall(r"--[a-z-]+", options):
            assert option in shown
