"""``sev-attest simulate``."""

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from conftest import Ran, Run
from sev_attest import NotVerified, sev
from sev_attest.cli.options import simulated
from sev_attest.owner import LaunchRecord
from sev_attest.sev.secret import secret_packet
from sev_attest.sev.spec import SECRET_LUKS
from sev_attest.testing import Fault, ovmf_image
from sev_attest.testing.state import GENERATIONS
from test_cli import TOOL

TRUST = ("--trust-root", "host/test-root.cert")
IMAGES = ("--firmware", "host/OVMF.fd", "--kernel", "host/vmlinuz", "--initrd", "host/initrd.img",
          "--cmdline", "console=ttyS0")  # fmt: skip
CPUS = ("--num-cpus", "2", "--cpu-model-name", "EPYC-Milan")
ES, PLAIN = "0x5", "0x1"


def fault_name(fault: Fault) -> str:
    return fault.name.lower().replace("_", "-")


def done(ran: Ran) -> Ran:
    """Return a run that ended well."""
    assert (ran.code, "error" in ran.err) == (0, False), ran.err
    return ran


def make_session(run: Run, name: str, policy: str) -> None:
    done(run("session", "--name", name, "host.chain", policy, "--kernel-hashes", *TRUST))


def start(run: Run, name: str, policy: str, *options: object) -> Ran:
    files = ("--godh", f"{name}_godh.b64", "--session", f"{name}_session.b64")
    guest = ("--name", name, "--policy", policy, *files, *IMAGES, *CPUS)
    return run("simulate", "start", "host", *guest, *options)


def report(run: Run, name: str) -> Path:
    """Write what the host reports of a guest to a file."""
    path = Path(f"{name}.info")
    path.write_text(done(run("simulate", "domlaunchsecinfo", "host", name)).out)
    return path


def validate(run: Run, name: str, policy: str, *options: object) -> Ran:
    keys = ("--tik", f"{name}_tik.bin", "--tek", f"{name}_tek.bin")
    cpus = CPUS if policy == ES else ()
    record = ("--launch-info", f"{name}.info", "--record", f"{name}.launch.json")
    return run("validate", *record, *keys, *IMAGES, *cpus, "--no-diagnose", *options)


def release(run: Run, name: str, policy: str) -> None:
    """Verify a launch, and encrypt the disk key for it."""
    Path("disk.key").write_bytes(b"a disk key")
    out = ("--secret-header", f"{name}_header.b64", "--secret-payload", f"{name}_payload.b64")
    done(validate(run, name, policy, "--inject-secret", "luks-key:disk.key", *out))


def inject(run: Run, name: str, packet: str = "") -> Ran:
    packet = packet or name
    files = ("--secrethdr", f"{packet}_header.b64", "--secret", f"{packet}_payload.b64")
    return run("simulate", "domsetlaunchsecstate", "host", name, *files)


def launched(run: Run, policy: str = ES, *options: object) -> None:
    """Make a host, and a guest vm1 that is measured and paused."""
    done(run("simulate", "host", "host", "--seed", "tests"))
    done(run("simulate", "export", "host"))
    make_session(run, "vm1", policy)
    done(start(run, "vm1", policy, *options))
    report(run, "vm1")


# the story


@pytest.mark.parametrize("policy", [PLAIN, ES])
@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_secret_arrives_in_a_guest_on_a_host_of_every_generation(
    run: Run, here: Path, generation: str, policy: str
) -> None:
    made = done(run("simulate", "host", "host", "--seed", "tests", "--generation", generation))
    assert made.out.startswith(f"simulated: a host like {generation.title()}, API ")
    done(run("simulate", "export", "host"))
    assert run("verify", "host.chain").code == 1  # its root is trusted only where it is named
    bits = {"naples": 2048}.get(generation, 4096)
    assert f"ARK R{bits}" in done(run("verify", "host.chain", *TRUST)).out
    make_session(run, "vm1", policy)
    assert done(start(run, "vm1", policy)).out == "simulated: vm1 is paused, and measured\n"
    report(run, "vm1")
    release(run, "vm1", policy)
    assert done(inject(run, "vm1")).out == "simulated: the firmware gave the secrets to vm1\n"
    assert done(run("simulate", "resume", "host", "vm1")).out == "simulated: vm1 runs\n"
    seen = done(run("simulate", "guest", "host", "vm1", "--secret", f"{SECRET_LUKS}:arrived"))
    assert seen.lines == [
        "simulated: what vm1 sees",
        f"SEV: active, SEV-ES: {'active' if policy == ES else 'not active'}",
        f"secret {SECRET_LUKS} (luks-key): 10 bytes",
    ]
    assert Path("arrived").read_bytes() == b"a disk key"
    assert Path("arrived").stat().st_mode & 0o777 == 0o600
    assert done(run("simulate", "destroy", "host", "vm1")).out == "simulated: vm1 is gone\n"
    assert len(done(run("simulate", "list", "host")).lines) == 1


