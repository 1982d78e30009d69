"""Keys that wrap data keys: files, credentials, Vault's transit engine, commands."""

import base64
import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sev_attest.errors import SevAttestError, Unsupported
from sev_attest.owner import (
    KeyAccessError,
    _command,
    _private_file,
    _safe_path,
    key_encryption,
    secret_source,
)
from sev_attest.owner._command import ask_command
from sev_attest.owner.key_errors import SealError
from vault_stand_in import TOKEN, StandIn, serving, told

KEY = b"canary: a key-encryption key 32B"
DATA_KEY = b"canary: a data key of 32 bytes.."
KEY_ID = "key:bd1666b87182e046"
LONG = 30.0


def key_file(folder: Path, content: bytes = KEY, mode: int = 0o600) -> Path:
    path = folder / "kek"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def refused(text: str, kind: type[SevAttestError] = KeyAccessError) -> str:
    with pytest.raises(kind) as caught:
        key_encryption(text)
    assert caught.value.check == ("pending.kek" if kind is KeyAccessError else "usage")
    assert "canary" not in told(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# files


@pytest.mark.parametrize("prefix", ["", "file:"])
@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_key_file_wraps_and_unwraps(tmp_path: Path, prefix: str, mode: int) -> None:
    kek = key_encryption(f"{prefix}{key_file(tmp_path, mode=mode)}")
    wrapped = kek.wrap(DATA_KEY)
    assert len(wrapped) == 60
    assert kek.unwrap(wrapped) == DATA_KEY
    assert wrapped != kek.wrap(DATA_KEY)
    assert DATA_KEY not in wrapped
    assert repr(kek) == f"KeyFile({kek.id!r})"


def test_the_id_depends_on_the_key_alone(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one, same = (key_encryption(str(key_file(folder))) for folder in (tmp_path, tmp_path / "other"))
    assert one.id == same.id == KEY_ID
    assert same.unwrap(one.wrap(DATA_KEY)) == DATA_KEY
    assert key_encryption(str(key_file(tmp_path, bytes(32)))).id != KEY_ID


def test_the_format_of_a_wrapped_key_is_stable(tmp_path: Path) -> None:
    nonce = b"twelve bytes"
    sealed = AESGCM(KEY).encrypt(nonce, DATA_KEY, b"sev-attest data key\0" + KEY_ID.encode())
    assert key_encryption(str(key_file(tmp_path))).unwrap(nonce + sealed) == DATA_KEY


def test_a_wrapped_key_that_was_changed_does_not_open(tmp_path: Path) -> None:
    kek = key_encryption(str(key_file(tmp_path)))
    wrapped = kek.wrap(DATA_KEY)
    damaged = [wrapped[:size] for size in range(len(wrapped))] + [wrapped + b"\0"]
    damaged += [
        wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :] for at in range(len(wrapped))
    ]
    for one in damaged:
        with pytest.raises(SealError) as caught:
            kek.unwrap(one)
        assert caught.value.check == "pending.damaged"
        assert "canary" not in told(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o666, 0o440])
def test_a_key_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = key_file(tmp_path, mode=mode)
    assert refused(str(path)) == f"{path}: others can read or change it"


def test_a_key_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = key_file(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    if path.stat().st_uid == 0:
        os.chown(path, 1234, -1)
    assert refused(str(path)) == f"{path}: it belongs to another user"


def test_where_files_have_no_owners_none_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_private_file, "_HAS_OWNERS", False)
    assert key_encryption(str(key_file(tmp_path, mode=0o666))).id == KEY_ID


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(key_file(tmp_path))
    assert refused(str(tmp_path / "link")).endswith(": it is a symbolic link")


def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/null"), Path("/dev/zero")):
        assert refused(str(path)).endswith(": it is not a regular file")
    assert refused(str(tmp_path / "none")).endswith(": No such file or directory")
    assert refused(str(key_file(tmp_path) / "below")).endswith(": Not a directory")


