"""``sev-attest launch`` on a simulated libvirt: the whole story, and a refusal at every step."""

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from conftest import Ran, Run
from fake_libvirt import (
    BROKEN,
    FAILED,
    INTERNAL,
    INVALID,
    NO_DOMAIN,
    PAUSED,
    RPC,
    RUNNING,
    SHUT_OFF,
    Host,
    LibvirtError,
)
from sev_attest import sev
from sev_attest.cli import exits, interrupts
from sev_attest.cli.attempt import Attempt
from sev_attest.cli.interrupts import Running
from sev_attest.cli.verdict import Case
from sev_attest.owner import LaunchRecord, Ledger
from sev_attest.testing import Platform, ovmf_image
from test_cli_owner import OWNER
from test_domain_snp import SNP_CLEAN
from test_domain_xml import CLEAN

OVMF = ovmf_image(8192)
URI = "qemu+ssh://host/system"
GUID = "736869e5-84f0-4973-92ec-06879ce3da0b"
SECRET = ("--inject-secret", "luks-key:key")
MISFIT = (*SECRET, "--no-diagnose")  # a search for the cause is not what these tests are about
ES = ("--policy", "5", "--num-cpus", "2", "--cpu-model-name", "EPYC-Milan")
LOST = LibvirtError(RPC, "client socket is closed")
STEPS = ["verify", "host", "prepare", "session", "define", "start", "measure", "release", "run"]


@dataclass
class Desk:
    """An owner with files, and a host on which nothing is defined."""

    run: Run
    host: Host
    xml: str

    def launch(self, *options: object, policy: tuple[str, ...] = ("--policy", "1")) -> Ran:
        usual = ("--connect", URI, "--trust-root", "root", "--firmware", "fw")
        given = [str(option) for option in options]
        where = () if {"--xml", "--domain"} & {*given} else ("--xml", "vm1.xml")
        kept = () if {"--ledger", "--store"} & {*given} else ("--ledger", "kept")
        return self.run("launch", *usual, *where, *kept, *policy, *given)

    def events(self, place: str = "kept") -> list[str]:
        """Return the steps of the only session in the ledger."""
        with Ledger.open(place, create=False) as ledger:
            return [event.kind for event in ledger.events()]

    def note(self) -> str:
        """Return why the only session ended."""
        with Ledger.open("kept", create=False) as ledger:
            (entry,) = ledger.entries()
            return entry.note

    def left(self) -> dict[str, int]:
        """Return the state of each domain on the host."""
        return {name: domain.state for name, domain in self.host.domains.items()}


@pytest.fixture(scope="module")
def platform() -> Platform:
    return Platform(b"launch")


