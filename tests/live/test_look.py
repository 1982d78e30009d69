"""The pages of evidence in a real browser: Debian's Chromium, at the sizes of a phone and a laptop.

The pictures are in ``.venv/look``, to be looked at.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

import evidence_pages
import look
from browser import Browser, browser, chromium

pytest.importorskip("jinja2", reason="Jinja2 is not installed")

PICTURES = Path(__file__).parents[2] / ".venv" / "look"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return evidence_pages.make(tmp_path_factory.mktemp("evidence"))


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
    assert look.look(pages, PICTURES, alone=True) == []
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
    facts = opened.open(page, "phone", "light", look.FACTS)
    found = [*look.problems_alone(facts, page)]
    assert any(word in one for one in found), found


def test_the_policy_of_a_page_lets_nothing_run_or_load(
    opened: Browser, pages: list[Path], here: Path
) -> None:
    made = pages[0].read_text(encoding="utf-8")
    script = "<script>document.title = 'ran'</script><img alt=x src='file:///nowhere'>"
    bad = here / "bad.html"
    bad.write_text(made.replace("</main>", f"{script}<p style='color: red'></p></main>"))
    facts = opened.open(bad, "laptop", "light", look.FACTS)
    assert facts["title"] != "ran"
    complaints = " ".join(facts["complaints"])
    for directive in ("script-src", "img-src", "style-src"):
        assert directive in complaints, complaints
