"""The pages of evidence in a real browser: Debian's Chromium, at the sizes of a phone and a laptop.

The pictures are in ``.venv/look``, to be looked at.
"""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

import look_evidence
from conftest import Run
from look_evidence import Browser, browser, chromium
from sev_attest.testing import Guest, Platform, launch_guest, ovmf_image
from snp_material import AMD, MILAN

pytest.importorskip("jinja2", reason="Jinja2 is not installed")

PICTURES = Path(__file__).parents[2] / ".venv" / "look"
BOTH = ("--evidence", "{}.html", "--evidence", "{}.json")
GUEST = ("-f", "fw", "-k", "kernel", "-e", "quiet", "-n", "4", "--cpu-model-name", "EPYC-Milan")
HOSTILE = "\u202e<script>" + "x" * 300


def evidence(name: str) -> tuple[str, ...]:
    return tuple(option.format(name) for option in BOTH)


@pytest.fixture
def pages(run: Run, here: Path) -> list[Path]:
    """Return a page of every kind: verified and refused, long and hostile."""
    platform = Platform(b"look")
    authority = platform.authority
    for name, data in {
        "root": authority.ask.to_bytes() + authority.ark.to_bytes(),
        "chain": platform.export().to_bytes(),
        "fw": ovmf_image(65536),
        "kernel": b"a kernel",
        "report": MILAN.report(),
        "certs": MILAN.certificates(),
        "snp-root": AMD.ark,
    }.items():
        Path(name).write_bytes(data)
    run("verify", "chain", "--trust-root", "root", *evidence("chain-verified"))
    run("verify", "chain", *evidence("chain-refused"))
    kept = ("--ledger", "ledger", "--kernel-hashes")
    assert run("session", "--name", "vm", "chain", "5", "--trust-root", "root", *kept).code == 0
    started(platform)
    keys = ("--tik", "vm_tik.bin", "--tek", "vm_tek.bin", "--record", "vm.launch.json")
    launch = ("validate", "--launch-info", "info", *keys, "--ledger", "ledger")
    assert run(*launch, *GUEST[:-3], "3", *GUEST[-2:], *evidence("launch-refused")).code == 1
    assert run(*launch, *GUEST, *evidence("launch-verified")).code == 0
    snp = ("snp", "verify", "report", "certs")
    assert run(*snp, "--trust-root", "snp-root", *evidence("report-verified")).code == 0
    assert run(*snp, "--report-data", "00" * 64, *evidence("report-refused")).code == 1
    text = Path("launch-verified.json").read_text().replace('"vm"', f'"{HOSTILE}"')
    Path("hostile.json").write_text(text.replace("firmware", HOSTILE))
    assert run("evidence", "show", "hostile.json", "-o", "hostile.html").code == 0
    return sorted(Path().glob("*.html"))


def started(platform: Platform) -> Guest:
    """Start a guest in the session, and write what its host reports."""
    godh, blob = (base64.b64decode(Path(f"vm_{k}.b64").read_bytes()) for k in ("godh", "session"))
    guest = launch_guest(
        platform, policy=5, godh=godh, session=blob, firmware=Path("fw").read_bytes(), vcpus=4,
        kernel=b"a kernel", cmdline=b"quiet",
    )  # fmt: skip
    Path("info").write_text(guest.domlaunchsecinfo())
    return guest


@pytest.fixture
def opened() -> Iterator[Browser]:
    if chromium() is None:
        pytest.skip("Chromium is not installed")
    with browser() as found:
        yield found


def test_every_page_is_fit_for_a_phone_and_a_laptop_by_day_and_by_night(pages: list[Path]) -> None:
    if chromium() is None:
        pytest.skip("Chromium is not installed")
    assert len(pages) == 7
    assert look_evidence.look(pages, PICTURES) == []
    assert len([*PICTURES.glob("launch-verified-*.png")]) == 4
    assert (PICTURES / "launch-verified.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("<h1>a</h1><p style='width: 2000px'>b</p>", "wider"),
        ("<h1>a</h1><h3>b</h3>", "headings"),
        ("<h2>a</h2>", "h1"),
        ("<h1>a</h1><svg></svg>", "without a text"),
        ("<h1>a</h1><script>1</script>", "scripts"),
        ("<h1>a</h1><img alt=b src='file:///nowhere'>", "loads more"),
    ],
)
def test_what_is_wrong_with_a_page_is_seen(
    opened: Browser, here: Path, body: str, word: str
) -> None:
    page = Path("page.html")
    page.write_text(f"<!doctype html><html lang=en><title>t</title><body>{body}")
    found = [*look_evidence.problems(opened.open(page, "phone", "light"), page)]
    assert any(word in one for one in found), found


def test_the_policy_of_a_page_lets_nothing_run_or_load(opened: Browser, pages: list[Path]) -> None:
    made = pages[0].read_text(encoding="utf-8")
    script = "<script>document.title = 'ran'</script><img alt=x src='file:///nowhere'>"
    bad = Path("bad.html")
    bad.write_text(made.replace("</main>", f"{script}<p style='color: red'></p></main>"))
    facts = opened.open(bad, "laptop", "light")
    assert facts["title"] != "ran"
    complaints = " ".join(facts["complaints"])
    for directive in ("script-src", "img-src", "style-src"):
        assert directive in complaints, complaints