@pytest.fixture
def desk(platform: Platform, run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(Ledger, "open", partial(Ledger.open, timeout=0))
    authority = platform.authority
    files = {
        "root": authority.ask.to_bytes() + authority.ark.to_bytes(),
        "fw": OVMF,
        "key": b"the disk key",
        "vm1.xml": CLEAN.encode(),
        "owner.toml": OWNER.encode(),
    }
    for name, data in files.items():
        Path(name).write_bytes(data)
    host = Host(platform, OVMF)
    monkeypatch.setitem(sys.modules, "libvirt", host)
    monkeypatch.setattr(socket, "gethostname", lambda: "owner")
    monkeypatch.setattr(socket, "getfqdn", lambda: "owner.example.org")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    return Desk(run, host, CLEAN)


@pytest.mark.parametrize("policy", [("--policy", "1"), ES], ids=["sev", "sev-es"])
def test_a_guest_is_launched_attested_gets_its_secret_and_runs(
    desk: Desk, policy: tuple[str, ...]
) -> None:
    ran = desk.launch(*SECRET, policy=policy)
    assert (ran.code, ran.lines[:2]) == (0, ["OK: Looks good to me", "OK: Injected 1 secrets"])
    assert [line.split(":")[0] for line in ran.errors] == STEPS
    assert ran.err.splitlines()[1] == "host: libvirt 9.0.0, QEMU 7.2.3"
    assert desk.host.sent == {GUID: b"the disk key"}
    assert desk.left() == {"vm1": RUNNING}
    assert desk.events() == ["created", "measured", "released"]
    assert sorted(path.name for path in Path().iterdir()) == [
        "fw", "kept", "key", "owner.toml", "root", "vm1.xml"
    ]  # fmt: skip


def test_without_a_secret_it_runs_and_its_session_is_closed(desk: Desk) -> None:
    ran = desk.launch()
    assert (ran.code, ran.lines[0]) == (0, "OK: Looks good to me")
    assert "note: the guest got no secret, and its session is closed" in ran.notes
    assert (desk.left(), desk.host.sent) == ({"vm1": RUNNING}, {})
    assert desk.events() == ["created", "measured", "closed"]
    assert desk.launch("--xml", "vm1.xml", "--ledger", "none").code == 5  # it runs


def test_a_digest_stands_for_the_guest(desk: Desk) -> None:
    usual = ("--connect", URI, "--trust-root", "root", "--xml", "vm1.xml", "--ledger", "kept")
    digest = sev.launch_digest(OVMF).hex()
    for policy in ("1", "5"):
        given = ("--policy", policy, "--launch-digest", digest)
        assert desk.run("launch", *usual, *given, "--dry-run").code == 0
    assert desk.run("launch", *usual, "--policy", "1", "--launch-digest", digest, *SECRET).code == 0
    assert desk.host.sent == {GUID: b"the disk key"}


def test_without_a_ledger_it_runs_too(desk: Desk) -> None:
    assert desk.launch("--ledger", "none").code == 0
    assert desk.left() == {"vm1": RUNNING}


def test_json_has_the_steps_and_the_checks(desk: Desk) -> None:
    ran = desk.launch(*SECRET, "--json")
    document = json.loads(ran.out)
    assert (ran.code, ran.err) == (0, "")
    assert document["schema"] == "sev-attest/launch/1"
    assert [step["step"] for step in document["steps"]] == STEPS
    assert (document["ok"], document["guest"], document["secrets"]) == (True, "running", 1)
    assert {check["ok"] for check in document["checks"]} == {True, None}


def test_quiet_prints_nothing_and_verbose_explains(desk: Desk) -> None:
    ran = desk.launch("-q")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    desk.host.domains.clear()
    ran = desk.launch("-v", "--ledger", "other")
    assert "+++ prepared" in ran.err
    assert "ok   launch.measurement" in ran.out
    assert max(map(len, ran.errors)) < 200


def test_a_record_is_written_if_a_file_takes_it(desk: Desk) -> None:
    assert desk.launch("--out", "vm1.json", "--name", "monday").code == 0
    record = LaunchRecord.from_bytes(Path("vm1.json").read_bytes())
    assert (record.name, record.policy, record.generation) == ("monday", 1, None)
    desk.host.domains.clear()
    ran = desk.launch("--out", "vm1.json", "--ledger", "other")
    assert (ran.code, "exists" in ran.err) == (6, True)
    assert desk.host.domains == {}
    with Ledger.open("kept", create=False) as ledger:
        assert next(iter(ledger.entries())).name == "monday"
    assert desk.launch("--out", "vm1.json", "--force", "--ledger", "other").code == 0


def test_a_store_has_the_keys_while_the_launch_lasts(desk: Desk) -> None:
    Path("kek").write_bytes(bytes(range(32)))
    Path("kek").chmod(0o600)
    kept: list[int] = []
    desk.host.before["create"] = lambda: kept.append(len(Path("store").read_bytes()))
    ran = desk.launch(*SECRET, "--store", "store", "--kek", "kek")
    assert (ran.code, len(kept)) == (0, 1)
    assert desk.events("store") == ["created", "measured", "released"]
    ran = desk.launch("--store", "store")
    assert (ran.code, "--store needs --kek" in ran.err) == (2, True)


def test_requirements_hold(desk: Desk) -> None:
    text = OWNER.replace("build = 24", "build = 99")
    Path("owner.toml").write_text(text)
    ran = desk.launch(*SECRET, "--requirements", "owner.toml")
    assert (ran.code, desk.host.sent, desk.left()) == (1, {}, {})
    assert "error: build 24 is below 99" in ran.err
    assert "note: the measurement itself is right" in ran.err
    assert desk.events() == ["created", "measured", "requirements", "failed"]


def test_the_requirements_may_say_alone_which_guests_are_allowed(desk: Desk) -> None:
    digest = sev.launch_digest(OVMF).hex()
    text = OWNER[: OWNER.index("[[launch]]")] + f'[[launch]]\nname = "web"\ndigest = "{digest}"\n'
    Path("owner.toml").write_text(text + OWNER[OWNER.index("[advisories]") :])
    Path("secrets/web").mkdir(parents=True)
    Path("secrets/web/luks-key").write_bytes(b"of the source")
    Path("secrets/web/luks-key").chmod(0o600)
    usual = ("--connect", URI, "--trust-root", "root", "--xml", "vm1.xml", "--ledger", "kept")
    source = ("--requirements", "owner.toml", "--secret-source", "folder:secrets/{launch}")
    plan = desk.run("launch", *usual, "--policy", "1", *source, "--dry-run")
    assert f"would expect the launch digest {digest}" in plan.out
    ran = desk.run("launch", *usual, "--policy", "1", *source)
    assert (ran.code, desk.host.sent) == (0, {GUID: b"of the source"})
    assert "OK: the requirements allow it as launch web" in ran.lines
    desk.host.domains.clear()
    desk.host.sent.clear()
    desk.host.firmware = bytes([OVMF[0] ^ 1]) + OVMF[1:]
    ran = desk.run("launch", *usual, "--policy", "1", *source)
    assert (ran.code, desk.host.sent, desk.left()) == (1, {}, {})
    assert "it is none of the 1 launch digests" in ran.err


def test_a_kernel_is_measured_with_it(desk: Desk) -> None:
    desk.host.kernel = b"a kernel"
    Path("kernel").write_bytes(b"a kernel")
    hole = "<!-- the kernel goes here -->"
    Path("vm1.xml").write_text(CLEAN.replace(hole, "<kernel>/srv/vmlinuz</kernel>"))
    ran = desk.launch(*SECRET)
    assert (ran.code, "the domain boots a kernel, and none is given: --kernel" in ran.err) == (
        2,
        True,
    )
    ran = desk.launch(*SECRET, "--kernel", "kernel")
    assert (ran.code, desk.host.sent) == (0, {GUID: b"the disk key"})
    assert "kernelHashes='yes'" in desk.host.domains["vm1"].xml


# nothing is changed


def untouched(desk: Desk, ran: Ran, code: int, words: str) -> None:
    """Check that a launch was refused before anything changed."""
    assert (ran.code, words in ran.err) == (code, True), ran.err
    assert not {"define", "create", "destroy", "undefine", "inject"} & {*desk.host.calls}
    assert not Path("kept").exists()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--connect", "qmp+unix:///q"], 2, "names a QMP socket"),
        (["--domain", "vm1", "--xml", "vm1.xml"], 2, "--xml excludes --domain"),
        (["--launch", "web"], 2, "--launch needs --requirements"),
        (["--policy", "0x100"], 2, "reserved"),
        (["--policy", "5"], 2, "--num-cpus"),
        (["--launch-digest", "00"], 2, "--launch-digest excludes --firmware"),
        (["--kernel", "fw"], 2, "a kernel is given, and the domain boots none"),
        (["--xml", "none.xml"], 6, "none.xml: No such file"),
        (["--firmware", "none.fd"], 6, "none.fd: No such file"),
        (["--requirements", "none.toml"], 6, "none.toml: No such file"),
        (["--domain", "vm2"], 6, "there is no domain vm2 on the host"),
        (["--guest-kernel", "new"], 2, "is not a version"),
        (["--xml", "-", "--firmware", "-"], 2, "only one input can be standard input"),
        (["--inject-secret", "luks-key:-", "--firmware", "-"], 2, "only one input"),
        (["--inject-secret", "foo:key"], 2, "'foo' is neither a GUID nor an alias (luks-key)"),
        (["--sev", "fw"], 6, "fw"),
        (["--name", "x" * 20000], 2, "16384"),
    ],
)
def test_options_that_cannot_be_are_refused_first(
    desk: Desk, options: list[str], code: int, words: str
) -> None:
    ran = desk.launch(*options)
    if "--name" in options:  # only the ledger knows its limit
        assert (ran.code, words in ran.err, desk.host.domains) == (code, True, {})
        return
    untouched(desk, ran, code, words)


