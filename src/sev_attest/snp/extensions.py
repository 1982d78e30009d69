"""What AMD states in a VCEK or VLEK, beside its key.

Source: AMD 57230 (VCEK certificate and KDS interface), and what real certificates of 2022 to 2026
hold. Under 1.3.6.1.4.1.3704.1:

=========  =============  ==========  =======================================
object id  name           type        in
=========  =============  ==========  =======================================
.1         structVersion  INTEGER     all: 0, or 1 for Turin
.2         productName    IA5String   all: "Milan-B0", "Genoa", "Turin"
.3.1       blSPL          INTEGER     all
.3.2       teeSPL         INTEGER     all
.3.3       snpSPL         INTEGER     all
.3.4       spl4           INTEGER     all but Turin: 0
.3.5 - .7  spl5 - spl7    INTEGER     all: 0
.3.8       ucodeSPL       INTEGER     all
.3.9       fmcSPL         INTEGER     Turin
.4         hwID           64 bytes    VCEK; 8 bytes for Turin
.5         cspID          IA5String   VLEK
=========  =============  ==========  =======================================

The hwID stands there without a tag in every real certificate; AMD 57230 prescribes an OCTET STRING.
The size decides, never the first byte: a hwID without a tag may begin with that of one.
"""

from collections.abc import Mapping
from typing import NamedTuple

from sev_attest import _der
from sev_attest.errors import MalformedInput

PREFIX = "1.3.6.1.4.1.3704.1."
"""Object ids of AMD begin like this; what follows is the key of the tables here."""

_SPLS = {
    "3.1": "blSPL",
    "3.2": "teeSPL",
    "3.3": "snpSPL",
    "3.4": "spl4",
    "3.5": "spl5",
    "3.6": "spl6",
    "3.7": "spl7",
    "3.8": "ucodeSPL",
    "3.9": "fmcSPL",
}
_LAYOUTS = (
    ("blSPL", "teeSPL", "spl4", "spl5", "spl6", "spl7", "snpSPL", "ucodeSPL"),
    ("fmcSPL", "blSPL", "teeSPL", "snpSPL", "spl5", "spl6", "spl7", "ucodeSPL"),
)
"""The bytes of a TCB_VERSION in order, by structVersion: before Turin, and from Turin on."""
_KNOWN = ("1", "2", *_SPLS, "4", "5")
_HWID_SIZES = (64, 8)
"""Size of a hwID by structVersion."""
_MOST_SPL = 0xFF


class VekExtensions(NamedTuple):
    """AMD's extensions of a VCEK or VLEK."""

    struct_version: int
    product_name: str
    """As it stands there: "Milan-B0"."""
    spls: Mapping[str, int]
    """Security patch levels by name ("blSPL"), 0 to 255."""
    hwid: bytes
    """64 bytes, or 8 for Turin; empty for a VLEK."""
    csp_id: str
    """The cloud provider of a VLEK; empty for a VCEK."""

    @property
    def tcb(self) -> bytes:
        """The TCB_VERSION, 8 bytes, that reports signed with this key state."""
        return bytes(self.spls[name] for name in _LAYOUTS[self.struct_version])


def decode(found: Mapping[str, bytes], structure: str) -> VekExtensions:
    """Decode AMD's extensions, by their object ids after :data:`PREFIX`.

    Raises MalformedInput for a value of the wrong type or size, for one that is missing, and for
    one that is not known.
    """
    unknown = found.keys() - set(_KNOWN)
    if unknown:
        names = ", ".join(PREFIX + name for name in sorted(unknown))
        raise MalformedInput(structure, "extensions", f"unknown ones of AMD's: {names}")
    version = _number(found, "1", structure, most=len(_LAYOUTS) - 1)
    spls = {
        name: _number(found, key, structure, most=_MOST_SPL)
        for key, name in _SPLS.items()
        if key in found
    }
    if spls.keys() != set(_LAYOUTS[version]):
        reason = f"{', '.join(sorted(spls.keys() ^ set(_LAYOUTS[version])))}: missing or too many"
        raise MalformedInput(structure, "extensions", reason)
    return VekExtensions(
        struct_version=version,
        product_name=_text(found, "2", structure),
        spls=spls,
        hwid=_hwid(found["4"], _HWID_SIZES[version], structure) if "4" in found else b"",
        csp_id=_text(found, "5", structure) if "5" in found else "",
    )


def _number(found: Mapping[str, bytes], key: str, structure: str, *, most: int) -> int:
    value = _der.integer(found.get(key, b""))
    if value is None or value > most:
        raise _wrong(structure, key, f"no INTEGER from 0 to {most}")
    return value


def _text(found: Mapping[str, bytes], key: str, structure: str) -> str:
    value = _der.ia5_string(found.get(key, b""))
    if not value or not value.isprintable():
        raise _wrong(structure, key, "no IA5String")
    return value


def _hwid(data: bytes, size: int, structure: str) -> bytes:
    value = data if len(data) == size else _der.octet_string(data)
    if value is None or len(value) != size:
        raise _wrong(structure, "4", f"{len(data)} bytes, {size} were expected")
    return value


def _wrong(structure: str, key: str, reason: str) -> MalformedInput:
    names = {"1": "structVersion", "2": "productName", "4": "hwID", "5": "cspID", **_SPLS}
    return MalformedInput(structure, names[key], reason)
