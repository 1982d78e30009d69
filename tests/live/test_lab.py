"""The lab: a guest owner's whole work with the real libvirtd, virsh, QEMU (TCG) and OVMF."""

import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import pytest

from console import commands, outputs
from sev_attest import sev
from sev_attest.domain_xml.domain import parse_domain
from sev_attest.domain_xml.prepare import prepare
from sev_attest.domain_xml.rule import Severity, Subject
from sev_attest.domain_xml.rules import apply_rules
from sev_attest.domain_xml.versions import Versions
from sev_attest.guest import CpuModel, Firmware
from sev_attest.owner import Ledger
from sev_attest.testing import Fault, ovmf_image
from sev_attest.testing.host import fault_name
from sev_attest.testing.lab import AnyFault, Lab, MonitorFault, Ran
from test_cli_owner import DIGEST, OWNER
from test_domain_xml import CLEAN, LOADER, SESSION

pytestmark = pytest.mark.skipif(
    os.geteuid() == 0, reason="libvirtd's session mode is not for root: see docs/lab.md"
)

PAGE = (Path(__file__).parents[2] / "docs" / "lab.md").read_text()
OVMF = Path("/usr/share/ovmf/OVMF.fd")
"""Debian's generic build: since 2026.08 it has areas for kernel hashes and for secrets."""
AMDSEV = OVMF.with_name("OVMF.amdsev.fd")
ARRIVED = "secret 736869e5-84f0-4973-92ec-06879ce3da0b: 12 bytes"
PEER = "virt-qemu-sev-validate"
CPU = ("--cpu-family", "25", "--cpu-model", "1", "--cpu-stepping", "1")
CMDLINE = "console=ttyS0  quiet "


def a_kernel() -> bytes:
    """Return bytes that QEMU accepts as a kernel."""
    image = bytearray(8192)
    image[0x1F1] = 1  # setup_sects
    image[0x1FE:0x200] = b"\x55\xaa"
    struct.pack_into("<4sH", image, 0x202, b"HdrS", 0x20C)
    image[0x211] = 1  # loaded high
    struct.pack_into("<I", image, 0x22C, 0x7FFF_FFFF)  # initrd_addr_max
    return bytes(image)


def amdsev() -> bytes:
    """Return an OVMF of the AmdSev kind if one is installed, else an image with its footer."""
    folder = os.environ.get("SEV_ATTEST_REAL_DATA")
    places = [Path(folder, "firmware", AMDSEV.name)] if folder else []
    found = [place for place in (*places, AMDSEV) if os.access(place, os.R_OK)]
    return found[0].read_bytes() if found else ovmf_image(1 << 20)


@dataclass
class Guest:
    """A guest as its owner wants it; the host's files are copies of the owner's."""

    name: str
    policy: int
    firmware: str = "amdsev.fd"
    vcpus: int = 2
    kernel: bool = False
    loader: str = "type='rom'"

    def xml(self, lab: Lab) -> str:
        """Return its domain's XML, without a session."""
        images = lab.folder / "images"
        boot = ""
        if self.kernel:
            boot = f"<kernel>{images}/vmlinuz</kernel><initrd>{images}/initrd</initrd>"
            boot += f"<cmdline>{CMDLINE}</cmdline>"
        return f"""
<domain type='qemu'>
  <name>{self.name}</name>
  <memory unit='MiB'>256</memory>
  <vcpu>{self.vcpus}</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <loader {self.loader} stateless='yes'>{images}/{self.firmware}</loader>
    {boot}
  </os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact' check='none'><model fallback='forbid'>EPYC-Milan</model></cpu>
  <devices><emulator>{lab.folder}/bin/qemu-system-x86_64</emulator></devices>
  <launchSecurity type='sev'><policy>{self.policy:#x}</policy></launchSecurity>
</domain>
"""


@dataclass
class Owner:
    """The owner: a folder with files, and commands that run in it."""

    lab: Lab
    folder: Path

    def path(self, name: str) -> Path:
        return self.folder / name

    def sev_attest(self, *arguments: object, code: int = 0) -> Ran:
        ran = self.lab.run(sys.executable, "-m", "sev_attest", *arguments)
        assert ran.code == code, ran.err
        assert "Traceback" not in ran.err
        return ran

    def trust(self) -> tuple[object, ...]:
        root = self.lab.folder / "test-root.cert"
        return ("--cek", self.lab.folder / "cek.cert", "--trust-root", root)

    def make_session(self, guest: Guest) -> str:
        """Fetch the chain, verify it, make a session. Return the <launchSecurity> element."""
        sev_info = self.lab.virsh("nodesevinfo")
        chain = self.path(f"{guest.name}.info")
        chain.write_text(sev_info.out)
        # What libvirt passes on is the firmware's CEK; AMD serves the signed one.
        trust = self.trust()
        self.sev_attest("verify", chain, *trust)
        hashes = ["--kernel-hashes"] if guest.kernel else []
        names = ("--name", guest.name, "--out", self.folder)
        return self.sev_attest("session", *names, chain, guest.policy, *trust, *hashes).out

    def prepare(self, guest: Guest) -> Path:
        """Put the session into the domain's XML. Return the file to define."""
        xml, prepared = self.path(f"{guest.name}.xml"), self.path(f"{guest.name}-prepared.xml")
        xml.write_text(guest.xml(self.lab))
        session = ("--session", self.path(guest.name))
        # It cannot be mended that the lab has no KVM: that is named, and nothing else.
        ran = self.sev_attest("domain", "prepare", xml, *session, "--output", prepared, code=4)
        errors = [line.split(",")[0] for line in ran.err.splitlines() if line.startswith("E ")]
        assert errors == ["E domain.type"], ran.err
        # A libvirtd without privileges may lock no memory, and TCG has no need of it.
        text = prepared.read_text()
        assert text.count("<locked/>") == 1
        prepared.write_text(text.replace("<locked/>", ""))
        return prepared

    def launch(self, guest: Guest, policy: str = "") -> Ran:
        """Define the domain on the host and start it, paused, possibly with another policy."""
        xml = self.prepare(guest)
        if policy:
            xml.write_text(re.sub("<policy>[^<]*", f"<policy>{policy}", xml.read_text()))
        assert self.lab.virsh("define", xml).code == 0
        return self.lab.virsh("start", "--paused", guest.name)

    def launched(self, guest: Guest) -> None:
        """Go from the chain to the guest that is paused."""
        self.make_session(guest)
        assert self.launch(guest).code == 0

    def keys(self, guest: Guest) -> tuple[object, ...]:
        files = (self.path(f"{guest.name}_{key}.bin") for key in ("tik", "tek"))
        return tuple(word for pair in zip(("--tik", "--tek"), files, strict=True) for word in pair)

    def record(self, guest: Guest) -> tuple[object, ...]:
        return ("--record", self.path(f"{guest.name}.launch.json"))

    def describe(self, guest: Guest) -> tuple[object, ...]:
        """Return the options that describe the guest, except for its CPU."""
        options: tuple[object, ...] = ("--firmware", self.path(guest.firmware))
        if guest.policy & 4:
            options += ("--num-cpus", guest.vcpus, *CPU)
        if guest.kernel:
            options += ("--kernel", self.path("vmlinuz"), "--initrd", self.path("initrd"))
            options += ("--cmdline", CMDLINE)
        return options

    def launch_words(self, guest: Guest, *options: object) -> list[object]:
        """Return the one command that launches a guest, from XML without a session.

        With --domain among the options, it launches a domain of the host.
        """
        where: tuple[object, ...] = ()
        if "--domain" not in options:
            xml = self.path(f"{guest.name}.xml")
            xml.write_text(guest.xml(self.lab))
            where = ("--xml", xml)
        # The lab has no KVM and may lock no memory: these errors of the XML cannot be fixed.
        known = ("--no-prepare", "--ignore-config", "--insecure", "--policy", guest.policy)
        reached = ("--connect", self.lab.uri, *self.trust())
        return ["launch", *reached, *where, *known, *self.describe(guest), *options]

    def whole_launch(self, guest: Guest, *options: object, code: int = 0) -> Ran:
        """Launch a guest with one command."""
        return self.sev_attest(*self.launch_words(guest, *options), code=code)

    def secret(self) -> tuple[object, ...]:
        return ("--inject-secret", f"luks-key:{self.path('disk.key')}")

    def arrived(self) -> list[str]:
        """Take the notes of what guests have been given."""
        log = self.lab.folder / "standin.log"
        lines = [line for line in log.read_text().splitlines() if line.startswith("secret ")]
        log.write_text("")
        return lines

    def connect(self, guest: Guest) -> tuple[object, ...]:
        return ("--connect", self.lab.uri, "--domain", guest.name, "--insecure")


