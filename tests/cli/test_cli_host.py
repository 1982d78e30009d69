"""``sev-attest host export|status|csr|provision|rotate|reset``, on a simulated platform."""

import errno
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

import sev_driver
from conftest import Ran, Run
from sev_attest import sev
from sev_attest.cli.commands import host_export
from sev_attest.host.device import Device
from sev_attest.sev.chain.certificate import Certificate, Signature
from sev_attest.sev.chain.oca import OwnerKey
from sev_attest.sev.chain.roots import Root, amd_roots
from sev_attest.testing import Platform
from sev_driver import Driver
from vault_stand_in import StandIn, serving

DEVICE = ("--device", os.devnull)
LOST = "sessions that guest owners made for this platform cannot start a guest any more"


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch, sev_platform: Platform) -> Driver:
    """Put a driver behind every device."""
    made = Driver(sev_platform)
    monkeypatch.setitem(cast("dict[str, Any]", Device.__init__.__kwdefaults__), "ioctl", made.ioctl)
    return made


@pytest.fixture
def host(run: Run, here: Path, driver: Driver) -> Run:
    """Run a command for the host; the root of its platform and its signed CEK are files."""
    Path("root").write_bytes(driver.platform.authority.ark.to_bytes())
    Path("roots").write_bytes(
        driver.platform.authority.ask.to_bytes() + driver.platform.authority.ark.to_bytes()
    )
    Path("cek").write_bytes(driver.platform.export().cek.to_bytes())
    return lambda name, *arguments: run("host", name, *arguments, *DEVICE)


@pytest.fixture
def amd(monkeypatch: pytest.MonkeyPatch, driver: Driver) -> Root:
    """Make the platform's root one of AMD's, as a real platform's is."""
    authority = driver.platform.authority
    milan = amd_roots()[2]._replace(ark=authority.ark, ask=authority.ask)
    monkeypatch.setattr("sev_attest.sev.chain.roots.amd_roots", lambda: (milan,))
    return milan


@pytest.fixture
def server(tmp_path: Path, driver: Driver, _loopback: None) -> Iterator[StandIn]:
    """Run a key server, which knows the platform."""
    with serving(tmp_path, tls=False) as stand_in:
        found = f"/cek/id/{driver.platform.get_id().hex()}"
        cek = driver.platform.export().cek.to_bytes()
        stand_in.fault = lambda handler: handler.send(
            *((200, cek) if handler.path == found else (404, b""))
        )
        yield stand_in


def answered(ran: Ran, code: int = 0) -> Any:
    """Return the JSON document of a command."""
    assert ran.code == code
    assert ran.err == ""
    return json.loads(ran.out)


def silent(ran: Ran) -> bool:
    """Return whether a command succeeded and printed nothing."""
    return (ran.code, ran.out, ran.err) == (0, "", "")


class Terminal(io.StringIO):
    """A terminal on which somebody types."""

    def isatty(self) -> bool:
        return True


# export


def test_the_chain_is_written_as_the_firmware_exports_it(host: Run, driver: Driver) -> None:
    ran = host("export", "chain")
    address = f"https://kdsintf.amd.com/cek/id/{driver.platform.get_id().hex()}"
    assert ran.code == 0
    assert ran.lines == ["wrote chain: PDH, PEK, OCA, CEK"]
    assert ran.err.splitlines() == [
        f"note: {host_export._UNSIGNED}: AMD serves the signed one at {address} (--fetch gets it)",
    ]
    assert Path("chain").read_bytes() == driver.platform.export(signed_cek=False).to_bytes()


def test_a_host_without_an_id_exports_too(host: Run, driver: Driver) -> None:
    driver.fails[sev_driver.GET_ID2] = (errno.EINVAL, 0)
    ran = host("export", "chain")
    assert ran.code == 0
    assert "followed by the platform's id (cpu0-id" in ran.err