@pytest.mark.parametrize("at", ["host", "once"])
@pytest.mark.parametrize("fault", [fault for fault in Fault if fault.in_chain])
def test_a_chain_that_is_wrong_is_refused_by_its_check(
    run: Run, here: Path, fault: Fault, at: str
) -> None:
    option = ("--fault", fault_name(fault))
    done(run("simulate", "host", "host", "--seed", "tests", *(option if at == "host" else ())))
    done(run("simulate", "export", "host", *(option if at == "once" else ())))
    refused = run("verify", "host.chain", *TRUST, "--json")
    assert refused.code == 1
    assert json.loads(refused.out)["errors"][0]["check"] == fault.check


@pytest.mark.parametrize("at", ["host", "once"])
@pytest.mark.parametrize("fault", [fault for fault in Fault if not fault.in_chain])
def test_a_launch_that_is_wrong_is_refused_by_its_check(
    run: Run, here: Path, fault: Fault, at: str
) -> None:
    option = ("--fault", fault_name(fault))
    done(run("simulate", "host", "host", "--seed", "tests", *(option if at == "host" else ())))
    done(run("simulate", "export", "host"))
    make_session(run, "vm1", ES)
    done(start(run, "vm1", ES, *(option if at == "once" else ())))
    info = report(run, "vm1")
    if fault is Fault.REUSED_SESSION:
        release(run, "vm1", ES)
        refused = inject(run, "vm1")
        assert refused.code == 5
        assert f"LAUNCH_SECRET: 11 {fault.check}\n" in refused.err
    elif fault is Fault.DOWNGRADED_BUILD:
        done(validate(run, "vm1", ES))
        keys = sev.TransportKeys(
            tik=Path("vm1_tik.bin").read_bytes(), tek=Path("vm1_tek.bin").read_bytes()
        )
        with pytest.raises(NotVerified) as caught:
            sev.verify_launch(
                sev.LaunchInfo.from_text(info.read_text()),
                keys=keys,
                policy=sev.GuestPolicy(5),
                digest=bytes(32),
                min_build=1,
            )
        assert caught.value.check == fault.check
    else:
        refused = validate(run, "vm1", ES, "--json")
        assert refused.code == 1
        assert json.loads(refused.out)["errors"][0]["check"] == fault.check


DOMAIN = """
<domain type='kvm'>
  <name>{name}</name>
  <vcpu>2</vcpu>
  <os><loader>host/OVMF.fd</loader><kernel>host/vmlinuz</kernel><initrd>host/initrd.img</initrd>
    <cmdline>console=ttyS0</cmdline></os>
  <cpu mode='custom'><model>EPYC-Milan</model></cpu>
  {security}
</domain>
"""


def test_a_guest_of_libvirt_s_xml_is_the_one_of_the_options(run: Run, here: Path) -> None:
    launched(run)
    record = LaunchRecord.from_bytes(Path("vm1.launch.json").read_bytes())
    godh, blob = (Path(f"vm1_{name}.b64").read_text() for name in ("godh", "session"))
    security = (
        f"<launchSecurity type='sev' kernelHashes='yes'><policy>{record.policy:#x}</policy>"
        f"<dhCert>{godh}</dhCert><session>{blob}</session></launchSecurity>"
    )
    Path("vm.xml").write_text("\ufeff" + DOMAIN.format(name="vm2", security=security))
    done(run("simulate", "start", "host", "--xml", "vm.xml"))
    done(run("simulate", "start", "host", "--xml", "vm.xml", "--name", "vm3"))
    for name in ("vm2", "vm3"):
        report(run, name).rename("vm1.info")
        done(validate(run, "vm1", ES, "--ledger", "none"))


# what it is made of


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_with_a_seed_everything_is_the_same_to_the_byte(run: Run, here: Path) -> None:
    launched(run)
    Path("host").rename("first")
    done(run("simulate", "host", "host", "--seed", "tests"))
    done(run("simulate", "export", "host", "again.chain"))
    assert Path("again.chain").read_bytes() == Path("host.chain").read_bytes()
    done(start(run, "vm1", ES))
    assert tree(Path("host")) == tree(Path("first"))
    first = done(run("simulate", "domlaunchsecinfo", "host", "vm1")).out
    assert first == Path("vm1.info").read_text()
    done(run("simulate", "host", "other", "--seed", "another"))
    names = ("test-root.cert", "snp-root.der")  # all authorities of a size are one
    same = {n for n, data in tree(Path("other")).items() if data == tree(Path("host")).get(n)}
    assert same == set(names)


