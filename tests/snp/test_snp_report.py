"""Reports of SEV-SNP guests: every field where AMD has it, and what is refused."""

import json
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import pytest

from sev_attest.errors import MalformedInput, SevAttestError
from sev_attest.snp.policy import (
    DEMANDS,
    PERMITS,
    PLATFORM,
    GuestPolicy,
    KeyInfo,
    PlatformInfo,
    unknown_bits,
)
from sev_attest.snp.report import LAYOUT, AttestationReport
from sev_attest.snp.spec import VERSIONS, PolicyBit, SigningKey
from sev_attest.snp.tcb import Product, Tcb
from snp_reports import FIELDS, RESERVED, SIZE, report

READ = AttestationReport.from_bytes
SINCE = {"cpuid_family": 3, "cpuid_model": 3, "cpuid_stepping": 3, "launch_mit_vector": 5,
         "current_mit_vector": 5}  # fmt: skip
UNSIGNED_ZEROS = [*range(0x2D0, 0x2E8), *range(0x318, SIZE)]
MAX64 = 2**64 - 1


def value_of(data: bytes, name: str) -> int | bytes:
    offset, size = FIELDS[name]
    raw = data[offset : offset + size]
    return raw if size > 8 or name.endswith("_tcb") else int.from_bytes(raw, "little")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_field_is_where_amd_has_it(version: int) -> None:
    data = report(version)
    parsed = READ(data)
    for name in FIELDS.keys() - {"signature_r", "signature_s"}:
        found = getattr(parsed, name)
        found = found.value if isinstance(found, GuestPolicy | PlatformInfo | KeyInfo) else found
        assert found == (value_of(data, name) if version >= SINCE.get(name, 0) else None), name
    r, s = (int.from_bytes(data[at : at + 48], "little") for at in (0x2A0, 0x2E8))
    assert (parsed.signature, parsed.raw, parsed.signed) == ((r, s), data, data[:0x2A0])
    assert parsed.reserved == ()


def test_the_type_has_the_rows_of_the_layout_and_no_others() -> None:
    names = [field.name for field in fields(AttestationReport)]
    assert names == ["raw", *(row.name for row in LAYOUT), "signature"]
    assert {row.name: (row.offset, row.size) for row in LAYOUT} == {
        name: place for name, place in FIELDS.items() if not name.startswith("signature_")
    } | {"signature_algo": FIELDS["signature_algo"]}


def test_versions_of_firmware_are_read_from_the_most_significant_part_on() -> None:
    parsed = READ(report(current_major=1, current_minor=55, current_build=29,
                         committed_major=1, committed_minor=54, committed_build=3))  # fmt: skip
    assert (parsed.current_version, parsed.committed_version) == ((1, 55, 29), (1, 54, 3))


def test_no_field_can_be_given_another_value_than_its_bytes() -> None:
    parsed = READ(report())
    with pytest.raises((TypeError, ValueError)):
        replace(parsed, measurement=bytes(48))
    with pytest.raises(TypeError):
        AttestationReport(raw=report(), measurement=bytes(48))  # type: ignore[call-arg]
    with pytest.raises(FrozenInstanceError):
        parsed.measurement = bytes(48)  # type: ignore[misc]
    assert replace(parsed, raw=report(2)) == READ(report(2))


def test_the_bytes_are_a_copy() -> None:
    data = bytearray(report())
    for given in (data, memoryview(data)):
        parsed = READ(given)  # type: ignore[arg-type] # what somebody may give all the same
        data[0x90] ^= 1
        assert (parsed.raw[0x90], type(parsed.measurement)) == (data[0x90] ^ 1, bytes)
    with pytest.raises(TypeError):
        READ(SIZE)  # type: ignore[arg-type]


def test_reports_of_the_same_bytes_are_equal_and_no_others() -> None:
    one, same = (AttestationReport.from_bytes(report(5)) for _ in range(2))
    other = AttestationReport.from_bytes(report(5, measurement=bytes(48)))
    assert (one == same, hash(one) == hash(same)) == (True, True)
    assert one != other
    assert one != one.raw


