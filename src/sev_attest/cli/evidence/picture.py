"""The pictures of a page, as plain numbers: a chain of signatures, and what was measured, to scale.

Each has a title and a description that say the same in words.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sev_attest.cli.evidence.document import CertificatePart, ChainPart, RangePart, ReportPart

WIDTH = 340
"""Width of a chain's picture: that of a small phone, so that nothing shrinks there."""
_LEFT, _GAP, _HEAD, _ROW = 44, 34, 36, 14
_DIGITS = 32
"""Digits of a fingerprint in a line."""
_MOST_DIGITS = 96
"""Those of a SHA-384; what a stranger adds to them is not drawn."""
_BAR, _LINE = 1000.0, 2.5
_COLOURS = 6

Checks = Mapping[str, bool | None]


class Box(NamedTuple):
    """A certificate, or the report: its name, what is said of it, and its fingerprint in lines."""

    y: int
    name: str
    remark: str
    state: str
    lines: tuple[str, ...]


class Edge(NamedTuple):
    """A signature: a line down to what is signed, in words too."""

    points: str
    label_x: int
    label_y: int
    label: str
    state: str


class Picture(NamedTuple):
    """A chain, from its root down."""

    title: str
    description: str
    height: int
    box: int
    """Height of each box."""
    boxes: list[Box]
    edges: list[Edge]


class Piece(NamedTuple):
    """A measured piece in a bar: where it begins, how wide it is, and its share in percent."""

    x: float
    width: float
    colour: int
    share: str


class _Link(NamedTuple):
    """Who signs whom, and the checks that say whether it does."""

    signer: str
    signed: str
    checks: tuple[str, ...]


_SEV = ("ARK", "ASK", "CEK", "OCA", "PEK", "PDH")
_SEV_LINKS = (
    _Link("ARK", "ASK", ("chain.ask.signed-by-ark",)),
    _Link("ASK", "CEK", ("chain.cek.unsigned", "chain.cek.signed-by-ask")),
    _Link("CEK", "PEK", ("chain.pek.signed-by-cek",)),
    _Link("OCA", "PEK", ("chain.pek.signed-by-oca",)),
    _Link("PEK", "PDH", ("chain.pdh.signed-by-pek",)),
)
_ITSELF = {"ARK": "chain.ark.self-signed", "OCA": "chain.oca.self-signed"}
_REPORT = "report"


def sev_picture(part: ChainPart, checks: Checks) -> Picture:
    """Return the picture of a platform's chain."""
    remarks = {}
    for name, check in _ITSELF.items():
        state = _state(checks, (check,))
        remarks[name] = {"good": "signs itself", "bad": "does NOT sign itself"}.get(state, "")
    trusted = _state(checks, ("chain.ark.trusted",))
    if trusted == "bad":
        remarks["ARK"] = "NOT a trusted root"
    elif trusted == "good" and remarks["ARK"]:
        remarks["ARK"] = f"trusted root, {remarks['ARK']}"
    bad = {
        name for name in _SEV
        if any(c.startswith(f"chain.{name.lower()}.") and ok is False for c, ok in checks.items())
    }  # fmt: skip
    return _picture(_SEV, _SEV_LINKS, part["certificates"], checks, remarks=remarks, bad=bad)


def snp_picture(part: ReportPart, checks: Checks, digest: str) -> Picture:
    """Return the picture of a report and its certificates; ``digest`` is the report's SHA-256."""
    roles = [one["role"] for one in part["certificates"]]
    vek = "VLEK" if "VLEK" in roles else "VCEK"
    ca = "ASVK" if vek == "VLEK" else "ASK"
    links = (
        _Link("ARK", ca, ("snp.ask.signed-by-ark",)),
        _Link(ca, vek, ("snp.vek.signed-by-ask",)),
        _Link(vek, _REPORT, ("snp.report.signature",)),
    )
    trusted = _state(checks, ("snp.ark.trusted",))
    remarks = {"ARK": {"good": "trusted root", "bad": "NOT a trusted root"}.get(trusted, "")}
    prefixes = {"ARK": "snp.ark.", ca: "snp.ask.", vek: "snp.vek.", _REPORT: "snp.report"}
    bad = {
        name for name, prefix in prefixes.items()
        if any(c.startswith(prefix) and ok is False for c, ok in checks.items())
    }  # fmt: skip
    report = CertificatePart(
        role=_REPORT, fingerprint=digest, subject=None, not_before=None, not_after=None, bytes=""
    )
    certificates = [*part["certificates"], report]
    names = ("ARK", ca, vek, _REPORT)
    return _picture(names, links, certificates, checks, remarks=remarks, bad=bad)


