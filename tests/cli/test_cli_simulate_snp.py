"""``sev-attest simulate``, ``demo``: SEV-SNP guests, their reports, and hosts that lie."""

import json
from pathlib import Path

import pytest

from conftest import Ran, Run
from sev_attest.cli import exits
from sev_attest.cli.main import cli
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.tcb import Product
from sev_attest.testing import SnpFault, ovmf_image
from sev_attest.testing.host import fault_name
from sev_attest.testing.images import SNP_SECTIONS
from test_cli_simulate import done, every_command
from test_testing_snp import id_block

GUEST = (
    *("--firmware", "host/OVMF.fd", "--kernel", "host/vmlinuz", "--initrd", "host/initrd.img"),
    *("--cmdline", "console=ttyS0", "--num-cpus", "2", "--cpu-model-name", "EPYC-Milan"),
)
TRUST = ("--trust-root", "host/snp-root.der")
NONCE = bytes(range(64)).hex()
ANSWERED = [fault for fault in SnpFault if not fault.in_launch]
LAUNCHED = [fault for fault in SnpFault if fault.in_launch]


def start(run: Run, *options: object, name: str = "vm1") -> Ran:
    return run("simulate", "start", "host", "--snp", "--name", name, *GUEST, *options)


def ask(run: Run, *options: object, name: str = "vm1") -> Ran:
    return run("simulate", "snp-report", "host", name, "--report-data", NONCE, *options)


def verify(run: Run, digest: str, *options: object, name: str = "vm1") -> Ran:
    expected = ("--report-data", NONCE, "--launch-digest", digest)
    return run("snp", "verify", f"{name}.report", *TRUST, *expected, *options)


def launched(run: Run, *options: object) -> str:
    """Make a host, start a guest there, and return the digest of what was meant."""
    done(run("simulate", "host", "host", "--seed", "tests"))
    done(start(run, *options))
    return done(run("snp", "measure", *GUEST)).out.strip()


# the story


@pytest.mark.parametrize("version", [2, 3, 5])
@pytest.mark.parametrize("key", ["vcek", "vlek"])
@pytest.mark.parametrize("product", Product)
def test_a_guest_of_every_product_is_verified(
    run: Run, here: Path, product: Product, key: str, version: int
) -> None:
    done(run("simulate", "host", "host", "--seed", "tests", "--generation", product.value.lower()))
    assert done(start(run)).out == "simulated: vm1 runs as an SEV-SNP guest, and is measured\n"
    digest = done(run("snp", "measure", *GUEST)).out.strip()
    made = done(ask(run, "--key", key, "--report-version", version, "--vmpl", 1))
    assert made.out == (
        "simulated: vm1.report has the report of vm1, under a root that is not AMD's\n"
    )
    assert run("snp", "verify", "vm1.report").code == 1
    verdict = done(verify(run, digest))
    assert verdict.lines == [
        f"OK: the report verifies (its root is not AMD's): {product.value}, {key.upper()}, VMPL 1",
    ]
    assert verdict.notes == [
        "note: this root is not AMD's: it was trusted only because it was named",
    ]
    assert done(run("simulate", "destroy", "host", "vm1")).out == "simulated: vm1 is gone\n"


@pytest.mark.parametrize("fault", ANSWERED, ids=fault_name)
def test_an_answer_that_is_wrong_is_refused_by_its_check(
    run: Run, here: Path, fault: SnpFault
) -> None:
    digest = launched(run)
    version = 2 if fault is SnpFault.RESERVED_188 else 3
    done(ask(run, "--fault", fault_name(fault), "--report-version", version))
    ran = verify(run, digest, "--json")
    # The root that is named is beside the forged one, which has its name: it signed no such ASK.
    check = "snp.ask.signed-by-ark" if fault is SnpFault.FORGED_ROOT else fault.check
    assert json.loads(ran.out)["failed"] == ([check] if check else [])
    assert ran.code == (1 if check else 0)


def test_a_forged_root_beside_the_named_one_of_its_name_is_told_apart(run: Run, here: Path) -> None:
    digest = launched(run)
    done(ask(run, "--fault", "forged-root"))
    error, hint = verify(run, digest, "--quiet").err.splitlines()
    assert error.startswith("error: the ASK is signed by another ARK-Milan than the trusted one: ")
    root = json.loads(done(run("snp", "show", "--json", "host/snp-root.der")).out)
    (found,) = root["inputs"][0]["certificates"][0]["found"]
    assert error.endswith(f", the trusted one is {found['public_key']['sha256'][:16]}")
    assert hint == "hint: the chain is forged, or of another root that has the same name"