def test_a_signed_cek_from_a_file(host: Run, run: Run, driver: Driver) -> None:
    ran = host("export", "chain", "--cek", "cek", "--trust-root", "roots")
    assert ran.code == 0
    assert ran.lines[0] == "wrote chain: PDH, PEK, OCA, CEK"
    assert ran.lines[1].startswith("OK: the chain leads to a trusted root: not AMD's: ARK ")
    assert ran.notes[0].startswith("note: this root is not AMD's")
    assert Path("chain").read_bytes() == driver.platform.export().to_bytes()
    assert run("verify", "chain", "--trust-root", "roots").code == 0


def test_the_whole_chain_of_a_platform_of_amd_s(
    host: Run, run: Run, driver: Driver, amd: Root
) -> None:
    ran = host("export", "chain", "--full", "--cek", "cek")
    assert ran.lines == [
        "wrote chain: PDH, PEK, OCA, CEK, ASK, ARK",
        "OK: the chain leads to a trusted root: AMD Milan",
    ]
    expected = replace(driver.platform.export(), ask=amd.ask, ark=amd.ark)
    assert Path("chain").read_bytes() == expected.to_bytes()
    assert run("verify", "chain").code == 0


def test_a_signed_cek_from_the_key_server(host: Run, server: StandIn, amd: Root) -> None:
    ran = host("export", "chain", "--full", "--fetch", "--kds", f"http://{server.host}", "-v")
    assert ran.code == 0
    assert ran.lines[0] == "wrote chain: PDH, PEK, OCA, CEK, ASK, ARK"
    assert ran.lines[1].startswith("PDH ")
    assert ran.lines[-1] == "OK: the chain leads to a trusted root: AMD Milan"


def test_the_document_of_an_export(host: Run, driver: Driver, amd: Root) -> None:
    found = answered(host("export", "one", "--json"))
    assert found["schema"] == "sev-attest/host export/1"
    assert (found["files"], found["cek_signed"], found["root"]) == (["one"], False, None)
    assert found["generation"] is None
    assert found["cek_address"].endswith(driver.platform.get_id().hex())
    assert found["notes"][0].startswith("the CEK is as the firmware exports it")
    found = answered(host("export", "two", "--json", "--full", "--cek", "cek"))
    assert (found["cek_signed"], found["root"], found["generation"]) == (True, "AMD Milan", "milan")
    assert list(found["fingerprints"]) == ["PDH", "PEK", "OCA", "CEK", "ASK", "ARK"]
    assert found["notes"] == []


@pytest.mark.parametrize("quiet", [[], ["-q"]])
def test_a_server_that_asks_to_wait_is_waited_for(
    host: Run,
    server: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    amd: Root,
    quiet: list[str],
) -> None:
    waited: list[int] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    answer = server.fault

    def later(handler: Any) -> None:
        server.fault = answer
        handler.send(429, b"", **{"Retry-After": "12"})

    server.fault = later
    ran = host("export", "chain", "--fetch", "--kds", f"http://{server.host}", *quiet)
    assert (ran.code, waited) == (0, [12])
    assert ran.err.endswith("" if quiet else ": it asks to wait 12 seconds\n")
    assert (ran.err == "") == bool(quiet)
    assert (ran.out == "") == bool(quiet)


def test_a_chip_that_the_server_does_not_know(host: Run, server: StandIn, driver: Driver) -> None:
    driver.platform._id = bytes(63) + b"\1"
    ran = host("export", "chain", "--fetch", "--kds", f"http://{server.host}")
    assert ran.code == 6
    assert "it knows no chip with this id (status 404)" in ran.err
    assert "; --cek reads the CEK from a file" in ran.err
    assert not Path("chain").exists()


def test_a_host_without_an_id_cannot_fetch(host: Run, server: StandIn, driver: Driver) -> None:
    driver.platform._id = bytes(64)
    ran = host("export", "chain", "--fetch", "--kds", f"http://{server.host}")
    assert ran.code == 6
    assert "which is no id" in ran.err
    assert not server.seen


