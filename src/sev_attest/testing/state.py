"""What a simulated host in a folder keeps between commands: JSON documents, and their reading."""

import json
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

from sev_attest.errors import MalformedInput, WrongState, reading
from sev_attest.sev.spec import GuestState
from sev_attest.testing.authority import Authority
from sev_attest.testing.host import Fault
from sev_attest.testing.platform import GuestContext, Platform
from sev_attest.testing.qemu import Guest, launch_text

_MAX_SIZE = 1 << 20
"""Bytes of a file. The secrets of a guest are 16 KiB at most."""
_MAX_LAUNCHES = 1 << 63
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


def _bytes(*sizes: int) -> Callable[[Any], bytes]:
    def read(value: Any) -> bytes:
        data = bytes.fromhex(value)
        if sizes and len(data) not in sizes:
            raise ValueError
        return data

    return read


def _number(most: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if type(value) is not int or not 0 <= value <= most:
            raise ValueError
        return value

    return read


def _pair(most: int) -> Callable[[Any], tuple[int, int]]:
    def read(value: Any) -> tuple[int, int]:
        first, second = map(_number(most), value)
        return first, second

    return read


def _one_of(names: Mapping[str, object]) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in names:
            raise ValueError
        return str(value)

    return read


def _fault(value: Any) -> Fault | None:
    return None if value is None else Fault[value]


def _secrets(value: Any) -> dict[str, bytes]:
    if not all(map(_GUID.fullmatch, value)):
        raise ValueError
    return {guid: bytes.fromhex(text) for guid, text in value.items()}


def _by(read: Callable[[Any], Any]) -> dict[str, Any]:
    """Note what reads a field of a file; ``read`` raises for a JSON value that it cannot have."""
    return {"read": read}


class _File:
    """What is kept as JSON."""

    WHAT: ClassVar[str]
    NOTE: ClassVar[str] = "simulated: this is not a real platform, never trust it with real secrets"

    def to_bytes(self) -> bytes:
        """Return the JSON document: bytes as hex."""
        document = {"what": self.WHAT, "note": self.NOTE, **asdict(self)}  # type: ignore[call-overload]
        return json.dumps(document, indent=2, default=_plain).encode() + b"\n"

    @classmethod
    def read(cls, path: Path) -> dict[str, Any]:
        """Return the fields of a file. Raises OSError, MalformedInput."""
        with reading(str(path)):
            with open(path, "rb", opener=_open) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise MalformedInput(cls.WHAT, "format", "this is no regular file")
                data = file.read(_MAX_SIZE)
            try:
                document = json.loads(data)
            except Exception:  # noqa: BLE001 - json raises more than it documents
                raise MalformedInput(cls.WHAT, "format", "this is not JSON") from None
            if not isinstance(document, dict) or document.get("what") != cls.WHAT:
                raise MalformedInput(cls.WHAT, "format", "this is the file of something else")
            found = {}
            for one in fields(cls):  # type: ignore[arg-type]
                try:
                    found[one.name] = one.metadata["read"](document[one.name])
                except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
                    reason = "is missing or damaged"
                    raise MalformedInput(cls.WHAT, one.name, reason) from None
            return found


def _open(path: str, flags: int) -> int:
    # O_NONBLOCK: a FIFO without a writer must not hang.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _plain(value: bytes | Fault) -> str:
    return value.name if isinstance(value, Fault) else value.hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostState(_File):
    """What is known of the host. ``launches`` counts them: each has nonces of its own."""

    WHAT: ClassVar[str] = "simulated host"

    seed: bytes = field(metadata=_by(_bytes()))
    generation: str = field(metadata=_by(_one_of(GENERATIONS)))
    api: tuple[int, int] = field(metadata=_by(_pair(0xFF)))
    build: int = field(metadata=_by(_number(0xFF)))
    fault: Fault | None = field(metadata=_by(_fault))
    launches: int = field(metadata=_by(_number(_MAX_LAUNCHES)))

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


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SavedGuest(_File):
    """A launched guest, and what the firmware keeps of it (``tek`` to ``measure``).

    ``measurement`` (48 bytes) is what the host reports; with a fault it may be another guest's.
    """

    WHAT: ClassVar[str] = "simulated guest"

    policy: int = field(metadata=_by(_number(0xFFFF_FFFF)))
    measurement: bytes = field(metadata=_by(_bytes(48)))
    api: tuple[int, int] = field(metadata=_by(_pair(0xFF)))
    build: int = field(metadata=_by(_number(0xFF)))
    secret_area: tuple[int, int] = field(metadata=_by(_pair(0xFFFF_FFFF)))
    secrets: dict[str, bytes] = field(metadata=_by(_secrets))
    tek: bytes = field(metadata=_by(_bytes(0, 16)))
    tik: bytes = field(metadata=_by(_bytes(0, 16)))
    state: str = field(metadata=_by(_one_of({"LSECRET": 0, "RUNNING": 0})))
    digest: bytes = field(metadata=_by(_bytes(32)))
    measure: bytes = field(metadata=_by(_bytes(32)))

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
