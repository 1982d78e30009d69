"""``sev-attest session``."""

import base64
import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from conftest import Run
from sev_attest.cli.outputs import write_all
from sev_attest.owner import LaunchRecord
from sev_attest.testing import Platform

FILES = ["vm1.launch.json", "vm1_godh.b64", "vm1_session.b64", "vm1_tek.bin", "vm1_tik.bin"]
TRUSTING = ("--trust-root", "root")


@pytest.fixture
def chain(milan: Platform, here: Path) -> Path:
    """Lay out a platform's chain and root."""
    authority = milan.authority
    Path("root").write_bytes(authority.ask.to_bytes() + authority.ark.to_bytes())
    Path("chain").write_bytes(milan.export().to_bytes())
    Path("pdh").write_bytes(milan.export().pdh.to_bytes())
    Path("out").mkdir()
    return here


def written() -> list[str]:
    return sorted(path.name for path in Path("out").iterdir())


def test_it_writes_five_files_that_the_platform_accepts(
    run: Run, chain: Path, milan: Platform
) -> None:
    ran = run("session", "--name", "vm1", "chain", "0x5", "--out", "out", *TRUSTING)
    assert ran.code == 0
    assert written() == FILES
    for name in FILES:
        assert Path("out", name).stat().st_mode & 0o777 == 0o600
    tek, tik = (Path(f"out/vm1_{name}.bin").read_bytes() for name in ("tek", "tik"))
    assert (len(tek), len(tik)) == (16, 16)
    godh, blob = (Path(f"out/vm1_{name}.b64").read_bytes() for name in ("godh", "session"))
    assert not set(godh + blob) & set(b"\r\n ")
    handle = milan.launch_start(5, base64.b64decode(godh), base64.b64decode(blob))
    assert (milan._guests[handle].tek, milan._guests[handle].tik) == (tek, tik)
    record = LaunchRecord.from_bytes(Path("out/vm1.launch.json").read_bytes())
    assert (record.name, record.policy) == ("vm1", 5)
    assert "note: this root is not AMD's" in ran.err


@pytest.mark.parametrize(
    ("policy", "shown"), [("1", "0x0001"), ("0x5", "0x0005"), ("0x33010005", "0x33010005")]
)
@pytest.mark.parametrize("hashes", [True, False])
def test_standard_output_is_libvirt_s_element(
    run: Run, chain: Path, policy: str, shown: str, *, hashes: bool
) -> None:
    option = ["--kernel-hashes"] if hashes else []
    ran = run("session", "--name", "vm1", *option, "chain", policy, "--out", "out", *TRUSTING)
    element = ET.fromstring(ran.out)
    assert element.tag == "launchSecurity"
    assert element.get("type") == "sev"
    assert element.get("kernelHashes") == ("yes" if hashes else None)
    assert element.findtext("policy") == shown
    assert element.findtext("dhCert") == Path("out/vm1_godh.b64").read_text()
    assert element.findtext("session") == Path("out/vm1_session.b64").read_text()


def test_json_and_quiet_and_verbose(run: Run, chain: Path) -> None:
    given = ("chain", "1", "--out", "out", *TRUSTING)
    document = json.loads(run("session", "--name", "a", *given, "--json").out)
    assert (document["schema"], document["ok"]) == ("sev-attest/session/1", True)
    assert len(document["files"]) == 5
    assert document["launch_security"].startswith("<launchSecurity type='sev'>")
    assert document["root"].startswith("not AMD's")
    for key in ("tik", "tek"):
        secret = Path(f"out/a_{key}.bin").read_bytes()
        assert secret.hex() not in str(document)
        assert base64.b64encode(secret).decode() not in str(document)
    quiet = run("session", "--name", "b", *given, "-q")
    assert (quiet.code, quiet.err) == (0, "")
    assert f"<session>{Path('out/b_session.b64').read_text()}</session>" in quiet.out
    assert "wrote out/c_tik.bin\n" in run("session", "--name", "c", *given, "-v").err


@pytest.mark.parametrize("out", ["out", "./out", ".//out", "./out/", ".//./out//."])
def test_its_files_are_in_the_folder_that_was_named(run: Run, chain: Path, out: str) -> None:
    ran = run("session", "--name", "vm1", "chain", "5", "--out", out, *TRUSTING, "--json")
    assert written() == FILES
    assert sorted(json.loads(ran.out)["files"]) == [f"out/{name}" for name in FILES]


def test_a_policy_that_leaves_memory_open_is_noted(run: Run, chain: Path) -> None:
    ran = run("session", "--name", "vm1", "chain", "4", "--out", "out", *TRUSTING)
    assert "note: policy 0x0004 lets the host read the guest's memory" in ran.err


def test_a_chain_that_does_not_verify_makes_no_session(run: Run, chain: Path) -> None:
    ran = run("session", "--name", "vm1", "chain", "5", "--out", "out")
    assert ran.code == 1
    assert ran.out == ""
    assert written() == []


