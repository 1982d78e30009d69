"""``sev_attest.host.launch`` and the calls of libvirt's that it uses, on a simulated libvirt."""

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from uuid import UUID

import pytest

from fake_libvirt import BROKEN, NO_DOMAIN, PAUSED, RPC, RUNNING, Domain, Host, LibvirtError
from sev_attest import MalformedInput
from sev_attest.domain_xml.compare import same_but_session
from sev_attest.domain_xml.domain import parse_domain
from sev_attest.domain_xml.xml import MAX_SIZE
from sev_attest.errors import SevAttestError, WrongState
from sev_attest.host import HostError, libvirt
from sev_attest.host.launch import OneLaunch, Remains
from sev_attest.host.libvirt import LibvirtConnection
from sev_attest.testing import Platform, ovmf_image
from test_domain_xml import BLOB_B64, CLEAN

QUESTIONS = ("isActive", "lookupByUUIDString", "XMLDesc 0")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(Platform(b"host"), ovmf_image(8192))
    monkeypatch.setitem(sys.modules, "libvirt", host)
    return host


@pytest.fixture
def boots(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the host start a domain whose session is of no platform."""

    def boot(domain: Domain) -> None:
        domain.live, domain.id, domain.state = domain.xml, 1, PAUSED

    monkeypatch.setattr(host, "boot", boot)


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
    nothing = Remains(guest="none", words="nothing was changed on the host", over=True)
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
    assert remains.guest == "none"
    assert "definition of domain vm1 could not be removed: " in remains.words
    host.before |= dict.fromkeys(QUESTIONS, LibvirtError(RPC, "lost"))
    remains = launch.undo(leave=False)
    assert (remains.guest, remains.over) == ("unknown", False)
    assert "a guest of domain vm1 may still be there" in remains.words
    host.before |= dict.fromkeys(("lookupByName", *QUESTIONS), LibvirtError(NO_DOMAIN, "gone"))
    nothing = Remains(guest="none", words="no guest was started", over=True)
    assert launch.undo(leave=False) == nothing


def test_not_even_a_bug_is_raised(
    host: Host, connection: LibvirtConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = one_launch(connection)
    launch.define()
    monkeypatch.setattr(connection, "hurry", None)
    remains = launch.undo(leave=False)
    assert (remains.guest, remains.over) == ("unknown", False)
    assert remains.words.endswith(": an answer that cannot be read")
    assert "vm1" in host.domains


@pytest.mark.usefixtures("boots")
@pytest.mark.parametrize("answer", [None, 5, b"<domain/>", "", "<a>" * 500, "\ud800<domain/>"])
def test_xml_of_another_kind_is_an_error_of_ours(
    host: Host,
    connection: LibvirtConnection,
    monkeypatch: pytest.MonkeyPatch,
    answer: object,
) -> None:
    launch = one_launch(connection)
    launch.define()
    monkeypatch.setattr("fake_libvirt.Domain.XMLDesc", lambda *_: answer)
    with pytest.raises(SevAttestError):
        launch.start()
    assert launch.undo(leave=False).guest == "destroyed"  # its id is enough
    assert host.domains["vm1"].id == -1


@pytest.mark.usefixtures("boots")
@pytest.mark.parametrize("question", [*QUESTIONS, "ID", "info"])
def test_one_question_that_fails_does_not_keep_a_guest(
    host: Host, connection: LibvirtConnection, question: str
) -> None:
    launch = one_launch(connection)
    launch.define()
    host.after["create"] = lambda: host.before.update({question: LibvirtError(RPC, "busy")})
    with suppress(SevAttestError):
        launch.start()
    remains = launch.undo(leave=False)
    assert (remains.guest, remains.over, host.domains) == ("destroyed", True, {})


@pytest.mark.usefixtures("boots")
def test_a_guest_that_nothing_proves_to_be_ours_is_left(
    host: Host, connection: LibvirtConnection
) -> None:
    launch = one_launch(connection)
    launch.define()
    launch.start()
    busy = LibvirtError(RPC, "busy")
    host.before |= {"ID": busy, "XMLDesc 0": busy}
    assert launch.undo(leave=False).guest == "unknown"
    assert (host.domains["vm1"].state, "destroy" in host.calls) == (PAUSED, False)


@pytest.mark.usefixtures("boots")
def test_a_domain_that_only_has_the_name_is_not_destroyed(
    host: Host, connection: LibvirtConnection
) -> None:
    """The proof is the handle of the definition, not the name."""
    launch = one_launch(connection)
    launch.define()
    other = Domain(host, "vm1", UUID(int=4711), "<domain><name>vm1</name></domain>")

    def swap() -> None:
        mine = host.domains.pop("vm1")
        mine.id, mine.live = -1, BROKEN
        other.id, other.state = 77, RUNNING
        host.domains["vm1"] = other

    host.after["create"] = swap
    with pytest.raises(SevAttestError):
        launch.start()
    remains = launch.undo(leave=False)
    assert (other.id, other.state, host.domains) == (77, RUNNING, {"vm1": other})
    assert remains.words.endswith("and the domain is still defined, in another session")


def test_a_definition_in_lines_is_known(
    host: Host, connection: LibvirtConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = one_launch(connection)
    launch.define()
    real = Domain.XMLDesc

    def lines(self: Domain, flags: int = 0) -> str:
        return real(self, flags).replace(BLOB_B64, f"\n  {BLOB_B64[:64]}\n  {BLOB_B64[64:]}\n")

    monkeypatch.setattr(Domain, "XMLDesc", lines)
    assert launch.undo(leave=False).words.endswith("the domain is not defined any more")
    assert host.domains == {}


@pytest.mark.usefixtures("boots")
def test_a_guest_that_stays_after_it_was_destroyed_is_named(
    host: Host, connection: LibvirtConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = one_launch(connection)
    launch.define()
    launch.start()
    monkeypatch.setattr(Domain, "destroy", lambda _: None)
    remains = launch.undo(leave=False)
    assert (remains.guest, remains.over, host.domains["vm1"].state) == ("paused", False, PAUSED)
    assert "could not be destroyed, and is still there, paused: the host says" in remains.words


@pytest.mark.usefixtures("boots")
def test_the_undo_has_a_time_whatever_the_timeout_is(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: list[float] = []
    clock = [1000.0]

    def within(seconds: float, _what: str, call: Callable[[], object]) -> object:
        times.append(seconds)
        clock[0] += 25
        return call()

    monkeypatch.setattr(libvirt, "call_within", within)
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    launch = one_launch(LibvirtConnection("qemu+ssh://host/system", 86400))
    launch.define()
    launch.start()
    assert {*times} == {86400}
    times.clear()
    assert launch.undo(leave=False).guest == "destroyed"
    assert (times[:4], {*times[3:]}, host.domains) == ([60, 35, 10, 0], {0}, {})


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