def test_without_one_no_two_hosts_are_the_same(run: Run, here: Path) -> None:
    for name in ("one", "two"):
        done(run("simulate", "host", name))
        done(run("simulate", "export", name, f"{name}.chain"))
    assert Path("one.chain").read_bytes() != Path("two.chain").read_bytes()


def test_each_launch_has_a_nonce_of_its_own_that_stays(run: Run, here: Path) -> None:
    launched(run)
    nonces = []
    for number in range(3):
        info = done(run("simulate", "domlaunchsecinfo", "host", "vm1")).out
        assert done(run("simulate", "domlaunchsecinfo", "host", "vm1")).out == info
        nonces.append(sev.LaunchInfo.from_text(info).nonce)
        if number:
            done(run("simulate", "destroy", "host", "vm1"))
            done(start(run, "vm1", ES))
        else:
            done(run("simulate", "resume", "host", "vm1"))
    assert nonces[0] == nonces[1] != nonces[2]


def test_only_its_owner_can_read_it(run: Run, here: Path) -> None:
    before = os.umask(0)
    try:
        launched(run)
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in Path("host").rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert {Path(name).stat().st_mode & 0o777 for name in ("host", "host/guests")} == {0o700}


def test_its_api_and_build_can_be_chosen(run: Run, here: Path) -> None:
    options = ("--generation", "rome", "--api", "0.22", "--build", "7")
    made = run("simulate", "host", "host", *options, "--fault", "replayed-measurement")
    assert made.out == (
        "simulated: a host like Rome, API 0.22 build 7, with the fault replayed-measurement, "
        "in host\n"
    )
    assert done(run("simulate", "list", "host")).out == made.out.replace(", in host", "")
    done(run("simulate", "start", "host", "--name", "a", "--policy", PLAIN, *IMAGES))
    info = sev.LaunchInfo.from_text(done(run("simulate", "domlaunchsecinfo", "host", "a")).out)
    assert (info.api_major, info.api_minor, info.build_id) == (0, 22, 7)


# what is printed


def every_command(name: str) -> Iterator[tuple[str, ...]]:
    """Yield each command of a guest's life, in an order in which all end well."""
    packet = ("--secrethdr", f"{name}_header.b64", "--secret", f"{name}_payload.b64")
    yield ("domlaunchsecinfo", "host", name)
    yield ("domsetlaunchsecstate", "host", name, *packet)
    yield ("list", "host")
    yield ("resume", "host", name)
    yield ("guest", "host", name, "--secret", f"luks-key:{name}.arrived")
    yield ("destroy", "host", name)


def lives(run: Run, *options: str) -> dict[str, Ran]:
    """Run every command with some options."""
    found = {"host": run("simulate", "host", "host", *options)}
    found["export"] = run("simulate", "export", "host", *options)
    make_session(run, "vm1", ES)
    found["start"] = start(run, "vm1", ES, *options)
    report(run, "vm1")
    release(run, "vm1", ES)
    for line in every_command("vm1"):
        found[line[0]] = run("simulate", *line, *options)
    return {name: done(ran) for name, ran in found.items()}


def test_every_document_says_that_this_is_simulated(run: Run, here: Path) -> None:
    for name, ran in lives(run, "--json").items():
        document = json.loads(ran.out)
        assert document["schema"] == f"sev-attest/simulate {name}/1"
        assert (document["ok"], document["simulated"]) == (True, True)
        assert base64.b64encode(b"a disk key").decode() not in ran.out


def test_everything_that_is_printed_says_that_it_is_simulated(run: Run, here: Path) -> None:
    for ran in lives(run, "--verbose").values():
        assert "simulated" in ran.out
        for secret in (b"a disk key", Path("vm1_tik.bin").read_bytes()):
            assert secret.hex() not in ran.out
            assert base64.b64encode(secret).decode() not in ran.out


def test_quiet_prints_what_was_asked_for_and_nothing_else(run: Run, here: Path) -> None:
    printed = {name for name, ran in lives(run, "--quiet").items() if ran.out}
    assert printed == {"domlaunchsecinfo", "list", "guest"}


