"""Evidence is a stranger's file: whatever stands at any place of it, only our errors come out."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

import test_cli_launch
from conftest import Run
from sev_attest import snp
from sev_attest.cli.evidence.claims import AtHand, Claim
from sev_attest.cli.evidence.page import page
from sev_attest.cli.evidence.reader import from_bytes
from sev_attest.cli.evidence.recompute import recompute
from sev_attest.errors import MalformedInput, SevAttestError
from sev_attest.owner import Requirements
from sev_attest.sev.chain.roots import amd_roots
from snp_demands import GENOA
from snp_material import AMD, MILAN
from test_cli_launch import desk as launching
from test_cli_launch import platform
from test_cli_snp_requirements import OWNER as SNP_OWNER
from test_cli_snp_requirements import files as snp_owning
from test_evidence_document import places
from test_evidence_page import snp_evidence

__all__ = ["launching", "platform", "snp_owning"]  # fixtures

HOSTILE: dict[type, tuple[object, ...]] = {
    str: ("", "0", "00", "AAAA", "\ud800", "é", "9999-12-31T23:59:59+00:00", "0001-01-01T00:00Z"),
    int: (0, 1, 255, 256, (1 << 32) - 1, (1 << 64) - 1),
    bool: (True, False, None),
    type(None): ("", 0, True, {}, []),
    list: ([],),
    dict: (None,),
}


AT_HAND = AtHand(
    tik=bytes(16),
    measured={"digest": "00" * 32, "vcpus": None, "ranges": [], "kernel_hashes": None},
    roots=[*amd_roots()],
    snp_roots=[*snp.amd_roots()],
)


def sweep(document: Any) -> int:
    """Try every hostile value at every place; return how many were evidence all the same."""
    taken = 0
    for path in [path for path in places(document) if path]:
        changed = place = copy.deepcopy(document)
        for key in path[:-1]:
            place = place[key]
        for value in HOSTILE[type(place[path[-1]])]:
            place[path[-1]] = value
            data = json.dumps(changed).encode()
            try:
                evidence = from_bytes(data)
                page(evidence)
                recompute(evidence, AT_HAND)
            except SevAttestError:
                continue
            taken += 1
    return taken


@pytest.mark.usefixtures("remembered")
@pytest.mark.parametrize("refused", [False, True])
def test_the_evidence_of_a_launch(launching: test_cli_launch.Desk, *, refused: bool) -> None:
    if refused:
        launching.host.signed_cek = False
    launching.launch("--evidence", "e.json")
    document = json.loads(Path("e.json").read_bytes())
    for name in ("advisories", "checks"):
        document[name] = document[name][:2]
    assert sweep(document) > 100


def test_the_evidence_of_a_report(run: Run, here: Path) -> None:
    for name, data in {"r": MILAN.report(), "c": MILAN.certificates(), "crl": AMD.crl(5)}.items():
        Path(name).write_bytes(data)
    run("snp", "verify", "r", "c", "--crl", "crl", "--evidence", "e.json")
    assert sweep(json.loads(Path("e.json").read_bytes())) > 100


def test_what_the_file_says_of_requirements_that_are_judged_again(
    run: Run, snp_owning: Path
) -> None:
    text = SNP_OWNER.replace('name = "web"', 'name = "web"\nexpires = 2999-01-01')
    Path("owner.toml").write_text(text)
    verify = ("snp", "verify", "report.bin", "certs.der", "--trust-root", "ark.der")
    assert run(*verify, "--requirements", "owner.toml", "--evidence", "e.json").code == 0
    document = json.loads(Path("e.json").read_bytes())
    given = Requirements.from_toml(text.encode(), manifest=lambda name: Path(name).read_bytes())
    at_hand = AtHand(snp_roots=[GENOA.authority.root], requirements=given)
    assert required(document, at_hand).agrees
    taken = 0
    for part, name in (("software", "made"), *(("requirements", one) for one in PART)):
        for value in (*HOSTILE[str], "0001-01-01T00:00+23:59", "9999-12-31T23:59-23:59", None):
            changed = copy.deepcopy(document)
            changed[part][name] = value
            try:
                claim = required(from_bytes(json.dumps(changed).encode()), at_hand)
            except SevAttestError:
                continue
            taken += 1
            assert claim.claimed is True
            if name != "made":
                assert claim.agrees is (name in ("met", "fingerprint"))
    assert taken > 20


PART = ("fingerprint", "met", "launch", "guest")


def required(document: Any, at_hand: AtHand) -> Claim:
    (found,) = [one for one in recompute(document, at_hand) if one.check == "requirements"]
    return found


@pytest.mark.parametrize(("name", "count"), [("certificates", 1001), ("revocation_lists", 101)])
def test_what_costs_much_is_not_tried(name: str, count: int) -> None:
    document: Any = snp_evidence()
    document["measured"] = document["record"] = None
    one: Any = {**document["report"]["certificates"][0]} if name == "certificates" else "AAAA"
    document["report"][name] = [one] * count
    with pytest.raises(MalformedInput, match="too many"):
        recompute(document, AtHand())
    del document["report"][name][0]
    with pytest.raises(MalformedInput) as caught:
        recompute(document, AtHand())
    assert "too many" not in str(caught.value)
