"""``sev_attest.host.launch`` and the calls of libvirt's that it uses, on a simulated libvirt."""

import sys
from collections.abc import Iterator

import pytest

from fake_libvirt import NO_DOMAIN, PAUSED, RPC, Host, LibvirtError
from sev_attest import MalformedInput
from sev_attest.domain_xml.compare import same_but_session
from sev_attest.domain_xml.domain import parse_domain
from sev_attest.domain_xml.xml import MAX_SIZE
from sev_attest.errors import WrongState
from sev_attest.host import HostError
from sev_attest.host.launch import OneLaunch, Remains
from sev_attest.host.libvirt import LibvirtConnection
from sev_attest.testing import Platform, ovmf_image
from test_domain_xml import BLOB_B64, CLEAN


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(Platform(b"host"), ovmf_image(8192))
    monkeypatch.setitem(sys.modules, "libvirt", host)
    return host


@pytest.fixture
def connection(host: Host) -> Iterator[LibvirtConnection]:
    connection = LibvirtConnection("qemu+ssh://host/system", 5)
    yield connection
    connection.close()
    assert host.calls[-1] == "close"


def one_launch(connection: LibvirtConnection) -> OneLaunch:
    return OneLaunch(connection, name="vm1", xml=CLEAN.encode(), session=BLOB_B64)


def test_the_steps_have_an_order(connection: LibvirtConnection) -> None:
    launch = one_launch(connection)
    with pytest.raises(RuntimeError, match="comes after define"):
        launch.start()
    nothing = Remains(guest="none", words="nothing was changed on the host")
    assert launch.undo(leave=False) == nothing


def test_a_domain_that_is_not_there_is_none_but_a_failure_is_one(
    host: Host, connection: LibvirtConnection
) -> None:
    assert connection.find("vm1") is None
    for code, kind in ((RPC, HostError), (55, WrongState)):
        host.before["lookupByName"] = LibvirtError(code, "no")
        with pytest.raises(kind):
            connection.find("vm1")


def test_versions_are_read_from_libvirt_s_numbers(
    host: Host, connection: LibvirtConnection
) -> None:
    assert connection.versions().libvirt == (9, 0, 0)
    assert connection.versions().qemu == (7, 2, 3)
    for number in (-1, "9", None, True):
        host.numbers = (number, 1)
        with pytest.raises(MalformedInput, match="is not a number"):
            connection.versions()


def test_a_definition_has_a_size(host: Host, connection: LibvirtConnection) -> None:
    domain = host.defineXML(CLEAN)
    found = connection.find("vm1")
    assert found is not None
    assert found.xml() == domain.xml
    domain.xml = "x" * (MAX_SIZE + 1)
    with pytest.raises(MalformedInput, match="more than 1048576 bytes"):
        found.xml()


def test_a_domain_of_the_session_is_known_by_it(host: Host, connection: LibvirtConnection) -> None:
    """Also if this process does not know that it was started."""
    launch = one_launch(connection)
    launch.define()
    domain = host.domains["vm1"]
    domain.live, domain.id, domain.state = domain.xml, 9, PAUSED
    assert launch.undo(leave=False).guest == "destroyed"
    assert host.domains == {}


def test_nothing_of_a_refusal_is_raised(host: Host, connection: LibvirtConnection) -> None:
    launch = one_launch(connection)
    launch.define()
    host.before["lookupByName"] = LibvirtError(RPC, "lost")
    remains = launch.undo(leave=False)
    assert remains.guest == "unknown"
    assert "a guest of domain vm1 may still be there" in remains.words
    host.before["lookupByName"] = LibvirtError(NO_DOMAIN, "gone")
    assert launch.undo(leave=False) == Remains(guest="none", words="no guest was started")


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        (BLOB_B64, "another", True),
        ("<policy>0x0007", "<policy>0x0001", True),
        ("<domain type='kvm'>", "<domain id='3' type='kvm'>", True),
        ("<!-- the kernel goes here -->", "", True),
        ("  <name>vm1</name>", "<name> vm1 </name>", True),
        ("type='kvm'", 'type="kvm"', True),
        ("<name>vm1", "<name>vm2", False),
        ("static'>4<", "static'>5<", False),
        ("<acpi/>", "<acpi/><apic/>", False),
        ("stateless='yes'", "", False),
        ("bus='scsi'", "bus='sata'", False),
        ("type='kvm'", "type='qemu'", False),
        ("<disk type='file' device='disk'>", "<disk type='file' device='disk' id='3'>", False),
        ("<acpi/>", "<acpi/><launchSecurity/>", False),
    ],
)
def test_domains_are_the_same_but_for_their_session(old: str, new: str, *, same: bool) -> None:
    assert old in CLEAN
    one, other = (parse_domain(text.encode()) for text in (CLEAN, CLEAN.replace(old, new, 1)))
    assert same_but_session(one, other) is same
    assert same_but_session(other, one) is same