def test_a_host_must_be_named(desk: Desk) -> None:
    ran = desk.run("launch", "--xml", "vm1.xml", "--policy", "1", "--firmware", "fw")
    untouched(desk, ran, 2, "--connect is needed")
    ran = desk.run("launch", "--connect", URI, "--firmware", "fw", "--xml", "vm1.xml")
    untouched(desk, ran, 2, "--policy")
    ran = desk.run("launch")
    untouched(desk, ran, 2, "--xml or --domain is needed")
    assert "chain" not in ran.err


def test_an_untrusted_root_is_refused(desk: Desk) -> None:
    usual = ("--connect", URI, "--firmware", "fw", "--xml", "vm1.xml", "--policy", "1")
    authority = desk.host.platform.authority
    Path("ca").write_bytes(authority.ask.to_bytes() + authority.ark.to_bytes())
    ran = desk.run("launch", *usual, "--ca", "ca", "--ledger", "kept", "-v")
    untouched(desk, ran, 1, "error: ")
    assert "FAIL chain.ark.trusted" in ran.err


def test_an_unsigned_cek_and_a_bare_pdh_are_refused(desk: Desk) -> None:
    desk.host.signed_cek = False
    untouched(desk, desk.launch(), 1, "pass it with --cek")
    Path("cek").write_bytes(desk.host.platform.export().cek.to_bytes())
    assert desk.launch("--cek", "cek", "--dry-run").code == 0
    desk.host.bare = True
    untouched(desk, desk.launch(), 3, "this is a bare PDH")
    ran = desk.launch("--insecure")
    assert (ran.code, "INSECURE: nothing shows that this PDH" in ran.err) == (0, True)
    assert "verify: the platform is not verified" in ran.err


def test_a_chain_in_a_file_is_taken_instead_of_the_host_s(desk: Desk) -> None:
    desk.host.before["getSEVInfo"] = LOST
    Path("chain").write_bytes(desk.host.platform.export().to_bytes())
    assert desk.launch("--sev", "chain").code == 0


def test_the_host_itself_is_no_place_to_launch_from(desk: Desk) -> None:
    desk.host.hostname = "owner"
    untouched(desk, desk.launch(), 3, "this is the host itself")
    ran = desk.launch("--insecure")
    assert (ran.code, "note: INSECURE: this is the host itself" in ran.err) == (0, True)


def test_xml_that_cannot_be_attested_is_refused(desk: Desk) -> None:
    Path("vm1.xml").write_text(CLEAN.replace("type='kvm'", "type='qemu'", 1))
    ran = desk.launch()
    untouched(desk, ran, 4, "this domain cannot be attested: domain.type")
    document = json.loads(desk.launch("--json").out)
    assert [finding["id"] for finding in document["findings"]][:1] == ["domain.type"]
    ran = desk.launch("--ignore-config")
    assert (ran.code, "errors in the XML are ignored: domain.type" in ran.err) == (0, True)


def test_an_sev_snp_guest_is_refused_and_what_to_do_instead_is_named(desk: Desk) -> None:
    Path("vm1.xml").write_text(SNP_CLEAN)
    ran = desk.launch()
    untouched(desk, ran, 2, "this is an SEV-SNP guest (type='sev-snp'): it has no session")
    assert "which `sev-attest snp verify` checks" in ran.err
    untouched(desk, desk.launch("--ignore-config", "--insecure"), 2, "this is an SEV-SNP guest")
    define(desk, SNP_CLEAN)
    untouched(desk, desk.launch("--domain", "vm1"), 2, "this is an SEV-SNP guest")


def test_xml_is_fixed_unless_that_is_not_wanted(desk: Desk) -> None:
    Path("vm1.xml").write_text(CLEAN.replace("stateless='yes'", "secure='yes'"))
    ran = desk.launch("--no-prepare")
    untouched(desk, ran, 4, "domain.loader.secure")
    assert desk.launch().code == 0
    assert "secure='yes'" not in desk.host.domains["vm1"].xml


@pytest.mark.parametrize("xml", ["<domain/>", "<domain><name> </name></domain>", "<a>"])
def test_xml_without_a_name_is_none(desk: Desk, xml: str) -> None:
    Path("vm1.xml").write_text(xml)
    untouched(desk, desk.launch(), 6, "vm1.xml: domain XML")


def test_versions_of_the_host_go_into_the_rules(desk: Desk) -> None:
    desk.host.numbers = (4_004_000, 2_011_000)
    untouched(desk, desk.launch(), 4, "domain.libvirt")
    desk.host.numbers = (9_000_000, "7.2")
    untouched(desk, desk.launch(), 6, "libvirt version: is not a number")


def test_domain_check_asks_the_host_for_versions(desk: Desk) -> None:
    desk.host.numbers = (4_004_000, 2_011_000)
    desk.host.hostname = "owner"  # no matter here: nothing is proved
    check = ("domain", "check", "vm1.xml")
    assert desk.run(*check).code == 0
    ran = desk.run(*check, "--connect", URI)
    assert (ran.code, "E domain.libvirt" in ran.out) == (4, True)
    assert desk.run(*check, "--connect", URI, "--libvirt", "9.0", "--qemu", "7.2").code == 0


# a domain that is there already


def define(desk: Desk, xml: str = CLEAN) -> None:
    desk.host.defineXML(xml)
    desk.host.calls.clear()


def test_a_domain_that_differs_is_not_touched(desk: Desk) -> None:
    define(desk, CLEAN.replace("<vcpu placement='static'>4", "<vcpu placement='static'>5"))
    before = desk.host.domains["vm1"].xml
    untouched(desk, desk.launch(), 5, "exists on the host, and differs")
    assert desk.host.domains["vm1"].xml == before


