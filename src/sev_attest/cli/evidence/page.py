"""The page of evidence: one HTML file without scripts, that loads nothing.

Every text is somebody's: Jinja2 escapes markup, and what steers a terminal or turns the direction
of text is shown as an escape. The one style sheet is allowed by its hash.
"""

import base64
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from sev_attest.cli import render
from sev_attest.cli.evidence.document import Evidence, LaunchPart
from sev_attest.cli.evidence.picture import WIDTH, pieces, sev_picture, snp_picture
from sev_attest.cli.evidence.reader import decoded
from sev_attest.errors import NotVerified
from sev_attest.guest.kernel_hashes import NO_INITRD

if TYPE_CHECKING:
    from jinja2 import Template

    from sev_attest.sev.policy import GuestPolicy

_TITLES = {
    "verify": "A platform's certificates",
    "validate": "The launch of a guest",
    "launch": "The launch of a guest",
    "snp-verify": "An SEV-SNP report",
    "snp-release": "A release of secrets to an SEV-SNP guest",
}
NOT_AMD = "not AMD's"
"""How the name of a root begins that only --trust-root made one."""
_MARKS = {True: "✓", False: "✗", None: "?"}
_STATES = {True: "good", False: "bad", None: "open"}
_WORDS = {True: "holds", False: "FAILED", None: "not made"}
_ORDER = ("affected", "attestation cannot see this")
_COMPARED = {
    "snp.report-data": "the report has the report data that was expected",
    "snp.launch-digest": "its guest has the launch digest that was expected",
}


def page(evidence: Evidence) -> bytes:
    """Return the page, UTF-8. Raises MalformedInput for evidence with bytes of another kind.

    Needs Jinja2 (the extra ``evidence``). Does not verify: anything that the evidence says.
    """
    template, style = read_template()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    text: str = template.render(
        **_shown(evidence),
        evidence=evidence,
        style_hash=digest,
        marks=_MARKS,
        states=_STATES,
        words=_WORDS,
        width=WIDTH,
        no_initrd=NO_INITRD.hex(),
    )
    return text.encode()


