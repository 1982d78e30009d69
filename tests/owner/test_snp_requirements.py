"""What an owner demands of a report of SEV-SNP, and the verdict over a verified one."""

from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

import pytest

from sev_attest import MalformedInput, RequirementsNotMet
from sev_attest.owner.advisories import AdvisoryVerdict
from sev_attest.owner.requirements import Met, Requirements
from sev_attest.owner.snp_advisories import DEMAND_NAMES, PERMIT_NAMES, PLATFORM_NAMES, evaluate
from sev_attest.owner.snp_reference import SnpReferenceValue
from sev_attest.owner.snp_requirements import SnpRequirements
from sev_attest.snp.certificates import Kind
from sev_attest.snp.policy import DEMANDS, PERMITS, PLATFORM
from snp_demands import (
    ALL,
    ANY,
    AUTHOR_KEY,
    DIGEST,
    FIELDS,
    GENOA,
    HOST_DATA,
    ID_KEY,
    MET,
    MINIMUM,
    NOW,
    TCB,
    WEB,
    failed,
    launch,
    minimum,
    reported,
)

NONE: frozenset[Any] = frozenset()
OTHER = frozenset({"0" * 128})
KEYS = {"digests": None, "author_keys": None}


def test_a_report_that_meets_everything_is_allowed_by_name() -> None:
    found = Requirements(snp=MET).require_snp(reported(), at=NOW)
    assert isinstance(found, Met)
    assert (found.name, found.guest) == ("web", "4 vCPUs")
    assert {exposure.advisory.id for exposure in found.exposures} == ALL


def test_requirements_without_a_part_for_it_allow_no_report() -> None:
    with pytest.raises(RequirementsNotMet, match=r"no \[snp\]") as refused:
        Requirements(generations=ANY, ceks=ANY, acknowledged=ALL).require_snp(reported(), at=NOW)
    assert refused.value.check == "requirements.snp"
    assert refused.value.exit_code == 1


def test_by_default_nothing_is_allowed() -> None:
    found = failed(SnpRequirements(), reported())
    assert [check for check in found if not check.startswith("advisory.")] == [
        *("root", "product", "chip-id", "cpuid", "vmpl", "minimum", "policy.smt", "launch.digest"),
    ]
    assert "advisory.unmeasured-inputs" in found


def tcb(name: str, component: str) -> SnpRequirements:
    return minimum(**{name: TCB | {component: TCB[component] + 1}})


