"""``--evidence`` of every command, and ``evidence verify``: what is in it, and what it is worth."""

import base64
import json
import os
import shlex
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import test_cli_launch
import test_cli_owner
from conftest import Ran, Run
from schemas import misfits
from sev_attest.cli.evidence import parts, texts
from sev_attest.cli.evidence.document import SCHEMA
from sev_attest.cli.options.evidence_verify import RecomputeOptions
from sev_attest.cli.options.snp_guest import SnpGuestOptions
from sev_attest.errors import LaunchRefused
from sev_attest.owner import LaunchRecord, Ledger
from sev_attest.sev.keys import TransportKeys
from sev_attest.sev.launch import expected_measure
from sev_attest.sev.launch_info import LaunchInfo
from sev_attest.sev.policy import GuestPolicy
from sev_attest.sev.session import Session
from sev_attest.snp.digest import launch_digest
from sev_attest.testing import Platform, ovmf_image
from sev_attest.testing.images import SNP_SECTIONS
from sev_attest.testing.snp import SnpAuthority, SnpPlatform
from snp_demands import GENOA
from snp_material import AMD, MILAN
from snp_reports import bound, hcl
from test_cli_launch import desk as launching
from test_cli_owner import desk as owning
from test_cli_snp_requirements import OWNER as SNP_OWNER
from test_cli_snp_requirements import files as snp_owning

__all__ = ["launching", "owning", "snp_owning"]  # fixtures

EVIDENCE = ("--evidence", "e.json", "--force")
SNP_GUEST = ("-f", "fw", "-n", "2", "--cpu-model-name", "EPYC-Milan")
SNP_IMAGE = ovmf_image(8192, sections=SNP_SECTIONS)


@pytest.fixture(scope="module")
def platform() -> Platform:
    return Platform(b"evidence")


def saved(ran: Ran, code: int) -> Any:
    """Return the evidence that a command wrote beside its verdict."""
    assert ran.code == code, ran.err
    found = json.loads(Path("e.json").read_bytes())
    assert found["schema"] == SCHEMA
    assert misfits(found) == []
    assert (found["ok"], found["exit"]) == (code == 0, code)
    return found


def again(run: Run, *options: object, code: int) -> Any:
    """Recompute the evidence; return the claims by their names."""
    ran = run("evidence", "verify", "e.json", "--json", *options)
    assert ran.code == code, ran.out
    document = json.loads(ran.out)
    assert document["schema"] == "sev-attest/evidence verify/1"
    assert "errors" not in document or document["errors"][0]["check"].startswith("evidence.")
    return {one["check"]: one for one in document["claims"]}


def repeated(run: Run, found: Any) -> Ran:
    """Type the command that the evidence prints."""
    return run(*shlex.split(found["repeat"].removeprefix("sev-attest ")))


def check_of(run: Run, *options: object) -> str:
    """Return why evidence is not accepted."""
    document = json.loads(run("evidence", "verify", "e.json", "--json", *options).out)
    found: str = document["errors"][0]["check"]
    return found


def edited(change: Callable[[Any], object]) -> None:
    """Change the saved evidence, as a forger would."""
    document = json.loads(Path("e.json").read_bytes())
    change(document)
    Path("e.json").write_text(json.dumps(document))


# verify


def test_a_chain_is_recomputed_whole_from_its_evidence(owning: test_cli_owner.Desk) -> None:
    run = owning.run
    found = saved(run("verify", "chain", "--trust-root", "root", *EVIDENCE), 0)
    assert [one["role"] for one in found["chain"]["certificates"]] == [
        "PDH", "PEK", "OCA", "CEK", "ASK", "ARK"
    ]  # fmt: skip
    assert {one["ok"] for one in found["checks"]} == {True}
    assert found["repeat"] == "sev-attest evidence verify e.json --trust-root root"
    claims = again(run, "--trust-root", "root", code=0)
    assert claims.keys() >= {"chain.fingerprints", "chain.root"}
    assert {one["found"] for one in claims.values()} == {True}
    ran = run("evidence", "verify", "e.json", "--trust-root", "root", "-q")
    assert (ran.code, ran.out) == (0, "")
    assert run("evidence", "verify", "e.json", "--trust-root", "root").lines[0] == (
        "OK: everything that the evidence claims was recomputed, and holds"
    )


def test_a_file_never_names_its_own_root(owning: test_cli_owner.Desk) -> None:
    saved(owning.run("verify", "chain", "--trust-root", "root", *EVIDENCE), 0)
    claims = again(owning.run, code=1)
    assert claims["chain.ark.trusted"]["found"] is False
    assert check_of(owning.run) == "evidence.claims"


def test_the_evidence_of_a_refused_chain_is_right_and_no_success(
    owning: test_cli_owner.Desk,
) -> None:
    found = saved(owning.run("verify", "chain", *EVIDENCE), 1)
    assert found["errors"][0]["check"] == "chain.cek.signed-by-ask"
    claims = again(owning.run, code=1)
    assert all(one["agrees"] for one in claims.values())
    assert check_of(owning.run) == "evidence.refusal"


@pytest.mark.parametrize("place", [0x10, 0x400, 3000, 6000])
def test_a_changed_certificate_is_found(owning: test_cli_owner.Desk, place: int) -> None:
    chain = bytearray(Path("chain").read_bytes())
    chain[place] ^= 1
    Path("chain").write_bytes(chain)
    ran = owning.run("verify", "chain", "--trust-root", "root", *EVIDENCE)
    found = saved(ran, ran.code)
    assert ran.code in {1, 6}
    if ran.code == 6:  # it is no certificate at all
        assert found["chain"] is None
        return
    claims = again(owning.run, "--trust-root", "root", code=1)
    assert all(one["agrees"] for one in claims.values())
    assert any(one["found"] is False for one in claims.values())


def told_apart(honest: Any, found: Any) -> None:
    """Check that no claim is worded the same whether it holds or not."""
    for check, one in found.items():
        if check in honest and one["found"] is not honest[check]["found"]:
            assert one["why"] != honest[check]["why"], check


FORGERIES: dict[str, Callable[[Any], object]] = {
    "a check": lambda e: e["checks"][4].update(ok=False),
    "a check that was not made": lambda e: e["checks"][4].update(ok=None),
    "a fingerprint": lambda e: e["chain"]["certificates"][0].update(fingerprint="00" * 32),
    "the root": lambda e: e["chain"].update(root="AMD Milan"),
    "the generation": lambda e: e["chain"].update(generation="milan"),
    "no checks": lambda e: e["checks"].clear(),
    "no chain": lambda e: e.update(chain=None),
    "nothing": lambda e: e.update(chain=None, checks=[]),
}


@pytest.mark.parametrize("change", FORGERIES.values(), ids=FORGERIES)
def test_forged_evidence_of_a_chain_is_refused(
    owning: test_cli_owner.Desk, change: Callable[[Any], object]
) -> None:
    saved(owning.run("verify", "chain", "--trust-root", "root", *EVIDENCE), 0)
    honest = again(owning.run, "--trust-root", "root", code=0)
    edited(change)
    told_apart(honest, again(owning.run, "--trust-root", "root", "--insecure", code=1))
    ran = owning.run("evidence", "verify", "e.json", "--trust-root", "root", "--insecure")
    assert (ran.code, ran.lines[0].split(":")[0]) == (1, "NOT VERIFIED")


