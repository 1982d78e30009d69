"""Sources of secrets: folders, Vault's KV engine, commands."""

import base64
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sev_attest.errors import SevAttestError, Unsupported
from sev_attest.owner import KeyAccessError, secret_source
from sev_attest.owner.secret_sources import MAX_SECRET
from sev_attest.sev.secret import MAX_PAYLOAD
from vault_stand_in import TOKEN, StandIn, serving, told

SECRET = b"canary\x00\xff\n"
GUID = "736869e5-84f0-4973-92ec-06879ce3da0b"


def refused(text: str, launch: str = "web") -> str:
    with pytest.raises(KeyAccessError) as caught:
        secret_source(text).secrets(launch)
    assert caught.value.check == "secrets.source"
    said = told(caught.value)
    for secret in ("canary", base64.b64encode(SECRET).decode(), TOKEN):
        assert secret not in said
    assert "\n" not in str(caught.value)
    return str(caught.value)


def put(path: Path, content: bytes = SECRET, mode: int = 0o600) -> Path:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_secret_may_have_the_size_that_a_guest_takes() -> None:
    assert MAX_SECRET == MAX_PAYLOAD


# folders


@pytest.mark.parametrize("prefix", ["", "folder:"])
def test_a_folder_has_a_file_for_each_secret(tmp_path: Path, prefix: str) -> None:
    put(tmp_path / "luks-key")
    put(tmp_path / GUID, bytes(MAX_SECRET), mode=0o400)
    source = secret_source(f"{prefix}{tmp_path}")
    assert source.secrets("web") == {"luks-key": SECRET, GUID: bytes(MAX_SECRET)}
    assert repr(source) == f"SecretFolder({str(tmp_path)!r})"


def test_each_launch_may_have_a_folder(tmp_path: Path) -> None:
    put(tmp_path / "web" / "luks-key", b"of web")
    put(tmp_path / "mail" / "luks-key", b"of mail")
    source = secret_source(f"{tmp_path}/{{launch}}")
    assert source.secrets("web") == {"luks-key": b"of web"}
    assert source.secrets("mail") == {"luks-key": b"of mail"}
    assert refused(f"{tmp_path}/{{launch}}", "db") == f"{tmp_path}/db: No such file or directory"


@pytest.mark.parametrize(
    "launch", ["", ".", "..", "../mail", "a/b", "/etc", "a b", "a\n", "\u00e4", "x" * 65, "-x"]
)
def test_a_launch_s_name_does_not_lead_elsewhere(tmp_path: Path, launch: str) -> None:
    put(tmp_path / "luks-key")
    for text in (
        f"{tmp_path}/{{launch}}",
        str(tmp_path),
        "vault:http://127.0.0.1/kv/{launch}",
        "command:/bin/false",
    ):
        assert refused(text, launch).endswith(": this cannot be the name of a launch")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o444])
def test_a_secret_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = put(tmp_path / "luks-key", mode=mode)
    assert refused(str(tmp_path)) == f"{path}: others can read or change it"


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o1777])
def test_a_folder_that_others_can_write_in_is_refused(tmp_path: Path, mode: int) -> None:
    put(tmp_path / "own" / "luks-key")
    (tmp_path / "own").chmod(mode)
    assert refused(f"{tmp_path}/own") == f"{tmp_path}/own: others can change what is in it"
    with pytest.raises(KeyAccessError) as caught:
        secret_source(f"{tmp_path}/own").secrets("web")
    assert caught.value.hint == f"chmod go-w {tmp_path}/own"


def test_a_folder_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "luks-key")
    if os.geteuid() == 0:
        os.chown(tmp_path, 1234, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    assert refused(str(tmp_path)).endswith(": others can change what is in it")
    with pytest.raises(KeyAccessError) as caught:
        secret_source(str(tmp_path)).secrets("web")
    assert caught.value.hint == "make it a folder of your own"


def test_what_is_no_private_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "luks-key").symlink_to(put(tmp_path / "key"))
    assert refused(f"{tmp_path}/a").endswith("/a/luks-key: it is a symbolic link")
    (tmp_path / "b").mkdir()
    os.mkfifo(tmp_path / "b" / "luks-key", 0o600)
    assert refused(f"{tmp_path}/b").endswith("/b/luks-key: it is not a regular file")
    (tmp_path / "c" / "web").mkdir(parents=True)
    assert refused(f"{tmp_path}/c").endswith("/c/web: it is not a regular file")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert refused(f"{tmp_path}/link").endswith("/link: Not a directory")
    assert refused(f"{tmp_path}/key").endswith("/key: Not a directory")


def test_a_secret_of_any_size_is_not_read(tmp_path: Path) -> None:
    path = put(tmp_path / "luks-key")
    os.truncate(path, 1 << 40)
    assert refused(str(tmp_path)) == f"{path}: it has more than {MAX_SECRET} bytes"
    os.truncate(path, 0)
    assert refused(str(tmp_path)) == f"{tmp_path}: luks-key has 0 bytes, 1 to 16384 are possible"


@pytest.mark.parametrize("name", [".luks-key.swp", "luks-key~", "a b", "\u00e4", "x" * 65, "a\nb"])
def test_a_file_that_is_no_secret_is_named(tmp_path: Path, name: str) -> None:
    put(tmp_path / name)
    with pytest.raises(KeyAccessError) as caught:
        secret_source(str(tmp_path)).secrets("web")
    assert str(caught.value) == f"{tmp_path}/{name}: this is not the name of a secret"
    assert caught.value.hint == "rename the file to luks-key or a GUID, or remove it"


