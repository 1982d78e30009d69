"""The client of Vault's HTTP API, against servers that are right, broken and hostile."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sev_attest.errors import Unsupported
from sev_attest.owner import _vault
from sev_attest.owner._answers import json_object, quoted
from sev_attest.owner._vault import Vault, parse_vault
from sev_attest.owner.key_errors import KeyAccessError
from vault_stand_in import TOKEN, StandIn, serving, told

FORM = "vault:URL"
LONG = 30.0
pytestmark = pytest.mark.usefixtures("_loopback")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.setenv("VAULT_TOKEN", TOKEN)
    with serving(tmp_path) as stand_in:
        stand_in.kv["", "kv", "web"] = {"luks-key": "open sesame"}
        stand_in.kv["teams/a", "kv", "web"] = {"luks-key": "of a team"}
        yield stand_in


def client(url: str) -> Vault:
    return parse_vault(url.removeprefix("vault:"), check="test.vault", form=FORM)[0]


def read(url: str) -> object:
    return client(url).call("GET", ("kv", "data", "web"))["data"]


def refused(url: str) -> KeyAccessError:
    with pytest.raises(KeyAccessError) as caught:
        read(url)
    assert caught.value.check == "test.vault"
    assert "\n" not in str(caught.value)
    assert TOKEN not in told(caught.value)
    return caught.value


def test_a_call_sends_the_token_and_returns_the_data(server: StandIn) -> None:
    assert read(server.url("kv")) == {"luks-key": "open sesame"}
    ((method, path, headers, body),) = server.seen
    assert (method, path, body) == ("GET", "/v1/kv/data/web", b"")
    assert headers["x-vault-token"] == TOKEN
    assert headers["x-vault-request"] == "true"
    assert headers["host"] == server.host
    assert "x-vault-namespace" not in headers


def test_a_namespace_is_sent(server: StandIn) -> None:
    assert read(server.url("kv", namespace="teams/a/")) == {"luks-key": "of a team"}


def test_a_token_is_read_from_its_private_file_for_every_call(
    server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VAULT_TOKEN")
    path = tmp_path / "token"
    vault = client(server.url("kv", token_file=str(path)))
    for token in (TOKEN, "hvs.renewed"):
        path.write_text(f"{token}\n")
        path.chmod(0o600)
        server.tokens = {token}
        assert vault.call("GET", ("kv", "data", "web"))
    path.chmod(0o640)
    with pytest.raises(KeyAccessError, match="others can read or change it"):
        vault.call("GET", ("kv", "data", "web"))
    assert TOKEN not in repr(vault) + repr(vars(vault))


@pytest.mark.parametrize("token", ["", "two words", "a\r\nHost: evil", "caf\u00e9", "\udcff"])
def test_what_is_no_token_is_never_sent_or_quoted(
    server: StandIn, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("VAULT_TOKEN", token)
    error = refused(server.url("kv"))
    assert str(error).startswith("VAULT_TOKEN: ")
    assert not token or token not in told(error)
    assert not server.seen


def test_a_server_that_nothing_vouches_for_gets_no_token(server: StandIn) -> None:
    error = refused(f"https://{server.host}/kv")
    assert "its certificate is not trusted: " in str(error)
    assert not server.seen


def test_a_server_of_another_name_gets_no_token(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = server.host.partition(":")[2]
    here = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", int(port)))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_more: here)
    error = refused(f"https://vault.example:{port}/kv?ca={server.ca}")
    assert "its certificate is not trusted: " in str(error)
    assert not server.seen


def test_the_first_address_that_answers_is_used(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = socket.getaddrinfo
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # it does not listen

        def two(*args: Any, **more: Any) -> list[Any]:
            right = found(*args, **more)
            return [(*right[0][:4], bound.getsockname()), *right]

        monkeypatch.setattr(socket, "getaddrinfo", two)
        assert read(server.url("kv"))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: two(*args, **more)[:1])
        assert "Connection refused" in str(refused(server.url("kv")))


def test_an_address_that_never_answers_leaves_time_for_the_next(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, found = socket.socket.connect, socket.getaddrinfo
    waited = []

    def silent(self: socket.socket, address: Any) -> None:
        if address == ("127.0.0.2", 1):
            waited.append(self.gettimeout() or 0)
            raise TimeoutError
        connect(self, address)

    def three(*args: Any, **more: Any) -> list[Any]:
        right = found(*args, **more)
        return [(*right[0][:4], ("127.0.0.2", 1))] * 2 + right

    monkeypatch.setattr(socket.socket, "connect", silent)
    monkeypatch.setattr(socket, "getaddrinfo", three)
    assert read(server.url("kv"))
    assert 0 < waited[0] <= _vault.SECONDS / 3
    assert waited[0] < waited[1] <= _vault.SECONDS / 2


def test_a_name_that_nobody_resolves_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_more: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setenv("VAULT_TOKEN", TOKEN)
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert str(refused("https://vault.example/kv")) == (
        "Vault at vault.example:8200: Name or service not known"
    )


def test_the_environment_neither_adds_a_proxy_nor_takes_the_keys_of_tls(
    server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "keys.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(log))
    for name in ("https_proxy", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert read(server.url("kv"))
    assert not log.exists()


# what a server answers


@pytest.mark.parametrize(
    ("status", "answer", "words"),
    [
        (400, {"errors": ["encryption key not found"]}, "refuses the request (status 400: encryp"),
        (403, {"errors": ["permission denied"]}, "permission denied (status 403: permission"),
        (404, {"errors": []}, "GET /v1/kv/data/web: not found (status 404)"),
        (429, {"errors": ["rate limit quota exceeded"]}, "too many requests (status 429: rate"),
        (503, {"errors": ["Vault is sealed"]}, "it is sealed, or down for maintenance (status 503"),
        (
            500,
            {"errors": ["1 error occurred:\n\t* deep\n"]},
            "fails (status 500: 1 error occurred:)",
        ),
        (502, b"<html>", "it fails (status 502)"),
        (403, {"errors": "text"}, "permission denied (status 403)"),
        (403, {"errors": [17]}, "permission denied (status 403)"),
        (403, [], "permission denied (status 403)"),
        (404, {"errors": [f"echo {TOKEN} \x1b[2J\u202e"]}, r"(status 404: echo ... \x1b[2J\u202e)"),
        (404, {"errors": [f"echo {TOKEN[:25]}"]}, "(status 404: echo ...)"),
        (404, {"errors": ["a " * 1000]}, "(status 404: a a a "),
        (418, b"", "it fails (status 418)"),
        (201, {"data": {}}, "it fails (status 201)"),
        (204, b"", "it fails (status 204)"),
        (200, b"", "an answer that cannot be read"),
        (200, b"{", "an answer that cannot be read"),
        (200, b"\xff\xfe", "an answer that cannot be read"),
        (200, b'{"data": "\xff"}', "an answer that cannot be read"),
        (200, b'{"data": {}} {"data": {}}', "an answer that cannot be read"),
        (200, b"[" * 100_000, "an answer that cannot be read"),
        (200, {"data": None}, "an answer that cannot be read"),
        (200, {"data": []}, "an answer that cannot be read"),
        (200, [{"data": {}}, 1], "an answer that cannot be read"),
    ],
)
def test_anything_but_data_is_one_clear_line(
    server: StandIn, status: int, answer: Any, words: str
) -> None:
    server.fault = lambda handler: handler.send(status, answer)
    error = refused(server.url("kv"))
    assert words in str(error)
    assert len(str(error)) < 400
    assert str(error).isascii()


def test_a_sealed_server_says_so(server: StandIn) -> None:
    server.sealed = True
    assert "status 503: Vault is sealed" in str(refused(server.url("kv")))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(server: StandIn, status: int) -> None:
    where = f"https://{server.host}/v1/elsewhere"
    server.fault = lambda handler: handler.send(status, b"", Location=where)
    error = refused(server.url("kv"))
    assert f"it redirects, which is not followed (status {status})" in str(error)
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"a" * 70_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n{",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
    ],
)
def test_what_is_no_http_is_one_clear_line(server: StandIn, raw: bytes) -> None:
    server.fault = lambda handler: void(handler.wfile.write(raw))
    error = refused(server.url("kv"))
    assert str(error).startswith(f"Vault at {server.host}: ")
    assert str(error).endswith(("that cannot be read", "the connection failed", "reset by peer"))


def void(_value: object) -> None:
    pass


@pytest.mark.parametrize("declared", [str(1 << 40), None])
def test_an_answer_of_any_size_is_read_up_to_a_mebibyte(
    server: StandIn, declared: str | None
) -> None:
    ended = threading.Event()

    def flood(handler: Any) -> None:
        handler.send_response_only(200)
        if declared:
            handler.send_header("Content-Length", declared)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"x" * 65536)
        except OSError:
            ended.set()

    server.fault = flood
    assert "more than 1048576 bytes" in str(refused(server.url("kv")))
    assert ended.wait(LONG)


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 OK\r\nA: ", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_slow_server_costs_no_more_than_the_time_limit(
    server: StandIn, monkeypatch: pytest.MonkeyPatch, part: bytes
) -> None:
    monkeypatch.setattr(_vault, "SECONDS", 0.5)
    ended = threading.Event()

    def drip(handler: Any) -> None:
        try:
            handler.wfile.write(part)
            while not ended.wait(0.05):
                handler.wfile.write(b"a" if part else b"")
        except OSError:
            pass

    server.fault = drip
    began = time.monotonic()
    try:
        assert "no answer in 0.5 seconds" in str(refused(server.url("kv")))
    finally:
        ended.set()
    assert time.monotonic() - began < LONG


def test_a_server_that_does_not_begin_tls_costs_no_more_than_the_time_limit(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_vault, "SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        url = f"https://127.0.0.1:{port}/kv?ca={server.ca}"
        assert "no answer in 0.3 seconds" in str(refused(url))


def test_a_server_without_tls_gets_no_token(server: StandIn, tmp_path: Path) -> None:
    with serving(tmp_path, tls=False) as plain:
        error = refused(f"https://{plain.host}/kv?ca={server.ca}")
        assert "TLS failed: " in str(error)
        assert not plain.seen


def test_no_time_is_left_after_the_limit(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_vault, "SECONDS", 0.0)
    assert "no answer in 0 seconds" in str(refused(server.url("kv")))


# a local agent


def test_an_agent_on_loopback_needs_neither_tls_nor_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VAULT_TOKEN", raising=False)
    with serving(tmp_path, tls=False) as agent:
        agent.tokens = {None}  # type: ignore[arg-type] # it adds its own
        agent.kv["", "kv", "web"] = {"luks-key": "open sesame"}
        assert read(f"http://{agent.host}/kv") == {"luks-key": "open sesame"}


def test_an_agent_may_listen_on_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAULT_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.sock"
    url = f"http+unix://{str(path).replace('/', '%2F')}/kv"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("a.sock")
        listening.listen()
        seen = []

        def answer() -> None:
            connected, _ = listening.accept()
            with connected:
                seen.append(connected.recv(65536))
                body = b'{"data": {"data": {"luks-key": "open sesame"}}}'
                size = str(len(body)).encode()
                connected.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Length: " + size + b"\r\n\r\n" + body
                )

        thread = threading.Thread(target=answer)
        thread.start()
        assert read(url) == {"luks-key": "open sesame"}
        thread.join()
    assert b"Host: localhost" in seen[0]
    path.unlink()
    assert "No such file or directory" in str(refused(url))


# the text


@pytest.mark.parametrize(
    "url",
    [
        "",
        "vault.example/transit/key",
        "ftp://vault.example/transit/key",
        "https:///transit/key",
        "https://[::1/transit/key",
        "https://vault.example:port/transit/key",
        "https://vault.example:99999/transit/key",
        "https://user:canary@vault.example/transit/key",
        "https://vault.example/transit/key#canary",
        "https://vault.example/transit//key",
        "https://vault.example/transit/../key",
        "https://vault.example/transit/%2e%2e/key",
        "https://vault.example/a%2F..%2Fb/key",
        "https://vault.example/transit/k%0d%0aey",
        "https://vault.example/transit/key%3fa",
        "https://vault.example",
        "https://vault.example/",
        "https://vault.example/transit/{launch}",
        "https://v\u00e4ult.example/transit/key",
        "https://vault example/transit/key",
        "http://vault.example/transit/key",
        "http://localhost/transit/key",
        "http://192.0.2.1/transit/key",
        "http+unix://relative/transit/key",
        "http+unix://%2Frun%2F%00/transit/key",
        "https://vault.example/transit/key?token=canary",
        "https://vault.example/transit/key?canary",
        "https://vault.example/transit/key?ca=",
        "https://vault.example/transit/key?ca=%0a",
        "https://vault.example/transit/key?ca=a&ca=b",
        "https://vault.example/transit/key?namespace=..",
        "https://vault.example/transit/key?namespace=/",
        "https://vault.example/transit/key?namespace=a%0d%0ab",
    ],
)
def test_a_text_that_names_no_place_is_unsupported_and_not_quoted(url: str) -> None:
    with pytest.raises(Unsupported, match=f"^{FORM}: ") as caught:
        parse_vault(url, check="test.vault", form=FORM)
    assert "canary" not in told(caught.value)


def test_the_parts_of_a_url() -> None:
    url = "https://[::1]/a%2Fb/{launch}/c?namespace=n/&token-file=%2Ft%20u"
    vault, segments = parse_vault(url, check="x", form=FORM, blank="{launch}")
    assert segments == ["a/b", "{launch}", "c"]
    assert (vault.place, vault.namespace) == ("Vault at [::1]:8200", "n")
    assert repr(vault) == "<Vault at [::1]:8200>"


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "No such file or directory"), (b"text", "it is no certificate")]
)
def test_certificates_that_cannot_be_read_are_one_line(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(KeyAccessError) as caught:
        client(f"https://vault.example/kv?ca={path}")
    assert str(caught.value) == f"{path}: {reason}"


# text of others


def test_a_quoted_message_is_one_short_line_without_what_may_be_a_key() -> None:
    assert quoted("") == quoted(" \n ") == ""
    assert quoted("key 00112233445566778899aabbccddeeff\nmore") == "key ..."
    assert quoted("a\tb\x07") == r"a\tb\x07"
    assert len(quoted("ab " * 500)) == 200


def test_only_one_object_is_an_answer() -> None:
    assert json_object(b'{"a": 1}') == {"a": 1}
    for text in (b"", b"[]", b"1", b"{} {}", b'{"a": "\xff"}', b"{"):
        assert json_object(text) is None