def test_a_refusal_that_is_called_a_success_is_found(owning: test_cli_owner.Desk) -> None:
    saved(owning.run("verify", "chain", *EVIDENCE), 1)

    def lie(evidence: Any) -> None:
        evidence.update(ok=True, exit=0, errors=[])
        for one in evidence["checks"]:
            one["ok"] = True

    edited(lie)
    assert again(owning.run, code=1)["chain.ark.trusted"]["agrees"] is False


def test_many_chains_have_no_one_evidence(owning: test_cli_owner.Desk) -> None:
    ran = owning.run("verify", "--each", "chain", "--evidence", "e.json")
    assert (ran.code, ran.err.splitlines()[0]) == (2, "error: --each excludes --evidence")


# validate


def validated(desk: test_cli_owner.Desk, *options: str, code: int = 0, **guest: Any) -> Any:
    assert desk.session("--kernel-hashes").code == 0
    desk.start(**guest)
    return saved(desk.validate("--record", "vm.launch.json", *options, *EVIDENCE), code)


KERNEL: dict[str, Any] = {
    "kernel": b"a kernel",
    "initrd": b"an initrd",
    "cmdline": b"quiet key=hunter2",
}
GUEST = ("-f", "fw", "-k", "kernel", "-r", "initrd", "-e", "quiet key=hunter2")


@pytest.fixture
def booted(owning: test_cli_owner.Desk) -> test_cli_owner.Desk:
    for name in ("kernel", "initrd"):
        Path(name).write_bytes(KERNEL[name])
    return owning


def test_a_measurement_is_recomputed_with_the_tik(booted: test_cli_owner.Desk) -> None:
    assert booted.session("--kernel-hashes").code == 0
    booted.start(**KERNEL)
    record = ("--record", "vm.launch.json", "--requirements", "owner.toml")
    digest = sev_digest()
    Path("owner.toml").write_text(test_cli_owner.OWNER.replace(test_cli_owner.DIGEST, digest))
    found = saved(booted.validate(*record, *EVIDENCE, guest=GUEST), 0)
    assert found["measured"]["digest"] == digest
    assert [one["what"] for one in found["measured"]["ranges"]] == ["firmware", "kernel hashes"]
    assert [one["kind"] for one in found["ledger"]] == ["created", "measured"]
    assert found["requirements"]["launch"] == "web"
    assert {one["what"] for one in found["inputs"]} == {"firmware", "kernel", "initrd", "cmdline"}
    assert "affected" in {one["verdict"] for one in found["advisories"]}
    assert found["repeat"] == (
        "sev-attest evidence verify e.json --record vm.launch.json --firmware fw --kernel kernel "
        "--initrd initrd --cmdline CMDLINE --tik vm_tik.bin --tek vm_tek.bin "
        "--requirements owner.toml"
    )
    assert "hunter2" not in Path("e.json").read_text()
    claims = again(booted.run, "--tik", "vm_tik.bin", *GUEST, code=0)
    assert claims["launch.measurement"]["found"] is True
    assert claims["record.session"]["found"] is True
    assert claims["measured.digest"]["found"] is True
    assert claims["ledger.events"]["found"] is True
    assert claims["requirements"]["found"] is None
    assert (claims["record.platform"]["claimed"], claims["record.platform"]["found"]) == (
        True,
        None,
    )
    # Without the guest, its digest is the file's word; another guest has another one.
    assert again(booted.run, "--tik", "vm_tik.bin", code=0)["measured.digest"]["found"] is None
    told_apart(claims, again(booted.run, "--tik", "vm_tik.bin", *GUEST[:2], code=1))
    Path("other").write_bytes(bytes(16))
    told_apart(claims, again(booted.run, "--tik", "other", *GUEST, code=1))
    edited(lambda e: e["ledger"][0].update(detail="{}"))
    told_apart(claims, again(booted.run, "--tik", "vm_tik.bin", *GUEST, code=1))
    edited(lambda e: e["measured"]["kernel_hashes"].update(kernel="00" * 32))
    claims = again(booted.run, "--tik", "vm_tik.bin", *GUEST, code=1)
    assert claims["measured.digest"]["agrees"] is False


def test_the_repeated_command_has_every_option_that_recomputes() -> None:
    kept = {"trust_root", "requirements", *texts._KEYS, *texts._RECORD, *texts._GUEST}
    assert kept == {*SnpGuestOptions.declared(), *RecomputeOptions.declared()} - {"insecure"}


def sev_digest() -> str:
    from sev_attest.sev.digest import launch_digest

    return launch_digest(test_cli_owner.OVMF, **KERNEL).hex()


def test_without_the_tik_a_launch_is_no_success(owning: test_cli_owner.Desk) -> None:
    validated(owning, "--insecure")
    assert again(owning.run, code=3)["launch.measurement"]["found"] is None
    assert check_of(owning.run) == "evidence.partial"
    ran = owning.run("evidence", "verify", "e.json", "--insecure")
    assert (ran.code, ran.lines[0]) == (0, "OK: what could be recomputed of the evidence holds")
    assert "note: INSECURE: launch.measurement was not recomputed" in ran.out + ran.err
    # A key of its session is needed: any other one does not fit.
    Path("zero").write_bytes(bytes(16))
    assert again(owning.run, "--tik", "zero", code=1)["launch.measurement"]["found"] is False
    Path("tk").write_bytes(Path("vm_tek.bin").read_bytes() + Path("vm_tik.bin").read_bytes())
    assert again(owning.run, "--tk", "tk", code=0)


def test_a_mismatch_is_recomputed_as_one(owning: test_cli_owner.Desk) -> None:
    found = validated(owning, "--insecure", firmware=test_cli_owner.OTHER, code=1)
    assert found["measured"]["digest"] == test_cli_owner.DIGEST
    claims = again(owning.run, "--tik", "vm_tik.bin", code=1)
    assert claims["launch.measurement"]["found"] is False
    assert all(one["agrees"] for one in claims.values())


def test_a_host_that_reports_another_policy_is_in_the_evidence(
    owning: test_cli_owner.Desk,
) -> None:
    assert owning.session().code == 0
    owning.start()
    info = Path("info").read_text().replace("sev-policy     : 1", "sev-policy     : 0")
    Path("info").write_text(info)
    ran = owning.validate("--policy", "1", *EVIDENCE)
    found = saved(ran, ran.code)
    assert found["launch"]["policy"] == 1
    assert again(owning.run, "--tik", "vm_tik.bin", code=ran.code)


def test_what_the_requirements_do_not_allow_is_told(owning: test_cli_owner.Desk) -> None:
    text = Path("owner.toml").read_text().replace("build = 24", "build = 200")
    Path("owner.toml").write_text(text)
    assert owning.session().code == 0
    owning.start()
    record = ("--record", "vm.launch.json", "--requirements", "owner.toml")
    found = saved(owning.validate(*record, *EVIDENCE), 1)
    assert found["requirements"]["met"] is False
    assert found["errors"][0]["check"] == "requirements.minimum.build"
    assert again(owning.run, "--tik", "vm_tik.bin", code=1)["launch.measurement"]["found"] is True
    assert check_of(owning.run, "--tik", "vm_tik.bin") == "evidence.refusal"