def test_its_repr_is_short() -> None:
    parsed = READ(report(measurement=bytes(48)))
    assert repr(parsed) == (
        f"AttestationReport(version=3, measurement={'00' * 48}, policy=0x30000)"
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_every_truncation_and_every_longer_one_is_malformed(version: int) -> None:
    data = report(version)
    for size in (*range(SIZE), SIZE + 1, SIZE + 24):
        with pytest.raises(MalformedInput) as caught:
            READ(data.ljust(size, b"\0")[:size])
        assert str(caught.value) == f"SEV-SNP report: {size} bytes, expected 1184"


@pytest.mark.parametrize("version", [0, 1, 4, 6, 9, 0x0300, 2**32 - 1])
def test_other_versions_are_refused(version: int) -> None:
    with pytest.raises(MalformedInput, match="versions 2, 3 and 5 are known") as caught:
        READ(report(3, version=version))
    assert (caught.value.check, caught.value.offset) == ("sev-snp-report.version", 0)


@pytest.mark.parametrize("version", VERSIONS)
def test_0_and_the_most_in_every_field_are_read_as_they_are(version: int) -> None:
    for name, (_, size) in FIELDS.items():
        for byte in (b"\0", b"\xff"):
            data = report(version, **{name: byte * size})
            if name == "version":
                with pytest.raises(MalformedInput):
                    READ(data)
                continue
            parsed = READ(data)
            if name.startswith("signature_") and name != "signature_algo":
                which = parsed.signature["rs".index(name[-1])]
                assert which == int.from_bytes(byte * size, "little")
                continue
            found = getattr(parsed, name)
            if version < SINCE.get(name, 0):
                assert found is None
            else:
                number = getattr(found, "value", found)
                assert number == value_of(data, name), name
            assert (parsed.signed, repr(parsed)) == (data[:0x2A0], repr(parsed))


@pytest.mark.parametrize("version", VERSIONS)
def test_each_reserved_byte_that_is_signed_is_named_and_not_refused(version: int) -> None:
    data = report(version)
    for offset, size in RESERVED[version]:
        for at in range(offset, offset + size):
            changed = bytearray(data)
            changed[at] = 0x80
            (found,) = READ(bytes(changed)).reserved
            assert (found.offset, found.size) == (offset, size)
            assert str(found) == f"reserved bytes at byte {offset:#x}"


def test_every_reserved_range_in_use_is_named() -> None:
    data = bytearray(report(2, policy=1 << 63))
    for offset, size in RESERVED[2]:
        data[offset : offset + size] = b"\xff" * size
    found = READ(bytes(data)).reserved
    assert [(one.offset, one.size) for one in found] == [(0x008, 8), *RESERVED[2]]


@pytest.mark.parametrize("at", UNSIGNED_ZEROS)
def test_every_byte_that_nothing_signs_must_be_zero(at: int) -> None:
    data = bytearray(report())
    data[at] = 1
    with pytest.raises(MalformedInput, match=rf"signature.* at byte {at:#x}: reserved bytes"):
        READ(bytes(data))


@pytest.mark.parametrize("version", VERSIONS)
def test_one_flipped_bit_is_read_or_malformed_and_never_something_else(version: int) -> None:
    data = report(version)
    whole = int.from_bytes(data, "little")
    for bit in range(SIZE * 8):
        changed = (whole ^ 1 << bit).to_bytes(SIZE, "little")
        try:
            parsed = READ(changed)
        except SevAttestError:
            continue
        assert parsed.raw == changed != data
        assert parsed != READ(data)


# the policy


def test_bits_that_permit_and_bits_that_demand_are_told_apart() -> None:
    policy = GuestPolicy(0x3FF_0000 | 31 << 8 | 55)
    assert policy.permits == ["smt", "migrate-ma", "debug", "cxl-allow"]
    assert policy.demands == [
        "single-socket", "mem-aes-256-xts", "rapl-dis", "ciphertext-hiding-dram",
        "page-swap-disable",
    ]  # fmt: skip
    assert (policy.min_abi, policy.debug, policy.migration_agent) == ((31, 55), True, True)
    assert PERMITS.keys() | DEMANDS.keys() | {PolicyBit.RESERVED_ONE} == set(PolicyBit)
    assert not PERMITS.keys() & DEMANDS.keys()


@pytest.mark.parametrize("bit", range(16, 26))
def test_each_bit_of_the_policy_has_its_place(bit: int) -> None:
    numbers = {18: "migrate-ma", 16: "smt", 19: "debug", 20: "single-socket", 21: "cxl-allow",
               22: "mem-aes-256-xts", 23: "rapl-dis", 24: "ciphertext-hiding-dram",
               25: "page-swap-disable"}  # fmt: skip
    policy = GuestPolicy(1 << bit | 1 << 17)
    assert policy.permits + policy.demands == ([numbers[bit]] if bit in numbers else [])
    assert (policy.debug, policy.migration_agent) == (bit == 19, bit == 18)
    assert policy.reserved == 0


@pytest.mark.parametrize("bit", [17, *range(26, 64)])
def test_reserved_bits_of_the_policy_with_a_wrong_value_are_named(bit: int) -> None:
    policy = GuestPolicy(0x30000 ^ 1 << bit)
    assert policy.reserved == 1 << bit
    (found,) = READ(report(policy=policy.value)).reserved
    assert str(found) == "reserved policy bits at byte 0x8"


def test_a_policy_is_a_number_of_64_bits() -> None:
    policy = GuestPolicy(0xB0000)
    assert (int(policy), str(policy), policy.debug) == (0xB0000, "0xb0000", True)
    assert GuestPolicy(MAX64).reserved == MAX64 & ~0x3FF_FFFF
    wrong: Any
    for wrong in (-1, 2**64, "5", None, 1.5):
        with pytest.raises(MalformedInput, match="is not in"):
            GuestPolicy(wrong)


# what it says of the platform and of its key


def test_unknown_bits_of_the_platform_are_named() -> None:
    info = PlatformInfo(0x67 | 1 << 8 | 1 << 63)
    assert info.names == [
        "smt-en", "tsme-en", "ecc-en", "alias-check-complete", "iommu-write-safe",
    ]  # fmt: skip
    assert info.unknown == ["bit-8 (unknown)", "bit-63 (unknown)"]
    assert (int(info), info.bits) == (0x67 | 1 << 8 | 1 << 63, 0x67)
    assert [bit.bit_length() - 1 for bit in PLATFORM] == list(range(8))
    assert unknown_bits(0, 0) == []


@pytest.mark.parametrize(
    ("value", "author", "masked", "key", "unknown"),
    [
        (0, False, False, SigningKey.VCEK, []),
        (1, True, False, SigningKey.VCEK, []),
        (2, False, True, SigningKey.VCEK, []),
        (4, False, False, SigningKey.VLEK, []),
        (7 << 2, False, False, SigningKey.NONE, []),
        (2 << 2, False, False, SigningKey.UNKNOWN, []),
        (6 << 2 | 3, True, True, SigningKey.UNKNOWN, []),
        (1 << 5 | 1 << 31, False, False, SigningKey.VCEK, ["bit-5 (unknown)", "bit-31 (unknown)"]),
    ],
)
def test_the_key_that_signs_is_decoded(
    *, value: int, author: bool, masked: bool, key: SigningKey, unknown: list[str]
) -> None:
    info = READ(report(key_info=value)).key_info
    assert (info.author_key_en, info.mask_chip_key) == (author, masked)
    assert (info.signing_key, info.unknown, int(info)) == (key, unknown, value)


# products and TCBs


@pytest.mark.parametrize(
    ("family", "models", "product"),
    [
        (0x19, (0x00, 0x01, 0x0F), Product.MILAN),
        (0x19, (0x10, 0x11, 0x1F, 0xA0, 0xAF), Product.GENOA),
        (0x1A, (0x00, 0x02, 0x11), Product.TURIN),
        (0x19, (0x20, 0x9F, 0xB0, 0xFF), None),
        (0x1A, (0x12, 0x50, 0x90, 0xA0, 0xFF), None),
        (0x17, (0x01, 0x31), None),
    ],
)
def test_the_product_is_told_by_cpuid(
    family: int, models: tuple[int, ...], product: Product | None
) -> None:
    for model in models:
        assert READ(report(cpuid_family=family, cpuid_model=model)).product is product


def test_version_2_has_no_product() -> None:
    assert READ(report(2)).product is None
    assert Product.of_cpuid(0x19, None) is None


RAW = bytes(range(1, 9))


@pytest.mark.parametrize(
    ("product", "components", "reserved"),
    [
        (
            product,
            {"bootloader": 1, "tee": 2, "snp": 7, "microcode": 8},
            b"\3\4\5\6",
        )
        for product in (Product.MILAN, Product.GENOA)
    ]
    + [
        (
            Product.TURIN,
            {"fmc": 1, "bootloader": 2, "tee": 3, "snp": 4, "microcode": 8},
            b"\5\6\7",
        )
    ],
)
def test_a_tcb_is_decoded_by_product(
    product: Product, components: dict[str, int], reserved: bytes
) -> None:
    tcb = READ(report(reported_tcb=RAW)).tcb("reported", product)
    assert (tcb.product, tcb.components, tcb.reserved) == (product, components, reserved)
    assert tcb.fmc == components.get("fmc")
    assert list(tcb.components) == list(components)


def test_tcbs_are_compared_by_component() -> None:
    one, other = (Tcb.from_bytes(raw, Product.TURIN) for raw in (RAW, b"\1\x09\1" + RAW[3:]))
    assert (one.behind(other), other.behind(one), one.behind(one)) == (["bootloader"], ["tee"], [])
    with pytest.raises(TypeError, match="a TCB of Turin and one of Milan"):
        one.behind(Tcb.from_bytes(RAW, Product.MILAN))
    for raw in (b"", RAW[:7], RAW + b"\0"):
        with pytest.raises(MalformedInput, match="expected 8"):
            Tcb.from_bytes(raw, Product.MILAN)


# real reports


def test_the_fields_of_real_reports_are_those_that_others_read(real: Path) -> None:
    folder = real / "snp"
    known = json.loads((folder / "expected.json").read_bytes())["reports"]
    assert len(known) >= 22
    for name, case in known.items():
        parsed = READ((folder / case["report"]).read_bytes())
        expected = case["fields"].items()
        assert {key: shown(parsed, key) for key, _ in expected} == dict(expected), name
        assert parsed.reserved == ()
        if "chain" in case:
            product = Product[case["chain"]["product"].upper()]
            tcb = parsed.tcb("reported", product).components
            names = {"bootloader": "bl", "microcode": "ucode"}
            assert {names.get(k, k): v for k, v in tcb.items()} == case["chain"]["tcb"]


def shown(parsed: AttestationReport, name: str) -> object:
    """Return a field as expected.json writes it."""
    if name == "product":
        return parsed.product and parsed.product.name.lower()
    if name == "signing_key":
        return parsed.key_info.signing_key.name.lower()
    if name == "cpuid":
        cpu = (parsed.cpuid_family, parsed.cpuid_model, parsed.cpuid_stepping)
        return bytes(part or 0 for part in cpu).hex()
    value = getattr(parsed, name)
    if name.endswith("_version"):
        return bytes(reversed(value)).hex()
    return value.hex() if isinstance(value, bytes) else int(value)
