"""cli/evidence/page.py: one file without scripts, in which every text stays text."""

import base64
import hashlib
import importlib.util
import json
import re
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from conftest import Run
from sev_attest.cli.evidence import page as pages
from sev_attest.cli.evidence.document import CertificatePart, Evidence
from sev_attest.cli.evidence.picture import pieces, sev_picture, snp_picture
from sev_attest.errors import MalformedInput
from sev_attest.sev.chain.verify import CHECKS
from snp_material import MILAN
from test_evidence_document import WHOLE, copy

pytest.importorskip("jinja2", reason="Jinja2 is not installed")

HOSTILE = (
    "<script>alert(1)</script>",
    "</title></style></svg><img src=x onerror=alert(1)>",
    "\"'><a href='javascript:x'>",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt;",
    "\u202egnitset\u2066",
    "\x1b[2J\x00\x9b",
    "\ud800",
    "x" * 10_000,
)
TAGS = {"script", "img", "iframe", "object", "embed", "link", "base", "form", "b", "i"}


class Seen(HTMLParser):
    """What a browser would see: tags, attributes, and the text outside of the style sheet."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(data.decode("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def page(evidence: Any) -> Seen:
    return Seen(pages.page(evidence))


def filled(value: Any, text: str) -> Any:
    """Put a text in place of every string that is not bytes, hex or a known word."""
    if isinstance(value, dict):
        kept = {"schema", "command", "bytes", "measurement", "nonce", "report", "verdict", "root"}
        return {k: one if k in kept else filled(one, text) for k, one in value.items()}
    if isinstance(value, list):
        return [filled(one, text) for one in value]
    return text if isinstance(value, str) else value


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_stays_text(text: str) -> None:
    seen, plain = page(filled(copy(), text)), page(filled(copy(), "plain"))
    assert seen.tags == plain.tags
    assert not seen.tags.keys() & TAGS
    assert [name for name, _ in seen.attributes] == [name for name, _ in plain.attributes]
    assert not any(name.startswith("on") or name == "style" for name, _ in seen.attributes)
    if text.isprintable():
        assert seen.text.count(text) > 20
    else:
        assert seen.text.count("\\x") > 20
    assert all(one.isprintable() or one == "\n" for one in seen.text)


def test_nothing_is_loaded_and_only_its_own_style_is_allowed() -> None:
    made = pages.page(WHOLE).decode()
    (style,) = re.findall("<style>(.*?)</style>", made, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = re.findall('Content-Security-Policy" content="(.*?)"', made)
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    seen = Seen(made.encode())
    links = [value for name, value in seen.attributes if name in {"href", "src", "xlink:href"}]
    assert links == ["#repeat"]
    assert "url(" not in style
    assert "@import" not in style


def test_every_picture_has_a_text_and_headings_go_down_one_by_one() -> None:
    made = pages.page(WHOLE).decode()
    for attributes, inside in re.findall("<svg(.*?)>(.*?)</svg>", made, re.DOTALL):
        if "aria-hidden" not in attributes:
            assert 'role="img"' in attributes
            assert re.search("<title.*?>.+?</title>.*<desc.*?>.+?</desc>", inside, re.DOTALL)
    levels = [int(level) for level in re.findall("<h([1-6])", made)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))


@pytest.mark.parametrize("name", [n for n, v in WHOLE.items() if isinstance(v, list | dict)])
def test_a_part_that_is_not_there_is_no_trouble(name: str) -> None:
    document = copy()
    if name != "software":
        document[name] = [] if isinstance(document[name], list) else None
    assert page(document).tags["h1"] == 1


@pytest.mark.parametrize(
    ("change", "banner"),
    [
        ({}, "✓ VERIFIED"),
        ({"ok": False, "exit": 1}, "✗ NOT VERIFIED: do not trust it"),
        ({"ok": False, "exit": 3}, "✗ REFUSED"),
        ({"notes": ["INSECURE: x"]}, "✓ VERIFIED, but INSECURE: see what it leaves open"),
    ],
)
def test_the_verdict_comes_first(change: Any, banner: str) -> None:
    made = pages.page(copy() | change).decode()
    assert f"<p><strong>{banner}</strong></p>" in made


def test_a_root_that_is_not_amd_s_stands_in_the_verdict() -> None:
    document = copy()
    document["record"]["root"] = "not AMD's: ARK 00"
    words = "✓ VERIFIED, under a root that is not AMD's"
    assert words in page(document).text


def found_under(heading: str, document: Any) -> list[str]:
    """Return the entries of the list below a heading."""
    made = pages.page(document).decode()
    part = made.partition(f"<h2>{heading}</h2>")[2].partition("<h2")[0]
    return re.findall("<li>(.*?)</li>", part)


SHOWN = "What this shows"
OPEN = "What it leaves open"
OF_A_LAUNCH = "measured the guest of the launch digest below"


def test_what_a_launch_shows_and_leaves_open() -> None:
    document = copy() | {"requirements": None, "chain": None}
    (words,) = found_under(SHOWN, document)
    assert words.startswith(f"whoever holds the keys of this session {OF_A_LAUNCH}")
    assert found_under(OPEN, document) == [
        "a note",
        "what is not measured: UEFI variables, ACPI tables, devices, disks",
        "what happened to the guest afterwards",
        "whether its owner accepts this platform and firmware: no requirements were given",
        "whether the platform&#39;s keys have leaked",
    ]
    document["record"]["root"] = "AMD Milan"
    document["chain"] = copy()["chain"] | {"root": "AMD Milan"}
    document["requirements"] = copy()["requirements"] | {"met": True}
    chain, launch, requirements = found_under(SHOWN, document)
    assert chain.endswith("lead to the root that is named")
    assert launch.startswith(f"the SEV firmware that holds the keys of this session {OF_A_LAUNCH}")
    assert requirements == "the owner&#39;s requirements are met"
    assert len(found_under(OPEN, document)) == 4
    assert "The owner's requirements acknowledge each one that affects it." in page(document).text


def test_what_a_chain_shows_and_leaves_open() -> None:
    document = copy() | {"command": "verify", "launch": None, "record": None, "notes": []}
    document |= {"requirements": None, "chain": copy()["chain"] | {"root": "AMD Milan"}}
    assert len(found_under(SHOWN, document)) == 1
    assert found_under(OPEN, document) == [
        "which firmware the platform runs, and which guest: no launch was looked at",
        "whether the platform&#39;s keys have leaked",
    ]


def test_what_a_report_shows_is_what_was_compared() -> None:
    document = snp_evidence()
    assert len(found_under(SHOWN, document)) == 1
    for check in ("snp.report-data", "snp.launch-digest"):
        document["checks"].append({"id": check, "ok": True, "meaning": ""})
    assert found_under(SHOWN, document)[1:] == [
        "the report has the report data that was expected",
        "its guest has the launch digest that was expected",
    ]


def test_a_refusal_shows_nothing_of_the_kind() -> None:
    document = copy() | {"ok": False, "exit": 1}
    assert not found_under(SHOWN, document)
    assert not found_under(OPEN, document)
    assert found_under("Notes", document) == ["a note"]


def test_what_the_page_itself_holds_is_said() -> None:
    assert "and not the measurement that was expected." in page(copy()).text
    assert "It holds no private key and no secret." in page(snp_evidence()).text


def test_which_measurement_can_be_recomputed_is_said() -> None:
    assert "The TIK of a launch is not kept" in page(copy()).text
    text = page(copy() | {"command": "validate"}).text
    assert "A measurement needs the TIK of the session" in text
    assert "AMD's root keys are built in." in page(snp_evidence()).text


def test_words_that_stand_for_something_are_explained() -> None:
    document = copy() | {"repeat": "sev-attest evidence verify EVIDENCE.json --cmdline CMDLINE"}
    for word in ("EVIDENCE.json is what", "CMDLINE stands for"):
        assert word in page(document).text
        assert word not in page(copy()).text
    document["measured"]["kernel_hashes"]["initrd"] = hashlib.sha256().hexdigest()
    assert "(of no bytes: there is none)" in page(document).text
    assert "(of no bytes: there is none)" not in page(copy()).text


def certificates(*roles: str) -> list[CertificatePart]:
    return [
        {"role": role, "fingerprint": role * 8, "subject": None, "not_before": None,
         "not_after": None, "bytes": ""}
        for role in roles
    ]  # fmt: skip


def test_the_picture_of_a_chain_says_who_signs_whom_and_what_failed() -> None:
    parts = certificates("ARK", "ASK", "CEK", "OCA", "PEK", "PDH")
    chain: Any = {"root": "AMD Milan", "certificates": parts}
    good = sev_picture(chain, dict.fromkeys(CHECKS, True))
    assert {edge.state for edge in good.edges} == {box.state for box in good.boxes} == {"good"}
    assert "ARK: trusted root, signs itself." in good.description
    bad = sev_picture(chain, dict.fromkeys(CHECKS, True) | {"chain.cek.signed-by-ask": False})
    assert "The ASK does NOT sign the CEK." in bad.description
    assert [edge.state for edge in bad.edges].count("bad") == 1
    assert [box.name for box in bad.boxes if box.state == "bad"] == ["CEK"]
    foreign = sev_picture(chain, {"chain.ark.trusted": False, "chain.oca.self-signed": False})
    assert "ARK: NOT a trusted root." in foreign.description
    assert "OCA: does NOT sign itself." in foreign.description
    assert "The CEK was not checked to sign the PEK." in foreign.description
    assert sev_picture(chain, {}).boxes[0].remark == ""
    only_trusted = sev_picture(chain, {"chain.ark.trusted": True})
    assert only_trusted.boxes[0].remark == ""


def test_the_picture_has_every_digit_of_a_fingerprint() -> None:
    digits = "".join(map("{:02x}".format, range(48)))
    (part,) = certificates("PDH")
    chain: Any = {"root": None, "certificates": [part | {"fingerprint": digits}]}
    (lines,) = [box.lines for box in sev_picture(chain, {}).boxes if box.name == "PDH"]
    assert lines == (digits[:32], digits[32:64], digits[64:])


@pytest.mark.parametrize(("vek", "ca"), [("VCEK", "ASK"), ("VLEK", "ASVK")])
def test_the_picture_of_a_report_shows_where_pinned_keys_stand_in(vek: str, ca: str) -> None:
    part: Any = {"certificates": certificates(vek)}
    checks = {"snp.ark.trusted": True, "snp.report.signature": False}
    picture = snp_picture(part, checks, "00" * 32)
    assert [box.name for box in picture.boxes] == ["ARK", ca, vek, "report"]
    assert picture.boxes[1].lines == ("not in the file: AMD's pinned key stands in",)
    assert picture.boxes[3].state == "bad"
    assert f"The {vek} does NOT sign the report." in picture.description


def test_a_bar_is_to_scale() -> None:
    sizes = [6000, 3000, 1000, 1, 0]
    ranges: Any = [{"size": size} for size in sizes]
    found = pieces(ranges)
    assert [one.width for one in found] == [599.94, 299.97, 99.99, 2.5, 2.5]
    assert [one.share for one in found] == ["59.99 %", "30 %", "9.999 %", "0.009999 %", "0 %"]
    assert all(one.x + one.width <= 1000 for one in found)
    assert pieces([]) == []
    assert [one.width for one in pieces([{"what": "", "at": 0, "size": 0, "digest": ""}])] == [2.5]


def snp_evidence() -> Evidence:
    document: Evidence = copy()
    document["command"], document["launch"], document["chain"] = "snp-verify", None, None
    document["report"] = {
        "report": base64.b64encode(MILAN.report()).decode(),
        "at": "2026-01-01T00:00:00+00:00",
        "product": "Milan",
        "root": "AMD Milan",
        "certificates": certificates("VCEK"),
        "revocation_lists": [],
        "runtime_data": None,
        "report_data": None,
        "launch_digest": None,
    }
    return document


def test_a_report_is_shown_field_by_field() -> None:
    seen = page(snp_evidence())
    for words in ("report_data", "chip_id", "signature R", "set permits smt: the host may have SMT",
                  "clear ciphertext-hiding-dram-en: the host may see",
                  "signing key: VCEK: a key of this chip", "Digest after it"):  # fmt: skip
        assert words in seen.text, words


def test_a_report_that_is_none_has_no_page() -> None:
    document = snp_evidence()
    assert document["report"] is not None
    document["report"]["report"] = "AAAA"
    with pytest.raises(MalformedInput):
        pages.page(document)


def test_a_policy_is_explained() -> None:
    document = copy()
    document["launch"]["policy"] = 0x3701_0005
    text = page(document).text
    assert "set es: vCPU registers are encrypted and measured" in text
    assert "clear no-key-sharing: the host can start another guest" in text
    assert "API at least 1.55" in text


# show


def test_show_prints_the_page_or_writes_it(run: Run, here: Path) -> None:
    Path("e.json").write_text(json.dumps(WHOLE))
    made = pages.page(WHOLE).decode()
    assert run("evidence", "show", "e.json").out == made
    assert json.loads(run("evidence", "show", "e.json", "--json").out)["html"] == made
    ran = run("evidence", "show", "e.json", "-o", "e.html")
    assert (ran.code, ran.out) == (0, "wrote e.html\n")
    assert Path("e.html").read_text(encoding="utf-8") == made
    assert run("evidence", "show", "e.json", "-o", "e.html").code == 6
    ran = run("evidence", "show", "e.json", "-o", "e.html", "--force", "-q")
    assert (ran.code, ran.out) == (0, "")
    document = json.loads(run("evidence", "show", "e.json", "-o", "f.html", "--json").out)
    assert (document["file"], document["html"]) == ("f.html", None)
    Path("e.json").write_text("{}")
    ran = run("evidence", "show", "e.json")
    assert (ran.code, ran.err.startswith("error: e.json: evidence schema")) == (6, True)


def test_without_jinja2_a_clear_word_is_said_first(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("e.json").write_text(json.dumps(WHOLE))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    for line in (("verify", "chain", "--evidence", "e.html"), ("evidence", "show", "e.json")):
        ran = run(*line)
        assert (ran.code, ran.err.splitlines()[0]) == (
            2, "error: a page needs Jinja2, which is not installed"
        )  # fmt: skip


def test_a_jinja2_that_does_not_work_is_noticed_before_anything_is_done(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ImportError("no module named markupsafe")

    monkeypatch.setattr("sev_attest.cli.evidence.page.read_template", fail)
    ran = run("verify", "chain", "--evidence", "e.html")
    assert (ran.code, ran.err.splitlines()[0]) == (
        2, "error: a page needs Jinja2, which is installed, but does not work (ImportError)"
    )  # fmt: skip