def show(text: str) -> None:
    """Print commands and their output, without long base64."""
    print(re.sub(r"[A-Za-z0-9+/=]{100,}", lambda found: f"{found[0][:24]}...", text))


@contextmanager
def lab_of_its_own(fault: AnyFault | None = None) -> Iterator[Lab]:
    """Start a host without caches, and remove it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="sev-lab-"))
    try:
        with Lab(folder, fault=fault, show=show) as host:
            yield host
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Start a host for all tests."""
    with lab_of_its_own() as host:
        yield host


@pytest.fixture(scope="module")
def owner(lab: Lab) -> Iterator[Owner]:
    """Return an owner with a folder; the guests' files are there and on the host."""
    with tempfile.TemporaryDirectory(prefix="sev-owner-") as name:
        files = {"amdsev.fd": amdsev(), "vmlinuz": a_kernel(), "initrd": b"an initrd"}
        files |= {"ovmf.fd": OVMF.read_bytes(), "disk.key": b"the disk key"}
        files["without.fd"] = ovmf_image(1 << 20, hash_table=None, secret_area=None)
        for file, data in files.items():
            Path(name, file).write_bytes(data)
            (lab.folder / "images" / file).write_bytes(data)
        yield Owner(lab, Path(name))


GUESTS = [
    Guest("sev", policy=0x1),
    Guest("sev-kernel", policy=0x1, kernel=True),
    Guest("sev-es", policy=0x5, vcpus=3),
    Guest("sev-es-kernel", policy=0x5, kernel=True),
    Guest("sev-es-flash", policy=0x5, loader="type='pflash' readonly='yes'"),
]


@pytest.mark.parametrize("guest", GUESTS, ids=lambda guest: guest.name)
def test_the_whole_story(lab: Lab, owner: Owner, guest: Guest) -> None:
    owner.launched(guest)
    info = lab.virsh("domlaunchsecinfo", guest.name)
    owner.path("info").write_text(info.out)
    known = (*owner.keys(guest), *owner.describe(guest))
    offline = owner.sev_attest(
        "validate", "--launch-info", owner.path("info"), *known, *owner.record(guest)
    )
    assert offline.out.startswith("OK: Looks good to me")
    peer = lab.run(PEER, *known, *owner.connect(guest))
    assert (peer.code, peer.out) == (0, "OK: Looks good to me\n")
    secret = ("--inject-secret", f"luks-key:{owner.path('disk.key')}")
    ours = owner.sev_attest(
        "validate", *known, *owner.record(guest), *owner.connect(guest), *secret
    )
    assert ours.out.splitlines()[:2] == ["OK: Looks good to me", "OK: Injected 1 secrets"]
    assert lab.virsh("domstate", guest.name).out.strip() == "running"
    assert owner.arrived() == [ARRIVED]
    again = owner.sev_attest("validate", *known, *owner.connect(guest)[:-1], *secret, code=3)
    assert "host itself" in again.err
    again = owner.sev_attest("validate", *known, *owner.connect(guest), *secret, code=5)
    assert f"session {guest.name} is released" in again.err
    unkept = ("--ledger", "none")
    again = owner.sev_attest("validate", *known, *owner.connect(guest), *secret, *unkept, code=5)
    assert "paused" in again.err
    assert lab.virsh("destroy", guest.name).code == 0
    gone = owner.sev_attest("validate", *known, *owner.connect(guest), code=5)
    assert "does not run" in gone.err