DEMANDED: dict[str, tuple[SnpRequirements, str]] = {
    "root": (replace(MET, products=frozenset({"genoa"})), "root"),
    "every product of AMD": (replace(MET, products=ANY), "root"),
    "product": (replace(MET, products=frozenset({"milan", "test"})), "product"),
    "roots alone": (replace(MET, products=frozenset({"test"})), "product"),
    "no chip": (replace(MET, chip_ids=NONE), "chip-id"),
    "chip": (replace(MET, chip_ids=OTHER), "chip-id"),
    "chip, denied": (
        replace(MET, chip_ids=ANY, denied_chip_ids=frozenset({GENOA.hwid.hex()})),
        "denied-chip-id",
    ),
    "every chip, denied": (replace(MET, denied_chip_ids=ANY), "denied-chip-id"),
    "no CPUID": (replace(MET, cpuids=NONE), "cpuid"),
    "CPUID": (replace(MET, cpuids=frozenset({"19-11-00"})), "cpuid"),
    "no VMPL": (replace(MET, vmpls=NONE), "vmpl"),
    "VMPL": (replace(MET, vmpls=frozenset({1, 2, 3})), "vmpl"),
    "no minimum": (replace(MET, minimum={}), "minimum"),
    "minimum of another": (replace(MET, minimum={"milan": MINIMUM}), "minimum"),
    "a minimum of no component": (minimum(reported={}), "minimum"),
    "a component that is left out": (minimum(launch={"snp": 23}), "minimum"),
    "a component of another product": (minimum(committed=TCB | {"fmc": 0}), "minimum"),
    "build": (minimum(firmware=(1, 55, 44)), "minimum.firmware"),
    "minor": (minimum(firmware=(1, 56, 0)), "minimum.firmware"),
    "committed firmware": (minimum(committed_firmware=(2, 0, 0)), "minimum.committed-firmware"),
    **{
        f"{name} {component}": (tcb(name, component), f"minimum.{name}.{component}")
        for name in ("reported", "committed", "launch")
        for component in TCB
    },
    "mitigations": (minimum(current_mitigations=0b0100), "minimum.current-mitigations"),
    "mitigations, one of two": (minimum(launch_mitigations=0b1001), "minimum.launch-mitigations"),
    "permit": (replace(MET, permits=frozenset(PERMIT_NAMES) - {"smt"}), "policy.smt"),
    **{
        f"demand {name}": (replace(MET, demands=MET.demands | {name}), f"policy.{name}")
        for name in DEMAND_NAMES
        if name not in MET.demands
    },
    "ABI, minor": (replace(MET, min_abi=(1, 56)), "policy.min-abi"),
    "ABI, major": (replace(MET, min_abi=(2, 0)), "policy.min-abi"),
    "platform, set": (replace(MET, platform_set=frozenset({"tio-en"})), "platform.tio-en"),
    "platform, clear": (replace(MET, platform_clear=frozenset({"smt-en"})), "platform.smt-en"),
    "no launch": (replace(MET, launches=()), "launch.digest"),
    "digest": (launch(digests={b"x" * 48: ""}), "launch.digest"),
    "no digest": (launch(digests={}), "launch.digest"),
    "nothing that names it": (
        replace(MET, launches=(SnpReferenceValue(name="x"),)), "launch.digest",
    ),
    "ID key": (launch(id_keys=frozenset({AUTHOR_KEY})), "launch.id-key"),
    "no ID key": (launch(id_keys=NONE), "launch.id-key"),
    "author key": (launch(author_keys=frozenset({ID_KEY})), "launch.author-key"),
    "ID key instead of a digest": (launch(**KEYS, id_keys=NONE), "launch.digest"),
    "expired": (launch(expires=NOW), "launch.expired"),
    "family": (launch(family_id=bytes(16)), "launch.family-id"),
    "image": (launch(image_id=bytes(16)), "launch.image-id"),
    "SVN": (launch(guest_svn=4), "launch.guest-svn"),
    "host data": (launch(host_data=bytes(32)), "launch.host-data"),
    "advisory": (
        replace(MET, acknowledged=ALL - {"unmeasured-inputs"}), "advisory.unmeasured-inputs",
    ),
    "refused advisory": (
        replace(MET, acknowledged=ALL - {"heracles"}, refused=frozenset({"heracles"})),
        "advisory.heracles",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("demand", "check"), DEMANDED.values(), ids=DEMANDED)
def test_each_requirement_alone_violated_is_the_only_one_named(
    demand: SnpRequirements, check: str
) -> None:
    assert failed(demand, reported()) == [check]


def bit_of(name: str, meanings: Any) -> int:
    return next(int(bit) for bit, meaning in meanings.items() if meaning.name == name)


POLICY, PLATFORM_INFO = int(FIELDS["policy"]), 0x25
SAID: dict[str, tuple[dict[str, Any], str]] = {
    "host": ({"vmpl": 0xFFFFFFFF}, "vmpl"),
    "VMPL": ({"vmpl": 1}, "vmpl"),
    "CPUID": ({"cpuid_stepping": 2}, "cpuid"),
    "measurement": ({"measurement": bytes(48)}, "launch.digest"),
    "no ID block": ({"id_key_digest": bytes(48), "key_info": 0}, "launch.id-key launch.author-key"),
    "author key without meaning": ({"key_info": 0}, "launch.author-key"),
    "no author key": ({"author_key_digest": bytes(48)}, "launch.author-key"),
    "SVN": ({"guest_svn": 2}, "launch.guest-svn"),
    "family": ({"family_id": bytes(16)}, "launch.family-id"),
    "image": ({"image_id": bytes(16)}, "launch.image-id"),
    "host data": ({"host_data": bytes(32)}, "launch.host-data"),
    **{
        f"policy permits {name}": (
            {"policy": POLICY | bit_of(name, PERMITS)},
            f"policy.{name}",
        )
        for name in PERMIT_NAMES
        if name != "smt"
    },
    **{
        f"policy does not demand {name}": ({"policy": POLICY ^ bit_of(name, DEMANDS)},
                                           f"policy.{name}")
        for name in MET.demands
    },
    "ABI": ({"policy": POLICY - 1}, "policy.min-abi"),
    "alias check": (
        {"platform_info": PLATFORM_INFO ^ bit_of("alias-check-complete", PLATFORM)},
        "platform.alias-check-complete",
    ),
    "TSME": ({"platform_info": PLATFORM_INFO | 2}, "platform.tsme-en"),
    "provisional firmware": ({"current_build": 44}, "provisional"),
    "provisional TCB": ({"current_tcb": bytes.fromhex("0a00000000001755")}, "provisional"),
    "old firmware": (
        {"current_build": 42, "committed_build": 42},
        "minimum.firmware minimum.committed-firmware",
    ),
    "launched before": (
        {"launch_tcb": bytes.fromhex("0a00000000001753")}, "minimum.launch.microcode",
    ),
    "committed before": (
        {"committed_tcb": bytes.fromhex("0a00000000001753")},
        "minimum.committed.microcode provisional",
    ),
    "mitigation": ({"current_mit_vector": 0b0011}, "minimum.current-mitigations"),
}  # fmt: skip


@pytest.mark.parametrize(("said", "checks"), SAID.values(), ids=SAID)
def test_each_change_of_the_report_is_named(said: dict[str, Any], checks: str) -> None:
    assert failed(MET, reported(**said)) == checks.split()


def test_everything_that_is_not_met_is_named_at_once() -> None:
    every = replace(MET, products=NONE, minimum={}, permits=NONE, launches=(), vmpls=NONE)
    assert failed(every, reported()) == [
        "root", "product", "vmpl", "minimum", "policy.smt", "launch.digest",
    ]  # fmt: skip


def test_what_the_report_s_version_does_not_say_fails_if_it_is_demanded() -> None:
    old = reported(version=3)
    assert failed(MET, old) == ["minimum.current-mitigations", "minimum.launch-mitigations"]
    content = minimum(current_mitigations=0, launch_mitigations=0)
    assert failed(content, old) == []
    oldest = reported(version=2)
    assert failed(content, oldest) == ["cpuid"]
    assert failed(replace(content, cpuids=ANY), oldest) == []
    with pytest.raises(RequirementsNotMet, match="CPUID is not known: this version"):
        content.require(oldest, at=NOW)


def test_a_vlek_is_allowed_by_its_cloud_provider_and_by_no_chip() -> None:
    of_cloud = reported(Kind.VLEK)
    here = replace(MET, denied_chip_ids=NONE, csp_ids=frozenset({"CN=cc-test.example.com"}))
    assert failed(here, of_cloud) == []
    assert failed(replace(here, chip_ids=NONE), of_cloud) == []
    assert failed(replace(here, csp_ids=NONE, chip_ids=ANY), of_cloud) == ["csp-id"]
    assert failed(replace(here, csp_ids=frozenset({"CN=other"})), of_cloud) == ["csp-id"]
    # It names no chip, so it may be the denied one.
    assert failed(replace(here, denied_chip_ids=OTHER), of_cloud) == ["denied-chip-id"]


def test_provisional_firmware_may_be_allowed() -> None:
    running = reported(current_build=44, current_tcb=bytes.fromhex("0a00000000001755"))
    assert failed(replace(MET, provisional=True), running) == []


def test_keys_name_a_guest_whatever_its_digest_is() -> None:
    by_key = launch(digests=None)
    assert failed(by_key, reported(measurement=bytes(48))) == []
    assert Requirements(snp=by_key).require_snp(reported(), at=NOW).guest == ""
    for wrong in ({"id_key_digest": b"x" * 48}, {"id_key_digest": bytes(48), "key_info": 0}):
        assert failed(by_key, reported(**wrong)) == ["launch.digest"]
    with pytest.raises(RequirementsNotMet, match="no key that an allowed launch trusts signed it"):
        by_key.require(reported(id_key_digest=b"x" * 48), at=NOW)


def test_zeros_are_nobody_s_key() -> None:
    zeros = frozenset({bytes(48)})
    trusting = launch(digests=None, id_keys=zeros, author_keys=None)
    assert failed(trusting, reported(id_key_digest=bytes(48), key_info=0)) == ["launch.digest"]


def test_of_several_launches_one_that_fits_is_enough() -> None:
    late = replace(WEB, name="old", expires=NOW)
    newer = replace(WEB, name="newer", guest_svn=9)
    both = replace(MET, launches=(late, newer))
    assert failed(both, reported()) == ["launch.expired", "launch.guest-svn"]
    still = replace(late, name="still", expires=NOW + timedelta(seconds=1))
    found = Requirements(snp=replace(MET, launches=(late, newer, still)))
    assert found.require_snp(reported(), at=NOW).name == "still"


def test_host_data_is_zeros_unless_it_is_named() -> None:
    unnamed = SnpReferenceValue(name="web", digests={DIGEST: ""})
    demands = replace(MET, launches=(unnamed,))
    assert failed(demands, reported()) == ["launch.host-data"]
    assert failed(demands, reported(host_data=bytes(32))) == []
    assert failed(replace(MET, launches=(replace(unnamed, host_data=None),)), reported()) == []
    assert any(HOST_DATA)


def test_each_advisory_that_affects_has_to_be_acknowledged() -> None:
    verified = reported()
    for exposure in evaluate("genoa", verified.report):
        name = exposure.advisory.id
        known = replace(MET, acknowledged=ALL - {name})
        affected = exposure.verdict is AdvisoryVerdict.AFFECTED
        assert failed(known, verified) == [f"advisory.{name}"] * affected
        refused = exposure.verdict is not AdvisoryVerdict.NOT_AFFECTED
        refusing = replace(known, refused=frozenset({name}))
        assert failed(refusing, verified) == [f"advisory.{name}"] * refused


def test_names_of_bits_are_those_of_the_policy_and_the_platform() -> None:
    assert (PERMIT_NAMES[0], DEMAND_NAMES[0], PLATFORM_NAMES[5]) == (
        "smt", "single-socket", "alias-check-complete",
    )  # fmt: skip


# contradictions

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "zen is no product": ({"minimum": {"zen": MINIMUM}}, "snp.minimum.zen: is not a product"),
    "component": (
        {"minimum": {"genoa": replace(MINIMUM, launch={"snp": 1})}},
        "snp.minimum.genoa: launch has not exactly the components bootloader, tee, snp, microcode",
    ),
    "minimum": ({"products": ANY}, "snp.minimum.milan: is missing, though milan is allowed"),
    "platform": (
        {"platform_clear": MET.platform_set},
        "snp.platform: required both set and clear: alias-check-complete",
    ),
    "advisory": (
        {"refused": frozenset({"heracles"})},
        "snp.advisories: both acknowledged and refused: heracles",
    ),
    "launch": ({"launches": (WEB, WEB)}, "snp.launch: there are two with the name 'web'"),
}


