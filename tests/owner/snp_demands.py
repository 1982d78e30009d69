"""A verified report of SEV-SNP, and requirements that it meets, each as narrow as can be."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sev_attest import RequirementsNotMet
from sev_attest.owner.requirements import Requirements
from sev_attest.owner.snp_advisories import load
from sev_attest.owner.snp_minimum import SnpMinimum
from sev_attest.owner.snp_reference import SnpReferenceValue
from sev_attest.owner.snp_requirements import SnpRequirements
from sev_attest.snp.certificates import Kind
from sev_attest.snp.tcb import Product
from sev_attest.snp.verify import VerifiedReport
from snp_material import AUTHORITIES, PLATFORMS, verify

NOW = datetime(2026, 6, 30, 12, tzinfo=UTC)
ALL = frozenset(advisory.id for advisory in load())
ANY = frozenset({"*"})
DIGEST, ID_KEY, AUTHOR_KEY = b"d" * 48, b"i" * 48, b"a" * 48
FAMILY, IMAGE, HOST_DATA = b"f" * 16, b"m" * 16, b"h" * 32
GENOA = PLATFORMS[Product.GENOA]
TCB = {"bootloader": 10, "tee": 0, "snp": 23, "microcode": 84}
FIELDS: dict[str, int | bytes] = {
    "policy": 0x130137,  # SMT is permitted; a single socket and ABI 1.55 are demanded
    "measurement": DIGEST,
    "id_key_digest": ID_KEY,
    "author_key_digest": AUTHOR_KEY,
    "family_id": FAMILY,
    "image_id": IMAGE,
    "guest_svn": 3,
    "host_data": HOST_DATA,
    "current_mit_vector": 0b1011,
    "launch_mit_vector": 0b0011,
    **dict.fromkeys(("current_major", "committed_major"), 1),
    **dict.fromkeys(("current_minor", "committed_minor"), 55),
    **dict.fromkeys(("current_build", "committed_build"), 43),
}
WEB = SnpReferenceValue(
    name="web",
    digests={DIGEST: "4 vCPUs"},
    id_keys=frozenset({ID_KEY}),
    author_keys=frozenset({AUTHOR_KEY}),
    family_id=FAMILY,
    image_id=IMAGE,
    guest_svn=3,
    host_data=HOST_DATA,
)
MINIMUM = SnpMinimum(
    firmware=(1, 55, 43),
    committed_firmware=(1, 55, 43),
    reported=TCB,
    committed=TCB,
    launch=TCB,
    current_mitigations=0b1001,
    launch_mitigations=0b0001,
)
MET = SnpRequirements(
    products=frozenset({"genoa", "test"}),
    chip_ids=frozenset({GENOA.hwid.hex()}),
    denied_chip_ids=frozenset({"0" * 127 + "1"}),
    cpuids=frozenset({"19-11-01"}),
    vmpls=frozenset({0}),
    minimum={"genoa": MINIMUM},
    permits=frozenset({"smt"}),
    demands=frozenset({"single-socket"}),
    min_abi=(1, 55),
    platform_set=frozenset({"alias-check-complete"}),
    platform_clear=frozenset({"tsme-en"}),
    launches=(WEB,),
    acknowledged=ALL,
)


def reported(kind: Kind = Kind.VCEK, *, version: int = 5, **fields: int | bytes) -> VerifiedReport:
    """Return a verified report of a Genoa: that of FIELDS, with changes."""
    key_info = 1 | (0 if kind is Kind.VCEK else 1 << 2)
    changed: dict[str, Any] = {"key_info": key_info, **FIELDS, **fields}
    report = GENOA.report(kind, version=version, **changed)
    return verify(report, GENOA.certificates(kind), roots=[AUTHORITIES[Product.GENOA].root])


def failed(requirements: SnpRequirements, verified: VerifiedReport) -> list[str]:
    """List what is not met, without the part of its ids that all have."""
    try:
        Requirements(snp=requirements).require_snp(verified, at=NOW)
    except RequirementsNotMet as error:
        return [failure.check.removeprefix("requirements.snp.") for failure in error.failures]
    return []


def minimum(**changes: Any) -> SnpRequirements:
    """Return the requirements with another minimum."""
    return replace(MET, minimum={"genoa": replace(MINIMUM, **changes)})


def launch(**changes: Any) -> SnpRequirements:
    """Return the requirements with another launch."""
    return replace(MET, launches=(replace(WEB, **changes),))