def test_a_domain_that_runs_is_not_touched(desk: Desk) -> None:
    define(desk)
    domain = desk.host.domains["vm1"]
    domain.id, domain.state = 1, RUNNING
    untouched(desk, desk.launch("--domain", "vm1"), 5, "runs on the host already")
    assert domain.state == RUNNING


def test_a_domain_of_the_host_gets_a_session_and_nothing_else(desk: Desk) -> None:
    define(desk)
    before = desk.host.domains["vm1"].xml
    ran = desk.launch("--domain", "vm1", *SECRET)
    assert (ran.code, desk.left()) == (0, {"vm1": RUNNING})
    after = desk.host.domains["vm1"].xml
    cut = "<launchSecurity"
    assert before.split(cut)[0] == after.split(cut)[0]
    assert before.split(cut)[1] != after.split(cut)[1]


def test_a_password_in_a_definition_stays_and_is_not_shown(desk: Desk) -> None:
    graphics = "<graphics type='vnc' passwd='pass\"word'/>\n  </devices>"
    define(desk, CLEAN.replace("</devices>", graphics))
    ran = desk.launch("--domain", "vm1", "-v")
    assert ran.code == 0
    assert graphics in desk.host.domains["vm1"].xml
    assert "<graphics type='vnc' passwd='...'/>" in ran.err
    assert "word" not in ran.err


@pytest.mark.parametrize(
    "written",
    [
        "passwd = 'hun-&lt;-ter2'",
        "passwd\n=\n'hun--ter2'",
        "passwd='hun-\n-ter2'",
        'passwd="hun-\r\n-ter2"',
    ],
)
def test_a_password_is_not_shown_however_it_is_written(desk: Desk, written: str) -> None:
    decoy = "<!-- passwd=' passwd=\" -->\n<graphics type='spice' "
    last = CLEAN[CLEAN.index("<launchSecurity") :]
    xml = CLEAN.replace(last, f"{decoy}{written}/>\n{last}")
    Path("vm1.xml").write_text(xml, newline="")
    ran = desk.launch("--dry-run", "--ignore-config")
    assert (ran.code, "..." in ran.out) == (0, True), ran.err
    # No base64 has these, as the session's may have "hun".
    assert not [word for word in ("hun-", "-ter2", "\0") if word in ran.out]


def test_a_note_is_not_made_twice(desk: Desk) -> None:
    ran = desk.launch("--policy", "0")
    assert ran.code == 4  # a policy that allows debugging
    ran = desk.launch("--policy", "0", "--ignore-config")
    notes = ran.notes
    assert len(notes) == len({*notes})
    assert sum("debug commands" in note for note in notes) == 1
    assert sum("not AMD's" in note for note in notes) == 1


def test_the_host_does_not_name_another_domain(desk: Desk) -> None:
    define(desk, CLEAN)
    desk.host.domains["vm1"].xml = CLEAN.replace("<name>vm1", "<name>vm2")
    untouched(desk, desk.launch("--domain", "vm1"), 6, "name: is that of another domain")


def test_a_domain_of_the_host_that_has_to_be_fixed_is_not_touched(desk: Desk) -> None:
    define(desk, CLEAN.replace("stateless='yes'", ""))
    untouched(desk, desk.launch("--domain", "vm1"), 5, "differs")


def test_a_refusal_brings_the_former_definition_back(desk: Desk) -> None:
    define(desk)
    before = desk.host.domains["vm1"].xml
    desk.host.vcpus = 3
    ran = desk.launch("--domain", "vm1", *SECRET, policy=ES)
    assert (ran.code, desk.left(), desk.host.sent) == (1, {"vm1": SHUT_OFF}, {})
    assert desk.host.domains["vm1"].xml == before
    assert "the domain has the definition that it had before" in ran.err


def test_a_domain_that_appears_meanwhile_is_not_touched(desk: Desk) -> None:
    seen: list[str] = []

    def appear() -> None:
        seen.append("")
        if len(seen) == 2:
            desk.host.domains["vm1"] = desk.host.domains["other"]

    desk.host.defineXML(CLEAN.replace("vm1", "other", 1).replace("cpu>4", "cpu>5"))
    desk.host.domains["other"].xml = CLEAN.replace("4</vcpu>", "5</vcpu>")
    desk.host.calls.clear()
    desk.host.before["lookupByName"] = appear
    ran = desk.launch()
    assert (ran.code, "differs" in ran.err) == (5, True)
    assert not {"define", "create", "destroy", "undefine"} & {*desk.host.calls}
    assert desk.events() == ["created", "failed"]
    assert "nothing was changed on the host; no secret was sent; its session is failed" in ran.err


# a dry run


def test_a_dry_run_changes_nothing(desk: Desk) -> None:
    digest = sev.launch_digest(OVMF).hex()
    ran = desk.launch("--dry-run", *SECRET)
    assert ran.code == 0
    assert ran.lines[:7] == [
        "OK: vm1 can be launched: nothing was changed",
        "would create session vm1 in the ledger",
        "would define vm1",
        "would start it, paused",
        f"would expect the launch digest {digest}",
        "would release the secrets",
        "would let it run",
    ]
    assert "+++ prepared" in ran.lines
    untouched(desk, ran, 0, "")
    document = json.loads(desk.launch("--dry-run", "--json").out)
    assert (document["ok"], document["dry_run"], document["digests"]) == (True, True, [digest])
    assert desk.launch("--dry-run", "-q").out == ""
    assert desk.launch("--dry-run", "--inject-secret", "luks-key:-").code == 0  # nothing is read
    define(desk)
    ran = desk.launch("--dry-run", "--domain", "vm1")
    assert "would put the session into domain vm1" in ran.lines
    assert "would release no secret" in ran.lines
    untouched(desk, ran, 0, "")


# refused once the session exists

DESTROYED = "the guest was destroyed, and the domain is not defined any more; no secret was sent"
MEASURED = ["created", "measured"]