@cache
def read_template() -> "tuple[Template, str]":
    """Return the template and its style sheet, the package's own files."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    room = files("sev_attest.cli.evidence")
    style = room.joinpath("page.css").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_plain,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["style"] = Markup(style)  # noqa: S704 - no other text is markup
    return environment.from_string(room.joinpath("page.html").read_text(encoding="utf-8")), style


def _plain(value: object) -> object:
    """Return a text with nothing in it that steers what shows it."""
    return render.one_line(value) if type(value) is str else value


def _shown(evidence: Evidence) -> dict[str, Any]:
    """Return what the template shows beside the evidence itself."""
    checks = {one["id"]: one["ok"] for one in evidence["checks"]}
    chain, report, launch = evidence["chain"], evidence["report"], evidence["launch"]
    measured = evidence["measured"]
    picture = None
    fields: list[tuple[str, str, list[str]]] = []
    if chain is not None:
        picture = sev_picture(chain, checks)
    if report is not None:
        raw = decoded(report["report"], "report.report")
        picture = snp_picture(report, checks, hashlib.sha256(raw).hexdigest())
        fields = list(_report_fields(raw))
    if launch is not None:
        fields = list(_mac_fields(launch, measured["digest"] if measured else None))
    return {
        "title": _TITLES[evidence["command"]],
        "banner": _banner(evidence),
        "shown": [*_shows(evidence)] if evidence["ok"] else [],
        "open": [*_leaves_open(evidence)] if evidence["ok"] else [],
        "picture": picture,
        "fields": fields,
        "bar": pieces(measured["ranges"]) if measured else [],
        "advisories": sorted(
            evidence["advisories"], key=lambda one: _ORDER.index(one["verdict"])
            if one["verdict"] in _ORDER else len(_ORDER),
        ),
    }  # fmt: skip


def _banner(evidence: Evidence) -> str:
    """Return the verdict in a few words; what weakens it stands beside it."""
    if not evidence["ok"]:
        refused = evidence["exit"] != NotVerified.exit_code
        return "✗ REFUSED" if refused else "✗ NOT VERIFIED: do not trust it"
    parts = (evidence["chain"], evidence["record"], evidence["report"])
    words = "✓ VERIFIED"
    if any(part and (part["root"] or "").startswith(NOT_AMD) for part in parts):
        words += ", under a root that is not AMD's"
    if any(note.startswith("INSECURE") for note in evidence["notes"]):
        words += ", but INSECURE: see what it leaves open"
    return words


def _shows(evidence: Evidence) -> Iterator[str]:
    """Yield what a verdict shows, in the words of LIMITATIONS.md."""
    chain, record, requirements = evidence["chain"], evidence["record"], evidence["requirements"]
    if chain is not None and chain["root"] is not None:
        yield "the certificates below are of one platform, and lead to the root that is named"
    if evidence["launch"] is not None:
        verified = record is not None and record["root"] is not None
        yield (
            f"{'the SEV firmware that' if verified else 'whoever'} holds the keys of this session "
            "measured the guest of the launch digest below, under this policy, API version and "
            "build"
        )
    if evidence["report"] is not None:
        yield (
            "a key that is certified for this product and TCB, under the root below, signed this "
            "report"
        )
    held = {one["id"] for one in evidence["checks"] if one["ok"]}
    yield from (words for check, words in _COMPARED.items() if check in held)
    if requirements is not None and requirements["met"]:
        yield "the owner's requirements are met"


def _leaves_open(evidence: Evidence) -> Iterator[str]:
    """Yield what no verdict of this kind shows; the notes are what this one leaves open."""
    if evidence["command"] == "verify":
        yield "which firmware the platform runs, and which guest: no launch was looked at"
    else:
        yield "what is not measured: UEFI variables, ACPI tables, devices, disks"
        yield "what happened to the guest afterwards"
        if evidence["requirements"] is None:
            yield "whether its owner accepts this platform and firmware: no requirements were given"
    yield "whether the platform's keys have leaked"


def _report_fields(raw: bytes) -> Iterator[tuple[str, str, list[str]]]:
    """Yield every field of a report: its name, its value, and what its bits mean."""
    from sev_attest.cli import snp_fields
    from sev_attest.snp.report import AttestationReport

    lines = list(snp_fields.lines(AttestationReport.from_bytes(raw)))
    found: list[tuple[str, str, list[str]]] = []
    for line in lines:
        if line.startswith("    "):
            *names, words = re.split(r"\s{2,}", line.strip())
            found[-1][2].append(f"{' '.join(names)}: {words}" if names else words)
        else:
            name, _, value = line.partition("  " if line.startswith("signature") else " ")
            found.append((name, value.strip(), []))
    yield from found


def _mac_fields(part: LaunchPart, digest: str | None) -> Iterator[tuple[str, str, list[str]]]:
    """Yield what the HMAC is computed of, in its order, and what the host reported as the HMAC.

    The one that was expected is never there: a host that knows it can report it.
    """
    from sev_attest.sev.policy import GuestPolicy

    policy = GuestPolicy(part["policy"])
    yield "context", "0x04 (LAUNCH_MEASURE)", []
    yield "API", f"{part['api_major']}.{part['api_minor']}", []
    yield "build", str(part["build_id"]), []
    yield "policy", str(policy), _meanings(policy)
    yield "launch digest", digest or "none of those that are allowed", []
    yield "nonce", part["nonce"], []
    measurement = decoded(part["measurement"], "launch.measurement")
    words = "the HMAC of all this under the TIK, if the launch is right"
    yield "reported by the host", measurement[:32].hex(), [words]


def _meanings(policy: "GuestPolicy") -> list[str]:
    """Return what each bit of a policy says."""
    from sev_attest.sev.policy import BITS

    found = [
        f"set {name}: {meaning}" if bit in policy.bits else f"clear {name}: {risk}"
        for bit, (name, meaning, risk) in BITS.items()
    ]
    return [*found, "API at least {}.{}".format(*policy.min_api)] if any(policy.min_api) else found
