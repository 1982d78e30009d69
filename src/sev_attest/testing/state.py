"""What a simulated host in a folder is, and its guests: all that is kept between commands."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

from sev_attest.errors import NotAttestable, WrongState
from sev_attest.sev.states import GuestState
from sev_attest.snp.tcb import Product
from sev_attest.testing.authority import Authority
from sev_attest.testing.documents import (
    Document,
    hex_bytes,
    kept,
    number,
    one_of,
    pair,
    read_document,
)
from sev_attest.testing.host import Fault
from sev_attest.testing.platform import GuestContext, Platform
from sev_attest.testing.qemu import Guest, launch_text
from sev_attest.testing.snp import SnpAuthority, SnpPlatform
from sev_attest.testing.snp_launch import SnpGuest

_MAX_LAUNCHES = 1 << 63
_MOST = 0xFFFF_FFFF_FFFF_FFFF
_GUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What platforms of a generation have: the size of AMD's RSA keys in bits, API and build."""

    bits: int
    api: tuple[int, int]
    build: int


GENERATIONS: Mapping[str, Model] = {
    "naples": Model(bits=2048, api=(0, 17), build=48),
    "rome": Model(bits=4096, api=(0, 24), build=20),
    "milan": Model(bits=4096, api=(1, 55), build=24),
    "genoa": Model(bits=4096, api=(1, 55), build=37),
    "turin": Model(bits=4096, api=(1, 55), build=54),
}
"""[MEM] API and build are of firmware that was published for a generation; Turin's are made up."""


def _fault(value: Any) -> Fault | None:
    return None if value is None else Fault[value]


