"""The vectors: this implementation gives every verdict they hold."""

import base64
from typing import Any

import pytest

import judge_vectors
from sev_attest import ChainInvalid, SevAttestError, sev
from sev_attest.guest import CpuModel
from sev_attest.sev import secret
from sev_attest.sev.session import session_blob
from vector_cases import FOLDER, cases


@pytest.mark.parametrize("case", cases("chain"))
def test_a_chain_fails_exactly_the_checks_it_must(case: dict[str, Any]) -> None:
    chain = sev.Chain.from_bytes((FOLDER / case["chain"]).read_bytes())
    roots = list(sev.amd_roots())
    if case["trusted_ark"]:
        ark = sev.AmdCaCertificate.from_bytes((FOLDER / case["trusted_ark"]).read_bytes())
        roots.append(sev.Root(ark=ark))
    failed: list[str] = []
    try:
        sev.verify_chain(chain, roots=roots)
    except ChainInvalid as error:
        failed = sorted(failure.check for failure in error.failures)
    assert failed == case["failed_checks"]
    assert case["valid"] is not bool(failed)


@pytest.mark.parametrize("case", cases("session"))
def test_a_session_blob_is_the_one(case: dict[str, Any]) -> None:
    raw = {key: base64.b64decode(case[key]) for key in ("tek", "tik", "shared_secret", "session")}
    keys = sev.TransportKeys(tek=raw["tek"], tik=raw["tik"])
    blob = raw["session"]
    made = session_blob(
        keys,
        sev.GuestPolicy(case["policy"]),
        shared=raw["shared_secret"],
        nonce=blob[:16],
        iv=blob[48:64],
    )
    assert made == blob


def launch_of(case: dict[str, Any]) -> tuple[sev.LaunchInfo, bytes, sev.GuestPolicy, bytes]:
    """Read what a host reports; compute the digest of what is meant; give policy and TIK."""
    meant = case["meant"]
    raw = case["reported"] | {"measurement": base64.b64decode(case["reported"]["measurement"])}
    parts: dict[str, Any] = {
        key: base64.b64decode(meant[key]) for key in ("kernel", "initrd", "cmdline") if key in meant
    }
    if "cpu" in meant:
        parts |= {"vcpus": meant["vcpus"], "vmsa": CpuModel(**meant["cpu"])}
    digest = sev.launch_digest(FOLDER / meant["firmware"], **parts)
    tik = base64.b64decode(meant["tik"])
    return sev.LaunchInfo(**raw), digest, sev.GuestPolicy(meant["policy"]), tik


@pytest.mark.parametrize("case", cases("measurement"))
def test_a_launch_gets_the_verdict(case: dict[str, Any]) -> None:
    failed = None
    try:
        info, digest, policy, tik = launch_of(case)
        keys = sev.TransportKeys(tek=bytes(16), tik=tik)
        sev.verify_launch(info, keys=keys, policy=policy, digest=digest)
    except SevAttestError as error:
        failed = error.check
    assert failed == case["failed_check"]
    assert case["valid"] is (failed is None)


@pytest.mark.parametrize("case", cases("launch"))
def test_a_whole_launch_verifies_and_its_packet_is_the_one(case: dict[str, Any]) -> None:
    ark = sev.AmdCaCertificate.from_bytes((FOLDER / case["trusted_ark"]).read_bytes())
    chain = sev.Chain.from_bytes((FOLDER / case["chain"]).read_bytes())
    assert sev.verify_chain(chain, roots=[sev.Root(ark=ark)])
    info, digest, policy, tik = launch_of(case)
    assert digest.hex() == case["launch_digest"]
    keys = sev.TransportKeys(tek=base64.b64decode(case["tek"]), tik=tik)
    launch = sev.verify_launch(info, keys=keys, policy=policy, digest=digest)
    header = base64.b64decode(case["secret_header"])
    secrets = {guid: base64.b64decode(data) for guid, data in case["secrets"].items()}
    measure = info.measure if secret.binds(launch) else b""
    packet = secret.secret_packet(keys, measure, secret.table(secrets), iv=header[4:20])
    assert packet.header == header
    assert base64.b64encode(packet.payload).decode() == case["secret_payload"]


def test_every_file_fits_its_schema_and_the_second_implementation_gives_every_verdict() -> None:
    assert judge_vectors.problems() == []