def test_none_of_the_allowed_digests_leaves_none(owning: test_cli_owner.Desk) -> None:
    assert owning.session().code == 0
    owning.start(firmware=test_cli_owner.OTHER)
    record = ("--record", "vm.launch.json", "--requirements", "owner.toml")
    found = saved(owning.validate(*record, *EVIDENCE, guest=()), 1)
    assert (found["measured"], found["launch"]["policy"]) == (None, 1)
    claims = again(owning.run, "--tik", "vm_tik.bin", code=1)
    assert claims["launch.measurement"]["why"] == "the file has no launch digest"
    ran = owning.run("evidence", "verify", "e.json", "-f", "fw")
    assert (ran.code, "has no launch digest to compare with" in ran.err) == (2, True)


def test_a_second_launch_of_a_session_leaves_evidence(owning: test_cli_owner.Desk) -> None:
    assert owning.session().code == 0
    for code in (0, 3):
        owning.start()
        found = saved(owning.validate("--record", "vm.launch.json", *EVIDENCE), code)
    assert found["errors"][0]["check"] == "ledger.reused"
    assert "the measurement itself is right" in found["notes"]


RECORD = ("--record", "vm.launch.json", "--tik", "vm_tik.bin", "--tek", "vm_tek.bin")


def required(
    desk: test_cli_owner.Desk,
    *options: str,
    code: int = 0,
    owner: str = test_cli_owner.OWNER,
    **guest: Any,
) -> Any:
    """Return the evidence of a launch that was held to requirements."""
    Path("owner.toml").write_text(owner)
    assert desk.session().code == 0
    desk.start(**guest)
    record = ("--record", "vm.launch.json", "--requirements", "owner.toml")
    return saved(desk.validate(*record, *options, *EVIDENCE), code)


def judged(run: Run, *options: object, code: int) -> Any:
    return again(run, *RECORD, "--requirements", "owner.toml", *options, code=code)


def test_requirements_are_judged_again_with_the_record(
    owning: test_cli_owner.Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = owning.run
    found = required(owning)
    claims = judged(run, "-f", "fw", code=0)
    assert {one["found"] for one in claims.values() if one["claimed"] is not None} == {True}
    made = found["software"]["made"]
    assert claims["requirements"]["why"] == (
        f"they allow it as launch web, judged at {made}, the time that the file states"
    )
    assert claims["requirements"]["needed"] is True
    ran = run("evidence", "verify", "e.json", *RECORD, "--requirements", "owner.toml", "-f", "fw")
    assert ran.lines[0] == "OK: everything that the evidence claims was recomputed, and holds"
    # The record knows the platform, without which nothing is judged.
    ran = run("evidence", "verify", "e.json", "--requirements", "owner.toml")
    assert (ran.code, "--requirements needs --record" in ran.err) == (2, True)
    monkeypatch.setenv("SEV_ATTEST_REQUIREMENTS", "owner.toml")
    assert again(run, *RECORD, code=0)["requirements"]["found"] is True
    assert again(run, "--tik", "vm_tik.bin", code=0)["requirements"]["why"] == (
        "they stay with their owner; the file has their fingerprint (--requirements)"
    )


def test_a_record_alone_shows_the_platform(owning: test_cli_owner.Desk) -> None:
    validated(owning, "--insecure")
    assert again(owning.run, *RECORD, code=0)["record.platform"]["found"] is True
    Path("tk").write_bytes(Path("vm_tek.bin").read_bytes() + Path("vm_tik.bin").read_bytes())
    assert again(owning.run, *RECORD[:2], "--tk", "tk", code=0)["record.platform"]["found"] is True
    edited(lambda e: e["record"].update(cek="00" * 32))
    assert again(owning.run, *RECORD, code=1)["record.platform"]["agrees"] is False


def test_a_record_of_other_keys_is_refused(owning: test_cli_owner.Desk) -> None:
    required(owning)
    record = json.loads(Path("vm.launch.json").read_bytes())
    Path("vm.launch.json").write_text(json.dumps(record | {"pdh": "00" * 32}))
    ran = owning.run("evidence", "verify", "e.json", *RECORD, "--requirements", "owner.toml")
    assert (ran.code, ran.err.splitlines()[0]) == (
        1,
        "error: e.json: the record was changed, or the TEK is not that of its session",
    )


@pytest.mark.parametrize(
    ("api", "why"),
    [("1.55", "build 24 is below 200"), ("1.56", "SEV API 1.55 is below 1.56; and 1 more")],
)
def test_requirements_that_were_not_met_are_not_met_again(
    owning: test_cli_owner.Desk, api: str, why: str
) -> None:
    owner = test_cli_owner.OWNER.replace("build = 24", "build = 200").replace("1.55", api)
    assert required(owning, code=1, owner=owner)["requirements"]["met"] is False
    claims = judged(owning.run, code=1)
    assert claims["requirements"]["found"] is claims["requirements"]["claimed"] is False
    assert claims["requirements"]["why"] == why
    assert claims["requirements"]["needed"] is True
    assert check_of(owning.run, *RECORD, "--requirements", "owner.toml") == "evidence.refusal"


REQUIRED: dict[str, Callable[[Any], object]] = {
    "not met": lambda e: e["requirements"].update(met=False),
    "not asked": lambda e: e["requirements"].update(met=None),
    "another launch": lambda e: e["requirements"].update(launch="db"),
    "no launch": lambda e: e["requirements"].update(launch=None),
    "another guest": lambda e: e["requirements"].update(guest="of theirs"),
    "another time": lambda e: e["software"].update(made="2030-01-01T00:00:00+00:00"),
}


@pytest.mark.parametrize("change", REQUIRED.values(), ids=REQUIRED)
def test_a_forged_success_of_requirements_is_found(
    owning: test_cli_owner.Desk, change: Callable[[Any], object]
) -> None:
    owner = test_cli_owner.OWNER.replace('name = "web"', 'name = "web"\nexpires = 2029-12-31')
    required(owning, owner=owner)
    judged(owning.run, code=0)
    edited(change)
    # What says less than the success is read as the success that it is part of.
    less = change in (REQUIRED["not met"], REQUIRED["not asked"])
    claims = judged(owning.run, code=0 if less else 1)
    assert claims["requirements"]["claimed"] is True
    assert claims["requirements"]["agrees"] is less


def test_a_refusal_by_requirements_that_is_called_a_success_is_found(
    owning: test_cli_owner.Desk,
) -> None:
    owner = test_cli_owner.OWNER.replace("build = 24", "build = 200")
    required(owning, code=1, owner=owner)

    def lie(evidence: Any) -> None:
        evidence.update(ok=True, exit=0, errors=[])
        evidence["checks"] = [one for one in evidence["checks"] if one["ok"] is not False]

    edited(lie)
    assert judged(owning.run, code=1)["requirements"]["agrees"] is False
    # Without the requirements, it is the word of the file.
    assert again(owning.run, "--tik", "vm_tik.bin", code=0)["requirements"]["found"] is None


def test_other_requirements_are_told_apart_by_their_fingerprint(
    owning: test_cli_owner.Desk,
) -> None:
    required(owning)
    text = Path("owner.toml").read_text()
    Path("owner.toml").write_text(f"# a comment is no requirement\n{text}")
    judged(owning.run, code=0)
    Path("owner.toml").write_text(text.replace("build = 24", "build = 23"))
    claims = judged(owning.run, code=1)
    assert claims["requirements.fingerprint"]["agrees"] is False
    assert claims["requirements"]["found"] is None
    assert claims["requirements"]["why"].startswith("other requirements were given")
    assert claims["requirements"]["needed"] is False


def test_a_launch_that_does_not_verify_again_is_held_to_nothing(
    owning: test_cli_owner.Desk,
) -> None:
    required(owning)
    edited(lambda e: e["launch"].update(build_id=99))
    claims = judged(owning.run, code=1)
    assert claims["launch.measurement"]["agrees"] is False
    assert claims["requirements"]["found"] is None
    assert claims["requirements"]["why"] == (
        "they were not judged: the launch or report did not verify again"
    )
    assert claims["requirements"]["needed"] is True


def test_requirements_that_a_refusal_did_not_reach_are_not_judged(
    owning: test_cli_owner.Desk,
) -> None:
    found = required(owning, firmware=test_cli_owner.OTHER, code=1)
    assert found["requirements"]["met"] is None
    claim = judged(owning.run, code=1)["requirements"]
    assert (claim["claimed"], claim["found"]) == (None, None)
    assert claim["why"] == "they were not judged: something else failed first"
    assert claim["needed"] is False


def test_a_refusal_may_be_of_the_launch_that_was_named(owning: test_cli_owner.Desk) -> None:
    other = f'[[launch]]\nname = "db"\ndigest = "{bytes(32).hex()}"\n'
    owner = f"{test_cli_owner.OWNER}\n{other}"
    found = required(owning, "--launch", "db", code=1, owner=owner)
    assert found["errors"][0]["check"] == "requirements.launch.digest"
    claim = judged(owning.run, code=1)["requirements"]
    assert (claim["claimed"], claim["found"]) == (False, None)
    assert claim["why"] == (
        "they allow it as launch web; "
        "the file does not say whether another was asked for (--launch)"
    )


LAUNCHES: dict[str, Callable[[Any], object]] = {
    "the nonce": lambda e: e["launch"].update(nonce="00" * 16),
    "the measurement": lambda e: e["launch"].update(measurement=base64.b64encode(b"x").decode()),
    "no base64": lambda e: e["launch"].update(measurement="%"),
    "no hex": lambda e: e["measured"].update(digest="xy"),
    "the number": lambda e: e["launch"].update(api_major=256),
    "the policy": lambda e: e["launch"].update(policy=1 << 40),
    "a check twice": lambda e: e["checks"].append(e["checks"][0]),
    "the command": lambda e: e.update(command="verify"),
}


@pytest.mark.parametrize("change", LAUNCHES.values(), ids=LAUNCHES)
def test_evidence_that_is_none_is_malformed(
    owning: test_cli_owner.Desk, change: Callable[[Any], object]
) -> None:
    validated(owning, "--insecure")
    edited(change)
    ran = owning.run("evidence", "verify", "e.json", "--tik", "vm_tik.bin")
    assert (ran.code, ran.err.startswith("error: e.json: ")) == (6, True)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("the nonce", "evidence launch.nonce: is not that of the measurement"),
        ("a check twice", "evidence checks: a check is there twice"),
    ],
)
def test_what_is_malformed_is_named(owning: test_cli_owner.Desk, name: str, words: str) -> None:
    validated(owning, "--insecure")
    edited(LAUNCHES[name])
    ran = owning.run("evidence", "verify", "e.json", "--tik", "vm_tik.bin")
    assert ran.err == f"error: e.json: {words}\n"


