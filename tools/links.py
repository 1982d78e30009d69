"""Links that lead nowhere: in the repository's Markdown, and in the pages of a built site."""

import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
_FENCE = re.compile(r"^(`{3,}).*?^\1`*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^]]*\]\(([^()\s]+)\)")


def repository_pages() -> list[Path]:
    """Return the Markdown files of the repository that people read in place."""
    folders = (ROOT, ROOT / "docs", ROOT / "docs" / "adr", ROOT / "docs" / "site", ROOT / "vectors")
    return sorted(file for folder in folders for file in folder.glob("*.md"))


def broken_in_markdown(files: Iterable[Path]) -> Iterator[str]:
    """Yield each link of these files to a file or heading that is not there."""
    for file in files:
        for link in _LINK.findall(_FENCE.sub("", file.read_text(encoding="utf-8"))):
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = file.parent / unquote(parts.path) if parts.path else file
            if not target.exists():
                yield f"{file}: {link}: no such file"
            elif parts.fragment and parts.fragment not in headings(target):
                yield f"{file}: {link}: no such heading"


def headings(file: Path) -> set[str]:
    """Return the anchors of a Markdown file's headings, as code hosts name them."""
    text = _FENCE.sub("", file.read_text(encoding="utf-8"))
    seen: dict[str, int] = {}
    found = set()
    for title in re.findall(r"^#+ +(.*)$", text, re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
        number = seen[name] = seen.get(name, -1) + 1
        found.add(f"{name}-{number}" if number else name)
    return found


class _Page(HTMLParser):
    """What a page of HTML links to, and the anchors that it has."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the links and the anchor of a tag."""
        found = dict(attrs)
        self.anchors.add(found.get("id") or "")
        self.links += [found[name] or "" for name in ("href", "src") if name in found]
        del tag


def broken_in_site(site: Path) -> Iterator[str]:
    """Yield each link of a site's pages to a file or anchor of it that is not there."""
    pages = {file.resolve(): _Page(file) for file in site.rglob("*.html")}
    for file, page in pages.items():
        for link in dict.fromkeys(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            if not target.is_file():
                yield f"{file}: {link}: no such file"
            elif target in pages and unquote(parts.fragment) not in {"", *pages[target].anchors}:
                yield f"{file}: {link}: no such anchor"