@pytest.mark.parametrize(
    "given", ["another chip's", "unsigned", "of nobody", "no certificate", "two"]
)
def test_a_cek_that_does_not_fit_is_refused(host: Run, driver: Driver, given: str) -> None:
    other = Platform(b"another chip")
    right = driver.platform.export().cek
    codes = {"no certificate": 6, "two": 6}
    forged = right.signatures[0]._replace(value=bytes(511) + b"\1")
    data = {
        "another chip's": other.export().cek.to_bytes(),
        "unsigned": driver.platform.export(signed_cek=False).cek.to_bytes(),
        "of nobody": replace(right, signatures=(forged, Signature())).to_bytes(),
        "no certificate": b"<html>",
        "two": right.to_bytes() + other.export().cek.to_bytes(),
    }[given]
    Path("other").write_bytes(data)
    ran = host("export", "chain", "--cek", "other", "--trust-root", "roots")
    words = {
        "another chip's": "this is another chip's CEK",
        "unsigned": "the CEK is as the firmware exports it",
        "of nobody": "the ASK's signature over the CEK does not hold",
        "no certificate": "other: ",
        "two": "one CEK expected",
    }[given]
    assert ran.code == codes.get(given, 1)
    assert words in ran.err
    assert not Path("chain").exists()


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (Platform(b"another chip").export().cek.to_bytes(), 1, "this is another chip's CEK"),
        (b"<html>sign in</html>", 6, ": chain"),
        (b"", 6, ": chain: the file is empty"),
    ],
    ids=["another chip's", "a page", "nothing"],
)
def test_what_the_server_sends_is_checked(
    host: Run, server: StandIn, driver: Driver, answer: bytes, code: int, words: str
) -> None:
    server.fault = lambda handler: handler.send(200, answer)
    url = f"http://{server.host}"
    ran = host("export", "chain", "--fetch", "--kds", url, "--trust-root", "roots")
    assert ran.code == code
    address = f"{url}/cek/id/{driver.platform.get_id().hex()}"
    assert ran.err.startswith(f"error: {address}: ")
    assert words in ran.err
    assert not Path("chain").exists()


def test_a_cek_that_amd_did_not_sign_is_refused(host: Run) -> None:
    ran = host("export", "chain", "--cek", "cek")
    assert ran.code == 1
    assert not Path("chain").exists()


def test_a_platform_whose_own_signatures_do_not_hold_exports_nothing(
    host: Run, monkeypatch: pytest.MonkeyPatch, driver: Driver
) -> None:
    pdh, rest = driver.platform.pdh_cert_export()
    monkeypatch.setattr(
        driver.platform,
        "pdh_cert_export",
        lambda: (pdh[:0x414] + Platform(b"x").pdh_cert_export()[0][0x414:], rest),
    )
    ran = host("export", "chain")
    assert ran.code == 1
    assert "the PEK's signature over the PDH does not hold" in ran.err
    assert not Path("chain").exists()


def test_a_certificate_that_the_firmware_damaged_is_malformed(
    host: Run, monkeypatch: pytest.MonkeyPatch, driver: Driver
) -> None:
    pdh, rest = driver.platform.pdh_cert_export()
    monkeypatch.setattr(driver.platform, "pdh_cert_export", lambda: (b"\2" + pdh[1:], rest))
    ran = host("export", "chain")
    assert ran.code == 6
    assert ran.err.startswith(f"error: {os.devnull}: SEV certificate (PDH) version")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--full"], "--full needs the CEK that AMD signed"),
        (["--fetch", "--cek", "cek"], "--fetch and --cek both name the CEK"),
        (["--kds", "https://mirror"], "--kds is for --fetch"),
        (["--kds", "https://mirror", "--cek", "cek"], "--kds is for --fetch"),
        (["--trust-root", "root"], "--trust-root is for --fetch or --cek"),
        (["--cek", "-", "--trust-root", "-"], "only one input can be standard input"),
        (["--fetch", "--kds", "http://mirror"], "plain http is for a loopback address"),
    ],
)
def test_options_that_contradict_each_other(
    host: Run, driver: Driver, options: list[str], words: str
) -> None:
    ran = host("export", "chain", *options)
    assert ran.code == 2
    assert words in ran.err
    assert not driver.seen


def test_a_chain_is_not_written_to_standard_output_nor_over_a_file(
    host: Run, driver: Driver
) -> None:
    assert host("export", "-").code == 2
    Path("chain").write_bytes(b"old")
    assert host("export", "chain").code == 6
    assert host("export", "no/chain").code == 6
    assert not driver.seen
    assert silent(host("export", "chain", "--force", "-q"))
    assert len(Path("chain").read_bytes()) == 4 * 2084


