"""``sev_attest.host.place``: what may be this machine, and how a URI is shown."""

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from sev_attest.host.place import ends_here, leads_here, named_here, public, shown


def test_a_uri_is_shown_without_what_may_be_secret() -> None:
    for uri, text in {
        "qemu:///system": "qemu:///system",
        "qemu+ssh://host/system": "qemu+ssh://host/system",
        "qemu+ssh://me:pa@ss/w?rd@host:22/system?keyfile=/k#x": "qemu+ssh://host:22/system",
        "qemu+tcp://me:it's a secret@[::1]/system": "qemu+tcp://[::1]/system",
        "qemu+unix:///session?socket=/s": "qemu+unix:///session",
        "qmp+unix:///run/me@here/vm1.sock": "qmp+unix:///run/me@here/vm1.sock",
        "an-alias?password=x": "an-alias",
        "me:secret@host": "host",
        "": "",
    }.items():
        assert shown(uri) == text


def test_no_text_quotes_a_uri_s_secrets() -> None:
    uri = "qemu+tcp://me:it's a secret@host/system?pkipath=/home/me"
    said = f"no {uri}, no 'qemu+tcp://me:it%27s%20a%20secret@host/system?pkipath=x': refused"
    assert public(said, uri) == "no qemu+tcp://host/system, no 'qemu+tcp://host/system refused"
    assert public("Connection refused", uri) == "Connection refused"


NOBODY = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str] | Exception]:
    """Return the address of a known name; numbers are addresses already."""
    found: dict[str, list[str] | Exception] = {}
    real = socket.getaddrinfo

    def look_up(name: str, port: None, **options: Any) -> list[Any]:
        known = found.get(name, [name])
        if isinstance(known, Exception):
            raise known
        numeric = socket.AI_NUMERICHOST
        return [one for text in known for one in real(text, port, flags=numeric, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return found


class Trial(socket.socket):
    """A socket that can be bound to one address, as if that were the machine's."""

    def bind(self, address: Any) -> None:
        if address[:2] not in {("198.51.100.7", 0), ("2001:db8::7", 0)}:
            raise OSError(99, "Cannot assign requested address")


@pytest.mark.parametrize(
    ("uri", "here"),
    [
        ("qemu:///system", True),
        ("qemu+ssh:///system", True),
        ("test", True),
        ("qemu+ssh://[::1/system", True),
        ("qemu+unix://198.51.100.8/system", True),
        ("qemu+ssh://127.1/system", True),
        ("qemu+ssh://me@2130706433/system", True),
        ("qemu+ssh://0.0.0.0/system", True),
        ("qemu+ssh://[::]/system", True),
        ("qemu+ssh://[::1]:22/system", True),
        ("qemu+ssh://[::ffff:127.0.0.1]/system", True),
        ("qemu+ssh://host/system", True),
        ("qemu+ssh://%68ost/system", True),
        ("qemu+ssh://198.51.100.7/system", True),
        ("qemu+ssh://[2001:db8::7]/system", True),
        ("qemu+ssh://198.51.100.8/system", False),
        ("qemu+ssh://[2001:db8::8]/system", False),
        ("qemu+ssh://elsewhere/system", False),
        ("qemu+ssh://alias/system", False),
        ("qemu+ssh://a%00b/system", False),
    ],
)
def test_a_uri_that_may_lead_to_this_machine(
    addresses: dict[str, list[str] | Exception],
    monkeypatch: pytest.MonkeyPatch,
    uri: str,
    *,
    here: bool,
) -> None:
    addresses |= {"host": ["198.51.100.8", "198.51.100.7"], "elsewhere": ["198.51.100.8"]}
    addresses |= {"alias": NOBODY, "a\0b": ValueError("embedded null character")}
    monkeypatch.setattr(socket, "socket", Trial)
    assert leads_here(uri) is here


def test_an_address_of_this_machine_can_be_bound_to(
    addresses: dict[str, list[str] | Exception],
) -> None:
    assert leads_here("qemu+ssh://127.0.0.1/system")
    assert not leads_here("qemu+ssh://192.0.2.1/system")  # for documentation: nobody's


@pytest.mark.parametrize(
    ("name", "here"),
    [
        ("", True),
        (".", True),
        ("localhost", True),
        ("localhost.localdomain", True),
        ("localhost4", True),
        ("owner", True),
        ("OWNER", True),
        ("owner.", True),
        ("owner.example.org", True),
        ("owner.elsewhere", True),
        ("alias", True),
        ("owner2", False),
        ("host.owner", False),
    ],
)
def test_a_name_that_may_be_this_machine_s(
    monkeypatch: pytest.MonkeyPatch, name: str, *, here: bool
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Owner.example.org")
    monkeypatch.setattr(socket, "getfqdn", lambda: "alias.example.org")
    assert named_here(name) is here


@pytest.mark.parametrize(
    ("there", "own", "here"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.2", "127.0.0.1", True),
        ("::1", "::1", True),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1", True),
        ("192.0.2.7", "192.0.2.7", True),
        ("::ffff:192.0.2.7", "192.0.2.7", True),
        ("192.0.2.1", "192.0.2.7", False),
        ("2001:db8::1", "2001:db8::7", False),
        ("fe80::1%1", "fe80::2%1", False),
    ],
)
def test_a_connection_that_ends_on_this_machine(there: str, own: str, *, here: bool) -> None:
    ends: Any = SimpleNamespace(getpeername=lambda: (there, 1), getsockname=lambda: (own, 2))
    assert ends_here(ends) is here