@pytest.mark.parametrize("fault", LAUNCHED, ids=fault_name)
def test_another_guest_is_refused_by_its_digest(run: Run, here: Path, fault: SnpFault) -> None:
    digest = launched(run, "--fault", fault_name(fault))
    done(ask(run))
    assert json.loads(verify(run, digest, "--json").out)["failed"] == [fault.check]


def test_a_forged_root_is_refused_as_such_where_no_other_is_named(run: Run, here: Path) -> None:
    launched(run)
    done(ask(run, "--fault", "forged-root"))
    refused = run("snp", "verify", "vm1.report", "--json")
    assert json.loads(refused.out)["failed"] == ["snp.ark.trusted"]


def test_what_verifies_and_is_weak_is_shown(run: Run, here: Path) -> None:
    digest = launched(run)
    done(ask(run, "--fault", "debug-policy"))
    words = "note: the policy lets the host read the guest's memory with the debug commands"
    assert words in done(verify(run, digest)).notes
    done(ask(run, "--fault", "old-tcb", "--out", "old"))
    shown = json.loads(done(run("snp", "show", "--json", "old")).out)["inputs"][0]
    assert shown["meaning"]["tcb"]["reported"]["snp"] == 12


# what is chosen


def test_a_report_says_what_the_guest_was_started_with(run: Run, here: Path) -> None:
    digest = launched(run)
    for name, data in id_block(digest=bytes.fromhex(digest), policy=0xB0000).items():
        Path(name).write_bytes(data)
    options = ("--policy", "0xb0000", "--host-data", "ab" * 32, "--guest-features", "0x1",
               "--id-block", "id_block", "--id-auth", "id_auth")  # fmt: skip
    done(start(run, *options, name="vm2"))
    done(ask(run, "--vmpl", 3, name="vm2"))
    report = AttestationReport.from_bytes(Path("vm2.report/outblob").read_bytes())
    assert (report.policy.value, report.vmpl, report.host_data) == (0xB0000, 3, b"\xab" * 32)
    assert (report.guest_svn, report.measurement.hex()) == (5, digest)
    assert any(report.id_key_digest)
    assert report.report_data.hex() == NONCE
    listed = done(run("simulate", "list", "host")).lines
    assert listed[1:] == [
        "running  vm1  SEV-SNP, policy 0x30000",
        "running  vm2  SEV-SNP, policy 0xb0000",
    ]


@pytest.mark.parametrize(
    ("options", "same"),
    [
        (("--vmsa-profile", "qemu-old"), ("--vmsa-profile", "qemu-old")),
        (("--guest-features", "0x20"), ("--guest-features", "0x21")),
        (("--cpu-model-name", "EPYC-Turin"), ("--cpu-model-name", "EPYC-Turin")),
    ],
)
def test_the_host_s_way_to_start_guests_is_measured(
    run: Run, here: Path, options: tuple[str, str], same: tuple[str, str]
) -> None:
    digest = launched(run, *options)
    done(ask(run))
    assert verify(run, digest).code == 1
    done(verify(run, done(run("snp", "measure", *GUEST, *same)).out.strip()))


def test_with_a_seed_a_report_is_the_same_to_the_byte(run: Run, here: Path) -> None:
    for name in ("one", "two"):
        launched(run)
        done(ask(run, "--out", name))
        Path("host").rename(f"{name}.host")
    names = sorted(path.name for path in Path("one").iterdir())
    assert names == ["auxblob", "inblob", "outblob", "provider"]
    assert all(Path("one", n).read_bytes() == Path("two", n).read_bytes() for n in names)
    assert {path.stat().st_mode & 0o777 for path in Path("one").iterdir()} == {0o600}
    assert Path("one").stat().st_mode & 0o777 == 0o700


# what is printed


def test_every_document_says_that_this_is_simulated(run: Run, here: Path) -> None:
    digest = launched(run)
    found = {
        "start": done(start(run, "--json", name="vm2")),
        "snp-report": done(ask(run, "--json")),
        "list": done(run("simulate", "list", "host", "--json")),
        "guest": done(run("simulate", "guest", "host", "vm1", "--json")),
    }
    documents = {name: json.loads(ran.out) for name, ran in found.items()}
    for name, document in documents.items():
        assert document["schema"] == f"sev-attest/simulate {name}/1"
        assert (document["ok"], document["simulated"]) == (True, True)
    guest = {"guest": "vm1", "state": "running", "policy": 0x30000, "snp": True,
             "launch_digest": digest}  # fmt: skip
    assert documents["list"]["guests"] == [guest, guest | {"guest": "vm2"}]
    assert documents["guest"].items() >= guest.items()
    assert documents["guest"]["sev_snp"] is True
    report = documents["snp-report"]
    assert report["report"] == Path(report["folder"], "outblob").read_bytes().hex()
    assert sorted(report["files"]) == sorted(path.name for path in Path("vm1.report").iterdir())