def test_a_key_of_another_size_is_refused_without_reading_it_all(tmp_path: Path) -> None:
    for size in (0, 1, 16, 31):
        path = key_file(tmp_path, b"canary"[:1] * size)
        assert refused(str(path)) == f"{path}: it has {size} bytes, expected 32"
    path = key_file(tmp_path, KEY + b"\n")
    assert refused(str(path)) == f"{path}: it has more than 32 bytes"
    os.truncate(path, 1 << 40)
    assert refused(str(path)) == f"{path}: it has more than 32 bytes"


@pytest.mark.parametrize(
    ("mode", "words", "hint"),
    [
        (0o777, "anybody can write in its folder", "chmod go-w "),
        (0o770, "its group can write in its folder", "chmod go-w "),
        (0o1777, "anybody can write in its folder", "keep it in a folder of your own"),
    ],
)
def test_a_key_that_others_could_replace_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, words: str, hint: str
) -> None:
    (tmp_path / "loose").mkdir()
    path = key_file(tmp_path / "loose")
    (tmp_path / "loose").chmod(mode)
    monkeypatch.chdir(tmp_path)
    for text in (str(path), "file:loose/kek"):
        with pytest.raises(KeyAccessError, match=words) as caught:
            key_encryption(text)
        assert hint in caught.value.hint
    (tmp_path / "loose" / "inner").mkdir(mode=0o700)
    inner = key_file(tmp_path / "loose" / "inner")
    if mode & 0o1000:
        assert key_encryption(str(inner)).id == KEY_ID
    else:
        assert "loose, on the way to it" in refused(str(inner))


# credentials


def test_a_credential_of_systemd_is_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    path = key_file(tmp_path)
    # 0440 is how the ACL shows that systemd gives a service's user.
    for mode in (0o400, 0o440):
        path.chmod(mode)
        assert key_encryption("credential:kek").id == KEY_ID
    for mode in (0o460, 0o404, 0o402):
        path.chmod(mode)
        assert refused("credential:kek").endswith(": others can read or change it")


@pytest.mark.parametrize("name", ["../kek", "a/b", "..", ".", "a b", "x" * 101])
def test_a_credential_s_name_does_not_leave_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert "this is not the name of a credential" in refused(f"credential:{name}", Unsupported)


def test_without_systemd_there_is_no_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert "systemd passes no credentials" in refused("credential:kek", Unsupported)


# the text


@pytest.mark.parametrize("text", ["", "file:", "credential:", "vault:", "command:", "a\0b"])
def test_a_text_that_names_no_key_is_unsupported(text: str) -> None:
    assert refused(text, Unsupported).startswith("a key-encryption key is a PATH, ")


def test_a_path_may_have_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    key_file(tmp_path).rename("vault:kek")
    assert key_encryption("./vault:kek").id == KEY_ID
    assert refused("other:kek").startswith("other:kek: ")


@pytest.mark.parametrize("path", ["transit", "transit/a/b", "transit/"])
def test_a_key_of_transit_is_a_mount_and_a_name(path: str) -> None:
    refused(f"vault:https://vault.example/{path}", Unsupported)


def test_the_id_of_a_key_of_transit_names_it_on_every_server() -> None:
    url = "vault:https://vault{}.example/teams%2Ftransit/sev-attest?namespace=a/b"
    one, two = (key_encryption(url.format(number)) for number in (1, 2))
    assert one.id == two.id == "vault:a/b/teams/transit/sev-attest"
    assert "vault1.example:8200" in repr(one)
    long = "n" * 120
    assert "too long" in refused(f"vault:https://vault.example/transit/{long}", Unsupported)


# transit


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _loopback: None) -> Iterator[StandIn]:
    monkeypatch.setenv("VAULT_TOKEN", TOKEN)
    with serving(tmp_path) as stand_in:
        stand_in.transit["", "transit", "sev"] = [b"version 1 of a key" + bytes(14)]
        yield stand_in