def test_its_page_goes_as_it_stands_from_the_chain_to_the_secret(
    lab: Lab, owner: Owner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, page = PAGE.partition("In another terminal")
    (tmp_path / "lab").symlink_to(lab.folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", lab.uri)
    (lab.folder / "standin.log").write_text("")
    typed = commands(page)
    printed = outputs([command for command, _ in typed], tmp_path)
    for (command, shown), found in zip(typed, printed, strict=True):
        show(f"$ {command}\n{found}")
        assert "error:" not in found
        assert shown in found
    assert len(typed) > 10
    assert lab.virsh("undefine", "vm1").code == 0
    assert len(owner.arrived()) == 2  # of validate, and of launch


def state_of(lab: Lab, guest: Guest) -> str:
    """Return the state of a guest's domain; empty if the host has none."""
    return lab.virsh("domstate", guest.name).out.strip()


def forget(lab: Lab, guest: Guest) -> None:
    """Remove a guest and its domain, if they are there."""
    lab.virsh("destroy", guest.name)
    lab.virsh("undefine", guest.name)


@pytest.mark.parametrize("guest", GUESTS, ids=lambda guest: guest.name)
def test_a_launch_in_one_command(lab: Lab, owner: Owner, guest: Guest) -> None:
    guest = replace(guest, name=f"launch-{guest.name}")
    ran = owner.whole_launch(guest, "--dry-run")
    assert ran.out.startswith(f"OK: {guest.name} can be launched: nothing was changed")
    assert state_of(lab, guest) == ""
    ran = owner.whole_launch(guest, *owner.secret())
    assert ran.out.splitlines()[:2] == ["OK: Looks good to me", "OK: Injected 1 secrets"]
    assert "errors in the XML are ignored: " in ran.err
    assert (state_of(lab, guest), owner.arrived()) == ("running", [ARRIVED])
    ran = owner.whole_launch(guest, *owner.secret(), code=5)
    assert "runs on the host already" in ran.err
    assert lab.virsh("destroy", guest.name).code == 0
    ran = owner.whole_launch(guest, *owner.secret(), code=5)
    assert "exists on the host, and differs" in ran.err
    again = ("--domain", guest.name)
    ran = owner.whole_launch(guest, *owner.secret(), *again)
    assert "would" not in ran.out
    assert (state_of(lab, guest), owner.arrived()) == ("running", [ARRIVED])
    assert lab.virsh("destroy", guest.name).code == 0
    assert lab.virsh("undefine", guest.name).code == 0


@pytest.mark.parametrize("policy", [1, 5], ids=["sev", "sev-es"])
def test_a_launch_that_is_refused_leaves_no_guest_and_no_secret(
    lab: Lab, owner: Owner, policy: int
) -> None:
    guest = Guest(f"launch-refused-{policy}", policy=policy)
    image = lab.folder / "images" / guest.firmware
    image.write_bytes(b"\1" + image.read_bytes()[1:])
    try:
        ran = owner.whole_launch(guest, *owner.secret(), code=1)
        assert "Measurement does not match, VM is not trustworthy" in ran.err
        assert "the guest was destroyed, and the domain is not defined any more; no" in ran.err
        assert (state_of(lab, guest), owner.arrived()) == ("", [])
        ran = owner.whole_launch(guest, *owner.secret(), "--on-refusal", "leave", code=1)
        assert "the guest is left on the host, paused" in ran.err
        assert (state_of(lab, guest), owner.arrived()) == ("paused", [])
        lab.virsh("destroy", guest.name)
        before = lab.virsh("dumpxml", guest.name).out
        ran = owner.whole_launch(guest, "--domain", guest.name, code=1)
        assert "the domain has the definition that it had before" in ran.err
        assert lab.virsh("dumpxml", guest.name).out == before
    finally:
        image.write_bytes(owner.path(guest.firmware).read_bytes())
        lab.virsh("undefine", guest.name)
    ran = owner.whole_launch(guest, "--inject-secret", f"luks-key:{owner.folder}", code=6)
    assert "the measurement itself is right" in ran.err
    assert (state_of(lab, guest), owner.arrived()) == ("", [])


@pytest.mark.parametrize("policy", [1, 5], ids=["sev", "sev-es"])
def test_a_launch_that_its_owner_does_not_accept_leaves_no_guest(
    lab: Lab, owner: Owner, policy: int
) -> None:
    guest = Guest(f"launch-unmet-{policy}", policy=policy)
    demands = owner.path(f"unmet-{policy}.toml")
    owner.sev_attest("requirements", "init", demands)
    ran = owner.whole_launch(guest, "--requirements", demands, *owner.secret(), code=1)
    assert "the measurement itself is right" in ran.err
    assert (state_of(lab, guest), owner.arrived()) == ("", [])
    # Firmware that can take no secret is not started for one.
    ran = owner.whole_launch(replace(guest, firmware="without.fd"), *owner.secret(), code=2)
    assert "no area" in ran.err
    assert (state_of(lab, guest), owner.arrived()) == ("", [])


@dataclass
class Waiting:
    """A launch whose measurement is right, and which waits for its secret."""

    process: subprocess.Popen[str]
    pipe: Path
    rest: str = ""
    """What it printed from then on, when it has ended."""

    def get_secret(self) -> None:
        """Let it have its secret."""
        self.pipe.write_bytes(b"the disk key")


@contextmanager
def measured(owner: Owner, guest: Guest) -> Iterator[Waiting]:
    """Launch a guest, and wait until its measurement is right."""
    pipe = owner.path(f"{guest.name}.pipe")
    os.mkfifo(pipe)
    # Then it reads its secret, from a pipe into which nobody has written.
    words = owner.launch_words(guest, "--inject-secret", f"luks-key:{pipe}")
    with subprocess.Popen(
        [sys.executable, "-m", "sev_attest", *map(str, words)],
        stderr=subprocess.PIPE,
        text=True,
        # The program leaves a signal alone that the tests were started to ignore.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one thread
    ) as process:
        assert process.stderr is not None
        seen: list[str] = []
        while not seen or not seen[-1].startswith("measure: "):
            seen.append(process.stderr.readline())
            assert seen[-1], seen
        waiting = Waiting(process, pipe)
        try:
            yield waiting
        except BaseException:
            process.kill()  # otherwise it waits for ever
            raise
        waiting.rest = process.stderr.read()
    show(f"$ sev-attest launch ...\n{''.join(seen)}{waiting.rest}")
    assert "Traceback" not in waiting.rest


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_a_launch_that_a_signal_ends_releases_nothing(lab: Lab, owner: Owner, name: str) -> None:
    guest = Guest(f"launch-{name}", policy=5)
    with measured(owner, guest) as waiting:
        waiting.process.send_signal(getattr(signal, name))
    killed, rest = name == "SIGKILL", waiting.rest
    assert waiting.process.returncode == (-signal.SIGKILL if killed else 130)
    assert ("the guest was destroyed" in rest) is not killed
    # Who is killed can clean up nothing: the guest is paused, and has nothing.
    assert (state_of(lab, guest), owner.arrived()) == ("paused" if killed else "", [])
    (entry,) = [
        line for line in owner.sev_attest("ledger", "list").out.splitlines() if guest.name in line
    ]
    assert ("created" if killed else "failed") in entry
    forget(lab, guest)


def test_a_launch_that_cannot_begin_changes_nothing(lab: Lab, owner: Owner) -> None:
    guest = Guest("launch-nothing", policy=1)
    xml = owner.path("launch-nothing.xml")
    xml.write_text(guest.xml(lab))
    known = ("launch", "--connect", lab.uri, "--xml", xml, "--policy", "1", *owner.describe(guest))
    assert "host itself" in owner.sev_attest(*known, *owner.trust(), code=3).err
    unsigned = owner.sev_attest(*known, "--insecure", *owner.trust()[2:], code=1)
    assert "--cek" in unsigned.err
    ran = owner.sev_attest(*known, "--insecure", *owner.trust(), code=4)
    assert "this domain cannot be attested: domain.type" in ran.err
    # The host's machine types may not have this one: libvirt says so when it is defined or started.
    xml.write_text(guest.xml(lab).replace("machine='q35'", "machine='pc-q35-99.0'"))
    ran = owner.sev_attest(*known, "--insecure", *owner.trust(), "--ignore-config", code=6)
    assert "no secret was sent; its session is failed" in ran.err
    assert state_of(lab, guest) == ""


DESTROYED = "the guest was destroyed, and the domain is not defined any more; "
NOT_SENT = f"{DESTROYED}no secret was sent; its session is failed"
NOT_TAKEN = f"{DESTROYED}the host says that the guest took no secret; its session is failed"
MAY_HAVE = f"{DESTROYED}it may have its secret; its session is released"
GONE = NOT_SENT.replace("the guest was destroyed", "the guest is gone from the host")
HAD = f"{DESTROYED}it had its secret; its session is released"
MISMATCH = "Measurement does not match, VM is not trustworthy"
FAILED = ("created", "failed")
RELEASED = ("created", "measured", "released")


@dataclass(frozen=True)
class Refusal:
    """What comes of a host's fault: exit code, error, what is left, the steps in the ledger."""

    code: int
    words: str
    left: str = NOT_SENT
    events: tuple[str, ...] = FAILED
    policies: tuple[int, ...] = (1, 5)

    @property
    def arrived(self) -> list[str]:
        """What the guest got before it was destroyed."""
        return [ARRIVED] if self.left.endswith("released") else []


SILENT = "no answer in {} seconds"
TIME_OUTS = (3, 15, 60)
"""Seconds: the first within which a busy machine gives all the other answers."""
REFUSALS: dict[AnyFault, Refusal] = {
    Fault.OTHER_POLICY: Refusal(1, "the host reports policy 0x000"),
    Fault.DOWNGRADED_BUILD: Refusal(
        1, "error: build 0 is below 24", events=("created", "measured", "requirements", "failed")
    ),
    Fault.WRONG_FIRMWARE_BYTE: Refusal(1, MISMATCH),
    Fault.OTHER_VCPU_COUNT: Refusal(1, "it was launched with 3 vCPUs, not 2", policies=(5,)),
    Fault.REPLAYED_MEASUREMENT: Refusal(1, MISMATCH),
    Fault.SWAPPED_KEYS: Refusal(1, "the measurement fits if TIK and TEK are swapped"),
    Fault.REUSED_SESSION: Refusal(
        5, "fw_error=11 'Bad measurement'", NOT_TAKEN, (*RELEASED, "failed")
    ),
    MonitorFault.CLAIMED_API: Refusal(1, "the measurement fits if API minor was 55, not 54"),
    MonitorFault.CLAIMED_BUILD: Refusal(1, "the measurement fits if build was 24, not 25"),
    MonitorFault.CLAIMED_POLICY: Refusal(1, "the host reports policy 0x000"),
    MonitorFault.FAILED_LAUNCH: Refusal(
        6,
        "LAUNCH_START ret=1 fw_error=23 'Resource limit'",
        "no guest was started, and the domain is not defined any more; no secret was sent; "
        "its session is failed",
    ),
    MonitorFault.FAILED_MEASUREMENT: Refusal(6, "query-sev-launch-measure failed"),
    MonitorFault.FAILED_RESUME: Refusal(6, "resuming it: internal error", HAD, RELEASED),
    MonitorFault.GARBLED_MEASUREMENT: Refusal(6, "the host: measurement: 3 bytes"),
    MonitorFault.LOST_GUEST: Refusal(
        6,
        "its secret: internal error",
        # libvirtd may have removed the guest itself by then.
        "and the domain is not defined any more; it may have its secret; its session is released",
        RELEASED,
    ),
    MonitorFault.RUNNING_GUEST: Refusal(
        5, "SEV: Not in correct state", NOT_TAKEN, (*RELEASED, "failed")
    ),
    MonitorFault.SILENT_LAUNCH: Refusal(6, f"starting it: {SILENT}"),
    MonitorFault.SILENT_MEASUREMENT: Refusal(6, f"its launch security info: {SILENT}"),
    MonitorFault.SILENT_RESUME: Refusal(6, f"resuming it: {SILENT}", HAD, RELEASED),
    MonitorFault.SILENT_SECRET: Refusal(6, f"its secret: {SILENT}", MAY_HAVE, RELEASED),
}


@pytest.fixture
def set_fault(lab: Lab) -> Iterator[Callable[[AnyFault | None], None]]:
    """Return what sets a fault of the host, which is honest again after the test."""
    yield lab.set_fault
    lab.set_fault(None)


def demands(owner: Owner, guest: Guest) -> tuple[object, ...]:
    """Write requirements that allow this guest on this host; return the option."""
    es = bool(guest.policy & 4)
    digest = sev.launch_digest(
        owner.path(guest.firmware),
        vcpus=guest.vcpus if es else None,
        vmsa=CpuModel.named("EPYC-Milan") if es else None,
    )
    file = owner.path(f"{guest.name}.toml")
    file.write_text(OWNER.replace(DIGEST, digest.hex()))
    return ("--requirements", file)


def steps_of(place: Path) -> tuple[str, ...]:
    """Return the steps in a ledger of one session."""
    with Ledger.open(place, create=False) as ledger:
        return tuple(event.kind for event in ledger.events())


@pytest.mark.parametrize("fault", REFUSALS, ids=fault_name)
def test_a_launch_on_a_host_with_a_fault_is_refused(
    lab: Lab, owner: Owner, set_fault: Callable[[AnyFault | None], None], fault: AnyFault
) -> None:
    """An SEV guest and an SEV-ES guest, at the same time."""
    refusal = REFUSALS[fault]
    guests = [Guest(f"{fault_name(fault)}-{policy}", policy=policy) for policy in refusal.policies]
    set_fault(fault)
    owner.arrived()

    def refused(guest: Guest) -> tuple[str, tuple[str, ...]]:
        for seconds in TIME_OUTS if SILENT in refusal.words else (60,):
            forget(lab, guest)
            ledger = owner.path(f"{guest.name}.{seconds}")
            kept = (*demands(owner, guest), "--ledger", ledger, "--timeout", seconds)
            ran = owner.whole_launch(guest, *owner.secret(), *kept, code=refusal.code)
            if refusal.words.format(seconds) in ran.err and f"{refusal.left}\n" in ran.err:
                return ran.out, steps_of(ledger)
        raise AssertionError(ran.err)

    with ThreadPoolExecutor() as pool:
        assert [*pool.map(refused, guests)] == [("", refusal.events)] * len(guests)
    assert [state_of(lab, guest) for guest in guests] == [""] * len(guests)
    assert owner.arrived()[: len(guests)] == refusal.arrived * len(guests)


@pytest.mark.parametrize("policy", [1, 5], ids=["sev", "sev-es"])
def test_the_same_launch_on_an_honest_host_is_accepted(lab: Lab, owner: Owner, policy: int) -> None:
    guest = Guest(f"honest-{policy}", policy=policy)
    ran = owner.whole_launch(guest, *owner.secret(), *demands(owner, guest))
    assert "OK: the requirements allow it as launch web" in ran.out
    assert (state_of(lab, guest), owner.arrived()) == ("running", [ARRIVED])
    forget(lab, guest)


def test_every_fault_of_the_lab_is_refused_by_a_test() -> None:
    assert {*REFUSALS, *IN_CHAIN} == {*Fault, *MonitorFault}


@pytest.mark.parametrize(
    ("fault", "policy", "events"),
    [
        (MonitorFault.FAILED_MEASUREMENT, 1, FAILED),
        (Fault.REUSED_SESSION, 5, (*RELEASED, "failed")),
        (MonitorFault.FAILED_RESUME, 5, RELEASED),
    ],
    ids=["measure", "release", "run"],
)
def test_a_guest_that_is_refused_is_left_paused_if_that_is_wanted(
    lab: Lab,
    owner: Owner,
    set_fault: Callable[[AnyFault | None], None],
    fault: AnyFault,
    policy: int,
    events: tuple[str, ...],
) -> None:
    guest = Guest(f"left-{fault_name(fault)}", policy=policy)
    set_fault(fault)
    kept = ("--ledger", owner.path(guest.name), "--on-refusal", "leave")
    ran = owner.whole_launch(guest, *owner.secret(), *kept, code=REFUSALS[fault].code)
    assert "note: the guest is left on the host, paused; " in ran.err
    assert (state_of(lab, guest), owner.arrived()) == ("paused", REFUSALS[fault].arrived)
    assert steps_of(owner.path(guest.name)) == events
    forget(lab, guest)


IN_CHAIN = {
    Fault.FORGED_ROOT: "error: the ASK's signature over the CEK does not hold",
    Fault.OFF_CURVE_PDH: "error: the PDH's key is no point on its curve",
}


@pytest.mark.parametrize("fault", IN_CHAIN, ids=fault_name)
def test_a_chain_with_a_fault_is_refused_before_anything_changes(
    owner: Owner, fault: Fault
) -> None:
    guest, ledger = Guest("in-chain", policy=1), owner.path(f"{fault_name(fault)}.ledger")
    with lab_of_its_own(fault) as host:
        other = Owner(host, owner.folder)
        words = [word for word in other.launch_words(guest) if word not in other.trust()[:2]]
        ran = other.sev_attest(*words, "--ledger", ledger, code=1)
        assert IN_CHAIN[fault] in ran.err
        assert host.virsh("list", "--all", "--name").out.strip() == ""
    assert not ledger.exists()


def test_a_launch_with_another_initrd_on_the_host_is_refused(lab: Lab, owner: Owner) -> None:
    guest = Guest("launch-initrd", policy=5, kernel=True)
    image = lab.folder / "images" / "initrd"
    image.write_bytes(b"another initrd")
    try:
        ran = owner.whole_launch(guest, *owner.secret(), code=1)
    finally:
        image.write_bytes(owner.path("initrd").read_bytes())
    assert MISMATCH in ran.err
    assert f"note: {NOT_SENT}\n" in ran.err
    assert (state_of(lab, guest), owner.arrived()) == ("", [])


MEANWHILE = {
    "resumed": ("paused state", NOT_TAKEN, ["resume"]),
    "started-anew": ("was started anew", NOT_SENT, ["destroy", "start --paused"]),
    "ended": ("was started anew", GONE, ["destroy"]),
}


@pytest.mark.parametrize(
    ("change", "policy"), [("resumed", 1), ("resumed", 5), ("started-anew", 5), ("ended", 1)]
)
def test_a_guest_that_is_changed_before_its_secret_comes_gets_none(
    lab: Lab, owner: Owner, change: str, policy: int
) -> None:
    guest = Guest(f"{change}-{policy}", policy=policy)
    words, left, typed = MEANWHILE[change]
    with measured(owner, guest) as waiting:
        for command in typed:
            assert lab.virsh(*command.split(), guest.name).code == 0
        waiting.get_secret()
    assert waiting.process.returncode == 5
    assert words in waiting.rest
    assert f"note: {left}" in waiting.rest
    assert (state_of(lab, guest), owner.arrived()) == ("", [])


RESUMED = """
import subprocess, sys
from sev_attest.__main__ import main
from sev_attest.host.launch import OneLaunch
command, start = sys.argv.pop(1), OneLaunch.start
def resumed(launch):
    guest = start(launch)
    subprocess.run(command.split(), check=True, stdout=subprocess.DEVNULL)
    return guest
OneLaunch.start = resumed
main()
"""


@pytest.mark.parametrize("policy", [1, 5], ids=["sev", "sev-es"])
def test_a_guest_that_runs_before_it_is_measured_gets_nothing(
    lab: Lab, owner: Owner, policy: int
) -> None:
    guest = Guest(f"resumed-early-{policy}", policy=policy)
    resume = f"virsh -c {lab.uri} resume {guest.name}"
    words = owner.launch_words(guest, *owner.secret())
    ran = lab.run(sys.executable, "-c", RESUMED, resume, *words)
    assert ran.code == 5
    assert "the guest is not paused, but running" in ran.err
    assert f"note: {NOT_SENT}\n" in ran.err
    assert (state_of(lab, guest), owner.arrived()) == ("", [])


def test_a_libvirtd_that_dies_may_leave_a_guest_and_it_has_no_secret(owner: Owner) -> None:
    guest = Guest("dies", policy=5)
    with lab_of_its_own() as host:
        shutil.copy(owner.path(guest.firmware), host.folder / "images")
        other = Owner(host, owner.folder)
        with measured(other, guest) as waiting:
            print(f"$ kill -KILL {host.pid}  # libvirtd")
            os.kill(host.pid, signal.SIGKILL)
            waiting.get_secret()
        assert waiting.process.returncode == 6
        assert f"a guest of domain {guest.name} may still be there, paused or not" in waiting.rest
        assert "no secret was sent; its session is failed" in waiting.rest
        assert (host.folder / "run/libvirt/qemu/run" / f"{guest.name}.pid").exists()
        assert other.arrived() == []


def test_a_launch_that_the_ledger_cannot_keep_changes_nothing(lab: Lab, owner: Owner) -> None:
    guest = Guest("launch-unkept", policy=1)
    ran = owner.whole_launch(guest, "--ledger", owner.path("disk.key"), code=6)
    assert "nothing was changed on the host; no secret was sent" in ran.err
    assert state_of(lab, guest) == ""


def test_the_rules_of_a_launch_know_the_host_s_versions(lab: Lab, owner: Owner) -> None:
    xml = owner.path("versions.xml")
    xml.write_text(Guest("versions", policy=1).xml(lab))
    check = ("domain", "check", xml)
    assert "I domain.libvirt, line 2" in owner.sev_attest(*check, code=4).out
    # What needs a version that the host has is not named any more.
    asked = owner.sev_attest(*check, "--connect", lab.uri, code=4)
    assert "domain.libvirt" not in asked.out


def test_the_host_is_asked_for_its_chain(lab: Lab, owner: Owner) -> None:
    options = ("--name", "asked", "--out", owner.folder, "--connect", lab.uri, *owner.trust())
    refused = owner.sev_attest("session", *options, "5", code=3)
    assert "host itself" in refused.err
    made = owner.sev_attest("session", *options, "5", "--insecure")
    assert made.out.startswith("<launchSecurity")
    assert owner.path("asked_tik.bin").stat().st_size == 16


def test_a_secret_of_the_peer_s_arrives_as_well(lab: Lab, owner: Owner) -> None:
    guest = Guest("peer", policy=5)
    owner.launched(guest)
    secret = ("--inject-secret", f"luks-key:{owner.path('disk.key')}")
    known = (*owner.keys(guest), *owner.describe(guest), *owner.connect(guest))
    assert lab.run(PEER, *known, *secret).code == 0
    assert owner.arrived() == [ARRIVED]
    assert lab.virsh("domstate", guest.name).out.strip() == "running"
    lab.virsh("destroy", guest.name)


def refuses(owner: Owner, started: Guest, meant: Guest) -> None:
    """Start another guest than the owner wants: no tool accepts it, no secret leaves."""
    owner.launched(started)
    secret = ("--inject-secret", f"luks-key:{owner.path('disk.key')}")
    known = (*owner.keys(meant), *owner.describe(meant), *owner.connect(meant))
    ours = owner.sev_attest("validate", *known, *owner.record(meant), *secret, code=1)
    assert "Measurement does not match, VM is not trustworthy" in ours.err
    assert owner.lab.run(PEER, *known, *secret).code == 1
    assert owner.lab.virsh("domstate", meant.name).out.strip() == "paused"
    assert owner.arrived() == []
    owner.lab.virsh("destroy", meant.name)


def test_other_firmware_on_the_host_is_refused(lab: Lab, owner: Owner) -> None:
    firmware = bytearray(owner.path("amdsev.fd").read_bytes())
    firmware[100] ^= 1
    (lab.folder / "images" / "other.fd").write_bytes(firmware)
    refuses(owner, Guest("other", policy=1, firmware="other.fd"), Guest("other", policy=1))


def test_a_wrong_number_of_vcpus_is_refused(owner: Owner) -> None:
    refuses(owner, Guest("vcpus", policy=5, vcpus=3), Guest("vcpus", policy=5, vcpus=2))


def test_another_kernel_is_refused(lab: Lab, owner: Owner) -> None:
    guest = Guest("kernel", policy=1, kernel=True)
    image = lab.folder / "images" / "initrd"
    image.write_bytes(b"another initrd")
    try:
        refuses(owner, guest, guest)
    finally:
        image.write_bytes(owner.path("initrd").read_bytes())


def test_a_packet_is_for_one_launch_even_in_a_session_that_is_used_again(
    lab: Lab, owner: Owner
) -> None:
    guest = Guest("again", policy=5)
    owner.launched(guest)
    info = owner.path("info")
    info.write_text(lab.virsh("domlaunchsecinfo", guest.name).out)
    header, payload = owner.path("header"), owner.path("payload")
    packet = ("--secret-header", header, "--secret-payload", payload)
    secret = ("--inject-secret", f"luks-key:{owner.path('disk.key')}")
    known = (*owner.keys(guest), *owner.describe(guest), *owner.record(guest))
    owner.sev_attest("validate", "--launch-info", info, *known, *secret, *packet)
    lab.virsh("destroy", guest.name)
    assert lab.virsh("start", "--paused", guest.name).code == 0
    files = ("--secrethdr", header, "--secret", payload)
    refused = lab.virsh("domsetlaunchsecstate", guest.name, *files)
    assert "fw_error=11 'Bad measurement'" in refused.err
    info.write_text(lab.virsh("domlaunchsecinfo", guest.name).out)
    reused = owner.sev_attest("validate", "--launch-info", info, *known, code=3)
    assert "was used for another launch" in reused.err
    assert (
        "E domain.session.reused"
        in owner.sev_attest(
            "domain",
            "check",
            owner.path("again-prepared.xml"),
            "--session",
            owner.path("again"),
            code=4,
        ).out
    )
    lab.virsh("destroy", guest.name)


def test_the_firmware_opens_only_a_session_of_its_own_and_of_the_same_policy(
    lab: Lab, owner: Owner
) -> None:
    guest = Guest("policy", policy=5)
    owner.make_session(guest)
    started = owner.launch(guest, policy="0x0001")
    assert "LAUNCH_START ret=1 fw_error=11 'Bad measurement'" in started.err


@pytest.mark.parametrize("firmware", ["ovmf.fd", "without.fd"])
def test_a_guest_takes_a_secret_only_where_its_firmware_has_an_area_for_it(
    lab: Lab, owner: Owner, firmware: str
) -> None:
    guest = Guest(f"takes-{firmware[:-3]}", policy=1, firmware=firmware)
    owner.launched(guest)
    known = (*owner.keys(guest), *owner.describe(guest), *owner.connect(guest))
    assert owner.sev_attest("validate", *known).out.startswith("OK")
    assert lab.run(PEER, *known).code == 0
    secret = ("--inject-secret", f"luks-key:{owner.path('disk.key')}")
    if any(Firmware.read(owner.path(firmware)).secret_area() or ()):
        assert "Injected 1 secrets" in owner.sev_attest("validate", *known, *secret).out
        assert owner.arrived() == [ARRIVED]
    else:
        assert "no area" in owner.sev_attest("validate", *known, *secret, code=2).err
        assert owner.arrived() == []
    lab.virsh("destroy", guest.name)


def test_what_the_host_says_is_taken_only_by_the_insecure(lab: Lab, owner: Owner) -> None:
    guest = Guest("trusting", policy=5, kernel=True)
    plain = Guest("plain-trusting", policy=1, kernel=True)
    boot = ["firmware", "kernel", "initrd", "cmdline"]
    for started, taken in ((guest, ["number of vCPUs", *boot, "CPU"]), (plain, boot)):
        owner.launched(started)
        options = (*owner.keys(started), *owner.connect(started))
        ours = owner.sev_attest("validate", *options)
        for what in taken:
            assert f"note: INSECURE: the {what} is what the host says" in ours.err
    # Where it knows this host by the name that libvirt has of it, it reads the domain's files. For
    # SEV-ES it takes the host's CPU to be the guest's; newer ones do if that is passed through.
    theirs = lab.run(PEER, *options)
    refused = ("Cannot access firmware path remotely", "unless 'host-passthrough' is used")
    assert theirs.code == 0 or (theirs.code == 2 and any(why in theirs.err for why in refused))
    lab.virsh("destroy", plain.name)
    by_uuid = lab.virsh("domuuid", guest.name).out.strip()
    by_id = lab.virsh("domid", guest.name).out.strip()
    for name in (by_uuid, by_id):
        there = ("--connect", lab.uri, "--domain", name, "--insecure")
        assert owner.sev_attest("validate", *owner.keys(guest), *there).out.startswith("OK")
    lab.virsh("destroy", guest.name)


def test_a_domain_that_cannot_be_attested_is_refused_by_both(lab: Lab, owner: Owner) -> None:
    guest = Guest("plain", policy=1)
    owner.make_session(guest)
    xml = owner.path("plain.xml")
    xml.write_text(re.sub("<launchSecurity.*</launchSecurity>", "", guest.xml(lab)))
    assert lab.virsh("define", xml).code == 0
    assert lab.virsh("start", "--paused", guest.name).code == 0
    known = (*owner.keys(guest), *owner.describe(guest), *owner.connect(guest))
    assert "launchSecurity" in owner.sev_attest("validate", *known, code=4).err
    assert lab.run(PEER, *known).code == 4
    lab.virsh("destroy", guest.name)
    there = ("--connect", lab.uri, "--domain", "nobody", "--insecure")
    missing = owner.sev_attest("validate", *owner.keys(guest), *there, code=6)
    assert "there is no domain nobody" in missing.err
    elsewhere = ("--connect", f"{lab.uri}.none", "--domain", "nobody", "--insecure")
    assert "connect" in owner.sev_attest("validate", *owner.keys(guest), *elsewhere, code=6).err


def guide_examples() -> list[str]:
    """Return the domains of libvirt's guide, if that is with the real data."""
    folder = os.environ.get("SEV_ATTEST_REAL_DATA")
    guide = Path(folder).parent / "launch-security-sev.txt" if folder else None
    if guide is None or not os.access(guide, os.R_OK):
        pytest.skip("SEV_ATTEST_REAL_DATA names no folder that libvirt's guide lies beside")
    text = guide.read_text(encoding="utf-8")
    return re.findall(r"^<domain type='kvm'>.*?^</domain>", text, re.MULTILINE | re.DOTALL)


def test_the_examples_of_libvirt_s_guide_are_accepted_once_prepared(lab: Lab, owner: Owner) -> None:
    examples = guide_examples()
    assert len(examples) == 2
    owner.make_session(Guest("guide", policy=3))
    for number, example in enumerate(examples):
        # As any host can: no KVM, no display (QXL and SPICE are modules), no old machine type.
        here = re.sub("<(graphics|video)[ >].*?</\\1>", "", example, flags=re.DOTALL)
        here = re.sub("(?<=machine=')pc-i440fx-[0-9.]+", "pc", here)
        here = re.sub("(?<=machine=')pc-q35-[0-9.]+", "q35", here)
        here = here.replace("type='kvm'", "type='qemu'")
        here = here.replace("/usr/bin/qemu-kvm", f"{lab.folder}/bin/qemu-system-x86_64")
        xml, prepared = owner.path(f"guide-{number}.xml"), owner.path(f"guide-{number}-out.xml")
        xml.write_text(here)
        owner.sev_attest(
            "domain", "prepare", xml, "--session", owner.path("guide"), "-o", prepared, code=4
        )
        refused, accepted = lab.virsh("define", "--validate", xml), lab.virsh("define", prepared)
        assert refused.code == 1
        assert accepted.code == 0, accepted.err


LOADER_ATTRIBUTES = {
    "type": ("", "rom", "pflash"),
    "readonly": ("", "yes", "no"),
    "secure": ("", "yes", "no"),
    "stateless": ("", "yes", "no"),
}
BESIDE_LOADER = {
    "nothing": "",
    "an NVRAM": "<nvram>/srv/VARS.fd</nvram>",
    "an NVRAM's template": "<nvram template='/srv/VARS.fd'/>",
    "an empty NVRAM": "<nvram/>",
    "no Secure Boot": "<firmware><feature name='secure-boot' enabled='no'/></firmware>",
    "Secure Boot": "<firmware><feature name='secure-boot' enabled='yes'/></firmware>",
    "keys without Secure Boot": "<firmware><feature name='secure-boot' enabled='no'/>"
    "<feature name='enrolled-keys' enabled='yes'/></firmware>",
    "a feature of no name": "<firmware><feature enabled='no'/></firmware>",
    "an unknown feature": "<firmware><feature name='other' enabled='no'/></firmware>",
    "a feature of no value": "<firmware><feature name='secure-boot'/></firmware>",
    "an ACPI table": "<acpi><table type='slic'>/srv/slic</table></acpi>",
    "an ACPI table of no type": "<acpi><table>/srv/slic</table></acpi>",
    "an unknown ACPI table": "<acpi><table type='other'>/srv/slic</table></acpi>",
    "two ACPI tables": "<acpi>" + "<table type='slic'>/srv/slic</table>" * 2 + "</acpi>",
    "a boot device of no name": "<boot/>",
    "no ACPI": "",
}
EVERY_LOADER = ("nothing", "an NVRAM", "no ACPI")
"""Tried with every loader; others only with each tenth."""


def loaders() -> list[str]:
    """Return every loader with these attributes, with and without a path, and no loader."""
    found = [""]
    for values in product(*LOADER_ATTRIBUTES.values()):
        pairs = zip(LOADER_ATTRIBUTES, values, strict=True)
        told = "".join(f" {name}='{value}'" for name, value in pairs if value)
        found += [f"<loader{told}/>", f"<loader{told}>/srv/OVMF.amdsev.fd</loader>"]
    return found


def test_what_libvirt_refuses_of_firmware_is_an_error_and_what_is_mended_it_takes(
    lab: Lab,
) -> None:
    """Not the other way round: libvirt accepts domains that cannot be attested."""
    libvirt = pytest.importorskip("libvirt")
    libvirt.registerErrorHandler(lambda _, __: None, None)
    emulator = f"<emulator>{lab.folder}/bin/qemu-system-x86_64</emulator>"
    base = CLEAN.replace("<devices>", f"<devices>{emulator}")
    assert base.count(LOADER) == 1

    with closing(libvirt.open(lab.uri)) as host:
        number = host.getLibVersion()
        version = (number // 1_000_000, number // 1000 % 1000, number % 1000)

        def takes(text: str) -> bool:
            try:
                host.defineXML(text.replace("type='kvm'", "type='qemu'", 1)).undefine()
            except libvirt.libvirtError:
                return False
            return True

        assert takes(base)
        refused = mended = 0
        for firmware, (at, loader), (name, more) in product(
            ("", " firmware='efi'", " firmware='bios'"),
            enumerate(loaders()),
            BESIDE_LOADER.items(),
        ):
            if at % 10 and name not in EVERY_LOADER:
                continue
            text = base.replace(LOADER, loader + more).replace("<os>", f"<os{firmware}>")
            if name == "no ACPI":
                text = text.replace("<acpi/>", "")
            known = Versions(libvirt=version, qemu=(7, 2), guest_kernel=(6, 1))
            subject = Subject(domain=parse_domain(text.encode()), versions=known)
            findings = apply_rules(subject)
            errors = [one.id for one in findings if one.severity is Severity.ERROR]
            here = f"<os{firmware}> {loader} with {name}: {errors}"
            # From 9.2 on, what it can choose decides when a domain is defined: a warning says so.
            new = version >= (9, 2)
            if not takes(text):
                refused += 1
                ids = {one.id for one in findings}
                assert errors or (new and "domain.loader.chosen" in ids), here
            prepared = prepare(subject, SESSION)
            chosen = parse_domain(prepared.xml).selects_uefi and new
            if errors and not prepared.errors and not chosen:
                mended += 1
                assert takes(prepared.xml.decode()), f"{here}\n{prepared.xml.decode()}"
    print(
        f"\nlibvirt {version}: {refused} refused, each an error here; {mended} mended, each taken"
    )
    assert refused > 500
    assert mended > 500


@pytest.fixture
def qmp(lab: Lab, owner: Owner) -> Iterator[Path]:
    """Run QEMU without libvirt, paused. Return its QMP socket."""
    guest = Guest("qmp", policy=5, vcpus=3)
    owner.make_session(guest)
    path = owner.path("qmp.sock")
    sev = {
        "dh-cert-file": owner.path("qmp_godh.b64"),
        "session-file": owner.path("qmp_session.b64"),
        "policy": 5,
        "cbitpos": 51,
        "reduced-phys-bits": 1,
    }
    properties = ",".join(f"{name}={value}" for name, value in sev.items())
    words: list[object] = [lab.folder / "bin" / "qemu-system-x86_64", "-S", "-nodefaults"]
    words += ["-display", "none", "-m", "64", "-smp", "3", "-cpu", "EPYC-Milan"]
    words += ["-machine", "q35,accel=tcg,confidential-guest-support=sev0"]
    words += ["-object", f"sev-guest,id=sev0,{properties}"]
    words += ["-bios", owner.path("amdsev.fd"), "-qmp", f"unix:{path},server=on,wait=off"]
    print("$", *words)
    process = subprocess.Popen([str(word) for word in words], stderr=subprocess.DEVNULL)
    while not path.exists():
        assert process.poll() is None
    yield path
    process.terminate()
    process.wait()


def test_the_same_through_a_qmp_socket(owner: Owner, qmp: Path) -> None:
    guest = Guest("qmp", policy=5, vcpus=3)
    known = (*owner.keys(guest), *owner.describe(guest), *owner.record(guest))
    known += ("--connect", f"qmp+unix://{qmp}")
    assert "host itself" in owner.sev_attest("validate", *known, code=3).err
    secret = ("--inject-secret", f"luks-key:{owner.path('disk.key')}")
    ran = owner.sev_attest("validate", *known, "--insecure", *secret)
    assert ran.out.splitlines()[1] == "OK: Injected 1 secrets"
    assert owner.arrived() == [ARRIVED]
    again = owner.sev_attest("validate", *known, "--insecure", *secret, code=5)
    assert "session qmp is released" in again.err
    unkept = ("--ledger", "none")
    again = owner.sev_attest("validate", *known, "--insecure", *secret, *unkept, code=5)
    assert "Not in correct state" in again.err
    asked = ("--name", "qmp2", "--out", owner.folder, "--connect", f"qmp+unix://{qmp}")
    made = owner.sev_attest("session", *asked, *owner.trust(), "5", "--insecure")
    assert made.out.startswith("<launchSecurity")


def test_a_qmp_port_of_this_machine_is_known_for_that(owner: Owner) -> None:
    guest = Guest("port", policy=5)
    owner.make_session(guest)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [shutil.which("qemu-system-x86_64"), "-machine", "none", "-display", "none"]
    words += ["-qmp", f"tcp:127.0.0.1:{port},server=on,wait=off"]
    print("$", *words)
    process = subprocess.Popen([str(word) for word in words])
    try:
        for host in ("127.1", "[::ffff:127.0.0.1]", "localhost"):
            known = ("--launch-digest", "0" * 64, *owner.keys(guest))
            known += ("--connect", f"qmp+tcp://me:secret@{host}:{port}")
            while (
                ran := owner.lab.run(sys.executable, "-m", "sev_attest", "validate", *known)
            ).code == 6:
                assert "Connection refused" in ran.err
            assert "host itself" in ran.err
            assert ran.code == 3
            ran = owner.sev_attest("validate", *known, "--insecure", code=5)
            assert "started without SEV" in ran.err
    finally:
        process.terminate()
        process.wait()


def test_a_libvirtd_that_does_not_answer_is_not_waited_for(lab: Lab, owner: Owner) -> None:
    guest = Guest("hanging", policy=5)
    owner.make_session(guest)
    pid = lab.pid
    os.kill(pid, signal.SIGSTOP)
    print(f"$ kill -STOP {pid}  # libvirtd")
    try:
        known = (*owner.keys(guest), *owner.describe(guest), *owner.connect(guest))
        ran = owner.sev_attest("validate", *known, "--timeout", "1", code=6)
        assert "no answer in 1 seconds" in ran.err
        ran = owner.whole_launch(guest, "--timeout", "1", code=6)
        assert "no answer in 1 seconds" in ran.err
    finally:
        os.kill(pid, signal.SIGCONT)


def test_the_lab_leaves_nothing_running() -> None:
    folder = Path(tempfile.mkdtemp(prefix="sev-lab-"))
    with Lab(folder, show=print) as host:
        assert host.virsh("nodesevinfo").code == 0
        assert processes_of(folder)
    ends = time.monotonic() + 30
    while processes_of(folder):
        assert time.monotonic() < ends, processes_of(folder)
    shutil.rmtree(folder)


def processes_of(folder: Path) -> list[str]:
    """Return the processes that have the folder in their environment or command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
            if os.fsencode(folder) in words:
                found.append(process.name)
    return found