def test_verbose_says_what_was_measured_and_handed_out(run: Run, here: Path) -> None:
    digest = launched(run)
    lines = done(start(run, "-v", name="vm2")).lines
    assert f"launch digest: {digest}" in lines
    lines = done(ask(run, "-v")).lines
    assert [line.split()[0] for line in lines[1:]] == ["VCEK", "ASK", "ARK"]
    assert ask(run, "-q", "--out", "quiet").out == ""


def test_a_guest_sees_that_sev_snp_is_active(run: Run, here: Path) -> None:
    launched(run)
    assert done(run("simulate", "guest", "host", "vm1")).lines == [
        "simulated: what vm1 sees",
        "SEV: active, SEV-ES: active, SEV-SNP: active",
    ]
    asked = run("simulate", "guest", "host", "vm1", "--secret", "luks-key:arrived")
    assert (asked.code, asked.err) == (
        5,
        (
            "error: vm1 is an SEV-SNP guest: no secret arrives through its firmware\n"
            "hint: `sev-attest simulate snp-report` asks for its report\n"
        ),
    )


# what is refused


def test_what_an_snp_guest_does_not_have_is_refused(run: Run, here: Path) -> None:
    launched(run)
    Path("vm1_header.b64").write_bytes(bytes(52))
    Path("vm1_payload.b64").write_bytes(bytes(64))
    for line in every_command("vm1"):
        if line[0] not in ("list", "guest", "destroy"):
            refused = run("simulate", *line)
            words = "error: vm1 is an SEV-SNP guest: it runs already, has no measurement, and "
            assert (refused.code, refused.err.startswith(words)) == (5, True)
    done(run("simulate", "start", "host", "--name", "sev", "--policy", "1", *GUEST[:2]))
    refused = ask(run, name="sev")
    assert (refused.code, refused.err) == (
        5,
        (
            "error: sev is no SEV-SNP guest: it has no reports\n"
            "hint: `sev-attest simulate start --snp` starts one\n"
        ),
    )
    assert ask(run, name="vm9").code == 5
    assert not Path("sev.report").exists()


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (["--xml", "vm.xml"], 2, "--snp excludes --xml"),
        (["--godh", "g", "--session", "s"], 2, "--snp excludes --godh, --session"),
        (
            ["--vmsa-profile", "qemu-init2"],
            2,
            "qemu-init2 is not for an SEV-SNP guest",
        ),
        (["--fault", "swapped-keys"], 2, "--fault swapped-keys is no fault of an SEV-SNP launch"),
        (["--id-block", "short"], 2, "--id-block and --id-auth go together"),
        (["--id-block", "-", "--id-auth", "-"], 2, "only one input can be standard input"),
        (["--id-block", "short", "--id-auth", "short"], 6, "short: ID block: 4 bytes, expected 96"),
        (["--id-block", "block", "--id-auth", "auth"], 5, "SNP_LAUNCH_FINISH: 11 BAD_MEASUREMENT"),
        (["--host-data", "ab"], 2, "1 bytes, expected 32"),
        (["--policy", "0x10000"], 4, "KVM takes no SEV-SNP policy 0x10000"),
        (["--firmware", "plain"], 4, "Failed to locate SEV metadata header"),
        (["--firmware", "nohashes"], 4, "no section for kernel hashes"),
        (["--firmware", "nowhere"], 6, "nowhere: No such file or directory"),
        (["--name", "vm1"], 5, "there is a guest vm1 already"),
        (["--guest-features", "x"], 2, "is no number"),
    ],
)
def test_a_launch_that_cannot_be_is_refused_in_words(
    run: Run, here: Path, change: list[str], code: int, words: str
) -> None:
    launched(run)
    Path("short").write_bytes(b"\xff" * 4)
    for name, data in id_block().items():
        Path(name.removeprefix("id_")).write_bytes(data)
    Path("plain").write_bytes(ovmf_image(8192))
    Path("nohashes").write_bytes(ovmf_image(8192, sections=SNP_SECTIONS[:-1]))
    refused = start(run, *change, name="vm2") if "--name" not in change else start(run)
    assert refused.code == code, refused.err
    assert words in refused.err
    assert [path.name for path in Path("host/guests").iterdir()] == ["vm1.json"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--snp", "--name, --firmware are needed"),
        ("--snp --name a", "--firmware is needed"),
        (
            "--name a --policy 1 --firmware f --host-data " + "ab" * 32,
            "--snp is needed for --host-",
        ),
        ("--name a --policy 5 --firmware f --vmsa-profile qemu", "--snp starts an SEV-SNP guest"),
    ],
)
def test_options_that_contradict_each_other_are_named(
    run: Run, here: Path, line: str, words: str
) -> None:
    done(run("simulate", "host", "host"))
    refused = run("simulate", "start", "host", *line.split())
    assert (refused.code, words in refused.err) == (2, True), refused.err