# status


def test_the_status_in_words(host: Run, driver: Driver) -> None:
    assert host("status").lines == [
        "API: 1.55", "build: 24", "state: INIT (initialised, no guest)", "owner: itself",
        "SEV-ES: yes", "guests: 0",
    ]  # fmt: skip
    driver.platform.launch_start(0)
    driver.es = False
    assert host("status", "-q").lines[2:] == [
        "state: WORKING (with guests)", "owner: itself", "SEV-ES: no", "guests: 1",
    ]  # fmt: skip
    driver.platform.shutdown()
    assert "state: UNINIT (not initialised)" in host("status").lines


def test_the_status_as_a_document(host: Run, driver: Driver) -> None:
    assert answered(host("status", "--json")) == {
        "schema": "sev-attest/host status/1", "ok": True, "api_major": 1, "api_minor": 55,
        "build": 24, "state": "INIT", "externally_owned": False, "es": True, "guest_count": 0,
        "platform_id": driver.platform.get_id().hex(),
    }  # fmt: skip


def test_the_id_is_shown_if_there_is_one(host: Run, driver: Driver) -> None:
    assert host("status", "-v").lines[-1] == f"id: {driver.platform.get_id().hex()}"
    driver.platform._id = bytes(64)
    assert host("status", "-v").lines[-1] == "id: not reported"
    assert answered(host("status", "--json"))["platform_id"] is None


def test_an_error_of_the_device_is_one_line_and_a_hint(host: Run, driver: Driver) -> None:
    driver.fails[sev_driver.STATUS] = (errno.ENODEV, 0)
    ran = host("status")
    assert ran.code == 6
    assert ran.err.splitlines() == [
        f"error: {os.devnull}: PLATFORM_STATUS: no SEV firmware is behind it",
        "hint: load the kernel module ccp, and enable SEV in the BIOS",
    ]
    found = answered(host("status", "--json"), 6)
    assert found["errors"][0]["check"] == "device.absent"


def test_a_machine_without_the_device(run: Run, here: Path) -> None:
    ran = run("host", "status", "--device", here / "sev")
    assert ran.code == 6
    assert ran.err.splitlines() == [
        f"error: {here / 'sev'}: there is no such device",
        (
            "hint: load the kernel module ccp, and enable SEV in the BIOS "
            "(`sev-attest host check` looks at the whole host)"
        ),
    ]


# an owner


def owned(host: Run, run: Run) -> Ran:
    """Let an owner take the platform, by the commands for it."""
    assert run("certs", "generate-oca", "oca", "oca.pem").code == 0
    ran = host("csr", "csr")
    assert ran.lines == ["wrote csr"]
    assert ran.err.splitlines() == [
        "note: next: `sev-attest certs sign-pek`, then `sev-attest host provision`",
    ]
    assert run("certs", "sign-pek", "csr", "pek", "--key", "oca.pem").code == 0
    return host("provision", "pek", "oca", "--yes")


def test_an_owner_takes_a_platform(host: Run, run: Run, driver: Driver) -> None:
    before = driver.platform.export()
    ran = owned(host, run)
    oca = Certificate.from_bytes(Path("oca").read_bytes())
    assert ran.lines == [f"OK: the platform is owned by the OCA {oca.fingerprint}"]
    assert ran.notes == [
        "note: export the chain again (`sev-attest host export`): guest owners need it",
    ]
    assert "owner: external (an OCA was imported)" in host("status").lines
    after = driver.platform.export()
    assert after.oca.to_bytes() == oca.to_bytes()
    assert after.pdh.body != before.pdh.body
    sev.verify_chain(after, roots=[driver.platform.authority.root])


def test_the_documents_of_taking_a_platform(host: Run, run: Run) -> None:
    assert run("certs", "generate-oca", "oca", "oca.pem").code == 0
    found = answered(host("csr", "csr", "--json"))
    assert (found["schema"], found["files"]) == ("sev-attest/host csr/1", ["csr"])
    assert host("csr", "csr").code == 6
    assert silent(host("csr", "csr", "--force", "-q"))
    assert run("certs", "sign-pek", "csr", "pek", "--key", "oca.pem").code == 0
    found = answered(host("provision", "pek", "oca", "--yes", "--json"))
    assert found["schema"] == "sev-attest/host provision/1"
    assert found["oca"] == Certificate.from_bytes(Path("oca").read_bytes()).fingerprint
    assert found["before"]["externally_owned"] is False