def _picture(
    names: Sequence[str],
    links: Iterable[_Link],
    certificates: Iterable[CertificatePart],
    checks: Checks,
    *,
    remarks: Mapping[str, str],
    bad: set[str],
) -> Picture:
    known = {one["role"]: one["fingerprint"][:_MOST_DIGITS] for one in certificates}
    box = _HEAD + _ROW * max([1, *(-(-len(one) // _DIGITS) for one in known.values())])
    boxes = []
    for number, name in enumerate(names):
        fingerprint = known.get(name, "")
        lines = tuple(fingerprint[at : at + _DIGITS] for at in range(0, len(fingerprint), _DIGITS))
        missing = () if fingerprint else ("not in the file: AMD's pinned key stands in",)
        state = "bad" if name in bad else "good" if fingerprint else "open"
        boxes.append(Box(number * (box + _GAP) + 2, name, remarks.get(name, ""), state,
                         missing or lines))  # fmt: skip
    edges = [_edge(link, names, checks, box) for link in links]
    said = [f"{one.name}: {one.remark}." for one in boxes if one.remark]
    said += [_sentence(link, edge.state) for link, edge in zip(links, edges, strict=True)]
    height = len(names) * (box + _GAP) - _GAP + 4
    return Picture("Who signs whom", " ".join(said), height, box, boxes, edges)


def _edge(link: _Link, names: Sequence[str], checks: Checks, box: int) -> Edge:
    """Return the line of a signature: straight down, or past what is between on the left."""
    state = _state(checks, link.checks)
    top, bottom = names.index(link.signer), names.index(link.signed)
    start, end = top * (box + _GAP) + 2 + box, bottom * (box + _GAP) + 2
    words = {"good": "✓ signs", "bad": "✗ does NOT sign", "open": "? not checked"}[state]
    if bottom == top + 1:
        x = _LEFT + 40
        return Edge(
            f"{x},{start} {x},{end}", x + 10, start + 21, f"{words} the {link.signed}", state
        )
    x, from_y, to_y = _LEFT // 2, start - box // 2, end + box // 2
    points = f"{_LEFT},{from_y} {x},{from_y} {x},{to_y} {_LEFT},{to_y}"
    label = f"{link.signer}: {words} the {link.signed}"
    return Edge(points, _LEFT + 50, start + 21, label, state)


def _sentence(link: _Link, state: str) -> str:
    verb = {"good": "signs", "bad": "does NOT sign", "open": "was not checked to sign"}[state]
    return f"The {link.signer} {verb} the {link.signed}."


def _state(checks: Checks, names: Iterable[str]) -> str:
    found = [checks.get(name) for name in names]
    if False in found:
        return "bad"
    return "good" if all(found) else "open"


def pieces(ranges: Sequence[RangePart]) -> list[Piece]:
    """Return the pieces of a bar, to scale; what is narrower than a line is drawn as a line."""
    total = sum(one["size"] for one in ranges) or 1
    found, before = [], 0
    for number, one in enumerate(ranges):
        width = max(_BAR * one["size"] / total, _LINE)
        x = min(_BAR * before / total, _BAR - _LINE)
        share = f"{100 * one['size'] / total:.4g} %"
        found.append(Piece(round(x, 2), round(width, 2), number % _COLOURS, share))
        before += one["size"]
    return found
