"""X.509 as AMD uses it: what certificates and revocation lists have in common.

Source: RFC 5280, 4.1 and 5.1; RFC 4055 (RSASSA-PSS).
"""

import re
from datetime import UTC, datetime
from typing import NamedTuple

from sev_attest import _der
from sev_attest._der import Der

_COMMON_NAME = "2.5.4.3"
# AlgorithmIdentifiers, whole: RSASSA-PSS with SHA-384, MGF1 with SHA-384, a salt of 48 bytes. AMD's
# certificates of before autumn 2024 have the second, which also states the default trailerField 1:
# that is not DER, and many readers refuse it.
_SHA384 = "300d06096086480165030402020500"
_PSS = f"a00f{_SHA384}a11c301a06092a864886f70d010108{_SHA384}a203020130"
SIGNED_WITH = (
    bytes.fromhex(f"304106092a864886f70d01010a3034{_PSS}"),
    bytes.fromhex(f"304606092a864886f70d01010a3039{_PSS}a303020101"),
)
"""The two ways in which AMD's certificates name their signature algorithm."""
_TEXTS = (_der.UTF8_STRING, _der.PRINTABLE_STRING, _der.IA5_STRING)
TIMES = {
    _der.UTC_TIME: re.compile(rb"()([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})Z"),
    _der.GENERALIZED_TIME: re.compile(
        rb"([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})Z"
    ),
}
"""The forms of a time by their tag: century, year, month, day, hour, minute, second."""
_MOST_SERIAL = 20
"""Most octets of a serial number (RFC 5280, 4.1.2.2)."""
_UTC_TIME_PIVOT = 50
"""Years of two digits from here on are of the 20th century (RFC 5280, 4.1.2.5.1)."""


class Name(NamedTuple):
    """A distinguished name: its DER, which is what names are compared by, and its common name."""

    der: bytes
    common_name: str

    def __repr__(self) -> str:
        """Show the common name."""
        return f"Name({self.common_name!r})"

    def __str__(self) -> str:
        """Return the common name."""
        return self.common_name


class Signed:
    """The outer form of a certificate or list: signed bytes, algorithm, signature."""

    __slots__ = ("algorithm", "body", "signature", "structure")

    def __init__(self, data: bytes, structure: str) -> None:
        """Take it apart; raises MalformedInput for anything else, and for what comes after it."""
        whole = Der(data, structure)
        outer = whole.inside(_der.SEQUENCE, "format")
        whole.finish("length")
        self.structure: str = structure
        self.body: bytes = outer.whole(_der.SEQUENCE, "format")
        """The signed bytes, as received."""
        self.algorithm: bytes = outer.whole(_der.SEQUENCE, "signatureAlgorithm")
        self.signature: bytes = outer.bits("signatureValue")
        outer.finish("signatureValue")

    def read(self) -> Der:
        """Return a reader for the signed bytes."""
        return Der(self.body, self.structure).inside(_der.SEQUENCE, "format")

    def check_algorithm(self, tbs: Der) -> None:
        """Read the algorithm in the signed bytes: it must be AMD's, and that of outside too."""
        found = tbs.whole(_der.SEQUENCE, "signature")
        if found not in SIGNED_WITH:
            raise tbs.error("signature", "not RSASSA-PSS with SHA-384 and a salt of 48 bytes")
        if found != self.algorithm:
            raise tbs.error("signature", "the algorithm differs from signatureAlgorithm")


def read_name(tbs: Der, what: str) -> Name:
    """Read a distinguished name; it has one common name."""
    whole = tbs.whole(_der.SEQUENCE, what)
    names = Der(whole, tbs.structure).inside(_der.SEQUENCE, what)
    common = []
    while names.more:
        members = names.inside(_der.SET, what)
        while members.more:
            pair = members.inside(_der.SEQUENCE, what)
            which = _der.dotted(pair.value(_der.OID, what))
            if pair.tag not in _TEXTS:
                raise pair.error(what, f"a text of an unknown type (tag {pair.tag:#04x})")
            text = pair.value(pair.tag, what)
            pair.finish(what)
            if which == _COMMON_NAME:
                common.append(text.decode("utf-8", "replace"))
    if len(common) != 1:
        raise tbs.error(what, f"{len(common)} common names, expected one")
    return Name(der=whole, common_name=common[0])


def read_serial(values: Der, what: str) -> int:
    """Read a serial number, of at most 20 octets; 0 is one too."""
    found = values.number(what)
    if found.bit_length() >= 8 * _MOST_SERIAL:  # the sign takes a bit
        raise values.error(what, f"a serial number of more than {_MOST_SERIAL} octets")
    return found


def read_time(dates: Der, what: str) -> datetime:
    """Read a time."""
    tag = dates.tag
    if tag not in TIMES:
        raise dates.error(what, "no time")
    found = TIMES[tag].fullmatch(dates.value(tag, what))
    if found is None:
        raise dates.error(what, "not in the form YYMMDDhhmmssZ or YYYYMMDDhhmmssZ")
    century, year, *rest = (int(part or b"0") for part in found.groups())
    if tag == _der.UTC_TIME:
        century = 19 if year >= _UTC_TIME_PIVOT else 20
    month, day, hour, minute, second = rest
    try:
        return datetime(100 * century + year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        raise dates.error(what, "there is no such date or time") from None


Extensions = dict[str, bytes]
"""The values of extensions by their object id."""


def read_extensions(wrapped: Der, may_be_critical: tuple[str, ...] = ()) -> Extensions:
    """Read extensions; a critical one must be among ``may_be_critical``.

    Source: RFC 5280, 4.2: an unknown critical extension must not be ignored, and none may be there
    twice.
    """
    what = "extensions"
    found: Extensions = {}
    every = wrapped.inside(_der.SEQUENCE, what)
    wrapped.finish(what)
    while every.more:
        one = every.inside(_der.SEQUENCE, what)
        which = _der.dotted(one.value(_der.OID, what))
        critical = one.tag == _der.BOOLEAN and one.value(_der.BOOLEAN, what) != b"\0"
        value = one.value(_der.OCTET_STRING, what)
        one.finish(what)
        if not which or which in found:
            raise one.error(what, f"{which or 'an object id'} is there twice, or malformed")
        if critical and which not in may_be_critical:
            raise one.error(what, f"{which} is critical, and not known here")
        found[which] = value
    return found