@pytest.mark.parametrize(("change", "said"), WRONG.values(), ids=WRONG)
def test_requirements_that_contradict_are_an_error(change: dict[str, Any], said: str) -> None:
    Requirements(snp=MET).check()
    with pytest.raises(MalformedInput) as refused:
        Requirements(snp=replace(MET, **change)).check()
    assert str(refused.value) == f"requirements {said}"


@pytest.mark.parametrize("name", ["family_id", "image_id", "guest_svn"])
def test_an_id_block_proves_something_only_beside_a_key(name: str) -> None:
    asking = replace(
        WEB, id_keys=None, author_keys=None, family_id=None, image_id=None, guest_svn=0
    )
    Requirements(snp=replace(MET, launches=(asking,))).check()
    asked: dict[str, Any] = {name: 1 if name == "guest_svn" else bytes(16)}
    with pytest.raises(MalformedInput, match=f"'web' asks for {name} without id_keys or author"):
        Requirements(snp=replace(MET, launches=(replace(asking, **asked),))).check()
    signed = replace(asking, author_keys=frozenset({AUTHOR_KEY}), **asked)
    Requirements(snp=replace(MET, launches=(signed,))).check()


def test_nothing_shows_what_a_value_holds() -> None:
    assert repr(MET) == "SnpRequirements(products={genoa, test}, 1 launches)"
    assert repr(WEB) == "SnpReferenceValue('web', 1 digests, 2 keys)"