def fails(call: Any, argument: bytes, kind: type[SevAttestError] = KeyAccessError) -> str:
    with pytest.raises(kind) as caught:
        call(argument)
    said = told(caught.value)
    for secret in (TOKEN, "canary", base64.b64encode(DATA_KEY).decode(), DATA_KEY.hex()):
        assert secret not in said
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_transit_wraps_and_unwraps_and_may_be_rotated(server: StandIn) -> None:
    kek = key_encryption(server.url("transit/sev"))
    wrapped = kek.wrap(DATA_KEY)
    assert wrapped.startswith(b"vault:v1:")
    server.transit["", "transit", "sev"].append(b"version 2 of a key" + bytes(14))
    assert kek.wrap(DATA_KEY).startswith(b"vault:v2:")
    assert kek.unwrap(wrapped) == kek.unwrap(kek.wrap(DATA_KEY)) == DATA_KEY
    method, path, headers, body = server.seen[0]
    assert (method, path) == ("POST", "/v1/transit/encrypt/sev")
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == {
        "plaintext": base64.b64encode(DATA_KEY).decode(),
        "associated_data": base64.b64encode(b"sev-attest data key").decode(),
    }


def test_what_another_program_encrypted_with_the_key_does_not_open(server: StandIn) -> None:
    kek = key_encryption(server.url("transit/sev"))
    asked = {"plaintext": base64.b64encode(DATA_KEY).decode()}
    _, answer = server.encrypt(server.transit["", "transit", "sev"], asked)
    forged = answer["data"]["ciphertext"].encode()
    assert "status 400: cipher: message authentication failed" in fails(kek.unwrap, forged)


def test_a_slash_in_a_mount_is_part_of_the_path(server: StandIn) -> None:
    server.transit["", "teams/transit", "sev"] = [bytes(32)]
    kek = key_encryption(server.url("teams%2Ftransit/sev"))
    assert kek.unwrap(kek.wrap(DATA_KEY)) == DATA_KEY
    assert server.seen[0][1] == "/v1/teams/transit/encrypt/sev"


def test_a_key_or_mount_that_is_missing_is_one_clear_line(server: StandIn) -> None:
    missing = key_encryption(server.url("transit/other"))
    assert "status 400: encryption key not found" in fails(missing.wrap, DATA_KEY)
    unmounted = key_encryption(server.url("other/sev"))
    assert "POST /v1/other/encrypt/sev: not found" in fails(unmounted.wrap, DATA_KEY)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"ciphertext": None},
        {"ciphertext": ""},
        {"ciphertext": base64.b64encode(DATA_KEY).decode()},
        {"ciphertext": "vault:v1:"},
        {"ciphertext": "vault:v1:\u00e4"},
        {"ciphertext": "vault:v1:a b"},
    ],
)
def test_what_is_no_ciphertext_is_never_stored(server: StandIn, answer: object) -> None:
    server.fault = lambda handler: handler.send(200, {"data": answer})
    kek = key_encryption(server.url("transit/sev"))
    assert fails(kek.wrap, DATA_KEY).endswith("the answer has no ciphertext")


@pytest.mark.parametrize(
    "answer",
    [{}, {"plaintext": 1}, {"plaintext": "a"}, {"plaintext": "AAAA!"}, {"plaintext": "\u00e4"}],
)
def test_what_is_no_plaintext_is_no_data_key(server: StandIn, answer: object) -> None:
    server.fault = lambda handler: handler.send(200, {"data": answer})
    kek = key_encryption(server.url("transit/sev"))
    assert fails(kek.unwrap, b"vault:v1:AAAA").endswith("the answer has no data key")


@pytest.mark.parametrize(
    "wrapped", [b"", b"x" * 60, b"vault:v1:", b"vault:v1:\xff", b"vault:v1:a\n"]
)
def test_a_stranger_s_bytes_are_not_sent_to_the_server(server: StandIn, wrapped: bytes) -> None:
    fails(key_encryption(server.url("transit/sev")).unwrap, wrapped, SealError)
    assert not server.seen


def test_an_error_that_echoes_the_request_shows_no_key(server: StandIn) -> None:
    def echo(handler: Any) -> None:
        handler.send(400, {"errors": [f"cannot do {server.seen[-1][3].decode()} as {TOKEN}"]})

    server.fault = echo
    fails(key_encryption(server.url("transit/sev")).wrap, DATA_KEY)


# commands


def command(folder: Path, script: str, name: str = "kms-wrap") -> str:
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport os, sys, time\n{script}\n")
    path.chmod(0o700)
    return f"command:{path} --region 'eu north'"