def test_verbose_says_what_was_made_and_measured(run: Run, here: Path) -> None:
    found = lives(run, "-v")
    assert "test-root.cert" in found["host"].lines
    assert [line[:4] for line in found["export"].lines[1:]] == [
        "PDH ", "PEK ", "OCA ", "CEK ", "ASK ", "ARK ",
    ]  # fmt: skip
    digest = done(run("measure", *IMAGES, *CPUS, "--policy", ES)).out.strip()
    assert f"launch digest: {digest}" in found["start"].lines


def test_a_guest_without_secrets_sees_none(run: Run, here: Path) -> None:
    launched(run)
    done(run("simulate", "resume", "host", "vm1"))
    assert done(run("simulate", "guest", "host", "vm1")).lines[-1] == "no secret arrived"
    asked = run("simulate", "guest", "host", "vm1", "--secret", "luks-key:arrived")
    assert (asked.code, asked.err) == (5, "error: no secret luks-key arrived in vm1\n")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("foo:arrived", "'foo' is neither a GUID nor an alias (luks-key)"),
        ("luks-key:", "a secret is given as ALIAS-OR-GUID:PATH"),
        ("luks-key:-", "the secret luks-key is written to a file, not to standard output"),
    ],
)
def test_a_secret_that_cannot_be_written_is_a_usage_error(
    run: Run, here: Path, given: str, words: str
) -> None:
    lives(run)
    before = sorted(path.name for path in here.iterdir())
    asked = run("simulate", "guest", "host", "vm1", "--secret", given)
    assert (asked.code, asked.err.splitlines()[0]) == (2, f"error: {words}")
    assert sorted(path.name for path in here.iterdir()) == before


def test_a_binary_packet_is_taken_too(run: Run, here: Path) -> None:
    launched(run)
    release(run, "vm1", ES)
    for path in (Path("vm1_header.b64"), Path("vm1_payload.b64")):
        path.write_bytes(base64.b64decode(path.read_bytes()))
    done(inject(run, "vm1"))


# what is refused