FORGED_LAUNCHES: dict[str, Callable[[Any], object]] = {
    "the digest": lambda e: e["measured"].update(digest="00" * 32),
    "the build": lambda e: e["launch"].update(build_id=99),
    "the session": lambda e: e["record"].update(session_id="00" * 32),
    "an event": lambda e: e["ledger"][0].update(detail="{}"),
    "an earlier check": lambda e: e["launch"].update(reported_policy=4),
    "an earlier check, unsaid": lambda e: e.update(
        launch=e["launch"] | {"reported_policy": 4},
        checks=[one for one in e["checks"] if one["id"] != "launch.policy"],
    ),
    "no launch": lambda e: e.update(launch=None, checks=[], record=None, measured=None),
}


@pytest.mark.parametrize("change", FORGED_LAUNCHES.values(), ids=FORGED_LAUNCHES)
def test_forged_evidence_of_a_launch_is_refused(
    owning: test_cli_owner.Desk, change: Callable[[Any], object]
) -> None:
    validated(owning, "--insecure")
    edited(change)
    tik = () if json.loads(Path("e.json").read_bytes())["launch"] is None else ("--tik",)
    ran = owning.run("evidence", "verify", "e.json", "-i", *tik, *(["vm_tik.bin"] * len(tik)))
    assert (ran.code, ran.lines[0].split(":")[0]) == (1, "NOT VERIFIED")


def test_a_zero_key_in_place_of_the_tik_shows_nothing(owning: test_cli_owner.Desk) -> None:
    validated(owning, "--insecure")

    def forge(evidence: Any) -> None:
        launch = evidence["launch"]
        nonce = bytes.fromhex(launch["nonce"])
        measure = expected_measure(
            bytes(16),
            api=(launch["api_major"], launch["api_minor"]),
            build_id=launch["build_id"],
            policy=GuestPolicy(launch["policy"]),
            digest=bytes.fromhex(evidence["measured"]["digest"]),
            nonce=nonce,
        )
        launch["measurement"] = base64.b64encode(measure + nonce).decode()

    edited(forge)
    assert again(owning.run, code=3)["launch.measurement"]["found"] is None


@pytest.mark.parametrize("check", ["chain.ark.trusted", "requirements.launch.digest"])
def test_a_check_that_nothing_shows_is_not_taken_for_granted(
    owning: test_cli_owner.Desk, check: str
) -> None:
    validated(owning, "--insecure")
    edited(lambda e: e["checks"].append({"id": check, "ok": True, "meaning": ""}))
    assert check_of(owning.run, "--tik", "vm_tik.bin") == "evidence.partial"


def test_options_of_another_evidence_are_refused(owning: test_cli_owner.Desk) -> None:
    validated(owning, "--insecure")
    run = owning.run
    for options, words in (
        (("-f", "fw", "--svsm", "fw", "--vars-size", "0"), "is for SEV-SNP"),
        (("-f", "fw", "-n", "2"), "plain SEV"),
        (("--tik", "vm_tik.bin", "--tk", "vm_tik.bin"), "--tk excludes --tik"),
        (("--tik", "-", "-f", "-"), "only one input"),
        (("--requirements", "-", "--record", "-"), "only one input"),
        (("--tk", "vm_tik.bin", "--tek", "vm_tek.bin"), "--tk excludes --tik and --tek"),
        (("--tek", "vm_tek.bin"), "--tek needs --record"),
        (("--record", "vm.launch.json", "--tik", "vm_tik.bin"), "--record needs --tik and --tek"),
        ((*RECORD, "--requirements", "owner.toml"), "the verdict did not rest on any"),
    ):
        ran = run("evidence", "verify", "e.json", *options)
        assert (ran.code, words in ran.err) == (2, True), ran.err
    saved(run("verify", "chain", "--trust-root", "root", *EVIDENCE), 0)
    for options, name in ((("--tik", "vm_tik.bin"), "--tik"), (RECORD, "--record")):
        ran = run("evidence", "verify", "e.json", *options)
        assert (ran.code, f"{name} is for the evidence of an SEV launch" in ran.err) == (2, True)


