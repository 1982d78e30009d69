"""Look at pages in headless Chromium: write pictures of each, and name what is wrong with it.

At the sizes of a phone and a laptop, in a light and a dark scheme. By default: pages of the site,
and the evidence of verdicts on a simulated host, which must load nothing and run no script.
"""

import argparse
import itertools
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import evidence_pages
from browser import SIZES, THEMES, browser

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / ".venv" / "site"
PAGES = ("index.html", "cli/sev-attest-validate.html")

# What a page says of itself: how wide it is, its headings, its pictures, what it would run or load.
FACTS = """(() => {
  const all = [...document.querySelectorAll('*')];
  const wide = all.filter(e => !e.closest('svg') && e.getBoundingClientRect().right
    > document.documentElement.clientWidth + 1);
  const pictures = all.filter(e => e.matches('img, svg, canvas, object, video'));
  const named = e => e.getAttribute('aria-hidden') === 'true' || e.getAttribute('alt')
    || e.getAttribute('aria-label') || e.querySelector(':scope > title')
    || (e.getAttribute('aria-labelledby') || '').split(' ').filter(Boolean).every(
      id => (document.getElementById(id) || {}).textContent) && e.hasAttribute('aria-labelledby');
  return {
    width: document.documentElement.scrollWidth, height: document.documentElement.scrollHeight,
    wide: wide.map(e => e.tagName + ' ' + e.textContent.slice(0, 40)),
    headings: all.filter(e => /^H[1-6]$/.test(e.tagName)).map(e => Number(e.tagName[1])),
    nameless: pictures.filter(e => !named(e)).map(e => e.outerHTML.slice(0, 80)),
    unsaid: pictures.filter(e => e.matches('img:not([alt]), svg[role=img]') && !named(e))
      .map(e => e.outerHTML.slice(0, 80)),
    scripts: all.filter(e => e.tagName === 'SCRIPT'
      || [...e.attributes].some(a => a.name.startsWith('on'))).length,
    lang: document.documentElement.lang,
    title: document.title, ground: getComputedStyle(document.body).backgroundColor,
  };
})()"""


def problems(facts: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with any page."""
    if facts["width"] > facts["window"]:
        yield f"it is wider than the window: {facts['width']} > {facts['window']} {facts['wide']}"
    if facts["headings"].count(1) != 1:
        yield f"it has not exactly one h1: {facts['headings']}"
    if facts["unsaid"]:
        yield f"pictures without a text: {facts['unsaid']}"
    if not facts["lang"] or not facts["title"]:
        yield "it has no language or no title"


def problems_alone(facts: dict[str, Any], page: Path) -> Iterator[str]:
    """Yield what is wrong with a page that stands alone, such as evidence."""
    yield from problems(facts)
    if facts["wide"]:
        yield f"something is wider than the window: {facts['wide']}"
    levels = facts["headings"]
    if levels[:1] != [1] or any(after > before + 1 for before, after in itertools.pairwise(levels)):
        yield f"a level of headings is left out: {levels}"
    if facts["nameless"]:  # a theme's icons need none
        yield f"pictures without a text: {facts['nameless']}"
    if facts["scripts"]:
        yield f"{facts['scripts']} scripts"
    if facts["requests"] != [page.resolve().as_uri()]:
        yield f"it loads more than itself: {facts['requests']}"
    if facts["complaints"]:
        yield f"the browser complains: {facts['complaints']}"


def look(pages: Sequence[Path], out: Path, *, alone: bool) -> list[str]:
    """Take pictures of pages at each size and in each theme; return what is wrong with them."""
    out.mkdir(parents=True, exist_ok=True)
    found = []
    with browser() as one:
        for page in pages:
            grounds = set()
            for size, theme in itertools.product(SIZES, THEMES):
                facts = one.open(page, size, theme, FACTS)
                grounds.add(facts["ground"])
                name = f"{page.stem}-{size}-{theme}"
                wrong = problems_alone(facts, page) if alone else problems(facts)
                found += [f"{name}: {words}" for words in wrong]
                (out / f"{name}.png").write_bytes(one.picture(facts, size))
            if len(grounds) != len(THEMES):
                found.append(f"{page.stem}: light and dark are the same")
            (out / f"{page.stem}.pdf").write_bytes(one.pdf())
    return found


def main() -> int:
    """Look at the pages that are named, print what is wrong, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*", type=Path, help="default: the site's and of evidence")
    parser.add_argument("--out", type=Path, default=ROOT / ".venv" / "look")
    given = parser.parse_args()
    try:
        wrong = look(given.pages or [SITE / name for name in PAGES], given.out, alone=False)
        if not given.pages:
            with tempfile.TemporaryDirectory() as folder:
                wrong += look(evidence_pages.make(Path(folder)), given.out, alone=True)
    except RuntimeError as error:
        wrong = [str(error)]
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    print(f"the pictures are in {given.out}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
