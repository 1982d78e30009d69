"""The attestation report of an SEV-SNP guest: what firmware says of it, signed by the chip's key.

Source: AMD 56860, ATTESTATION_REPORT; 1184 bytes, every number little-endian. :data:`LAYOUT` has
its rows. Bytes that no row names are reserved.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sev_attest._wire import Reader, number_at
from sev_attest.errors import MalformedInput
from sev_attest.snp.policy import GuestPolicy, KeyInfo, PlatformInfo
from sev_attest.snp.spec import REPORT_SIZE, SIGNED_SIZE, STRUCTURE, VERSIONS
from sev_attest.snp.tcb import Product, Tcb


class Row(NamedTuple):
    """One field of a report: where it is, and its type."""

    name: str
    offset: int
    size: int
    kind: type = int
    since: int = 0
    """The first version with this field; its bytes are reserved before."""


LAYOUT = (
    Row("version", 0x000, 4),
    Row("guest_svn", 0x004, 4),
    Row("policy", 0x008, 8, GuestPolicy),
    Row("family_id", 0x010, 16, bytes),
    Row("image_id", 0x020, 16, bytes),
    Row("vmpl", 0x030, 4),
    Row("signature_algo", 0x034, 4),
    Row("current_tcb", 0x038, 8, bytes),
    Row("platform_info", 0x040, 8, PlatformInfo),
    Row("key_info", 0x048, 4, KeyInfo),
    Row("report_data", 0x050, 64, bytes),
    Row("measurement", 0x090, 48, bytes),
    Row("host_data", 0x0C0, 32, bytes),
    Row("id_key_digest", 0x0E0, 48, bytes),
    Row("author_key_digest", 0x110, 48, bytes),
    Row("report_id", 0x140, 32, bytes),
    Row("report_id_ma", 0x160, 32, bytes),
    Row("reported_tcb", 0x180, 8, bytes),
    Row("cpuid_family", 0x188, 1, since=3),
    Row("cpuid_model", 0x189, 1, since=3),
    Row("cpuid_stepping", 0x18A, 1, since=3),
    Row("chip_id", 0x1A0, 64, bytes),
    Row("committed_tcb", 0x1E0, 8, bytes),
    Row("current_build", 0x1E8, 1),
    Row("current_minor", 0x1E9, 1),
    Row("current_major", 0x1EA, 1),
    Row("committed_build", 0x1EC, 1),
    Row("committed_minor", 0x1ED, 1),
    Row("committed_major", 0x1EE, 1),
    Row("launch_tcb", 0x1F0, 8, bytes),
    Row("launch_mit_vector", 0x1F8, 8, since=5),
    Row("current_mit_vector", 0x200, 8, since=5),
)
"""The signed fields, in the order of their bytes."""


class Reserved(NamedTuple):
    """A range of signed bytes that must be zero (of the policy: a bit with a wrong value)."""

    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.name} at byte {self.offset:#x}"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class AttestationReport:
    """An attestation report, parsed.

    Every field is read from :attr:`raw`, and none can be given another value: what is verified is
    what was received.

    Does not verify: anything. The signed part is taken as it came, so its reserved bytes may be in
    use (:attr:`reserved`), and ``signature_algo`` and ``vmpl`` may have any value.
    """

    raw: bytes
    """The 1184 bytes, as received."""
    version: int = field(init=False)
    guest_svn: int = field(init=False)
    policy: GuestPolicy = field(init=False)
    family_id: bytes = field(init=False)
    image_id: bytes = field(init=False)
    vmpl: int = field(init=False)
    signature_algo: int = field(init=False)
    current_tcb: bytes = field(init=False)
    platform_info: PlatformInfo = field(init=False)
    key_info: KeyInfo = field(init=False)
    report_data: bytes = field(init=False)
    """64 bytes that the guest chose."""
    measurement: bytes = field(init=False)
    """Launch digest, 48 bytes."""
    host_data: bytes = field(init=False)
    """32 bytes that the host chose at launch; not measured."""
    id_key_digest: bytes = field(init=False)
    author_key_digest: bytes = field(init=False)
    report_id: bytes = field(init=False)
    report_id_ma: bytes = field(init=False)
    reported_tcb: bytes = field(init=False)
    """The TCB that the signing key is derived from, 8 bytes; see :meth:`tcb`."""
    cpuid_family: int | None = field(init=False)
    """CPUID family, model and stepping of the chip; None in version 2."""
    cpuid_model: int | None = field(init=False)
    cpuid_stepping: int | None = field(init=False)
    chip_id: bytes = field(init=False)
    """64 bytes; zero if masked or signed by a VLEK. Turin uses the first 8."""
    committed_tcb: bytes = field(init=False)
    current_build: int = field(init=False)
    current_minor: int = field(init=False)
    current_major: int = field(init=False)
    committed_build: int = field(init=False)
    committed_minor: int = field(init=False)
    committed_major: int = field(init=False)
    launch_tcb: bytes = field(init=False)
    launch_mit_vector: int | None = field(init=False)
    """Mitigations that were in force at launch, a bit for each; None before version 5."""
    current_mit_vector: int | None = field(init=False)
    signature: tuple[int, int] = field(init=False)
    """R and S."""

    def __post_init__(self) -> None:
        """Read the fields from ``raw``; raises MalformedInput."""
        raw = bytes(memoryview(self.raw))
        reader = Reader(raw, STRUCTURE, REPORT_SIZE)
        object.__setattr__(self, "raw", raw)
        version = number_at(raw, 0)
        if version not in VERSIONS:
            known = "versions 2, 3 and 5 are known"
            raise MalformedInput(STRUCTURE, "version", f"version {version}: {known}", offset=0)
        for row in LAYOUT:
            object.__setattr__(self, row.name, self._value(row, version))
        reader.raw(SIGNED_SIZE, "body")  # 0x000
        signature = _component(reader, "signature R"), _component(reader, "signature S")  # 0x2a0
        reader.zeros(368, "signature")  # 0x330
        object.__setattr__(self, "signature", signature)

    def _value(self, row: Row, version: int) -> Any:
        """Return a field's value; None if this version does not have it."""
        if version < row.since:
            return None
        if row.kind is bytes:
            return self.raw[row.offset : row.offset + row.size]
        return row.kind(number_at(self.raw, row.offset, row.size))

    @classmethod
    def from_bytes(cls, data: bytes) -> "AttestationReport":
        """Parse 1184 bytes.

        Raises MalformedInput for another size, a version other than 2, 3 and 5, and bytes that are
        not zero in the unused part of the signature, which nothing signs.
        """
        return cls(raw=data)

    def __eq__(self, other: object) -> bool:
        """Return whether the other is a report of the same bytes."""
        return isinstance(other, AttestationReport) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        """Show the version, the measurement and the policy."""
        digest = self.measurement.hex()
        return (
            f"AttestationReport(version={self.version}, measurement={digest}, policy={self.policy})"
        )

    @property
    def signed(self) -> bytes:
        """The signed bytes, 0x2a0 of them, as received."""
        return self.raw[:SIGNED_SIZE]

    @property
    def product(self) -> Product | None:
        """Product by its CPUID; None in version 2 and for chips that are not known."""
        return Product.of_cpuid(self.cpuid_family, self.cpuid_model)

    @property
    def current_version(self) -> tuple[int, int, int]:
        """Version of the firmware that runs: major, minor, build."""
        return self.current_major, self.current_minor, self.current_build

    @property
    def committed_version(self) -> tuple[int, int, int]:
        """Lowest version that the host can go back to: major, minor, build."""
        return self.committed_major, self.committed_minor, self.committed_build

    def tcb(self, name: str, product: Product) -> Tcb:
        """Return a TCB ("reported", "current", "committed", "launch"), decoded for a product."""
        return Tcb.from_bytes(getattr(self, f"{name}_tcb"), product)

    @property
    def reserved(self) -> tuple[Reserved, ...]:
        """Reserved ranges of the signed part that are in use, for this version of the report.

        Not among them: bits of platform_info and key_info, which AMD defines in use
        (``unknown`` there), and those of TCBs, which depend on the product (``Tcb.reserved``).
        """
        found = [gap for gap in _gaps(self.version) if any(self.raw[gap.offset :][: gap.size])]
        if self.policy.reserved:
            found.append(Reserved("reserved policy bits", 0x008, 8))
        return tuple(sorted(found, key=lambda one: one.offset))


def _component(reader: Reader, name: str) -> int:
    """Read R or S: 48 significant bytes, and 24 zero bytes."""
    value = reader.number(48, name)
    reader.zeros(24, name)
    return value


def _gaps(version: int) -> Iterator[Reserved]:
    """Yield the ranges of the signed part that no field of this version names."""
    end = 0
    rows = [row for row in LAYOUT if row.since <= version]
    for row in (*rows, Row("signature", SIGNED_SIZE, 0)):
        if row.offset > end:
            yield Reserved("reserved bytes", end, row.offset - end)
        end = row.offset + row.size