@pytest.mark.parametrize("generation", ["naples", "rome"])
def test_a_generation_without_sev_snp_says_so(run: Run, here: Path, generation: str) -> None:
    done(run("simulate", "host", "host", "--generation", generation))
    refused = start(run)
    assert (refused.code, refused.err) == (
        4,
        (
            f"error: SEV-SNP does not exist on {generation.title()}: it begins with Milan\n"
            "hint: make a host of milan, genoa or turin\n"
        ),
    )
    assert not Path("host/snp-root.der").exists()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--report-data", "ab"], 2, "1 bytes, expected 64"),
        (["--vmpl", "4"], 2, "4 is not in 0..3"),
        (["--report-version", "4"], 2, "'4' is not one of '2', '3', '5'"),
        (["--fault", "wrong-firmware-byte"], 2, "is not one of"),
        (["--fault", "reserved-188"], 2, "reserved-188 shows in reports of version 2, not 3"),
        (["--out", ""], 2, "the file's name is empty"),
        (["--out", "no/where"], 6, "no/where: there is no folder no"),
        (["--out", "host"], 6, "host/inblob"),
    ],
)
def test_a_report_that_cannot_be_made_is_refused_in_words(
    run: Run, here: Path, options: list[str], code: int, words: str
) -> None:
    launched(run)
    Path("host/inblob").touch()
    before = sorted(here.rglob("*"))
    refused = ask(run, *options)
    assert refused.code == code, refused.err
    assert words in refused.err
    assert sorted(here.rglob("*")) == before


def test_no_report_is_written_over(run: Run, here: Path) -> None:
    launched(run)
    done(ask(run))
    first = Path("vm1.report/outblob").read_bytes()
    refused = ask(run, "--vmpl", 1)
    assert (refused.code, "--force" in refused.err) == (6, True)
    assert Path("vm1.report/outblob").read_bytes() == first
    done(ask(run, "--vmpl", 1, "--force"))
    assert Path("vm1.report/outblob").read_bytes() != first


@pytest.mark.parametrize("value", [None, True, -1, 1 << 70, 1.5, "", "zz", "00", [], {}])
def test_damaged_state_is_an_error_never_a_bug(run: Run, here: Path, value: object) -> None:
    launched(run)
    path = Path("host/guests/vm1.json")
    document = json.loads(path.read_bytes())
    for name in document:
        if name != "note":
            path.write_text(json.dumps(document | {name: value}))
            ran = ask(run)
            assert (ran.code, ran.err.startswith(f"error: {path}: simulated ")) == (6, True), name


# the demo


def test_the_demo_tells_the_story_of_an_snp_guest(run: Run, here: Path) -> None:
    ran = run("demo", "--snp", "--keep", "kept")
    assert ran.code == 0
    words = "OK: the report verifies (its root is not AMD's): Milan, VCEK, VMPL 0"
    assert ran.out.count(words) == 1
    assert ran.out.count("(exit code 1)") == 2
    assert "NOT VERIFIED: the ARK has the name of AMD's ARK-Milan, but another key" in ran.out
    assert "NOT VERIFIED: the launch digest is " in ran.out
    assert "The verdict says that it is not AMD's." in ran.out
    assert run("simulate", "list", "kept/host").out.count("SEV-SNP, policy 0x30000") == 2
    again = run("demo", "--snp", "--keep", "kept")
    assert (again.code, again.err.splitlines()[0]) == (6, "error: kept: exists already")
    assert Path("kept/digest.hex").read_text() in ran.out


def test_the_demo_leaves_nothing_unless_asked(run: Run, here: Path) -> None:
    assert run("demo", "--snp").code == 0
    assert list(here.iterdir()) == []


def test_a_demo_that_goes_wrong_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ran_as_asked = exits.run
    monkeypatch.setattr("sev_attest.cli.commands.demo.exits.run", lambda *_: 1)
    assert ran_as_asked(cli, ["demo", "--snp"]) == 6