def test_a_ledger_that_cannot_be_read_hides_no_verdict(
    owning: test_cli_owner.Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise LaunchRefused("the ledger has gone", check="ledger.gone")

    monkeypatch.setattr(Ledger, "events", refuse)
    found = validated(owning, "--insecure")
    assert found["ledger"] == []
    words = "the ledger's history is not in this evidence: the ledger has gone"
    assert words in found["notes"]


def test_without_a_ledger_there_is_no_history(owning: test_cli_owner.Desk) -> None:
    assert owning.session().code == 0
    owning.start()
    keys = ("--tik", "vm_tik.bin", "--tek", "vm_tek.bin", "--ledger", "none")
    ran = owning.run("validate", "--launch-info", "info", *keys, "-f", "fw", *EVIDENCE)
    assert saved(ran, 0)["ledger"] == []


# snp verify


@pytest.fixture
def reported(run: Run, here: Path) -> Run:
    digest = launch_digest(SNP_IMAGE, vcpus=2, vmsa=_cpu())
    forged = SnpPlatform.of(b"a test chip", SnpAuthority(forged=True))
    for name, data in {
        "fw": SNP_IMAGE,
        "r": MILAN.report(report_data=bytes(range(64)), measurement=digest),
        "c": MILAN.certificates(),
        "root": AMD.ark,
        "crl": AMD.crl(5),
        "f": forged.report(),
        "fc": forged.certificates(),
    }.items():
        Path(name).write_bytes(data)
    return run


def _cpu() -> Any:
    from sev_attest.guest import CpuModel

    return CpuModel.named("EPYC-Milan")


SNP = ("snp", "verify", "r", "c", "--trust-root", "root")
DATA = ("--report-data", bytes(range(64)).hex())


def test_a_report_is_recomputed_whole_from_its_evidence(reported: Run) -> None:
    run = reported
    found = saved(run(*SNP, *DATA, *SNP_GUEST, "--crl", "crl", *EVIDENCE), 0)
    assert found["report"]["product"] == "Milan"
    assert repeated(reported, found).code == 0
    assert found["repeat"].endswith("--trust-root root --firmware fw --cpu-model-name EPYC-Milan "
                                    "--num-cpus 2")  # fmt: skip
    claims = again(run, "--trust-root", "root", *SNP_GUEST, code=0)
    assert {one["found"] for one in claims.values()} == {True}
    assert again(run, "--trust-root", "root", code=0)["measured.digest"]["found"] is None
    assert again(run, code=1)["snp.ark.trusted"]["agrees"] is False
    other = ("-f", "fw", "-n", "3", "--cpu-model-name", "EPYC-Milan")
    assert again(run, "--trust-root", "root", *other, code=1)
    edited(lambda e: e["measured"].update(vcpus=3))
    claims = again(run, "--trust-root", "root", *SNP_GUEST, code=1)
    assert claims["measured.digest"]["agrees"] is False
    edited(lambda e: e["report"].update(product="Turin"))
    claims = again(run, "--trust-root", "root", code=1)
    assert (claims["snp.root"]["agrees"], "not to one of Turin" in claims["snp.root"]["why"]) == (
        False,
        True,
    )


def test_a_report_and_its_guest_cannot_have_two_digests(reported: Run) -> None:
    # Else the report could be held to a digest that fits it, and your files to their own.
    saved(reported(*SNP, *SNP_GUEST, *EVIDENCE), 0)
    for change in (
        lambda e: e["report"].update(launch_digest="00" * 48),
        lambda e: e["report"].update(launch_digest=None),
    ):
        edited(change)
        ran = reported("evidence", "verify", "e.json", "--trust-root", "root", *SNP_GUEST)
        assert (ran.code, "is not the report's launch_digest" in ran.err) == (6, True)


def test_a_digest_that_was_given_is_that_of_a_guest_that_is_described(reported: Run) -> None:
    digest = launch_digest(SNP_IMAGE, vcpus=2, vmsa=_cpu()).hex()
    saved(reported(*SNP, "--launch-digest", digest, *EVIDENCE), 0)
    assert again(reported, "--trust-root", "root", code=0)["measured.digest"]["found"] is None
    claims = again(reported, "--trust-root", "root", *SNP_GUEST, code=0)
    assert claims["measured.digest"]["found"] is True


def test_it_is_judged_at_its_own_time(reported: Run) -> None:
    at = ("--at", "2021-05-04T12:00:00Z")
    assert saved(reported(*SNP, *at, *EVIDENCE), 0)["report"]["at"] == "2021-05-04T12:00:00+00:00"
    assert again(reported, "--trust-root", "root", code=0)
    edited(lambda e: e["report"].update(at="2011-05-04T12:00:00+00:00"))
    claims = again(reported, "--trust-root", "root", code=1)
    assert claims["snp.vek.validity"]["found"] is False


@pytest.mark.parametrize(
    ("options", "check"),
    [
        (("--report-data", "00" * 64), "snp.report-data"),
        (("--launch-digest", "00" * 48), "snp.launch-digest"),
        (("-f", "fw", "-n", "1", "--cpu-model-name", "EPYC-Milan"), "snp.launch-digest"),
        (("--at", "2011-01-01"), "snp.vek.validity"),
    ],
)
def test_the_evidence_of_a_refused_report_is_right(
    reported: Run, options: tuple[str, ...], check: str
) -> None:
    found = saved(reported(*SNP, *options, "--no-diagnose", *EVIDENCE), 1)
    assert check in {one["check"] for one in found["errors"]}
    claims = again(reported, "--trust-root", "root", code=1)
    assert claims[check]["found"] is False
    assert all(one["agrees"] for one in claims.values())


def test_a_forged_report_is_recomputed_as_one(reported: Run) -> None:
    saved(reported("snp", "verify", "f", "fc", *EVIDENCE), 1)
    claims = again(reported, code=1)
    assert claims["snp.ark.trusted"]["found"] is False
    assert all(one["agrees"] for one in claims.values())


def test_a_report_without_certificates_leaves_evidence(reported: Run) -> None:
    assert saved(reported("snp", "verify", "r", *EVIDENCE), 6)["report"]["certificates"] == []
    claims = again(reported, code=1)
    assert claims["snp.report.signature"]["found"] is None


def test_runtime_data_is_recomputed_too(reported: Run) -> None:
    content = b'{"keys": []}'
    Path("r").write_bytes(hcl(MILAN.report(report_data=bound(content)), content))
    saved(reported(*SNP, *EVIDENCE), 0)
    assert again(reported, "--trust-root", "root", code=0)["snp.hcl.bound"]["found"] is True
    edited(lambda e: e["report"]["runtime_data"].update(content=""))
    assert again(reported, "--trust-root", "root", code=1)["snp.hcl.bound"]["found"] is False
    edited(lambda e: e["report"]["runtime_data"].update(hash_name="md5"))
    assert reported("evidence", "verify", "e.json").code == 6


REPORTS: dict[str, Callable[[Any], object]] = {
    "no time": lambda e: e["report"].update(at="now"),
    "no zone": lambda e: e["report"].update(at="2021-05-04"),
    "no report": lambda e: e["report"].update(report="AAAA"),
    "another fingerprint": lambda e: e["report"]["certificates"][0].update(fingerprint="00"),
    "no certificate": lambda e: e["report"]["certificates"][0].update(bytes="AAAA"),
    "no list": lambda e: e["report"]["revocation_lists"].append("AAAA"),
    "another subject": lambda e: e["report"]["certificates"][0].update(subject="SEV-VLEK"),
    "another role": lambda e: e["report"]["certificates"][0].update(role="ARK"),
    "no digest": lambda e: e["report"].update(launch_digest="zz"),
    "a short digest": lambda e: e["report"].update(launch_digest="00"),
}


@pytest.mark.parametrize("change", REPORTS.values(), ids=REPORTS)
def test_evidence_of_a_report_that_is_none_is_malformed(
    reported: Run, change: Callable[[Any], object]
) -> None:
    saved(reported(*SNP, *EVIDENCE), 0)
    edited(change)
    ran = reported("evidence", "verify", "e.json", "--trust-root", "root")
    assert ran.code in {2, 6}
    assert ran.err.startswith("error: ")


def test_a_certificate_that_is_no_base64_is_named(reported: Run) -> None:
    saved(reported(*SNP, *EVIDENCE), 0)
    edited(lambda e: e["report"]["certificates"][0].update(bytes="%"))
    ran = reported("evidence", "verify", "e.json")
    assert ran.err == "error: e.json: evidence report.certificates: is not base64\n"


def test_a_guest_is_described_for_a_digest_that_the_report_had_to_have(reported: Run) -> None:
    saved(reported(*SNP, *EVIDENCE), 0)
    ran = reported("evidence", "verify", "e.json", "--trust-root", "root", *SNP_GUEST)
    assert (ran.code, "has no launch digest to compare with" in ran.err) == (2, True)


def test_a_described_guest_needs_all_its_options(reported: Run) -> None:
    saved(reported(*SNP, *SNP_GUEST, *EVIDENCE), 0)
    ran = reported("evidence", "verify", "e.json", "-f", "fw")
    assert (ran.code, "--num-cpus" in ran.err) == (2, True)


@pytest.mark.parametrize("allowed", [True, False])
def test_requirements_of_a_report_stay_with_their_owner(
    run: Run, snp_owning: Path, *, allowed: bool
) -> None:
    text = SNP_OWNER if allowed else SNP_OWNER.replace("[0]", "[1]").replace("= 84", "= 85")
    Path("owner.toml").write_text(text)
    verify = ("snp", "verify", "report.bin", "certs.der", "--trust-root", "ark.der")
    found = saved(run(*verify, "--requirements", "owner.toml", *EVIDENCE), 0 if allowed else 1)
    assert found["requirements"]["met"] is allowed
    assert GENOA.hwid.hex() not in json.dumps(found["requirements"])
    claims = again(run, "--trust-root", "ark.der", code=0 if allowed else 1)
    assert claims["requirements"]["found"] is None
    assert found["repeat"].endswith("--trust-root ark.der --requirements owner.toml")
    code = 0 if allowed else 1
    claims = again(run, "--trust-root", "ark.der", *SNP_REQUIRED, code=code)
    assert claims["requirements"]["found"] is claims["requirements"]["claimed"] is allowed
    assert claims["requirements.fingerprint"]["found"] is True
    assert all(one["agrees"] for one in claims.values())
    edited(lambda e: e["software"].update(made="then"))
    ran = run("evidence", "verify", "e.json", "--trust-root", "ark.der", *SNP_REQUIRED)
    assert (ran.code, "software.made: is not a time" in ran.err) == (6, True)


SNP_REQUIRED = ("--requirements", "owner.toml")


def test_a_refusal_of_a_report_that_its_requirements_allow_is_found(
    run: Run, snp_owning: Path
) -> None:
    verify = ("snp", "verify", "report.bin", "certs.der", "--trust-root", "ark.der")
    saved(run(*verify, *SNP_REQUIRED, *EVIDENCE), 0)
    edited(lambda e: e.update(ok=False, exit=1))
    edited(lambda e: e["requirements"].update(met=False))
    claims = again(run, "--trust-root", "ark.der", *SNP_REQUIRED, code=1)
    assert (claims["requirements"]["found"], claims["requirements"]["agrees"]) == (True, False)
    assert check_of(run, "--trust-root", "ark.der", *SNP_REQUIRED) == "evidence.claims"


def test_a_report_that_does_not_say_what_it_had_to_is_held_to_nothing(
    run: Run, snp_owning: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify = ("snp", "verify", "report.bin", "certs.der", "--trust-root", "ark.der")
    digest = Path("report.bin").read_bytes()[0x90:0xC0].hex()
    saved(run(*verify, "--launch-digest", digest, *SNP_REQUIRED, *EVIDENCE), 0)
    edited(lambda e: e["report"].update(launch_digest="11" * 48))
    claims = again(run, "--trust-root", "ark.der", *SNP_REQUIRED, code=1)
    assert claims["snp.launch-digest"]["agrees"] is False
    assert claims["requirements"]["found"] is None
    edited(lambda e: e.update(requirements=None))
    ran = run("evidence", "verify", "e.json", "--trust-root", "ark.der", *SNP_REQUIRED)
    assert (ran.code, "the verdict did not rest on any" in ran.err) == (2, True)
    monkeypatch.setenv("SEV_ATTEST_REQUIREMENTS", "owner.toml")
    assert "requirements" not in again(run, "--trust-root", "ark.der", code=1)


# launch


def test_a_launch_leaves_the_chain_the_measurement_and_the_history(
    launching: test_cli_launch.Desk,
) -> None:
    ran = launching.launch(*test_cli_launch.SECRET, *EVIDENCE)
    found = saved(ran, 0)
    assert [one["kind"] for one in found["ledger"]] == ["created", "measured", "released"]
    assert [one["step"] for one in found["steps"]] == test_cli_launch.STEPS
    assert len(found["chain"]["certificates"]) == 6
    # Its TIK was in memory alone.
    claims = again(launching.run, "--trust-root", "root", "-f", "fw", code=3)
    assert claims["chain.pdh.signed-by-pek"]["found"] is True
    assert claims["launch.measurement"]["found"] is None
    # They agree, but only the session's own record binds them to its keys.
    assert claims["record.platform"]["claimed"] is True
    assert claims["record.platform"]["found"] is None
    honest = claims
    edited(lambda e: e["record"].update(pdh="00" * 32))
    claims = again(launching.run, "--trust-root", "root", code=1)
    told_apart(honest, claims)
    assert claims["record.platform"]["agrees"] is False


def test_a_record_beside_a_chain_replaces_no_comparison(
    launching: test_cli_launch.Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = canaries(monkeypatch)
    found = saved(launching.launch(*test_cli_launch.SECRET, *EVIDENCE), 0)
    keys = TransportKeys(tik=secrets[2], tek=secrets[3])
    Path("tik").write_bytes(keys.tik)
    Path("tek").write_bytes(keys.tek)
    options = ("--trust-root", "root", "--record", "record", "--tik", "tik", "--tek", "tek")

    def keep(**changes: object) -> None:
        part = found["record"] | changes
        record = LaunchRecord(
            **part, policy=found["launch"]["policy"], claimed_platform_id=None,
            godh_sha256="00" * 32, session_sha256="00" * 32,
        )  # fmt: skip
        Path("record").write_bytes(record.signed(keys).to_bytes())
        edited(lambda e: e.update(record=part))

    keep()
    assert again(launching.run, *options, code=0)["record.platform"]["found"] is True
    edited(lambda e: e.update(record=None))
    assert again(launching.run, *options, code=0)["record.platform"]["found"] is True
    keep(pdh="00" * 32)
    assert again(launching.run, *options, code=1)["record.platform"]["agrees"] is False


@pytest.mark.parametrize("kept", [True, False])
def test_the_chain_of_another_platform_is_told_apart_by_the_record(
    launching: test_cli_launch.Desk, monkeypatch: pytest.MonkeyPatch, *, kept: bool
) -> None:
    run, secrets = launching.run, canaries(monkeypatch)
    found = saved(launching.launch(*test_cli_launch.SECRET, *EVIDENCE), 0)
    keys = TransportKeys(tik=secrets[2], tek=secrets[3])
    Path("tik").write_bytes(keys.tik)
    Path("tek").write_bytes(keys.tek)
    record = LaunchRecord(
        **found["record"], policy=found["launch"]["policy"], claimed_platform_id=None,
        godh_sha256="00" * 32, session_sha256="00" * 32,
    )  # fmt: skip
    Path("record").write_bytes(record.signed(keys).to_bytes())
    other = Platform(b"another host", authority=launching.host.platform.authority)
    Path("other").write_bytes(other.export().to_bytes())
    theirs = run("verify", "other", "--trust-root", "root", "--evidence", "o.json")
    assert theirs.code == 0
    chain = json.loads(Path("o.json").read_bytes())["chain"]
    prints = {one["role"]: one["fingerprint"] for one in chain["certificates"]}
    part = found["record"] | {"pdh": prints["PDH"], "cek": prints["CEK"]} if kept else None
    edited(lambda e: e.update(chain=chain, record=part))
    options = ("--trust-root", "root", "--tik", "tik")
    claims = again(run, *options, code=0)
    assert (claims["record.platform"]["claimed"], claims["record.platform"]["found"]) == (
        True,
        None,
    )
    ran = run("evidence", "verify", "e.json", *options)
    assert ran.lines[0] == "OK: what could be recomputed of the evidence holds"
    assert "note: record.platform was not recomputed: nothing in the file binds" in ran.err
    claims = again(run, *options, "--tek", "tek", "--record", "record", code=1)
    assert claims["record.platform"]["agrees"] is False


def test_a_record_of_another_policy_is_found(owning: test_cli_owner.Desk) -> None:
    validated(owning, "--insecure")
    again(owning.run, *RECORD, code=0)
    record = LaunchRecord.from_bytes(Path("vm.launch.json").read_bytes())
    keys = TransportKeys(tik=Path("vm_tik.bin").read_bytes(), tek=Path("vm_tek.bin").read_bytes())
    other = replace(record, policy=record.policy ^ 8).signed(keys)
    Path("vm.launch.json").write_bytes(other.to_bytes())
    claims = again(owning.run, *RECORD, code=1)
    assert claims["launch.policy"]["agrees"] is False
    assert claims["launch.policy"]["why"].startswith("the session was made for policy 0x")


NOT_MADE = ("launch.policy", "launch.api", "launch.build")


@pytest.mark.parametrize("check", NOT_MADE)
def test_what_was_not_reported_or_demanded_is_not_taken_for_checked(
    owning: test_cli_owner.Desk, check: str
) -> None:
    validated(owning, "--insecure")
    assert again(owning.run, *RECORD, code=0)["launch.policy"]["found"] is True

    def forge(evidence: Any) -> None:
        evidence["launch"]["reported_policy"] = None
        for one in evidence["checks"]:
            if one["id"] in NOT_MADE:
                one["ok"] = True if one["id"] == check else None

    edited(forge)
    claim = again(owning.run, *RECORD, code=3)[check]
    assert (claim["claimed"], claim["found"]) == (True, None)
    assert claim["why"] == "the host reported nothing for it, or nothing was demanded"


def test_a_launch_on_an_unverified_platform_claims_none(
    launching: test_cli_launch.Desk,
) -> None:
    launching.host.bare = True
    found = saved(launching.launch("--insecure", *EVIDENCE), 0)
    assert (found["chain"], found["record"]["root"]) == (None, None)
    assert again(launching.run, code=3)["record.platform"]["claimed"] is None


def test_a_launch_that_is_refused_leaves_evidence(launching: test_cli_launch.Desk) -> None:
    launching.host.firmware = ovmf_image(12288)
    found = saved(launching.launch("--no-diagnose", *EVIDENCE), 1)
    assert found["errors"][0]["check"] == "launch.measurement"
    assert found["ledger"][-1]["kind"] == "failed"
    assert launching.left() == {}
    claims = again(launching.run, "--trust-root", "root", code=1)
    assert claims["chain.cek.signed-by-ask"]["found"] is True


def test_a_host_with_a_bad_chain_leaves_evidence(launching: test_cli_launch.Desk) -> None:
    launching.host.signed_cek = False
    found = saved(launching.launch(*EVIDENCE), 1)
    assert found["errors"][0]["check"] == "chain.cek.unsigned"
    assert repeated(launching.run, found).code == 1
    assert again(launching.run, "--trust-root", "root", code=1)["chain.cek.unsigned"]["agrees"]
    ran = launching.run("evidence", "verify", "e.json", "-f", "fw")
    assert (ran.code, "has no launch digest to compare with" in ran.err) == (2, True)


def test_a_launch_that_never_began_is_repeated_without_its_guest(
    launching: test_cli_launch.Desk,
) -> None:
    Path("vm1.xml").write_text(Path("vm1.xml").read_text().replace("'kvm'", "'qemu'"))
    found = saved(launching.launch(*EVIDENCE), 4)
    assert found["measured"] is not None
    ran = repeated(launching.run, found)
    assert (ran.code, "nothing was compared with it" in ran.out) == (1, True)
    assert "--firmware" not in found["repeat"]


def test_a_plan_has_no_evidence(launching: test_cli_launch.Desk) -> None:
    ran = launching.launch("--dry-run", *EVIDENCE)
    assert (ran.code, "--dry-run judges no launch" in ran.err) == (2, True)
    assert not Path("e.json").exists()


# what is never in it


def canaries(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Collect the keys of every session that is made, and every measurement that is expected."""
    found: list[bytes] = [b"the disk key", b"hunter2"]
    create, right = Session._create.__func__, expected_measure  # type: ignore[attr-defined]

    def noted(*given: Any) -> Session:
        session: Session = create(Session, *given[-3:])
        found.extend((session.keys.tik, session.keys.tek))
        return session

    def computed(*given: Any, **more: Any) -> bytes:
        found.append(right(*given, **more))
        return found[-1]

    monkeypatch.setattr(Session, "_create", noted)
    monkeypatch.setattr("sev_attest.sev.launch.expected_measure", computed)
    return found


def forms(secret: bytes) -> list[bytes]:
    """Return how a secret may be written; base64 at each of its three offsets."""
    encoded = [base64.b64encode(b"x" * n + secret)[4:-4] for n in range(3)]
    return [secret, secret.hex().encode(), secret.hex().upper().encode(), *encoded]


def hold_no_secret(secrets: list[bytes], reported: bytes = b"") -> None:
    files = [path for path in Path().iterdir() if path.name.startswith("e.")]
    assert files
    for path in files:
        data = path.read_bytes()
        for secret in secrets:
            if secret != reported:  # the host sent that one itself
                assert not any(form in data for form in forms(secret) if form), path
        path.unlink()


def measure_reported() -> bytes:
    return LaunchInfo.from_text(Path("info").read_bytes()).measure


BOTH = ("--evidence", "e.json", "--evidence", "e.html")


@pytest.mark.parametrize("firmware", ["fw", "other"])
@pytest.mark.parametrize("more", [(), ("--json",), ("-v", "--explain"), ("--no-diagnose",)])
def test_no_evidence_of_validate_has_a_key_or_what_was_expected(
    owning: test_cli_owner.Desk,
    monkeypatch: pytest.MonkeyPatch,
    firmware: str,
    more: tuple[str, ...],
) -> None:
    pytest.importorskip("jinja2", reason="Jinja2 is not installed")
    secrets = canaries(monkeypatch)
    assert owning.session().code == 0
    owning.start(Path(firmware).read_bytes())
    options = ("--inject-secret", "luks-key:key", "--secret-header", "h", "--secret-payload", "p")
    ran = owning.validate("--record", "vm.launch.json", *options, *BOTH, *more)
    assert ran.code == (0 if firmware == "fw" else 1)
    assert len(secrets) > 4
    mac = LaunchRecord.from_bytes(Path("vm.launch.json").read_bytes()).mac
    hold_no_secret([*secrets, bytes.fromhex(mac)], measure_reported())


@pytest.mark.parametrize("refused", [False, True])
def test_no_evidence_of_launch_has_a_key_or_what_was_expected(
    launching: test_cli_launch.Desk, monkeypatch: pytest.MonkeyPatch, *, refused: bool
) -> None:
    pytest.importorskip("jinja2", reason="Jinja2 is not installed")
    secrets = canaries(monkeypatch)
    if refused:
        launching.host.firmware = ovmf_image(12288)
    ran = launching.launch(*test_cli_launch.SECRET, *BOTH)
    assert ran.code == refused
    evidence = json.loads(Path("e.json").read_bytes())
    reported = base64.b64decode(evidence["launch"]["measurement"])[:32]
    hold_no_secret(secrets, reported)


def test_no_evidence_of_a_report_has_the_guest_s_key(run: Run, here: Path) -> None:
    from sev_attest.snp import Challenge, Kem, TransportPrivateKey

    key = TransportPrivateKey(kem=Kem.X25519, private=os.urandom(32))
    challenge = Challenge.create("vm", created=datetime.now(UTC))
    Path("challenge").write_bytes(challenge.to_json())
    Path("public").write_bytes(key.public.to_json())
    Path("r").write_bytes(MILAN.report(report_data=challenge.report_data(key.public)))
    Path("c").write_bytes(MILAN.certificates())
    Path("root").write_bytes(AMD.ark)
    answer = ("--challenge", "challenge", "--transport-key", "public")
    found = saved(run(*SNP, *answer, *EVIDENCE), 0)
    assert found["report"]["report_data"] == challenge.report_data(key.public).hex()
    private = json.loads(key.to_json())
    secret = max((v for v in private.values() if isinstance(v, str)), key=len)
    assert secret not in Path("e.json").read_text()


# its file


def test_folders_are_nobody_s_business(
    owning: test_cli_owner.Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path("private client").resolve()
    folder.mkdir()
    (folder / "fw").write_bytes(Path("fw").read_bytes())
    monkeypatch.setenv("HOME", str(folder))
    assert owning.session().code == 0
    owning.start(Path("other").read_bytes())
    ran = owning.validate(
        *EVIDENCE, "--secret-header", f"{folder}/h", "--secret-payload", f"{folder}/p",
        "--inject-secret", f"luks-key:{folder}/key", guest=("-f", f"{folder}/fw"),
    )  # fmt: skip
    (folder / "key").write_bytes(b"x")
    assert ran.code == 6  # the secret's file is missing
    ran = owning.validate(
        *EVIDENCE, "--diagnose-budget", "60", guest=("-f", f"{folder}/fw", "--firmware-dir", ".")
    )
    text = json.dumps(saved(ran, 1))
    assert "private client" not in text
    assert str(Path.cwd()) not in text
    assert '"name": "fw"' in text


def test_it_never_writes_over_a_file_without_force(owning: test_cli_owner.Desk) -> None:
    Path("e.json").write_text("mine")
    ran = owning.run("verify", "chain", "--trust-root", "root", "--evidence", "e.json")
    assert (ran.code, ran.out, "exists" in ran.err) == (6, "", True)
    assert Path("e.json").read_text() == "mine"


def test_a_refusal_stays_one_if_its_evidence_cannot_be_written(
    owning: test_cli_owner.Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", "e.json")

    monkeypatch.setattr(parts, "_software", fail)
    ran = owning.run("verify", "chain", *EVIDENCE)
    assert (ran.code, ran.err.splitlines()[0][:27]) == (1, "error: the ASK's signature ")
    assert "note: the evidence was not written: e.json: No space left on device" in ran.err
    ran = owning.run("verify", "chain", "--trust-root", "root", *EVIDENCE)
    assert (ran.code, ran.out) == (6, "")  # no verdict without the evidence that was asked for


def test_only_the_owner_can_read_it(owning: test_cli_owner.Desk) -> None:
    saved(owning.run("verify", "chain", "--trust-root", "root", *EVIDENCE), 0)
    assert Path("e.json").stat().st_mode & 0o777 == 0o600


def test_another_kind_of_file_is_wrong_usage(owning: test_cli_owner.Desk) -> None:
    ran = owning.run("verify", "chain", "--evidence", "e.pdf")
    assert (ran.code, "ends in .html or .json" in ran.err) == (2, True)
    ran = owning.run("verify", "--evidence", "e.json")
    assert (ran.code, Path("e.json").exists()) == (2, False)


def test_without_the_option_there_is_none(owning: test_cli_owner.Desk) -> None:
    assert owning.run("verify", "chain", "--trust-root", "root").code == 0
    assert owning.run("verify", "chain").code == 1
    assert not [*Path().glob("e.*")]


def test_a_user_without_a_home_has_evidence_too(
    owning: test_cli_owner.Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sev_attest.errors import Unsupported
    from sev_attest.owner.ledger import place

    def homeless() -> str:
        raise Unsupported("there is no home", check="ledger.home")

    monkeypatch.setattr(place, "default_path", homeless)
    monkeypatch.chdir("/")
    root = f"{owning_folder()}/root"
    chain, file = f"{owning_folder()}/chain", f"{owning_folder()}/e.json"
    ran = owning.run("verify", chain, "--trust-root", root, "--evidence", file)
    assert ran.code == 0
    assert owning_folder() not in Path(file).read_text()


def owning_folder() -> str:
    return os.environ["OWNING"]


@pytest.fixture(autouse=True)
def _folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNING", str(here))