def test_a_folder_has_one_to_64_files(tmp_path: Path) -> None:
    assert refused(str(tmp_path)) == f"{tmp_path}: there is no secret"
    for number in range(64):
        put(tmp_path / f"s{number}")
    assert len(secret_source(str(tmp_path)).secrets("web")) == 64
    put(tmp_path / "one-more")
    assert refused(str(tmp_path)) == f"{tmp_path}: more than 64 files"


# values in JSON, from Vault and commands


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _loopback: None) -> Iterator[StandIn]:
    monkeypatch.setenv("VAULT_TOKEN", TOKEN)
    with serving(tmp_path) as stand_in:
        yield stand_in


def test_values_of_kv_are_text_or_base64_by_their_name(server: StandIn) -> None:
    server.kv["", "kv", "guests/web"] = {
        "luks-key": "open s\u00e9same",
        f"{GUID}.base64": base64.b64encode(SECRET).decode(),
    }
    source = secret_source(server.url("kv/guests/{launch}"))
    assert source.secrets("web") == {"luks-key": "open s\u00e9same".encode(), GUID: SECRET}
    assert server.seen[0][:2] == ("GET", "/v1/kv/data/guests/web")
    assert repr(source) == f"VaultSecret('kv/guests/{{launch}}', <Vault at {server.host}>)"
    assert refused(server.url("kv/guests/{launch}"), "mail").endswith(
        "GET /v1/kv/data/guests/mail: not found (status 404)"
    )


def test_a_deleted_version_is_not_found(server: StandIn) -> None:
    server.kv["", "kv", "web"] = None
    assert "not found (status 404)" in refused(server.url("kv/web"))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "there is no secret"),
        (None, "there is no secret"),
        (["canary"], "there is no secret"),
        ({"luks-key": 1}, "the value of luks-key cannot be read"),
        ({"luks-key": None}, "the value of luks-key cannot be read"),
        ({"luks-key": ["canary"]}, "the value of luks-key cannot be read"),
        ({"luks-key": "\ud800canary"}, "the value of luks-key cannot be read"),
        ({"luks-key": ""}, "luks-key has 0 bytes"),
        ({"luks-key": "c" * (MAX_SECRET + 1)}, "luks-key has 16385 bytes"),
        ({"luks-key.base64": ""}, "luks-key has 0 bytes"),
        ({"luks-key.base64": "canary!!"}, "the value of luks-key.base64 cannot be read"),
        ({"luks-key.base64": "YWI"}, "the value of luks-key.base64 cannot be read"),
        ({"luks-key.base64": "YWI=\n"}, "the value of luks-key.base64 cannot be read"),
        ({"luks-key.base64": "\u00e4"}, "the value of luks-key.base64 cannot be read"),
        ({"a": "1", "a.base64": "YWI="}, "there are both a and a.base64"),
        ({"a.base64": "YWI=", "a": "1"}, "there are both a and a.base64"),
        ({"canary secret": "x"}, "a key is not the name of a secret"),
        ({".base64": "YWI="}, "a key is not the name of a secret"),
        ({f"s{number}": "x" for number in range(65)}, "more than 64 secrets"),
    ],
)
def test_values_that_are_no_secrets_are_one_clear_line(
    server: StandIn, values: Any, words: str
) -> None:
    server.fault = lambda handler: handler.send(200, {"data": {"data": values}})
    assert words in refused(server.url("kv/web"))


def test_an_answer_with_a_secret_that_is_broken_shows_nothing(server: StandIn) -> None:
    server.fault = lambda handler: handler.send(200, b'{"data": {"data": {"luks-key": "canary')
    assert refused(server.url("kv/web")).endswith("an answer that cannot be read")


def command(folder: Path, script: str) -> str:
    path = folder / "secrets of"
    path.write_text(f"#!{sys.executable}\nimport json, sys\n{script}\n")
    path.chmod(0o700)
    return f"command:'{path}' --eu"


def test_a_command_prints_the_secrets_of_a_launch(tmp_path: Path) -> None:
    values = {"luks-key.base64": base64.b64encode(SECRET).decode()}
    script = f"assert sys.argv[1:] == ['--eu', 'secrets', 'web']\nprint({json.dumps(values)!r})"
    source = secret_source(command(tmp_path, script))
    assert source.secrets("web") == {"luks-key": SECRET}
    assert repr(source) == f"SecretCommand('{tmp_path}/secrets of')"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("print('canary')", "it did not answer with one JSON object"),
        ("print('{} {}')", "it did not answer with one JSON object"),
        ('print(\'{"luks-key": "canary\')', "it did not answer with one JSON object"),
        ('sys.stdout.buffer.write(b\'{"luks-key": "canary\\xff"}\')', "one JSON object"),
        ("print('[' * 100_000)", "it did not answer with one JSON object"),
        ("print('{}')", "there is no secret"),
        ("print('x' * 200_000)", "it answered with more than 131072 bytes"),
        ("print('canary'); sys.exit('no such launch')", "secrets: exit status 1: no such launch"),
    ],
)
def test_a_command_that_fails_is_one_clear_line(tmp_path: Path, script: str, words: str) -> None:
    assert words in refused(command(tmp_path, script))


# the text


@pytest.mark.parametrize(
    "text",
    [
        "", "folder:", "vault:", "command:", "a\0b", "command:relative",
        "vault:https://vault.example/kv", "vault:https://vault.example/kv/",
        "vault:https://vault.example/kv/{other}",
    ],
)  # fmt: skip
def test_a_text_that_names_no_source_is_unsupported(text: str) -> None:
    with pytest.raises(Unsupported) as caught:
        secret_source(text)
    assert caught.value.check == "usage"
    assert isinstance(caught.value, SevAttestError)