@pytest.fixture
def small_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the memory for images of the largest size."""
    monkeypatch.setattr(simulated, "_MAX_IMAGE", 8 << 20)


def test_a_guest_takes_secrets_while_it_is_paused_alone(run: Run, here: Path) -> None:
    launched(run)
    release(run, "vm1", ES)
    early = run("simulate", "guest", "host", "vm1")
    assert early.code == 5
    assert early.err == (
        "error: vm1 is paused: a guest sees nothing before it runs\n"
        "hint: `sev-attest simulate resume` lets it run\n"
    )
    done(run("simulate", "resume", "host", "vm1"))
    late = inject(run, "vm1")
    assert (late.code, late.err.splitlines()[0]) == (5, "error: vm1 runs already")
    assert run("simulate", "resume", "host", "vm1").code == 5
    again = start(run, "vm1", ES)
    assert (again.code, again.err.splitlines()[0]) == (5, "error: there is a guest vm1 already")
    assert done(run("simulate", "guest", "host", "vm1")).lines[-1] == "no secret arrived"


def test_a_packet_of_another_launch_is_refused(run: Run, here: Path) -> None:
    launched(run)
    release(run, "vm1", ES)
    make_session(run, "vm2", ES)
    done(start(run, "vm2", ES))
    refused = inject(run, "vm2", packet="vm1")
    assert refused.code == 5
    assert refused.err == (
        "error: the simulated firmware refuses LAUNCH_SECRET: 11 BAD_MEASUREMENT\n"
        "hint: a session is for one platform and one policy, a packet of secrets for one launch\n"
    )
    done(inject(run, "vm1"))


def test_a_session_of_another_platform_or_policy_is_refused(run: Run, here: Path) -> None:
    launched(run)
    refused = start(run, "vm1", "0x7", "--name", "vm2")
    assert refused.code == 5
    assert "LAUNCH_START: 11 BAD_MEASUREMENT" in refused.err
    Path("host").rename("first")
    done(run("simulate", "host", "host"))
    assert "LAUNCH_START: 11 BAD_MEASUREMENT" in start(run, "vm1", ES).err
    assert len(done(run("simulate", "list", "host")).lines) == 1


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (["--policy", "0x02380005"], 4, "LAUNCH_START: 7 POLICY_FAILURE"),
        (["--godh", "zeros"], 6, "INVALID_CERTIFICATE"),
        (["--godh", "disk.key"], 6, "disk.key: GODH: 11 characters that are no base64"),
        (["--session", "zeros"], 6, "zeros: session: 2084 bytes, expected 128"),
        (["--firmware", "odd"], 4, "the firmware's size is not a multiple of 4096"),
        (["--firmware", "empty", "--fault", "wrong-firmware-byte"], 4, "the firmware's size"),
        (["--firmware", "bare"], 4, "guest firmware has no hashes table GUID"),
        (["--firmware", "nowhere"], 6, "nowhere: No such file or directory"),
        (["--firmware", "host"], 6, "host: this is a folder, not a file"),
        (["--kernel", "/dev/zero"], 6, "/dev/zero: image: more than 8388608 bytes"),
        (["--cpu-model-name", "Opteron"], 2, "'Opteron' is not one of the CPU models EPYC, "),
        (["--num-cpus", "0"], 2, "0 is not in 1..4096"),
        (["--policy", "4294967296"], 2, "is not in 0..4294967295"),
        (["--name", "../vm1"], 2, "'../vm1' cannot be a guest's name here"),
        (["--name", ""], 2, "'' cannot be a guest's name here"),
        (["--name", "a" * 101], 2, "cannot be a guest's name here: 1 to 100 letters"),
        (["--name", "-a"], 2, "the first a letter, a digit or _"),
        (["--fault", "forged-root"], 2, "'forged-root' is not one of"),
        (["--policy", "1", "--fault", "other-vcpu-count"], 2, "shows with an SEV-ES policy only"),
        (["--vmsa-profile", "ec2"], 2, "'ec2' is not one of"),
        (["--xml", "vm.xml"], 2, "--xml excludes --policy, --godh, --session, --firmware, "),
        (["--initrd", "-", "--kernel", "-"], 2, "only one input can be standard input"),
    ],
)
def test_a_launch_that_cannot_be_is_refused_in_words(
    run: Run, here: Path, small_images: None, change: list[str], code: int, words: str
) -> None:
    launched(run)
    Path("disk.key").write_bytes(b"a disk key!")
    Path("zeros").write_bytes(bytes(2084))
    Path("odd").write_bytes(bytes(4095))
    Path("empty").touch()
    Path("bare").write_bytes(ovmf_image(4096, hash_table=None))
    refused = start(run, "vm1", ES, "--name", "vm2", *change)
    assert refused.code == code, refused.err
    assert words in refused.err
    assert [path.name for path in Path("host/guests").iterdir()] == ["vm1.json"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "--name, --policy, --firmware (or --xml) are needed"),
        (
            "--name a --policy 1 --firmware host/OVMF.fd --godh g",
            "--godh and --session go together",
        ),
        (
            "--name a --policy 1 --firmware host/OVMF.fd --initrd i",
            "--kernel is needed for --initrd",
        ),
        ("--firmware host/OVMF.fd --cmdline c", "--kernel is needed for --cmdline"),
    ],
)
def test_options_that_are_missing_are_named(run: Run, here: Path, line: str, words: str) -> None:
    done(run("simulate", "host", "host"))
    refused = run("simulate", "start", "host", *line.split())
    assert (refused.code, words in refused.err) == (2, True)


SECURITY = "<launchSecurity type='sev'><policy>{policy}</policy>{more}</launchSecurity>"


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (("<domain", "<!DOCTYPE x><domain"), 6, "vm.xml: domain XML"),
        (("</domain>", ""), 6, "vm.xml: domain XML"),
        (("type='sev'", "type='sev-snp'"), 4, "no <launchSecurity type='sev'> with a <policy>"),
        (("<policy>0x1</policy>", ""), 4, "hint: `sev-attest domain prepare` puts a session in"),
        (("0x1", "0x5"), 4, "needs: <cpu><model>EPYC-Milan</model></cpu>"),
        (("0x1", "zz"), 6, "its policy, dhCert, session or vcpu cannot be read"),
        (("0x1", "-5"), 6, "the policy has 32 bits"),
        (("0x1", "0x100000000"), 6, "the policy has 32 bits"),
        (("<vcpu>2", "<vcpu>0"), 6, "1 to 4096 vCPUs"),
        (("<vcpu>2", "<vcpu>4097"), 6, "1 to 4096 vCPUs"),
        (("<vcpu>2", "<vcpu>two"), 6, "cannot be read"),
        (("</policy>", "</policy><dhCert>abc</dhCert>"), 6, "cannot be read"),
        (("host/OVMF.fd", "nowhere"), 6, "nowhere: No such file"),
        (("host/OVMF.fd", "/dev/zero"), 6, "/dev/zero: image: more than"),
        (("<name>vm2</name>", ""), 2, "'' cannot be a guest's name"),
        (("<name>vm2", "<name>a/b"), 2, "'a/b' cannot be a guest's name"),
    ],
)
def test_a_domain_that_cannot_be_launched_is_refused_in_words(
    run: Run, here: Path, small_images: None, change: tuple[str, str], code: int, words: str
) -> None:
    done(run("simulate", "host", "host"))
    xml = DOMAIN.format(name="vm2", security=SECURITY.format(policy="0x1", more=""))
    xml = xml.replace("<model>EPYC-Milan</model>", "").strip()
    Path("vm.xml").write_text(xml)
    done(run("simulate", "start", "host", "--xml", "vm.xml", "--name", "first"))
    assert change[0] in xml
    Path("vm.xml").write_text(xml.replace(*change))
    refused = run("simulate", "start", "host", "--xml", "vm.xml")
    assert refused.code == code, refused.err
    assert words in refused.err


def test_a_domain_with_an_unknown_cpu_is_refused_in_words(run: Run, here: Path) -> None:
    done(run("simulate", "host", "host"))
    xml = DOMAIN.format(name="vm2", security=SECURITY.format(policy="0x5", more=""))
    Path("vm.xml").write_text(xml.strip().replace("EPYC-Milan", "Opteron"))
    refused = run("simulate", "start", "host", "--xml", "vm.xml")
    assert (refused.code, "'Opteron' is not one of the CPU models" in refused.err) == (2, True)


@pytest.mark.parametrize(
    ("files", "code", "words"),
    [
        (("disk.key", "payload"), 6, "disk.key: header: 11 characters that are no base64"),
        (("payload", "payload"), 6, "payload: header: 48 bytes, expected 52"),
        (("header", "disk.key"), 6, "disk.key: secret"),
        (("header", "odd"), 6, "LAUNCH_SECRET: 4 INVALID_LEN"),
        (("header", "empty"), 6, "LAUNCH_SECRET: 4 INVALID_LEN"),
        (("header", "large"), 4, "16400 bytes do not fit into the secret area of 3072"),
        (("header", "payload"), 5, "LAUNCH_SECRET: 11 BAD_MEASUREMENT"),
        (("-", "-"), 2, "only one input can be standard input"),
        (("header", "host"), 6, "host: this is a folder, not a file"),
    ],
)
def test_a_packet_that_is_none_is_refused_in_words(
    run: Run, here: Path, files: tuple[str, str], code: int, words: str
) -> None:
    launched(run)
    sizes = {"header": 52, "payload": 48, "odd": 47, "large": 16400, "empty": 0}
    for name, size in sizes.items():
        Path(name).write_bytes(b"\xff" * size)
    Path("disk.key").write_bytes(b"a disk key!")
    options = ("--secrethdr", files[0], "--secret", files[1])
    refused = run("simulate", "domsetlaunchsecstate", "host", "vm1", *options)
    assert refused.code == code, refused.err
    assert words in refused.err


def test_a_packet_that_holds_no_table_is_named(run: Run, here: Path) -> None:
    """Only who has the session's keys can make one: the firmware accepts it."""
    launched(run)
    release(run, "vm1", ES)
    keys = sev.TransportKeys(
        tik=Path("vm1_tik.bin").read_bytes(), tek=Path("vm1_tek.bin").read_bytes()
    )
    measure = sev.LaunchInfo.from_text(Path("vm1.info").read_text()).measure
    packet = secret_packet(keys, measure, bytes(64), iv=bytes(16))
    Path("vm1_header.b64").write_bytes(packet.header)
    Path("vm1_payload.b64").write_bytes(packet.payload)
    refused = inject(run, "vm1")
    assert (refused.code, refused.err) == (6, "error: secret: this is not a table of secrets\n")


