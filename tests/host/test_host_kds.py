"""``sev_attest.host.kds``: what AMD's key server, or a mirror of it, may answer."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sev_attest.errors import Unsupported
from sev_attest.host import kds
from sev_attest.host.connection import HostError
from sev_attest.host.kds import KeyServer
from vault_stand_in import StandIn, serving

pytestmark = pytest.mark.usefixtures("_loopback")
CHIP = bytes(range(64))
WHERE = f"/cek/id/{CHIP.hex()}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StandIn]:
    """Run a server without TLS."""
    with serving(tmp_path, tls=False) as stand_in:
        yield stand_in


def answers(server: StandIn, *given: tuple[int, bytes, dict[str, str]]) -> None:
    """Let the server give these answers, one after the other."""
    left = list(given)

    def answer(handler: Any) -> None:
        status, body, headers = left.pop(0)
        handler.send(status, body, **{n.replace("_", "-"): v for n, v in headers.items()})

    server.fault = answer


def ask(server: StandIn, waited: list[int] | None = None) -> bytes:
    wait = never if waited is None else waited.append
    return KeyServer(f"http://{server.host}").cek(CHIP, wait=wait)


def never(seconds: int) -> None:
    raise AssertionError(f"nobody asked to wait {seconds} seconds")


def refused(server: StandIn, waited: list[int] | None = None) -> HostError:
    with pytest.raises(HostError) as caught:
        ask(server, waited)
    assert (caught.value.check, caught.value.exit_code) == ("kds.cek", 6)
    assert str(caught.value).startswith(f"http://{server.host}{WHERE}: ")
    assert caught.value.hint
    return caught.value


# where it is


def test_the_server_is_amd_s_unless_another_is_named() -> None:
    assert KeyServer().cek_address(CHIP) == f"https://kdsintf.amd.com{WHERE}"
    assert KeyServer("https://mirror:8443/amd/").cek_address(CHIP) == (
        f"https://mirror:8443/amd{WHERE}"
    )


@pytest.mark.parametrize(
    "url",
    [
        "", "kdsintf.amd.com", "ftp://kdsintf.amd.com", "https://", "https://ho st", "https:///x",
        "http://kdsintf.amd.com", "http://localhost", "https://me@host", "https://me:pw@host",
        "https://host?x=1", "https://host#x", "https://host/a b", "https://host/%2e", "https://[::1",
        "https://host:port", "https://host//x", "file:///etc/passwd",
    ],
)  # fmt: skip
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(Unsupported, match="the key server is https://HOST") as caught:
        KeyServer(url)
    assert caught.value.exit_code == 2


def test_it_is_asked_for_the_chip(server: StandIn) -> None:
    answers(server, (200, b"a CEK", {}))
    assert KeyServer(f"http://{server.host}/amd").cek(CHIP, wait=never) == b"a CEK"
    ((method, path, headers, body),) = server.seen
    assert (method, path, body) == ("GET", f"/amd{WHERE}", b"")
    assert headers["host"] == server.host


def test_https_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path) as server:
        server.fault = lambda handler: handler.send(200, b"a CEK")
        url = f"https://{server.host}"
        with pytest.raises(HostError, match="its certificate is not trusted: ") as caught:
            KeyServer(url).cek(CHIP, wait=never)
        assert "no proxy is used" in caught.value.hint
        assert not server.seen
        monkeypatch.setenv("SSL_CERT_FILE", str(server.ca))
        assert KeyServer(url).cek(CHIP, wait=never) == b"a CEK"


# what it answers


def test_a_chip_that_it_does_not_know(server: StandIn) -> None:
    answers(server, (404, b"", {}))
    assert "it knows no chip with this id (status 404)" in str(refused(server))


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (403, "it refuses the request (status 403)"),
        (500, "it fails (status 500)"),
        (204, "it fails (status 204)"),
        (503, "it fails (status 503)"),
    ],
)
def test_other_answers(server: StandIn, status: int, words: str) -> None:
    answers(server, (status, b"", {}))
    assert words in str(refused(server))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(server: StandIn, status: int) -> None:
    answers(server, (status, b"", {"Location": f"http://{server.host}/other"}))
    assert "it redirects, which is not followed" in str(refused(server))
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("seconds", [0, 7, kds.MAX_WAIT])
def test_a_short_wait_is_kept_once(server: StandIn, status: int, seconds: int) -> None:
    waited: list[int] = []
    answers(server, (status, b"", {"Retry_After": f" {seconds} "}), (200, b"a CEK", {}))
    assert ask(server, waited) == b"a CEK"
    assert waited == [seconds]


def test_who_asks_to_wait_again_is_not_asked_again(server: StandIn) -> None:
    waited: list[int] = []
    answers(server, *[(429, b"", {"Retry_After": "7"})] * 2)
    error = refused(server, waited)
    assert "too many requests (status 429)" in str(error)
    assert error.hint == "try again in 7 seconds"
    assert waited == [7]
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    ("header", "hint"),
    [
        (str(kds.MAX_WAIT + 1), f"try again in {kds.MAX_WAIT + 1} seconds"),
        ("999999999", "try again in 999999999 seconds"),
        ("9999999999", "try again later"),
        ("-1", "try again later"),
        ("1.5", "try again later"),
        ("", "try again later"),
        ("Wed, 21 Oct 2026 07:28:00 GMT", "try again later"),
    ],
)
def test_any_other_wait_is_told(server: StandIn, header: str, hint: str) -> None:
    waited: list[int] = []
    answers(server, (429, b"", {"Retry_After": header}))
    assert refused(server, waited).hint == hint
    assert not waited


@pytest.mark.parametrize("status", [200, 404])
def test_an_answer_of_any_size_is_read_up_to_64_kib(server: StandIn, status: int) -> None:
    answers(server, (200, bytes(1 << 16), {}), (status, bytes((1 << 16) + 1), {}))
    assert len(ask(server)) == 1 << 16
    assert "more than 65536 bytes" in str(refused(server))


def test_a_slow_server_costs_no_more_than_the_time_limit(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kds, "SECONDS", 0.3)
    ended = threading.Event()

    def drip(handler: Any) -> None:
        try:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nA: ")
            while not ended.wait(0.05):
                handler.wfile.write(b"a")
        except OSError:
            pass

    server.fault = drip
    try:
        assert "no answer in 0.3 seconds" in str(refused(server))
    finally:
        ended.set()


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # it does not listen
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(HostError, match="Connection refused"):
            KeyServer(url).cek(CHIP, wait=never)