XOR = """
verb, name = sys.argv[-2:]
assert sys.argv[1:3] == ["--region", "eu north"] and name == "kms-wrap"
data = sys.stdin.buffer.read()
mask = lambda data: bytes(byte ^ 0x55 for byte in data)
sys.stdout.buffer.write(b"v1" + mask(data) if verb == "wrap" else mask(data[2:]))
"""


def test_a_command_wraps_and_unwraps(tmp_path: Path) -> None:
    kek = key_encryption(command(tmp_path, XOR))
    assert kek.id == "command:kms-wrap"
    assert repr(kek) == "CommandKey('command:kms-wrap')"
    assert kek.unwrap(kek.wrap(DATA_KEY)) == DATA_KEY


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("sys.exit('no such key\\nmore')", "kms-wrap wrap: exit status 1: no such key"),
        ("sys.stderr.buffer.write(b'\\xff\\x1b[2J'); sys.exit(3)", "exit status 3: "),
        ("sys.exit(sys.stdin.read() + ' is refused')", "exit status 1: canary"),
        ("sys.exit(7)", "kms-wrap wrap: exit status 7"),
        ("os.kill(os.getpid(), 9)", "kms-wrap wrap: exit status -9"),
        ("sys.stdin.close(); sys.exit(4)", "exit status 4"),
        ("sys.stdout.write('x' * 5000)", "it answered with more than 4096 bytes"),
        ("\nwhile True: sys.stdout.write('x' * 5000)", "it answered with more than 4096 bytes"),
        ("sys.stderr.write('x ' * 500_000); sys.exit(1)", "exit status 1: x x x "),
    ],
)
def test_a_command_that_fails_is_one_clear_line(tmp_path: Path, script: str, words: str) -> None:
    kek = key_encryption(command(tmp_path, script))
    with pytest.raises(KeyAccessError) as caught:
        kek.wrap(b"k" * 32)
    words = words.replace("canary", "... is refused")
    assert words in str(caught.value)
    assert caught.value.check == "pending.kek"
    assert "k" * 24 not in told(caught.value)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


def test_of_a_long_complaint_only_the_start_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_command, "quoted", lambda text: f"{len(text)} characters")
    kek = key_encryption(command(tmp_path, "sys.stderr.write('x' * 500_000); sys.exit(1)"))
    with pytest.raises(KeyAccessError, match="exit status 1: 1000 characters"):
        kek.wrap(DATA_KEY)


@pytest.mark.parametrize(
    "script",
    [
        "time.sleep(60)",
        "sys.stdin.read(); os.close(1); os.close(2); time.sleep(60)",
        "\nif os.fork(): os._exit(0)\ntime.sleep(60)",
        "\nwhile True: sys.stderr.write('x' * 5000)",
    ],
)
def test_a_command_has_a_time_limit_and_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(_command, "SECONDS", 0.7)
    held = tmp_path / "held"
    held.write_bytes(b"")
    hold = f"import fcntl\nheld = open({str(held)!r})\nfcntl.flock(held, fcntl.LOCK_EX)\n"
    script = hold + script.lstrip()
    kek = key_encryption(command(tmp_path, script))
    began = time.monotonic()
    with pytest.raises(KeyAccessError, match=r"no answer in 0\.7 seconds"):
        kek.wrap(DATA_KEY)
    assert time.monotonic() - began < LONG
    with held.open() as file:  # free when no process of the command is left
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                assert time.monotonic() - began < LONG
                time.sleep(0.02)
            else:
                return


def test_a_command_that_cannot_be_run_is_one_clear_line(tmp_path: Path) -> None:
    missing = key_encryption("command:/nowhere/kms-wrap")
    assert fails(missing.wrap, DATA_KEY) == "/nowhere/kms-wrap wrap: No such file or directory"
    (tmp_path / "data").write_bytes(b"")
    plain = key_encryption(f"command:{tmp_path / 'data'}")
    assert fails(plain.wrap, DATA_KEY) == f"{tmp_path / 'data'} wrap: Permission denied"


def _loose_file(folder: Path, path: Path) -> Path:
    path.chmod(0o777)
    return path


def _group_s_file(folder: Path, path: Path) -> Path:
    path.chmod(0o770)
    return path