NAMED = ("domlaunchsecinfo", "resume", "destroy", "guest")


@pytest.mark.parametrize("name", NAMED)
def test_an_unknown_guest_is_named(run: Run, here: Path, name: str) -> None:
    done(run("simulate", "host", "host"))
    refused = run("simulate", name, "host", "vm9")
    assert refused.code == 5
    assert refused.err == (
        "error: there is no guest vm9 on this simulated host\n"
        "hint: `sev-attest simulate list` shows its guests\n"
    )
    assert run("simulate", name, "host", "../vm9").code == 2
    assert run("simulate", name, "host").code == 2
    document = json.loads(run("simulate", name, "host", "vm9", "--json").out)
    assert document["schema"] == f"sev-attest/simulate {name}/1"
    assert document["errors"][0]["check"] == "simulate.unknown"


@pytest.mark.parametrize("name", [*NAMED, "list", "export", "start"])
def test_a_folder_that_is_no_host_is_named(run: Run, here: Path, name: str) -> None:
    more = {"list": (), "export": (), "start": ("--name", "a")}.get(name, ("vm1",))
    missing = run("simulate", name, "nowhere", *more)
    assert (missing.code, missing.err) == (
        6,
        ("error: nowhere: No such file or directory\nhint: `sev-attest simulate host` makes one\n"),
    )
    assert run("simulate", name, "", *more).code == 2
    Path("file").touch()
    for path in (".", "file"):
        other = run("simulate", name, path, *more)
        assert other.code == 6
        assert other.err.startswith(f"error: {path} is no simulated host: it has no ")
        assert other.err.endswith("hint: `sev-attest simulate host` makes one\n")
    Path("kept").mkdir()
    done(run("simulate", "host", "kept/host"))
    assert "hint: kept/host is one; " in run("simulate", name, "kept", *more).err