@dataclass
class Refusal:
    """A fault of the host's, and what must come of it.

    ``before`` and ``after`` are calls that fail; ``guest`` is what the note says of the guest.
    """

    code: int
    words: str
    guest: str = DESTROYED
    events: tuple[str, ...] = ("created", "failed")
    left: dict[str, int] | None = None
    before: dict[str, BaseException] | None = None
    after: dict[str, BaseException] | None = None
    sent: bool = False
    policy: tuple[str, ...] = ("--policy", "1")
    change: Callable[[Host], object] = lambda host: host


def change_xml(old: str, new: str) -> Callable[[Host], None]:
    def change(host: Host) -> None:
        host.change = lambda xml: xml.replace(old, new)

    return change


def set_to(name: str, value: object) -> Callable[[Host], None]:
    return lambda host: setattr(host, name, value)


NOTHING = "no guest was started, and the domain is not defined any more; no secret was sent"
TOOK = DESTROYED.replace("no secret was sent", "the host says that the guest took no secret")
MAY = "the guest was destroyed, and the domain is not defined any more; it may have its secret"
HAD = "the guest was destroyed, and the domain is not defined any more; it had its secret"
RELEASED = ("created", "measured", "released")
REFUSALS = {
    "define": Refusal(
        6,
        "defining the domain: no",
        "no guest was started; no secret was sent",
        before={"define": LibvirtError(FAILED, "no")},
    ),
    "define, unanswered": Refusal(6, "closed", NOTHING, after={"define": LOST}),
    "start": Refusal(6, "LAUNCH", NOTHING, before={"create": LibvirtError(INTERNAL, "LAUNCH")}),
    "start, unanswered": Refusal(6, "closed", after={"create": LOST}),
    "start, started already": Refusal(
        5, "running", NOTHING, before={"create": LibvirtError(INVALID, "it is running")}
    ),
    "state": Refusal(6, "closed", before={"launchSecurityInfo": LOST}),
    "gone": Refusal(
        5, "gone", before={"launchSecurityInfo": LibvirtError(NO_DOMAIN, "no domain")}
    ),
    "an answer that is none": Refusal(6, "answer", before={"launchSecurityInfo": ValueError("x")}),
    "other firmware": Refusal(
        1, "Measurement does not match", change=set_to("firmware", b"\1" + OVMF[1:])
    ),
    "other vCPUs": Refusal(
        1, "the measurement fits if", change=set_to("vcpus", 3), policy=ES
    ),
    "no session": Refusal(4, "lacks <dhCert> or <session>", change=change_xml("dhCert>", "gone>")),
    "an NVRAM": Refusal(
        3, "<nvram>, which is not measured", change=change_xml("</loader>", "</loader><nvram/>")
    ),
    "a kernel": Refusal(
        3, "not measured", change=change_xml("</loader>", "</loader><kernel>/k</kernel>")
    ),
    "another policy": Refusal(
        6, "LAUNCH_START", NOTHING, change=change_xml("<policy>0x0001", "<policy>0x0000")
    ),
    "no XML": Refusal(6, "XML", change=lambda host: setattr(host, "change", lambda _: BROKEN)),
    "confirm": Refusal(
        5, "gone", before={"lookupByUUIDString": LibvirtError(NO_DOMAIN, "gone")},
        events=(*RELEASED, "failed"),
    ),
    "inject, refused": Refusal(
        5, "fw_error=11\nhint: the guest is not the one that was measured",
        TOOK, (*RELEASED, "failed"),
        before={"inject": LibvirtError(INTERNAL, "SEV: fw_error=11")},
    ),
    "inject, not sent": Refusal(
        5, "paused state", TOOK, (*RELEASED, "failed"),
        before={"inject": LibvirtError(INVALID, "must be in a paused state")},
    ),
    "inject, unanswered": Refusal(6, "closed", MAY, RELEASED, after={"inject": LOST}, sent=True),
    "inject, lost": Refusal(6, "closed", MAY, RELEASED, before={"inject": LOST}),
    "resume": Refusal(6, "closed", HAD, RELEASED, before={"resume": LOST}, sent=True),
    "resume, unanswered": Refusal(6, "closed", HAD, RELEASED, after={"resume": LOST}, sent=True),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("leave", [False, True], ids=["destroy", "leave"])
def test_a_refusal_leaves_no_guest_that_runs_and_no_secret(
    desk: Desk, name: str, *, leave: bool
) -> None:
    refusal = REFUSALS[name]
    refusal.change(desk.host)
    desk.host.before |= refusal.before or {}
    desk.host.after |= refusal.after or {}
    options = ("--on-refusal", "leave") if leave else ()
    ran = desk.launch(*SECRET, *options, policy=refusal.policy)
    assert (ran.code, refusal.words in ran.err, ran.out) == (refusal.code, True, ""), ran.err
    assert bool(desk.host.sent) is refusal.sent
    assert RUNNING not in desk.left().values()
    assert desk.events() == [*refusal.events]
    assert ("resume" in desk.host.calls) is ("resume" in name)
    if not leave:
        assert desk.left() == {}
        assert f"note: {refusal.guest}; its session is {refusal.events[-1]}\n" in ran.err
    elif refusal.guest not in (NOTHING, "no guest was started; no secret was sent"):
        kept = {} if name == "resume, unanswered" else {"vm1": PAUSED}
        assert desk.left() == kept
        assert kept == {} or "the guest is left on the host, paused; " in ran.err
    assert "virsh resume" not in ran.err or leave


def test_a_domain_that_the_host_changed_is_not_to_be_ignored(desk: Desk) -> None:
    desk.host.change = lambda xml: xml.replace("dhCert>", "gone>")
    ran = desk.launch(*SECRET, "--ignore-config")
    assert (ran.code, desk.left()) == (4, {})
    assert "hint: the host started another domain than it was given\n" in ran.err
    assert "--ignore-config" not in ran.err


def test_the_ledger_has_a_refusal_of_the_packet_as_the_host_s(desk: Desk) -> None:
    desk.host.before["inject"] = LibvirtError(INTERNAL, "SEV: fw_error=11")
    assert desk.launch(*SECRET).code == 5
    assert desk.note() == "the host refused the packet"


def test_json_tells_what_is_left(desk: Desk) -> None:
    desk.host.firmware = b"\1" + OVMF[1:]
    ran = desk.launch(*MISFIT, "--json")
    document = json.loads(ran.out)
    assert (ran.code, ran.err, document["ok"]) == (1, "", False)
    assert document["guest"] == "destroyed"
    assert document["remains"] == f"{DESTROYED}; its session is failed"
    assert [step["step"] for step in document["steps"]] == STEPS[:-3]
    assert desk.note() == "refused: launch.measurement"


def test_a_mismatch_gets_a_command_that_launches_nothing(desk: Desk) -> None:
    desk.host.vcpus = 3
    ran = desk.launch(*SECRET, "--evidence", "refused.json", policy=ES)
    (line,) = [line for line in ran.err.splitlines() if "if you meant that" in line]
    assert "--evidence" not in line  # a plan has none
    assert "sev-attest launch" in line
    assert "--num-cpus 3" in line
    assert "--dry-run" in line
    assert "luks-key" not in line


def test_a_secret_that_cannot_be_read_is_read_too_late_to_be_released(desk: Desk) -> None:
    desk.host.before["launchSecurityInfo"] = lambda: Path("key").unlink()
    ran = desk.launch(*SECRET, "--json")
    document = json.loads(ran.out)
    assert (ran.code, desk.left(), desk.host.sent) == (6, {}, {})
    assert "the file of secret luks-key: No such file" in document["errors"][0]["message"]
    assert document["guest"] == "destroyed"
    assert desk.events() == ["created", "failed"]


def test_no_secret_is_read_before_the_measurement_is_right(desk: Desk) -> None:
    Path("key").unlink()
    untouched(desk, desk.launch(*SECRET), 6, "the file of secret luks-key: No such file")
    Path("key").mkdir()  # it is there, and cannot be read
    desk.host.firmware = b"\1" + OVMF[1:]
    assert desk.launch(*MISFIT).code == 1
    desk.host.firmware = OVMF
    ran = desk.launch(*SECRET, "--ledger", "other")
    assert (ran.code, "the file of secret luks-key: Is a directory" in ran.err) == (6, True)


def test_firmware_without_an_area_for_secrets_is_refused_before_it_starts(desk: Desk) -> None:
    Path("fw").write_bytes(ovmf_image(8192, secret_area=None))
    untouched(desk, desk.launch(*SECRET), 2, "no area for secrets")


def test_a_guest_that_runs_already_is_refused_and_destroyed(desk: Desk) -> None:
    desk.host.after["create"] = lambda: setattr(desk.host.domains["vm1"], "state", RUNNING)
    ran = desk.launch(*SECRET, "--on-refusal", "leave")
    assert (ran.code, desk.left(), desk.host.sent) == (5, {}, {})
    assert "the guest is not paused, but running" in ran.err
    assert "hint: launch it again: each launch has a session of its own\n" in ran.err


def test_a_guest_that_was_started_anew_in_another_session_is_not_touched(desk: Desk) -> None:
    def anew() -> None:
        domain = desk.host.domains["vm1"]
        domain.id, domain.live = 99, CLEAN

    desk.host.before["launchSecurityInfo"] = anew
    ran = desk.launch(*SECRET)
    assert (ran.code, desk.left(), desk.host.sent) == (5, {"vm1": PAUSED}, {})
    assert "domain vm1 runs in another session: its guest was not touched" in ran.err
    assert ", and the domain is still defined, in this session; no secret was sent" in ran.err


def test_a_guest_that_cannot_be_destroyed_is_named(desk: Desk) -> None:
    desk.host.firmware = b"\1" + OVMF[1:]
    desk.host.before["destroy"] = LOST
    ran = desk.launch(*MISFIT)
    assert (ran.code, desk.left(), desk.host.sent) == (1, {"vm1": PAUSED}, {})
    assert "note: the guest could not be destroyed, and is still there, paused: " in ran.err
    assert "; no secret was sent; its session is failed" in ran.err


def test_a_host_that_is_gone_in_the_middle_may_have_a_guest_still(desk: Desk) -> None:
    calls = ("lookupByName", "lookupByUUIDString", "isActive", "XMLDesc 0", "destroy")
    lost = dict.fromkeys(calls, LOST)
    desk.host.before["launchSecurityInfo"] = lambda: desk.host.before.update(lost)
    desk.host.after["launchSecurityInfo"] = LOST
    ran = desk.launch(*SECRET)
    assert (ran.code, desk.left(), desk.host.sent) == (6, {"vm1": PAUSED}, {})
    assert "the host could not be asked: a guest of domain vm1 may still be there" in ran.err
    assert desk.events() == ["created", "failed"]


def test_a_guest_that_ended_by_itself_is_not_there_any_more(desk: Desk) -> None:
    desk.host.firmware = b"\1" + OVMF[1:]

    def end() -> None:
        domain = desk.host.domains["vm1"]
        domain.id, domain.live = -1, ""

    desk.host.before["destroy"] = end
    ran = desk.launch(*MISFIT)
    assert (ran.code, desk.left()) == (1, {})
    assert DESTROYED in ran.err
    desk.host.before["destroy"] = LibvirtError(INVALID, "it cannot be now")
    ran = desk.launch(*MISFIT, "--ledger", "other")
    assert "the guest could not be destroyed, and is still there, paused" in ran.err
    desk.host.domains.clear()
    desk.host.before["destroy"] = LOST
    desk.host.after["launchSecurityInfo"] = end
    ran = desk.launch(*MISFIT, "--ledger", "third")
    assert "the guest is gone from the host, and the domain is not defined any more" in ran.err


def test_a_definition_that_cannot_be_removed_is_named(desk: Desk) -> None:
    desk.host.firmware = b"\1" + OVMF[1:]
    desk.host.before["undefine"] = LOST
    ran = desk.launch(*MISFIT)
    assert (ran.code, desk.left()) == (1, {"vm1": SHUT_OFF})
    assert "but the definition of domain vm1 could not be removed: " in ran.err


def test_a_domain_that_others_undefined_or_defined_meanwhile_is_theirs(desk: Desk) -> None:
    desk.host.firmware = b"\1" + OVMF[1:]
    desk.host.before["destroy"] = lambda: setattr(desk.host.domains["vm1"], "xml", "")
    ran = desk.launch(*MISFIT)
    assert (ran.code, desk.left()) == (1, {})
    assert "note: the guest was destroyed; no secret was sent" in ran.err
    desk.host.before["destroy"] = lambda: setattr(desk.host.domains["vm1"], "xml", CLEAN)
    ran = desk.launch(*MISFIT, "--ledger", "other")
    assert (ran.code, desk.left()) == (1, {"vm1": SHUT_OFF})
    assert desk.host.domains["vm1"].xml == CLEAN


def test_a_start_that_is_not_answered_in_time_may_still_happen(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sev_attest.host import libvirt
    from sev_attest.host.limits import call_within, no_answer

    def late(seconds: float, what: str, call: Callable[[], object]) -> object:
        if "starting" in what:
            raise no_answer(what, seconds)
        return call_within(seconds, what, call)

    monkeypatch.setattr(libvirt, "call_within", late)
    ran = desk.launch(*SECRET)
    assert (ran.code, desk.left()) == (6, {})
    assert "no guest was started yet, but may be still: look after domain vm1" in ran.err


def test_a_define_that_is_not_answered_in_time_may_still_happen(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sev_attest.host import libvirt
    from sev_attest.host.limits import call_within, no_answer

    def late(seconds: float, what: str, call: Callable[[], object]) -> object:
        if "defining" in what:
            raise no_answer(what, seconds)
        return call_within(seconds, what, call)

    monkeypatch.setattr(libvirt, "call_within", late)
    ran = desk.launch(*SECRET)
    assert (ran.code, desk.left()) == (6, {})
    assert "no guest was started, but domain vm1 may still be defined, in this session" in ran.err
    assert "launch it again" not in ran.err


def test_a_guest_that_somebody_else_starts_is_theirs_and_the_definition_comes_back(
    desk: Desk,
) -> None:
    define(desk)
    before = desk.host.domains["vm1"].xml

    def start() -> None:
        domain = desk.host.domains["vm1"]
        if domain.xml != before:
            domain.live, domain.id, domain.state = before, 99, RUNNING

    desk.host.after["define"] = start
    ran = desk.launch("--domain", "vm1", *SECRET)
    assert (ran.code, desk.left(), desk.host.sent) == (5, {"vm1": RUNNING}, {})
    assert desk.host.domains["vm1"].xml == before
    assert "its guest was not touched, and the domain has the definition that it had" in ran.err


@pytest.mark.parametrize("options", [SECRET, ("--ledger", "none")])
def test_a_guest_that_runs_already_gets_nothing_even_with_insecure(
    desk: Desk, options: tuple[str, ...]
) -> None:
    """It was started paused: the host has disobeyed."""
    desk.host.after["create"] = lambda: setattr(desk.host.domains["vm1"], "state", RUNNING)
    ran = desk.launch("--insecure", *options)
    assert (ran.code, desk.left(), desk.host.sent) == (5, {}, {})
    assert "the guest is not paused, but running" in ran.err


@pytest.mark.parametrize("extra", [(), ("--json",)])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), BrokenPipeError()])
@pytest.mark.parametrize("secret", [SECRET, ()])
def test_an_output_that_fails_does_not_hide_that_the_guest_runs(
    desk: Desk,
    monkeypatch: pytest.MonkeyPatch,
    extra: tuple[str, ...],
    error: OSError,
    secret: tuple[str, ...],
) -> None:
    import click

    echo = click.echo

    def full(message: object = None, *, nl: bool = True, err: bool = False) -> None:
        if not err:
            raise error
        echo(message, nl=nl, err=err)

    monkeypatch.setattr(click, "echo", full)
    monkeypatch.setattr(exits, "_discard", lambda _stream: None)  # the stream is pytest's own
    ran = desk.launch(*secret, *extra)
    assert (ran.code, desk.left(), bool(desk.host.sent)) == (6, {"vm1": RUNNING}, bool(secret))
    words = "has its secret" if secret else "no secret was sent"
    assert f"note: the guest runs, and {words}\n" in ran.err
    assert desk.events()[-1] == ("released" if secret else "closed")


