"""``sev_attest.host.libvirt``, and the commands that use it, on a libvirt that is simulated."""

import base64
import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from conftest import Ran, Run
from sev_attest import MalformedInput, NotAttestable, Unsupported, sev
from sev_attest.guest import CpuModel, KernelHashes
from sev_attest.host import HostError
from sev_attest.host.config import check_config, read_config
from sev_attest.host.libvirt import LibvirtConnection
from sev_attest.host.limits import call_within
from sev_attest.owner import LaunchRecord
from sev_attest.owner.advisories import load
from sev_attest.owner.ledger import Ledger
from sev_attest.testing import FirmwareError, Guest, Platform, launch_guest, ovmf_image

OVMF = ovmf_image(8192)
URI = "qemu+ssh://host/system"
OTHER = "the domain: its secret"
ADDRESSES: dict[str, list[object]] = {
    "host": [],
    "127.1": [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.0.1", 0))],
}
SKU = ("--cpu-family", "25", "--cpu-model", "1", "--cpu-stepping", "1")
INTERNAL, NO_DOMAIN, INVALID, RPC, UNSUPPORTED = 1, 42, 55, 39, 84


class LibvirtError(Exception):
    """What libvirt-python raises."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code

    def get_error_code(self) -> int:
        return self.code

    def get_error_message(self) -> str:
        return str(self)


XML = """
<domain type='kvm' id='3'>
  <name>vm1</name>
  <os>{loader}{os}</os>
  {cpu}
  {security}
</domain>
"""
LOADER = "<loader type='rom'>/host/fw</loader>"
KEYS = "<dhCert>AAAA</dhCert><session>AAAA</session>"
CUSTOM = "<cpu mode='custom'><model>EPYC-Milan-v2</model></cpu>"


def xml_of(
    os: str = "", *, loader: str = LOADER, keys: str = KEYS, hashes: str = "", cpu: str = CUSTOM
) -> str:
    security = f"<launchSecurity type='sev'{hashes}><policy>0x5</policy>{keys}</launchSecurity>"
    return XML.format(loader=loader, os=os, cpu=cpu, security=security)


@dataclass
class Domain:
    """A domain, with a guest of the simulated platform in it."""

    guest: Guest
    xml: str = field(default_factory=xml_of)
    id: int = 3
    active: bool = True
    state: int = 3
    vcpus: int = 2
    broken: dict[str, Exception] = field(default_factory=dict)
    meanwhile: Callable[[], object] = lambda: None
    calls: list[str] = field(default_factory=list)

    def _fail(self, call: str) -> None:
        self.calls.append(call)
        if call in self.broken:
            raise self.broken[call]

    def isActive(self) -> bool:  # noqa: N802 - libvirt's
        return self.active

    def ID(self) -> int:  # noqa: N802
        return self.id

    def UUIDString(self) -> str:  # noqa: N802
        return str(UUID(int=7))

    def XMLDesc(self) -> str:  # noqa: N802
        self._fail("XMLDesc")
        return self.xml

    def info(self) -> list[int]:
        self._fail("info")
        return [self.state, 0, 0, self.vcpus, 0]

    def launchSecurityInfo(self) -> dict[str, object]:  # noqa: N802
        self._fail("launchSecurityInfo")
        self.meanwhile()
        lines = self.guest.domlaunchsecinfo().split("\n")
        pairs = (line.split(":") for line in lines if line)
        return {key.strip(): value.strip() for key, value in pairs}

    def setLaunchSecurityState(self, parameters: dict[str, str], flags: int) -> None:  # noqa: N802
        self._fail("inject")
        assert flags == 0
        parts = [base64.b64decode(parameters[n]) for n in ("sev-secret-header", "sev-secret")]
        try:
            self.guest.inject(*parts)
        except FirmwareError as error:
            what = f"SEV: failed to inject secret ret=-5 fw_error={error.status.value}"
            raise LibvirtError(INTERNAL, f"unable to execute QEMU command: {what}") from None

    def resume(self) -> None:
        self._fail("resume")
        self.guest.resume()


CAPABILITIES = "<capabilities><host><cpu>{}</cpu></host></capabilities>"
SIGNATURE = "<signature family='25' model='1' stepping='1'/>"


@dataclass
class Libvirt:
    """libvirt-python, with one connection and at most one domain."""

    domain: Domain | None
    hostname: str = "host"
    uri: str | None = None
    platform: Platform | None = None
    capabilities: str = CAPABILITIES.format(SIGNATURE)
    broken: dict[str, Exception] = field(default_factory=dict)
    closed: int = 0
    quiet: bool = False
    libvirtError = LibvirtError  # noqa: N815 - libvirt's
    VIR_ERR_NO_DOMAIN = NO_DOMAIN
    VIR_ERR_OPERATION_INVALID = INVALID
    VIR_ERR_OPERATION_UNSUPPORTED = UNSUPPORTED

    def registerErrorHandler(self, handler: Callable[..., None], context: object) -> None:  # noqa: N802
        handler(context, "nothing is printed")
        self.quiet = True

    def open(self, uri: str) -> "Libvirt":
        assert self.quiet  # otherwise it prints every error beside raising it
        if "open" in self.broken:
            raise self.broken["open"]
        self.uri = self.uri or uri
        return self

    def getURI(self) -> str:  # noqa: N802
        assert self.uri is not None
        return self.uri

    def close(self) -> None:
        self.closed += 1
        if "close" in self.broken:
            raise self.broken["close"]

    def getHostname(self) -> str:  # noqa: N802
        return self.hostname

    def getCapabilities(self) -> str:  # noqa: N802
        return self.capabilities

    def getSEVInfo(self) -> dict[str, object]:  # noqa: N802
        if self.platform is None:
            raise LibvirtError(UNSUPPORTED, "QEMU does not support SEV guest")
        chain = self.platform.export()
        links = (chain.pek, chain.oca, chain.cek)
        return {
            "pdh": base64.b64encode(chain.pdh.to_bytes()).decode(),
            "cert-chain": base64.b64encode(b"".join(c.to_bytes() for c in links)).decode(),
            "cbitpos": 51,
        }

    def _found(self, *, there: bool) -> Domain:
        if self.domain is None or not there:
            raise LibvirtError(NO_DOMAIN, "Domain not found")
        return self.domain

    def lookupByID(self, number: int) -> Domain:  # noqa: N802
        return self._found(there=self.domain is not None and number == self.domain.id)

    def lookupByUUIDString(self, text: str) -> Domain:  # noqa: N802
        if "lookup" in self.broken:
            raise self.broken["lookup"]
        return self._found(there=UUID(text).int == 7)

    def lookupByName(self, name: str) -> Domain:  # noqa: N802
        return self._found(there=name in ("vm1", "17", "dead-beef"))


@dataclass
class Lab:
    """A launched guest behind libvirt, and its owner's files."""

    run: Run
    libvirt: Libvirt
    domain: Domain
    session: sev.Session

    def validate(self, *options: object, known: bool = True) -> Ran:
        usual = ["--firmware", "fw", "--num-cpus", 2, *SKU] if known else []
        where = ["--connect", URI, "--domain", "vm1"]
        return self.run("validate", "--tk", "tk", *where, *usual, *options)

    @property
    def secret(self) -> dict[str, bytes]:
        return self.domain.guest.secrets


def launch(platform: Platform, session: sev.Session, **guest: Any) -> Guest:
    return launch_guest(
        platform,
        policy=session.policy.value,
        godh=session.godh.to_bytes(),
        session=session.blob,
        firmware=OVMF,
        vcpus=2,
        **guest,
    )


@pytest.fixture
def lab(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Return a lab with a paused guest, on another host."""
    platform = Platform(b"lab")
    session = sev.Session.create_unverified(platform.export().pdh, policy=sev.GuestPolicy(5))
    files = {"fw": OVMF, "tk": session.keys.tek + session.keys.tik, "key": b"the disk key"}
    files |= {"kernel": b"a kernel", "initrd": b"an initrd"}
    for name, data in files.items():
        Path(name).write_bytes(data)
    domain = Domain(launch(platform, session))
    library = Libvirt(domain, platform=platform)
    monkeypatch.setitem(sys.modules, "libvirt", library)
    monkeypatch.setattr(socket, "gethostname", lambda: "owner")
    monkeypatch.setattr(socket, "getfqdn", lambda: "owner.example.org")
    monkeypatch.setattr(socket, "getaddrinfo", lambda name, *_, **__: ADDRESSES[name])
    return Lab(run, library, domain, session)


GUID = "736869e5-84f0-4973-92ec-06879ce3da0b"
INJECT = ("--inject-secret", "luks-key:key")


def test_a_guest_on_a_host_is_attested_gets_its_secret_and_runs(lab: Lab) -> None:
    ran = lab.validate(*INJECT)
    assert (ran.code, ran.errors) == (0, [])
    assert ran.lines[:2] == ["OK: Looks good to me", "OK: Injected 1 secrets"]
    assert [line for line in ran.notes if "INSECURE" in line] == [
        "note: INSECURE: without --record, nothing says whether the platform was verified"
    ]
    assert lab.secret == {GUID: b"the disk key"}
    assert lab.domain.calls[-2:] == ["inject", "resume"]
    assert lab.libvirt.closed == 1


def test_a_connection_that_is_lost_at_the_end_changes_nothing(lab: Lab) -> None:
    lab.libvirt.broken["close"] = LibvirtError(RPC, "client socket is closed")
    assert lab.validate(*INJECT).code == 0


def test_without_secrets_it_stays_paused(lab: Lab) -> None:
    ran = lab.validate("--json")
    assert ran.code == 0
    assert json.loads(ran.out)["ok"] is True
    assert {"inject", "resume"}.isdisjoint(lab.domain.calls)


@pytest.mark.parametrize("name", ["3", "17", str(UUID(int=7)), UUID(int=7).hex, "dead-beef"])
def test_a_domain_is_found_by_id_uuid_or_name(lab: Lab, name: str) -> None:
    assert lab.validate("--domain", name).code == 0


def test_the_system_s_libvirt_is_the_default(lab: Lab) -> None:
    opened: list[str] = []
    lab.libvirt.open = lambda uri: opened.append(uri) or lab.libvirt  # type: ignore[method-assign,func-returns-value] # to see it
    lab.libvirt.uri = URI
    options = ("--firmware", "fw", "--num-cpus", "2", *SKU)
    assert lab.run("validate", "--tk", "tk", "-o", "vm1", *options).code == 0
    assert opened == ["qemu:///system"]


@pytest.mark.parametrize("name", ["owner", "Owner.elsewhere.", "localhost.localdomain", ""])
def test_a_connection_to_this_machine_is_refused(lab: Lab, name: str) -> None:
    lab.libvirt.hostname = name
    ran = lab.validate(*INJECT)
    assert (ran.code, lab.secret) == (3, {})
    assert "this is the host itself" in ran.err
    ran = lab.validate("--insecure", *INJECT)
    assert ran.code == 0
    assert "note: INSECURE: this is the host itself" in ran.err
    refused = lab.run("session", "--name", "s", "--connect", URI, "5")
    assert refused.code == 3


@pytest.mark.parametrize(
    "uri", ["qemu:///system", "qemu+unix:///session?socket=/s", "qemu+ssh://127.1/system"]
)
def test_a_uri_that_leads_to_this_machine_is_refused_whatever_name_it_has(
    lab: Lab, uri: str
) -> None:
    ran = lab.validate("--connect", uri, *INJECT)
    assert (ran.code, lab.secret) == (3, {})
    assert "this is the host itself" in ran.err
    lab.libvirt.uri = URI  # "an-alias" was libvirt's for it
    assert lab.validate("--connect", "an-alias", *INJECT).code == 0


def test_a_password_in_a_uri_is_not_shown(lab: Lab) -> None:
    uri = "qemu+tcp://me:secret@host/system?pkipath=/home/me"
    quoted = f"unable to reach {uri} ({uri.replace('me:', 'me%3A:')})"
    lab.libvirt.broken["open"] = LibvirtError(38, quoted)
    ran = lab.validate("--connect", uri)
    assert ran.code == 6
    assert ran.err.startswith("error: connecting to qemu+tcp://host/system: unable to reach qemu+")
    assert "secret" not in ran.err
    assert "home" not in ran.err
    lab.libvirt.broken.clear()
    lab.libvirt.getSEVInfo = dict  # type: ignore[method-assign] # no chain
    ran = lab.run("session", "--name", "vm1", "--connect", uri, "5")
    assert (ran.code, "secret" in ran.err) == (6, False)
    assert "qemu+tcp://host/system" in ran.err


def test_a_uri_that_is_none_is_libvirt_s_to_refuse(lab: Lab) -> None:
    lab.libvirt.broken["open"] = LibvirtError(38, "no such URI")
    ran = lab.validate("--connect", "qemu+ssh://[::1/system")
    assert (ran.code, "no such URI" in ran.err) == (6, True)


def test_a_mismatch_releases_nothing(lab: Lab) -> None:
    ran = lab.validate("--num-cpus", "3", *INJECT)
    assert ran.code == 1
    assert ran.err.startswith("error: Measurement does not match, VM is not trustworthy")
    assert lab.secret == {}


def test_options_beside_a_connection_win(lab: Lab) -> None:
    assert lab.validate("--build-id", "23").code == 1
    assert lab.validate("--policy", "5").code == 0


@pytest.mark.parametrize(
    ("changes", "code", "shown"),
    [
        ({"active": False}, 5, "the domain does not run"),
        ({"state": 1}, 5, "the guest is not paused, but running"),
        ({"state": 2}, 5, "the guest is not paused, but idle"),
        ({"state": 6}, 5, "the guest is not paused, but crashed"),
        ({"state": 8}, 5, "the guest is not paused, but in state 8"),
        ({"state": -1}, 5, "the guest is not paused, but in state -1"),
        ({"xml": "<domain/>"}, 4, "no <launchSecurity type='sev'>"),
        ({"xml": xml_of(keys="")}, 4, "lacks <dhCert> or <session>"),
        ({"xml": xml_of(loader="")}, 4, "names no firmware"),
        ({"xml": xml_of(hashes=" kernelHashes='yes'")}, 4, "but no kernel"),
        ({"xml": xml_of("<nvram>/vars</nvram>")}, 3, "<nvram>, which is not measured"),
        ({"xml": xml_of("<kernel>/k</kernel>")}, 3, "boots a kernel that is not measured"),
        ({"xml": "<domain>"}, 6, "XML"),
        ({"xml": "<!DOCTYPE a [<!ENTITY b 'c'>]><domain>&b;</domain>"}, 6, "document type"),
    ],
)
def test_a_domain_that_cannot_be_attested_is_refused(
    lab: Lab, changes: dict[str, object], code: int, shown: str
) -> None:
    for name, value in changes.items():
        setattr(lab.domain, name, value)
    ran = lab.validate(*INJECT)
    assert (ran.code, lab.secret) == (code, {})
    assert shown in ran.err


def test_the_insecure_go_on_and_are_told(lab: Lab) -> None:
    lab.domain.xml = xml_of("<nvram>/vars</nvram><kernel>/k</kernel>")
    assert "hint: for tests, --insecure goes on\n" in lab.validate().err
    lab.domain.state = 1
    ran = lab.validate("--insecure")
    assert ran.code == 0
    for words in ("not paused, but running", "<nvram>, which", "boots a kernel that is not"):
        assert f"INSECURE: the guest is {words}" in ran.err or words in ran.err


def test_the_configuration_can_be_ignored(lab: Lab) -> None:
    lab.domain.xml = "<domain/>"
    assert "hint: --ignore-config goes on\n" in lab.validate().err
    assert lab.validate("--ignore-config").code == 0


def test_a_kernel_that_the_host_did_not_have_measured_is_a_contradiction(lab: Lab) -> None:
    ran = lab.validate("--kernel", "kernel")
    assert (ran.code, "does not have kernelHashes='yes'" in ran.err) == (2, True)


# what is left to the host

BOOT = "<kernel>{0}/kernel</kernel><initrd>{0}/initrd</initrd><cmdline>a  b </cmdline>"


def with_files(lab: Lab, here: Path, cpu: str = CUSTOM) -> None:
    """Launch with a kernel, all files being where the domain says."""
    parts: Any = {"kernel": b"a kernel", "initrd": b"an initrd", "cmdline": b"a  b "}
    lab.domain.guest = launch(lab.domain.guest.platform, lab.session, **parts)
    loader = f"<loader>{here}/fw</loader>"
    hashes = " kernelHashes='yes'"
    lab.domain.xml = xml_of(BOOT.format(here), loader=loader, hashes=hashes, cpu=cpu)


PARTS = {
    "the number of vCPUs": ("--num-cpus", "2"),
    "the firmware": ("--firmware", "fw"),
    "the kernel": ("--kernel", "kernel"),
    "the initrd": ("--initrd", "initrd"),
    "the cmdline": ("--cmdline", "a  b "),
    "the CPU": ("--cpu-model-name", "EPYC-Milan"),
}


def test_what_is_not_said_is_taken_from_the_host_by_the_insecure_alone(
    lab: Lab, here: Path
) -> None:
    with_files(lab, here)
    lab.libvirt.hostname = "owner"
    ran = lab.validate("--insecure", known=False)
    assert (ran.code, ran.lines[0]) == (0, "OK: Looks good to me")
    for part in PARTS:
        assert f"note: INSECURE: {part} is what the host says" in ran.err
    known = [word for words in PARTS.values() for word in words]
    ran = lab.validate("--insecure", *known, known=False)
    assert (ran.code, "is what the host says" in ran.out) == (0, False)


@pytest.mark.parametrize("missing", ["the number of vCPUs", "the cmdline", "the CPU"])
def test_nothing_of_it_is_taken_otherwise(lab: Lab, here: Path, missing: str) -> None:
    with_files(lab, here)
    known = [word for part, words in PARTS.items() if part != missing for word in words]
    ran = lab.validate(*known, *INJECT, known=False)
    assert (ran.code, lab.secret) == (3, {})
    assert ran.err.startswith(f"error: {missing} would be what the host says")
    assert PARTS[missing][0] in ran.err


@pytest.mark.parametrize("missing", ["the firmware", "the initrd"])
def test_files_of_another_machine_cannot_be_taken(lab: Lab, here: Path, missing: str) -> None:
    with_files(lab, here)
    known = [word for part, words in PARTS.items() if part != missing for word in words]
    for insecure in ((), ("--insecure",)):
        ran = lab.validate(*known, *insecure, known=False)
        assert (ran.code, "the file is there, not here" in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("file", "kind", "shown"),
    [
        ("fw", "pipe", "fw is not a regular file"),
        ("fw", "folder", "fw is not a regular file"),
        ("kernel", "pipe", "kernel is not a regular file"),
        ("fw", "large", "fw is larger than 16777216 bytes"),
        ("kernel", "large", ""),
        ("initrd", "none", "No such file"),
    ],
)
def test_of_files_that_a_host_names_only_plain_ones_are_read(
    lab: Lab, here: Path, file: str, kind: str, shown: str
) -> None:
    with_files(lab, here)
    lab.libvirt.hostname = "owner"
    path = here / file
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "large":
        with path.open("wb") as large:
            large.truncate((16 << 20) + 1)
    ran = lab.validate("--insecure", "--no-diagnose", *INJECT, known=False)
    assert (ran.code, lab.secret) == (6 if shown else 1, {})
    assert shown in ran.err


def test_a_host_without_firmware_does_not_stand_in_for_it(lab: Lab) -> None:
    lab.domain.xml = xml_of(loader="")
    ran = lab.validate("-g", "-n", "2", *SKU, known=False)
    assert (ran.code, "--firmware (or --launch-digest) is needed" in ran.err) == (2, True)
    lab.domain.xml = xml_of(loader="<loader>-</loader>")
    lab.libvirt.hostname = "owner"
    ran = lab.validate("-i", "-n", "2", *SKU, known=False)
    assert (ran.code, "not an absolute path" in ran.err) == (6, True)


def test_a_digest_needs_nothing_of_the_host(lab: Lab) -> None:
    digest = sev.launch_digest(OVMF, vcpus=2, vmsa=CpuModel.named("EPYC-Milan"))
    assert lab.validate("--launch-digest", digest.hex(), *INJECT, known=False).code == 0
    assert lab.secret == {GUID: b"the disk key"}


def _verified(lab: Lab, *, kernel_hashes: bool = False) -> None:
    """Start the guest in a session for a verified platform, and write its record and demands."""
    platform = Platform(b"lab")
    verified = sev.verify_chain(platform.export(), roots=[platform.authority.root])
    session = sev.Session.create(verified, policy=sev.GuestPolicy(5))
    created = datetime(2026, 6, 30, tzinfo=UTC)
    record = LaunchRecord.of(session, "vm1", created, kernel_hashes=kernel_hashes)
    Path("record").write_bytes(record.to_bytes())
    Path("tk").write_bytes(session.keys.tek + session.keys.tik)
    lab.domain.guest = launch(platform, session)
    cpu = CpuModel.named("EPYC-Milan")
    digests = [sev.launch_digest(OVMF, vcpus=number, vmsa=cpu).hex() for number in (2, 3)]
    known = ", ".join(f'"{advisory.id}"' for advisory in load())
    text = """
schema = "sev-attest/requirements/1"
platform = { generations = ["test"], ceks = ["*"], platform_ids = ["*"], pdhs = ["*"] }
minimum.test = { api = "1.55", build = 24 }
"""
    for name, digest in zip(("web", "db"), digests, strict=True):
        text += f'[[launch]]\nname = "{name}"\ndigest = "{digest}"\n'
    Path("owner.toml").write_text(f"{text}[advisories]\nacknowledged = [{known}]\n")


DEMANDS = ("--record", "record", "--requirements", "owner.toml", "--ledger", "none")


def test_requirements_need_nothing_of_the_host(lab: Lab) -> None:
    _verified(lab)
    ran = lab.validate(*DEMANDS, *INJECT, "--launch", "db", known=False)
    assert (ran.code, "Measurement does not match" in ran.err, lab.secret) == (1, True, {})
    ran = lab.validate(*DEMANDS, *INJECT, "--launch", "web", known=False)
    assert (ran.code, ran.errors) == (0, [])
    assert "OK: the requirements allow it as launch web" in ran.lines
    assert lab.secret == {GUID: b"the disk key"}


def test_what_a_host_says_of_a_guest_does_not_name_the_launch_of_a_secret(lab: Lab) -> None:
    _verified(lab)
    for options in ([], ["--insecure"]):
        ran = lab.validate(*DEMANDS, *INJECT, *options, known=False)
        assert (ran.code, ran.out) == (2, "")
        assert "nothing says which launch the secret is for: web, db" in ran.err
    assert lab.domain.calls == []


@pytest.mark.parametrize("more", [[], ["--ignore-config"], ["--requirements", "owner.toml"]])
def test_a_host_that_measures_no_kernel_gets_no_secret_of_a_session_with_kernel_hashes(
    lab: Lab, more: list[str]
) -> None:
    _verified(lab, kernel_hashes=True)
    given = ("--record", "record", "--ledger", "none", *more, *INJECT)
    ran = lab.validate(*given)
    assert (ran.code, lab.secret) == (3, {})
    assert "but no kernel was given: the host would choose it" in ran.err
    ran = lab.validate(*given, "--insecure")
    assert (ran.code, "INSECURE: this session was made with --kernel-hashes" in ran.err) == (
        0,
        True,
    )


def test_a_digest_that_the_requirements_allow_stands_for_the_kernel(lab: Lab) -> None:
    _verified(lab, kernel_hashes=True)
    assert lab.validate(*DEMANDS, *INJECT, "--launch", "web", known=False).code == 0


def test_hashes_stand_for_the_kernel(lab: Lab, here: Path) -> None:
    with_files(lab, here)
    hashes = KernelHashes.of(kernel=b"a kernel", initrd=b"an initrd", cmdline=b"a  b ")
    text = ":".join(part.hex() for part in (hashes.kernel, hashes.initrd, hashes.cmdline))
    assert lab.validate("--kernel-hashes", text).code == 0


@pytest.mark.parametrize("number", [0, 5000])
def test_an_impossible_number_of_vcpus_is_no_number(lab: Lab, number: int) -> None:
    lab.domain.vcpus = number
    ran = lab.validate("-i", "-f", "fw", *SKU, known=False)
    assert (ran.code, f"the host says {number}" in ran.err) == (6, True)


@pytest.mark.parametrize(
    ("cpu", "capabilities", "code", "shown"),
    [
        ("<cpu mode='host-passthrough'/>", SIGNATURE, 0, ""),
        ("<cpu mode='host-passthrough'/>", "", 2, "does not say which CPU"),
        ("<cpu mode='host-passthrough'/>", "<signature family='x'/>", 6, "not a CPU signature"),
        *(
            (
                "<cpu mode='host-passthrough'/>",
                SIGNATURE.replace(f"{name}='{number}'", other),
                6,
                "capabilities signature: is not a CPU signature",
            )
            for name, number in (("family", 25), ("model", 1), ("stepping", 1))
            for other in ("", f"{name}=''", f"{name}='-1'", f"{name}='1234567890'", f"{name}='٣'")
        ),
        ("", SIGNATURE, 2, "does not say which CPU"),
        ("<cpu mode='custom'><model>i486</model></cpu>", SIGNATURE, 2, "'i486'"),
        ("<cpu mode='custom'><model>EPYC</model></cpu>", SIGNATURE, 1, ""),
    ],
)
def test_the_cpu_is_the_one_that_the_guest_sees(
    lab: Lab, cpu: str, capabilities: str, code: int, shown: str
) -> None:
    lab.domain.xml = xml_of(cpu=cpu)
    lab.libvirt.capabilities = CAPABILITIES.format(capabilities)
    ran = lab.validate("-i", "-f", "fw", "-n", "2", known=False)
    assert ran.code == code
    assert shown in ran.err


def test_plain_sev_needs_neither_vcpus_nor_cpu(lab: Lab) -> None:
    platform = lab.domain.guest.platform
    session = sev.Session.create_unverified(platform.export().pdh, policy=sev.GuestPolicy(1))
    Path("tk").write_bytes(session.keys.tek + session.keys.tik)
    lab.domain.guest = launch(platform, session)
    assert lab.validate("-f", "fw", known=False).code == 0


# trouble


def test_a_domain_that_is_not_there_is_named(lab: Lab) -> None:
    ran = lab.validate("--domain", "vm2")
    assert (ran.code, ran.err.splitlines()[0]) == (6, "error: there is no domain vm2")


@pytest.mark.parametrize(
    ("call", "error", "code", "shown"),
    [
        ("XMLDesc", LibvirtError(NO_DOMAIN, "no such domain"), 5, "it is gone"),
        ("launchSecurityInfo", LibvirtError(NO_DOMAIN, "no such domain"), 5, "it is gone"),
        ("launchSecurityInfo", LibvirtError(RPC, "client socket is closed"), 6, "socket is closed"),
        ("inject", LibvirtError(NO_DOMAIN, "no such domain"), 5, "it is gone"),
        ("inject", LibvirtError(INVALID, "must be in a paused state"), 5, "must be in a paused"),
        ("inject", LibvirtError(UNSUPPORTED, "not by this QEMU"), 5, "not by this QEMU"),
        ("inject", RecursionError(), 6, "do not send it again"),
        ("inject", ValueError("secret"), 6, "an answer that cannot be read"),
        ("resume", UnicodeDecodeError("utf-8", b"x", 0, 1, "x"), 6, "guest has its secret"),
        ("resume", LibvirtError(RPC, "lost"), 6, "`virsh resume` lets it run"),
        ("XMLDesc", ValueError("x"), 6, "the domain: its XML: an answer that cannot be read"),
        ("launchSecurityInfo", RecursionError(), 6, "an answer that cannot be read"),
        ("info", OverflowError(), 6, "its state: an answer that cannot be read"),
        ("inject", LibvirtError(INTERNAL, "SEV: state must be"), 5, "not the one that was"),
        ("inject", LibvirtError(INTERNAL, "ret=-5 fw_error=7 ''"), 5, "not the one that was"),
        ("inject", LibvirtError(RPC, "client socket is closed"), 6, "do not send it again"),
        ("resume", LibvirtError(RPC, "client socket is closed"), 6, "guest has its secret"),
        ("resume", LibvirtError(INVALID, "domain is running"), 5, "guest has its secret"),
    ],
)
def test_a_call_that_fails_ends_it_in_words(
    lab: Lab, call: str, error: Exception, code: int, shown: str
) -> None:
    lab.domain.broken[call] = error
    ran = lab.validate(*INJECT)
    assert ran.code == code
    assert shown in ran.err
    assert "OK" not in ran.out
    assert lab.domain.calls.count("inject") <= 1
    assert lab.libvirt.closed == 1


@pytest.mark.parametrize(
    ("call", "error", "state"),
    [
        ("inject", LibvirtError(RPC, "client socket is closed"), "released"),
        ("inject", LibvirtError(INTERNAL, "unable to execute QEMU command"), "released"),
        ("inject", RecursionError(), "released"),
        ("inject", KeyboardInterrupt(), "released"),
        ("inject", LibvirtError(INTERNAL, "SEV: no"), "failed"),
        ("inject", LibvirtError(INTERNAL, "ret=-5 fw_error=11 ''"), "failed"),
        ("inject", LibvirtError(NO_DOMAIN, "no such domain"), "failed"),
        ("inject", LibvirtError(INVALID, "must be in a paused state"), "failed"),
        ("inject", LibvirtError(UNSUPPORTED, "not by this QEMU"), "failed"),
        ("resume", LibvirtError(RPC, "client socket is closed"), "released"),
        ("resume", LibvirtError(INVALID, "domain is running"), "released"),
        ("resume", KeyboardInterrupt(), "released"),
    ],
)
def test_a_secret_that_may_have_arrived_counts_as_released(
    lab: Lab, call: str, error: Exception, state: str
) -> None:
    lab.domain.broken[call] = error
    assert lab.validate(*INJECT, "--ledger", "kept").code != 0
    with Ledger.open("kept", create=False) as ledger:
        entry = ledger.get(lab.session.keys.session_id)
        assert entry is not None
        told = ["created", "measured", "released", "failed"]
        assert entry.state == state
        assert [event.kind for event in ledger.events()] == told[: told.index(state) + 1]
    del lab.domain.broken[call]
    assert lab.validate(*INJECT, "--ledger", "kept").code == 5
    assert lab.domain.calls.count("inject") == 1


def test_a_domain_that_was_started_anew_in_between_gets_nothing(lab: Lab) -> None:
    def start_anew() -> None:
        lab.domain.id += 1

    lab.domain.meanwhile = start_anew
    ran = lab.validate(*INJECT)
    assert (ran.code, lab.secret) == (5, {})
    assert "started anew" in ran.err
    assert "hint: nothing was sent: start the guest anew, with a new session\n" in ran.err


@pytest.mark.parametrize("trouble", [LibvirtError(RPC, "lost"), KeyboardInterrupt()])
def test_trouble_before_a_secret_is_sent_is_no_release(lab: Lab, trouble: Exception) -> None:
    lab.domain.meanwhile = lambda: lab.libvirt.broken.update(lookup=trouble)
    ran = lab.validate(*INJECT, "--ledger", "kept")
    assert (ran.code, lab.secret) == (6 if isinstance(trouble, Exception) else 130, {})
    assert "inject" not in lab.domain.calls
    assert ("nothing was sent" in ran.err) is (ran.code == 6)
    assert "do not send it again" not in ran.err
    shown = lab.run("ledger", "list", "--ledger", "kept").out
    assert "failed" in shown
    assert "released" not in shown


def test_a_secret_that_the_firmware_refuses_is_not_there(lab: Lab) -> None:
    other = launch(lab.domain.guest.platform, lab.session)

    def swap() -> None:
        lab.domain.guest.handle = other.handle

    lab.domain.meanwhile = swap
    ran = lab.validate(*INJECT)
    assert (ran.code, lab.secret) == (5, {})
    assert "fw_error=11" in ran.err
    assert "not the one that was measured" in ran.err


def test_a_host_that_does_not_answer_is_not_waited_for(lab: Lab) -> None:
    released = threading.Event()
    lab.domain.meanwhile = released.wait
    connection = LibvirtConnection(URI, 0.01)
    guest = connection.guest("vm1")
    with pytest.raises(HostError, match=r"no answer in 0.01 seconds"):
        guest.claims()
    released.set()
    assert call_within(60, "a call", lambda: 7) == 7


def test_an_old_libvirt_reports_the_measurement_alone(lab: Lab) -> None:
    lab.domain.launchSecurityInfo = lambda: {  # type: ignore[method-assign] # another version
        "sev-measurement": base64.b64encode(lab.domain.guest.measurement).decode()
    }
    ran = lab.validate()
    assert (ran.code, "the host lacks values: also give --api-major" in ran.err) == (2, True)
    numbers = ["--api-major", "1", "--api-minor", "55", "--build-id", "24", "--policy", "5"]
    assert lab.validate(*numbers).code == 0
    lab.domain.launchSecurityInfo = dict  # type: ignore[method-assign] # none
    assert lab.validate().code == 6


def test_a_host_that_says_too_much_is_not_listened_to(lab: Lab) -> None:
    lab.domain.launchSecurityInfo = lambda: {"sev-measurement": "A" * (1 << 17)}  # type: ignore[method-assign] # much
    ran = lab.validate()
    assert (ran.code, "launch info: more than 65536 characters" in ran.err) == (6, True)
    lab.libvirt.getSEVInfo = lambda: {"pdh": "A" * (1 << 17)}  # type: ignore[method-assign] # much
    ran = lab.run("session", "--name", "vm1", "--connect", URI, "5")
    assert (ran.code, "host's SEV info: more than 65536 characters" in ran.err) == (6, True)
    lab.libvirt.broken["open"] = LibvirtError(38, "no " * 10_000)
    assert len(lab.validate().err) < 1000


def test_without_the_extra_it_says_what_to_install(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "libvirt", None)
    ran = lab.validate()
    assert (ran.code, "`pip install '.[libvirt]'` in sev-attest's folder" in ran.err) == (2, True)


def test_a_connection_is_to_many_domains(lab: Lab) -> None:
    with pytest.raises(Unsupported, match="libvirt may have several domains"):
        LibvirtConnection(URI, 1).guest(None)


def test_a_connection_that_cannot_be_made(lab: Lab) -> None:
    lab.libvirt.broken["open"] = LibvirtError(38, "Connection refused")
    ran = lab.validate()
    assert (ran.code, ran.err) == (6, f"error: connecting to {URI}: Connection refused\n")


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (["--connect", URI], "--connect needs --domain"),
        (["--domain", "vm1", "--launch-info", "i"], "--launch-info cannot be combined"),
        (
            ["--domain", "vm1", "--secret-header", "h", "--secret-payload", "p"],
            "--secret-header, --secret-payload cannot be combined",
        ),
        (["--domain", "vm1", "--timeout", "0"], "0 is not in 1..86400"),
    ],
)
def test_usage(lab: Lab, options: list[str], shown: str) -> None:
    ran = lab.run("validate", "--tk", "tk", "--firmware", "fw", *options)
    assert (ran.code, shown in ran.err) == (2, True)


def test_secrets_stay_here_where_the_firmware_has_no_place_for_them(lab: Lab) -> None:
    bare = ovmf_image(8192, secret_area=None)
    Path("fw").write_bytes(bare)
    guest = lab.domain.guest
    lab.domain.guest = launch_guest(
        guest.platform,
        policy=5,
        godh=lab.session.godh.to_bytes(),
        session=lab.session.blob,
        firmware=bare,
        vcpus=2,
    )
    ran = lab.validate(*INJECT)
    assert (ran.code, "no area for secrets" in ran.err) == (2, True)
    assert "inject" not in lab.domain.calls
    assert lab.validate().code == 0


# session


def test_a_session_is_made_for_the_host_s_own_chain(lab: Lab) -> None:
    authority = lab.domain.guest.platform.authority
    Path("root").write_bytes(authority.ask.to_bytes() + authority.ark.to_bytes())
    options = ("--name", "vm1", "--connect", URI, "5")
    ran = lab.run("session", *options, "--trust-root", "root")
    assert ran.code == 0
    record = LaunchRecord.from_bytes(Path("vm1.launch.json").read_bytes())
    assert record.root is not None
    assert lab.run("session", *options, "--force").code == 1
    lab.libvirt.platform = None
    refused = lab.run("session", *options, "--force")
    assert (refused.code, "does not support SEV" in refused.err) == (6, True)


# the XML


def test_what_is_absent_is_none() -> None:
    config = read_config("<domain/>")
    assert not config.sev
    assert (config.firmware, config.cmdline, config.cpu_mode) == (None, None, "")
    for text in ("<!DOCTYPE a><domain/>", "<a/>", "<domain>\ud800</domain>"):
        with pytest.raises(MalformedInput):
            read_config(text)
    assert read_config("<domain><os><cmdline/></os></domain>").cmdline == ""
    assert read_config("<domain><os><kernel> </kernel></os></domain>").kernel == " "
    with pytest.raises(NotAttestable):
        check_config(config, kernel=False, insecure=True)


def test_an_sev_snp_guest_is_refused_and_what_to_do_instead_is_named(lab: Lab) -> None:
    lab.domain.xml = xml_of().replace("type='sev'", "type='sev-snp'")
    for options in ((), ("--insecure",)):
        ran = lab.validate(*INJECT, *options)
        assert (ran.code, ran.out, lab.secret) == (2, "", {})
        assert "this is an SEV-SNP guest (type='sev-snp'): it has no session" in ran.err
        assert "which `sev-attest snp verify` checks" in ran.err


@pytest.mark.parametrize("part", ["kernel", "initrd", "cmdline"])
def test_a_part_of_a_kernel_alone_is_a_kernel_that_is_not_measured(lab: Lab, part: str) -> None:
    lab.domain.xml = xml_of(f"<{part}>/host/part</{part}>")
    ran = lab.validate(*INJECT)
    assert (ran.code, lab.secret) == (3, {})
    assert "boots a kernel that is not measured" in ran.err
    lab.domain.xml = xml_of(f"<{part}>/host/part</{part}>", hashes=" kernelHashes='yes'")
    ran = lab.validate(*INJECT)
    assert "kernelHashes='yes', but no kernel" not in ran.err