def test_a_host_is_never_made_over_something(run: Run, here: Path) -> None:
    Path("there").mkdir()
    Path("file").touch()
    Path("link").symlink_to("nowhere")
    for name in ("there", "file", "link", "."):
        refused = run("simulate", "host", name)
        assert (refused.code, refused.err) == (
            6,
            f"error: {name}: exists already\nhint: choose another name\n",
        )
    refused = run("simulate", "host", "no/where")
    assert (refused.code, refused.err) == (6, "error: no/where: No such file or directory\n")
    for line in (["x", "--seed", ""], ["x", "--api", "1"], ["x", "--build", "256"],
                 ["x", "--generation", "zen"], ["-"], []):  # fmt: skip
        assert run("simulate", "host", *line).code == 2
    refused = run("simulate", "host", "x", "--api", "1")
    assert "'1' is no API version: MAJOR.MINOR, such as 1.55" in refused.err
    assert sorted(path.name for path in here.iterdir()) == ["file", "link", "there"]


def test_no_file_is_written_over(run: Run, here: Path) -> None:
    launched(run)
    release(run, "vm1", ES)
    done(inject(run, "vm1"))
    done(run("simulate", "resume", "host", "vm1"))
    for line in (["export", "host"], ["guest", "host", "vm1", "-s", "luks-key:disk.key"]):
        refused = run("simulate", *line)
        assert refused.code == 6
        assert "--force" in refused.err
        done(run("simulate", *line, "--force"))
    assert run("simulate", "guest", "host", "vm1", "--secret", "luks-key").code == 2


JUNK: tuple[object, ...] = (
    None,
    True,
    -1,
    1 << 70,
    1.5,
    "",
    "zz",
    "00",
    [],
    [1],
    [1, -1],
    {},
    {"a": 1},
    [[], []],
)


@pytest.mark.parametrize("path", ["host/simulated-host.json", "host/guests/vm1.json"])
def test_damaged_state_is_an_error_never_a_bug(run: Run, here: Path, path: str) -> None:
    launched(run)
    whole = Path(path).read_bytes()
    document = json.loads(whole)
    cuts = [whole[:size] for size in range(0, len(whole) - 1, 61)]
    changed = [
        {**document, name: value}
        for name in document
        for value in JUNK
        if document[name] != value or type(document[name]) is not type(value)
    ]
    lacking = [{n: v for n, v in document.items() if n != name} for name in document]
    texts = [json.dumps(one).encode() for one in (*changed, *lacking)]
    codes = set()
    for text in (*cuts, *texts, b"[" * 100_000, b"[]", b"\xff", b"1" * (1 << 21)):
        Path(path).write_bytes(text)
        ran = run("simulate", "list", "host")
        assert ran.code in (0, 6), (text, ran.err)
        codes.add(ran.code)
        if ran.code:
            assert ran.err.startswith(f"error: {path}: simulated ")
    assert codes == {0, 6}  # what is not needed may have any value


@pytest.mark.parametrize("path", ["host/simulated-host.json", "host/guests/vm1.json"])
def test_state_is_read_from_regular_files_and_nothing_waits(
    run: Run, here: Path, path: str
) -> None:
    launched(run)
    Path(path).unlink()
    os.mkfifo(path)
    ran = run("simulate", "list", "host")
    assert (ran.code, "this is no regular file" in ran.err) == (6, True)
    Path(path).unlink()
    Path(path).mkdir()
    assert run("simulate", "list", "host").code == 6