def test_what_a_refused_start_leaves_defined_is_named(desk: Desk) -> None:
    desk.host.before["create"] = LibvirtError(INTERNAL, "no memory")
    ran = desk.launch(*SECRET, "--on-refusal", "leave")
    assert (ran.code, desk.left()) == (6, {"vm1": SHUT_OFF})
    assert "no guest was started, and the domain is left defined" in ran.err


def test_a_ledger_that_fails_is_no_reason_to_leave_a_guest(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.host.before["launchSecurityInfo"] = lambda: Path("kept").write_bytes(b"no ledger")
    ran = desk.launch(*SECRET)
    assert (ran.code, desk.left(), desk.host.sent) == (6, {}, {})
    assert "the ledger does not know that this launch was refused: " in ran.err


# signals


CALLS = ["define", "create", "launchSecurityInfo", "lookupByUUIDString", "inject", "resume"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupt_at_any_call_leaves_nothing(desk: Desk, call: str, when: str) -> None:
    getattr(desk.host, when)[call] = KeyboardInterrupt()
    ran = desk.launch(*SECRET)
    assert (ran.code, ran.out, desk.left()) == (130, "", {})
    assert bool(desk.host.sent) is ((call, when) == ("inject", "after") or call == "resume")
    kinds = desk.events()
    assert kinds[-1] in ("failed", "released")
    assert (kinds[-1] == "released") is (call in ("inject", "resume"))
    assert "Traceback" not in ran.err
    (note,) = [line for line in ran.err.splitlines() if line.startswith("note: ")]
    assert note.endswith(f"; its session is {kinds[-1]}")
    if kinds[-1] == "failed" and call != "lookupByUUIDString":
        assert desk.note() == "interrupted"


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Handle signals as the program does, also if the tests were started to ignore them."""
    defaults: dict[signal.Signals, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    old = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    monkeypatch.setattr(os, "_exit", lambda code: pytest.fail(f"it exits with {code}"))
    interrupts.handle()
    yield
    for number, handler in old.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("call", ["define", "create", "inject"])
def test_a_signal_waits_until_the_host_has_answered(
    desk: Desk, call: str, number: signal.Signals
) -> None:
    """Otherwise nobody knew whether there is a guest, or whether it has its secret."""
    desk.host.before[call] = lambda: os.kill(os.getpid(), number)
    ran = desk.launch(*SECRET)
    assert (ran.code, ran.out, desk.left()) == (130, "", {})
    assert "resume" not in desk.host.calls
    assert bool(desk.host.sent) is (call == "inject")
    guest = {"define": NOTHING, "create": DESTROYED, "inject": HAD}[call]
    assert f"note: {guest}; its session is " in ran.err


@pytest.mark.usefixtures("signals")
def test_a_signal_that_comes_while_the_guest_is_resumed_comes_too_late(desk: Desk) -> None:
    desk.host.before["resume"] = lambda: os.kill(os.getpid(), signal.SIGTERM)
    ran = desk.launch(*SECRET)
    assert (ran.code, desk.left(), desk.host.sent) == (0, {"vm1": RUNNING}, {GUID: b"the disk key"})


@pytest.mark.usefixtures("signals")
def test_a_second_signal_does_not_stop_the_clean_up(desk: Desk) -> None:
    desk.host.before["launchSecurityInfo"] = KeyboardInterrupt()
    desk.host.before["destroy"] = lambda: os.kill(os.getpid(), signal.SIGINT)
    ran = desk.launch(*SECRET)
    assert (ran.code, desk.left(), desk.events()) == (130, {}, ["created", "failed"])


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("first", ["signal", "error", "error after the secret"])
def test_a_signal_in_the_first_line_of_the_clean_up_does_not_end_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    call = "resume" if "secret" in first else "launchSecurityInfo"
    interrupted = first == "signal"
    desk.host.before[call] = interrupts.running.interrupt if interrupted else LOST
    desk.host.before["destroy"] = lambda: os.kill(os.getpid(), signal.SIGHUP)
    came: list[str] = []

    def early(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code is Attempt.__exit__.__code__:
            came.append("signal")
            os.kill(os.getpid(), signal.SIGTERM)

    sys.setprofile(early)
    try:
        ran = desk.launch(*SECRET)
    finally:
        sys.setprofile(None)
    # Python drops a profiler that raises, so then only the first of the two exits is seen.
    assert len(came) == (2 if interrupted else 1)
    assert (ran.code, ran.out, desk.left()) == (130, "", {})
    assert desk.events()[-1] == ("released" if "secret" in first else "failed")
    assert "note: the guest was destroyed, " in ran.err


@pytest.mark.usefixtures("signals")
def test_a_signal_while_the_verdict_is_printed_says_that_the_guest_runs(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = Case.accepted

    def signalled(*arguments: Any, **more: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        accepted(*arguments, **more)

    monkeypatch.setattr(Case, "accepted", signalled)
    ran = desk.launch(*SECRET)
    assert (ran.code, desk.left(), desk.events()[-1]) == (130, {"vm1": RUNNING}, "released")
    assert "note: the guest runs, and has its secret\n" in ran.err


def test_of_the_signals_after_once_only_one_raises() -> None:
    state = Running()
    with state:
        state.once()
        with pytest.raises(KeyboardInterrupt):
            state.interrupt()
        state.interrupt()
    with state:  # another command
        state.once()
        with pytest.raises(KeyboardInterrupt), state.held():
            state.interrupt()
        state.interrupt()
        state.spend()
        state.interrupt()
    with state, pytest.raises(KeyboardInterrupt):
        state.interrupt()


def test_a_signal_while_a_thread_starts_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    from sev_attest.host.limits import call_within

    def start(hidden: type[BaseException]) -> Callable[[object], None]:
        def fail(_: object) -> None:
            try:
                raise hidden
            finally:
                raise RuntimeError("release unlocked lock")

        return fail

    for hidden, seen in ((KeyboardInterrupt, KeyboardInterrupt), (ValueError, RuntimeError)):
        monkeypatch.setattr("threading.Thread.start", start(hidden))
        with pytest.raises(seen):
            call_within(1, "asking", int)


def test_signals_are_held_back_by_the_outermost_block() -> None:
    state = Running()

    def nested(*, dropped: bool = False, error: type[Exception] | None = None) -> None:
        with state.held(drop=dropped):
            with state.held(drop=True):
                state.interrupt()
            state.interrupt()
            if error is not None:
                raise error

    with pytest.raises(KeyboardInterrupt):
        nested()
    nested(dropped=True)
    with pytest.raises(ZeroDivisionError):  # it comes first
        nested(error=ZeroDivisionError)
    with state.held():
        pass  # and nothing is left over
    with pytest.raises(KeyboardInterrupt):
        state.interrupt()


def test_progress_that_nobody_reads_ends_no_launch(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    import click

    echo = click.echo

    def broken(message: object = None, *, nl: bool = True, err: bool = False) -> None:
        if err:
            raise BrokenPipeError
        echo(message, nl=nl)

    monkeypatch.setattr(click, "echo", broken)
    assert desk.launch(*SECRET).code == 0
    desk.host.domains.clear()
    desk.host.before["launchSecurityInfo"] = KeyboardInterrupt()
    assert (desk.launch("--ledger", "other").code, desk.left()) == (130, {})


def test_a_bug_leaves_nothing_either(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("sev_attest.cli.commands.launch.read_reported", bug)
    ran = desk.launch(*SECRET)
    assert (ran.code, desk.left(), desk.events()) == (70, {}, ["created", "failed"])
    assert DESTROYED in ran.err
    assert desk.note() == "an error ended the launch"