def _secrets(value: Any) -> dict[str, bytes]:
    if not all(map(_GUID.fullmatch, value)):
        raise ValueError
    return {guid: bytes.fromhex(text) for guid, text in value.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class HostState(Document):
    """What is known of the host. ``launches`` counts them: each has nonces of its own."""

    WHAT: ClassVar[str] = "simulated host"

    seed: bytes = field(metadata=kept(hex_bytes()))
    generation: str = field(metadata=kept(one_of(GENERATIONS)))
    api: tuple[int, int] = field(metadata=kept(pair(0xFF)))
    build: int = field(metadata=kept(number(0xFF)))
    fault: Fault | None = field(metadata=kept(_fault))
    launches: int = field(metadata=kept(number(_MAX_LAUNCHES)))

    def launched(self) -> "HostState":
        """Return the state with one launch more. Raises WrongState if it could not be read."""
        if self.launches >= _MAX_LAUNCHES:
            words = "this simulated host cannot count another launch: make a new one"
            raise WrongState(words, check="simulate.launches")
        return replace(self, launches=self.launches + 1)

    def platform(self) -> Platform:
        """Return the platform; its keys are always the same, its nonces those of a new launch."""
        return Platform(
            self.seed,
            authority=Authority(GENERATIONS[self.generation].bits),
            api=self.api,
            build=self.build,
            boot=f"launch {self.launches}".encode(),
        )

    def snp_platform(self) -> SnpPlatform:
        """Return the SEV-SNP platform; raises NotAttestable for a generation without SEV-SNP."""
        product = next((one for one in Product if one.value.lower() == self.generation), None)
        if product is None:
            words = f"SEV-SNP does not exist on {self.generation.title()}: it begins with Milan"
            hint = "make a host of milan, genoa or turin"
            raise NotAttestable(words, check="simulate.snp", hint=hint)
        return SnpPlatform.of(self.seed, SnpAuthority(product))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SavedGuest(Document):
    """A launched guest, and what the firmware keeps of it (``tek`` to ``measure``).

    ``measurement`` (48 bytes) is what the host reports; with a fault it may be another guest's.
    """

    WHAT: ClassVar[str] = "simulated guest"

    policy: int = field(metadata=kept(number(0xFFFF_FFFF)))
    measurement: bytes = field(metadata=kept(hex_bytes(48)))
    api: tuple[int, int] = field(metadata=kept(pair(0xFF)))
    build: int = field(metadata=kept(number(0xFF)))
    secret_area: tuple[int, int] = field(metadata=kept(pair(0xFFFF_FFFF)))
    secrets: dict[str, bytes] = field(metadata=kept(_secrets))
    tek: bytes = field(metadata=kept(hex_bytes(0, 16)))
    tik: bytes = field(metadata=kept(hex_bytes(0, 16)))
    state: str = field(metadata=kept(one_of({"LSECRET": 0, "RUNNING": 0})))
    digest: bytes = field(metadata=kept(hex_bytes(32)))
    measure: bytes = field(metadata=kept(hex_bytes(32)))

    @classmethod
    def of(cls, guest: Guest) -> "SavedGuest":
        """Return what has to be kept of a guest."""
        context = guest.platform.guest_context(guest.handle)
        return cls(
            policy=guest.policy,
            measurement=guest.measurement,
            api=guest.api,
            build=guest.build,
            secret_area=guest.secret_area,
            secrets=guest.secrets,
            tek=context.tek,
            tik=context.tik,
            state=context.state.name,
            digest=context.digest,
            measure=context.measure,
        )

    @property
    def running(self) -> bool:
        """Whether it was resumed."""
        return self.state == "RUNNING"

    def domlaunchsecinfo(self) -> str:
        """Return what ``virsh domlaunchsecinfo`` prints."""
        return launch_text(self.measurement, self.api, self.build, self.policy)

    def on(self, platform: Platform) -> Guest:
        """Return the guest, on a platform with the keys of the one that launched it."""
        context = GuestContext(
            policy=self.policy,
            tek=self.tek,
            tik=self.tik,
            state=GuestState[self.state],
            digest=self.digest,
            measure=self.measure,
        )
        return Guest(
            platform=platform,
            handle=platform.add_guest(context),
            policy=self.policy,
            measurement=self.measurement,
            api=self.api,
            build=self.build,
            secret_area=self.secret_area,
            secrets=self.secrets,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedSnpGuest(Document):
    """A launched SEV-SNP guest: the fields of :class:`SnpGuest` but its platform."""

    WHAT: ClassVar[str] = "simulated SEV-SNP guest"

    policy: int = field(metadata=kept(number(_MOST)))
    measurement: bytes = field(metadata=kept(hex_bytes(48)))
    report_id: bytes = field(metadata=kept(hex_bytes(32)))
    host_data: bytes = field(metadata=kept(hex_bytes(32)))
    family_id: bytes = field(metadata=kept(hex_bytes(16)))
    image_id: bytes = field(metadata=kept(hex_bytes(16)))
    guest_svn: int = field(metadata=kept(number(0xFFFF_FFFF)))
    id_key_digest: bytes = field(metadata=kept(hex_bytes(48)))
    author_key_digest: bytes = field(metadata=kept(hex_bytes(48)))
    key_info: int = field(metadata=kept(number(1)))

    @classmethod
    def of(cls, guest: SnpGuest) -> "SavedSnpGuest":
        """Return what has to be kept of a guest."""
        return cls(**{one.name: getattr(guest, one.name) for one in fields(cls)})

    @property
    def running(self) -> bool:
        """Whether it runs: always, since nothing is passed to it before."""
        return True

    def on(self, platform: SnpPlatform) -> SnpGuest:
        """Return the guest, on the platform that launched it."""
        return SnpGuest(platform=platform, **asdict(self))


AnyGuest = SavedGuest | SavedSnpGuest
"""A guest of either kind."""


def saved_guest(path: Path) -> AnyGuest:
    """Read a guest of either kind. Raises OSError, MalformedInput."""
    kinds: tuple[type[AnyGuest], ...] = (SavedGuest, SavedSnpGuest)
    return read_document(path, *kinds)