def _loose_folder(folder: Path, path: Path) -> Path:
    folder.chmod(0o777)
    return path


def _link_in_a_loose_folder(folder: Path, path: Path) -> Path:
    (folder / "loose").mkdir()
    (folder / "loose" / "kms-wrap").symlink_to(path)
    (folder / "loose").chmod(0o777)
    return folder / "loose" / "kms-wrap"


def _link_to_a_loose_file(folder: Path, path: Path) -> Path:
    (folder / "links").mkdir(mode=0o700)
    (folder / "links" / "kms-wrap").symlink_to("../kms-wrap")
    path.chmod(0o702)
    return folder / "links" / "kms-wrap"


def _round(folder: Path, path: Path) -> Path:
    path.unlink()
    path.symlink_to("kms-wrap")
    return path


@pytest.mark.parametrize(
    ("spoil", "words", "hint"),
    [
        (_loose_file, "others can write to {folder}/kms-wrap", "chmod go-w {folder}/kms-wrap"),
        (_group_s_file, "others can write to {folder}/kms-wrap", "chmod go-w "),
        (_loose_folder, "anybody can write in its folder", "chmod go-w {folder}"),
        (_link_in_a_loose_folder, "anybody can write in its folder", "chmod go-w {folder}/loose"),
        (_link_to_a_loose_file, "others can write to ", "chmod go-w "),
        (lambda folder, _: folder, "{folder} is not a regular file", ""),
        (_round, "Too many levels of symbolic links", "run the command by hand"),
    ],
)
def test_a_command_that_others_could_change_or_replace_is_not_run(
    tmp_path: Path, spoil: Callable[[Path, Path], Path], words: str, hint: str
) -> None:
    folder = tmp_path / "x"
    folder.mkdir(mode=0o700)
    command(folder, f"open({str(tmp_path / 'ran')!r}, 'w')")
    path = spoil(folder, folder / "kms-wrap")
    for ask in (
        lambda: key_encryption(f"command:{path}").wrap(DATA_KEY),
        lambda: key_encryption(f"command:{path}").unwrap(DATA_KEY),
        lambda: secret_source(f"command:{path}").secrets("web"),
    ):
        with pytest.raises(KeyAccessError) as caught:
            ask()
        assert words.format(folder=folder) in str(caught.value)
        assert caught.value.hint.startswith(hint.format(folder=folder))
    assert not (tmp_path / "ran").exists()


def test_a_command_of_another_user_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(tmp_path, XOR)
    true_lstat = os.lstat

    def lstat(path: str) -> os.stat_result:
        found = true_lstat(path)
        return os.stat_result((*found[:4], 12345, *found[5:])) if path == str(owned) else found

    monkeypatch.setattr(os, "lstat", lstat)
    (tmp_path / "links").mkdir(mode=0o700)
    link = tmp_path / "links" / "kms-wrap"
    link.symlink_to(tmp_path / "kms-wrap")
    for owned in (tmp_path / "kms-wrap", link):
        asked = key_encryption(f"command:{link}")
        assert f"{owned} belongs to another user" in fails(asked.wrap, DATA_KEY)
    monkeypatch.setattr(_safe_path, "_HAS_OWNERS", False)  # Windows
    (tmp_path / "kms-wrap").chmod(0o702)
    kek = key_encryption(f"command:{link} --region 'eu north'")
    assert kek.unwrap(kek.wrap(DATA_KEY)) == DATA_KEY


@pytest.mark.parametrize(
    "text", ["kms-wrap", "./kms-wrap", "'", "'/bin/x", "/", "/bin/", "/bin/a*b", "''", " "]
)
def test_a_command_has_an_absolute_path_and_a_plain_name(text: str) -> None:
    assert refused(f"command:{text}", Unsupported).startswith("command:PATH [ARG...]")


def test_a_command_that_does_not_read_gets_the_largest_input_all_the_same(tmp_path: Path) -> None:
    text = command(tmp_path, "sys.stdout.write('answer')")
    argv = text.removeprefix("command:").split()[:1]
    given = bytes(_command.MAX_INPUT)
    assert ask_command([*argv, "wrap", "x"], given, most=6, check="x") == b"answer"