# the fingerprint


def test_the_fingerprint_covers_what_is_required_of_a_report_and_no_words() -> None:
    base = Requirements(snp=MET)
    same = replace(WEB, digests={DIGEST: "other words"}, note="on the rack")
    assert Requirements(snp=replace(MET, launches=(same,))).fingerprint == base.fingerprint
    odd: dict[str, Any] = {
        "minimum": {}, "launches": (), "min_abi": (9, 9), "provisional": True,
        "vmpls": frozenset({3}), "csp_ids": ANY,
    }  # fmt: skip
    least: dict[str, Any] = {
        "firmware": (9, 9, 9), "committed_firmware": None, "current_mitigations": 1,
        "launch_mitigations": 2,
    }  # fmt: skip
    named: dict[str, Any] = {"name": "x", "guest_svn": 9, "expires": NOW, "digests": None}
    changed = [
        *(replace(MET, **{one.name: odd.get(one.name, NONE)}) for one in fields(MET)
          if one.name != "refused"),
        replace(MET, refused=ANY),
        *(minimum(**{one.name: least.get(one.name, {"snp": 1})}) for one in fields(MINIMUM)),
        minimum(committed=None),
        *(launch(**{one.name: named.get(one.name)}) for one in fields(WEB) if one.name != "note"),
        launch(host_data=bytes(32)),
        launch(id_keys=NONE),
    ]  # fmt: skip
    found = {Requirements(snp=one).fingerprint for one in changed}
    assert len({Requirements().fingerprint, base.fingerprint, *found}) == len(changed) + 2