def test_no_name_of_a_secret_steers_a_terminal(run: Run, here: Path) -> None:
    launched(run)
    done(run("simulate", "resume", "host", "vm1"))
    path = Path("host/guests/vm1.json")
    document = json.loads(path.read_bytes())
    for name in ("\x1b[2Jcleared", "736869e5-84f0-4973-92ec-06879ce3da0b\n", "luks-key"):
        path.write_text(json.dumps(document | {"secrets": {name: "00"}}))
        ran = run("simulate", "guest", "host", "vm1")
        assert (ran.code, "secrets: is missing or damaged" in ran.err) == (6, True)
        assert "\x1b" not in ran.out + ran.err


def test_the_last_launch_that_can_be_counted_leaves_a_host_that_can_be_read(
    run: Run, here: Path
) -> None:
    launched(run)
    path = Path("host/simulated-host.json")
    document = json.loads(path.read_bytes())
    path.write_text(json.dumps(document | {"launches": (1 << 63) - 1}))
    done(start(run, "vm1", ES, "--name", "vm2"))
    ran = start(run, "vm1", ES, "--name", "vm3")
    assert (ran.code, "cannot count another launch" in ran.err) == (5, True)
    assert [line.split()[1] for line in done(run("simulate", "list", "host")).lines[1:]] == [
        "vm1",
        "vm2",
    ]


# several processes


def processes(lines: Sequence[tuple[str, ...]]) -> list[tuple[int, str]]:
    """Run commands at once; return exit code and errors of each."""
    started = [
        subprocess.Popen(
            [*TOOL, "simulate", *line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for line in lines
    ]
    ended = [(one, one.communicate()[1]) for one in started]
    return [(one.returncode, said) for one, said in ended]


def test_commands_at_once_lose_nothing(run: Run, here: Path) -> None:
    done(run("simulate", "host", "host"))
    guest = ("--policy", PLAIN, "--firmware", "host/OVMF.fd")
    names = [f"vm{number}" for number in range(6)]
    lines = [("start", "host", "--name", name, *guest) for name in names]
    assert [code for code, _ in processes(lines)] == [0] * 6
    shown = json.loads(done(run("simulate", "list", "host", "--json")).out)["guests"]
    assert [one["guest"] for one in shown] == names
    assert len({base64.b64decode(one["measurement"])[32:] for one in shown}) == 6
    assert json.loads(Path("host/simulated-host.json").read_text())["launches"] == 6


@pytest.mark.parametrize("verb", ["start", "resume", "destroy"])
def test_of_several_that_want_the_same_one_succeeds(run: Run, here: Path, verb: str) -> None:
    done(run("simulate", "host", "host"))
    guest = ("--name", "vm1", "--policy", PLAIN, "--firmware", "host/OVMF.fd")
    if verb != "start":
        done(run("simulate", "start", "host", *guest))
    line = (verb, "host", *(guest if verb == "start" else ("vm1",)))
    ended = processes([line] * 4)
    assert sorted(code for code, _ in ended) == [0, 5, 5, 5]
    assert all(said == "" for code, said in ended if not code)


def test_of_several_that_make_one_host_one_succeeds(here: Path) -> None:
    ended = processes([("host", "host")] * 4)
    assert sorted(code for code, _ in ended) == [0, 6, 6, 6]
    assert [path.name for path in here.iterdir()] == ["host"]


KILLED = """
import os, sys
from sev_attest.cli.main import main
sync, left = os.fsync, int(sys.argv.pop(1))
def die(descriptor):
    global left
    sync(descriptor)
    left -= 1
    if left < 0: os.kill(os.getpid(), {signal})
os.fsync = die
main()
"""


@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize("signal", [9, 15])
def test_who_is_killed_leaves_nothing_half_written(
    run: Run, here: Path, signal: int, at: int
) -> None:
    launched(run)
    done(run("simulate", "destroy", "host", "vm1"))
    files = ("--godh", "vm1_godh.b64", "--session", "vm1_session.b64")
    guest = ("--name", "vm1", "--policy", ES, *files, *IMAGES, *CPUS)
    line = [sys.executable, "-c", KILLED.format(signal=signal), str(at), "simulate"]
    ended = subprocess.run([*line, "start", "host", *guest], capture_output=True, check=False)
    assert ended.returncode == (0 if at == 2 else -9 if signal == 9 else 130)
    assert len(done(run("simulate", "list", "host")).lines) == (2 if at == 2 else 1)
    if at < 2:
        done(start(run, "vm1", ES))
    report(run, "vm1")
    done(validate(run, "vm1", ES))
    made = subprocess.run([*line, "host", "another"], capture_output=True, check=False)
    assert made.returncode in (-9, 130)
    assert not Path("another").exists()
    if signal == 15:
        assert not re.findall(r"\.sev-attest\.", " ".join(os.listdir()))  # noqa: PTH208
    done(run("simulate", "host", "another"))