def test_a_bare_pdh_needs_insecure_and_the_output_says_so(run: Run, chain: Path) -> None:
    refused = run("session", "--name", "vm1", "pdh", "5", "--out", "out")
    assert refused.code == 3
    assert "error: this is a bare PDH" in refused.err
    assert written() == []
    ran = run("session", "--name", "vm1", "pdh", "5", "--out", "out", "--insecure")
    assert ran.code == 0
    assert "note: INSECURE" in ran.err
    assert "chain." not in run("session", "--name", "v", "pdh", "5", "--out", "out",
                               "--insecure", "-v").err  # fmt: skip
    assert json.loads(Path("out/vm1.launch.json").read_bytes())["root"] is None
    document = json.loads(
        run("session", "--name", "b", "pdh", "5", "--out", "out", "--insecure", "--json").out
    )
    assert document["root"] is None
    assert document["notes"][0].startswith("INSECURE")


def test_insecure_does_not_excuse_a_chain_that_is_broken(run: Run, chain: Path) -> None:
    ran = run("session", "--name", "vm1", "chain", "5", "--out", "out", "--insecure")
    assert ran.code == 1
    assert written() == []


@pytest.mark.parametrize("standing", FILES)
def test_a_file_that_exists_stays_and_nothing_is_written(
    run: Run, chain: Path, standing: str
) -> None:
    Path("out", standing).write_text("mine")
    ran = run("session", "--name", "vm1", "chain", "5", "--out", "out", *TRUSTING)
    assert ran.code == 6
    assert f"out/{standing}: exists already" in ran.err
    assert written() == [standing]
    assert Path("out", standing).read_text() == "mine"
    assert (
        run("session", "--name", "vm1", "chain", "5", "--out", "out", "--force", *TRUSTING).code
        == 0
    )
    assert written() == FILES


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("--name vm1 chain 4294967296", 2, "4294967296 is not in 0..4294967295"),
        ("--name vm1 chain five", 2, "'five' is no number"),
        (
            "--name vm1 chain no-debug,es",
            2,
            "'no-debug,es' is no number: `sev-attest policy no-debug,es` prints it",
        ),
        ("--name vm1 chain api>=1.51", 2, "`sev-attest policy 'api>=1.51'` prints it"),
        ("--name vm1 chain", 2, "'chain' is a file, not a number"),
        ("--name vm1 5", 2, "no chain was given"),
        ("--name ../vm1 chain 5", 2, "cannot begin a file's name"),
        ("--name a/b chain 5", 2, "cannot begin a file's name"),
        ("--name .hidden chain 5", 2, "cannot begin a file's name"),
        ("--name vm1 chain 0x41", 2, "bits 0x40 are reserved"),
        ("--name vm1 nowhere 5", 6, "nowhere: No such file or directory"),
        ("--name vm1 chain 5 --out nowhere", 6, "nowhere/vm1_tik.bin: there is no folder nowhere"),
        ("--name vm1 chain 5 --out chain", 6, "chain/vm1_tik.bin: there is no folder chain"),
    ],
)
def test_bad_input_gets_one_clear_line(
    run: Run, chain: Path, arguments: str, code: int, words: str
) -> None:
    ran = run("session", *arguments.split(), *TRUSTING)
    assert ran.code == code
    assert words in ran.err
    assert ran.err.count("error: ") == 1
    assert sorted(path.name for path in chain.iterdir()) == ["chain", "out", "pdh", "root"]


def test_the_chain_can_be_named_by_its_option_and_verbose_shows_its_steps(
    run: Run, chain: Path
) -> None:
    given = ("--sev", "chain", "5", "--out", "out", "-v")
    good = run("session", "--name", "vm1", *given, *TRUSTING)
    assert good.code == 0
    assert "ok   chain.pdh.signed-by-pek" in good.err
    bad = run("session", "--name", "vm2", *given)
    assert bad.code == 1
    assert "FAIL chain.cek.signed-by-ask" in bad.err


def test_a_folder_in_the_way_is_not_replaced_and_the_old_files_stay(run: Run, chain: Path) -> None:
    given = ("session", "--name", "vm1", "chain", "5", "--out", "out", *TRUSTING)
    assert run(*given).code == 0
    before = {path.name: path.read_bytes() for path in Path("out").iterdir()}
    Path("out/vm1_session.b64").unlink()
    Path("out/vm1_session.b64").mkdir()
    ran = run(*given, "--force")
    assert ran.code == 6
    assert "out/vm1_session.b64: exists already" in ran.err
    Path("out/vm1_session.b64").rmdir()
    del before["vm1_session.b64"]
    assert {path.name: path.read_bytes() for path in Path("out").iterdir()} == before


def test_a_disk_that_fills_up_leaves_nothing_half_written(
    run: Run, chain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write_all.__globals__["os"], "fsync", full)
    ran = run("session", "--name", "vm1", "chain", "5", "--out", "out", *TRUSTING,
              "--ledger", "none")  # fmt: skip
    assert ran.code == 6
    assert ran.err == "error: out/vm1_tik.bin: No space left on device\n"
    assert written() == []


def test_a_time_limit_needs_the_ledger_that_keeps_it(run: Run, chain: Path) -> None:
    given = ("--name", "vm", "chain", "5", *TRUSTING, "--valid-for", "1", "--ledger", "none")
    ran = run("session", *given)
    assert (ran.code, ran.out, "--valid-for needs a ledger" in ran.err) == (2, "", True)