def test_an_owned_platform_is_not_taken(host: Run, run: Run) -> None:
    owned(host, run)
    ran = host("provision", "pek", "oca", "--yes")
    assert ran.code == 5
    assert ran.err.splitlines() == [
        (
            f"error: {os.devnull}: PEK_CERT_IMPORT: the platform has an external owner "
            "(ALREADY_OWNED, code 0x5)"
        ),
        "hint: end its ownership first (`sev-attest host reset`)",
    ]
    assert host("reset", "--yes").code == 0
    assert "owner: itself" in host("status").lines


def test_a_pek_of_another_platform_is_refused(host: Run, run: Run, driver: Driver) -> None:
    owner = OwnerKey.generate()
    Path("oca").write_bytes(owner.certificate().to_bytes())
    Path("pek").write_bytes(owner.sign_pek(Platform(b"another").pek_csr()).to_bytes())
    ran = host("provision", "pek", "oca", "--yes")
    assert ran.code == 1
    assert "this PEK is not the one of this platform" in ran.err
    assert "make a new CSR, and sign it (`sev-attest host csr`)" in ran.err
    assert sev_driver.IMPORT not in driver.seen


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("unsigned", "the PEK carries no signature of the OCA"),
        ("other OCA", "the OCA's signature over the PEK does not hold"),
        ("OCA unsigned", "the OCA carries no signature of its own"),
    ],
)
def test_a_pek_that_the_oca_did_not_sign_is_refused(
    host: Run, driver: Driver, wrong: str, words: str
) -> None:
    owner, other = OwnerKey.generate(), OwnerKey.generate()
    csr = driver.platform.pek_csr()
    pek = csr if wrong == "unsigned" else owner.sign_pek(csr)
    oca = (other if wrong == "other OCA" else owner).certificate()
    if wrong == "OCA unsigned":
        oca = replace(oca, signatures=(Signature(), Signature()))
    Path("oca").write_bytes(oca.to_bytes())
    Path("pek").write_bytes(pek.to_bytes())
    ran = host("provision", "pek", "oca", "--yes")
    assert ran.code == 1
    assert words in ran.err
    assert sev_driver.IMPORT not in driver.seen


def test_files_that_are_something_else_are_malformed(host: Run, run: Run) -> None:
    owned(host, run)
    swapped = host("provision", "oca", "pek", "--yes")
    assert (swapped.code, swapped.err) == (
        6,
        "error: oca: chain pek: this is OCA; one PEK expected\n",
    )
    assert host("provision", "pek", "oca.pem", "--yes").code == 6
    assert host("provision", "pek", "nothing", "--yes").code == 6
    missing = host("provision", "pek", "nothing")  # before it looks for a terminal
    assert (missing.code, missing.err) == (6, "error: nothing: No such file or directory\n")
    Path("empty").touch()
    ran = host("provision", "empty", "oca", "--yes")
    assert (ran.code, ran.err) == (6, "error: empty: PEK: the file is empty\n")
    assert host("provision", "-", "-", "--yes").code == 2


# new keys


@pytest.mark.parametrize(
    ("options", "made", "kept"),
    [([], "new PDH", 3), (["--pek"], "new PDH, PEK and OCA", 1)],
)
def test_keys_are_made_anew(
    host: Run, driver: Driver, options: list[str], made: str, kept: int
) -> None:
    def keys() -> list[str]:
        return [link.fingerprint for link in driver.platform.export().certificates[:4]]

    before = keys()
    ran = host("rotate", "--yes", *options)
    assert ran.lines == [f"OK: the platform has a {made}"]
    assert ran.err.splitlines() == [
        "note: export the chain again (`sev-attest host export`): guest owners need it",
    ]
    after = keys()
    assert before[4 - kept :] == after[4 - kept :]
    assert not set(before[: 4 - kept]) & set(after)
    found = answered(host("rotate", "--yes", "--json", *options))
    assert (found["schema"], found["before"]["state"]) == ("sev-attest/host rotate/1", "INIT")
    assert silent(host("rotate", "--yes", "-q", *options))


def test_a_new_pdh_leaves_running_guests_alone(host: Run, driver: Driver) -> None:
    driver.platform.launch_start(0)
    assert host("rotate", "--yes").code == 0
    assert driver.platform.platform_status().guest_count == 1


@pytest.mark.parametrize("command", [["rotate", "--pek"], ["reset"], ["provision", "pek", "oca"]])
def test_what_needs_a_platform_without_guests_says_so(
    host: Run, driver: Driver, command: list[str]
) -> None:
    owner = OwnerKey.generate()
    Path("oca").write_bytes(owner.certificate().to_bytes())
    Path("pek").write_bytes(owner.sign_pek(driver.platform.pek_csr()).to_bytes())
    driver.platform.launch_start(0)
    driver.platform.launch_start(0)
    ran = host(*command, "--yes")
    assert ran.code == 5
    assert ran.err.splitlines() == [
        f"error: {os.devnull}: SEV guests are running (2)",
        "hint: stop this host's SEV guests, then try again",
    ]
    assert set(driver.seen) == {sev_driver.STATUS}


def test_a_reset_forgets_everything_but_the_cek(host: Run, driver: Driver) -> None:
    before = driver.platform.export()
    assert host("reset", "--yes").lines[0] == "OK: the platform is reset, and owns itself"
    assert host("export", "chain").code == 0
    after = sev.Chain.from_files("chain")
    assert before.cek.body == after.cek.body
    assert before.oca.body != after.oca.body
    assert answered(host("reset", "--yes", "--json"))["schema"] == "sev-attest/host reset/1"


# asking


DESTRUCTIVE = (["rotate"], ["rotate", "--pek"], ["reset"], ["provision", "pek", "oca"])


@pytest.mark.parametrize("command", DESTRUCTIVE)
@pytest.mark.parametrize("stdin", [io.StringIO("y\n"), None])
def test_without_a_terminal_nothing_is_lost(
    host: Run,
    driver: Driver,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    stdin: io.StringIO | None,
) -> None:
    owner = OwnerKey.generate()
    Path("oca").write_bytes(owner.certificate().to_bytes())
    Path("pek").write_bytes(owner.sign_pek(driver.platform.pek_csr()).to_bytes())
    monkeypatch.setattr(sys, "stdin", stdin)
    ran = host(*command)
    assert ran.code == 2
    assert ran.err.startswith("error: there is no terminal to ask: this makes a new PDH")
    assert LOST in ran.err
    owns = f"the OCA {owner.certificate().fingerprint} will own the platform"
    assert (owns in ran.err) == ("provision" in command)
    assert ran.err.endswith("hint: --yes goes on without asking\n")
    assert not driver.seen


@pytest.mark.parametrize("command", DESTRUCTIVE)
@pytest.mark.parametrize("answer", ["", "\n", "n\n", "no\n", "yess\n"])
def test_any_answer_but_yes_changes_nothing(
    host: Run,
    driver: Driver,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    answer: str,
) -> None:
    owner = OwnerKey.generate()
    Path("oca").write_bytes(owner.certificate().to_bytes())
    Path("pek").write_bytes(owner.sign_pek(driver.platform.pek_csr()).to_bytes())
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    before = driver.platform.export()
    ran = host(*command)
    assert ran.code == 2
    assert ran.err.endswith("error: not confirmed: nothing was changed\n")
    assert driver.platform.export() == before


@pytest.mark.parametrize("answer", ["y\n", "Yes\n"])
def test_who_is_asked_sees_what_is_lost(
    host: Run, driver: Driver, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    driver.platform.launch_start(0)
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    ran = host("rotate", "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["ok"]
    assert ran.err == (
        f"note: this makes a new PDH\nnote: {LOST}\n"
        "note: SEV guests are running (1); they go on\nMake new keys? [y/N] "
    )
    assert sev_driver.PDH_GEN in driver.seen
