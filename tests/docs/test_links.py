"""tools/links.py: no link of the repository's pages leads nowhere, and one that does is found."""

from pathlib import Path

import pytest

from links import broken_in_markdown, broken_in_site, headings, repository_pages


def test_every_link_of_the_repository_s_pages_leads_to_a_file_and_a_heading() -> None:
    assert len(repository_pages()) > 30
    assert list(broken_in_markdown(repository_pages())) == []


def test_a_heading_has_the_anchor_that_code_hosts_give_it(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# The ledger's `--head`, again\n## A  b\n## Twice\n## Twice\n```sh\n# no heading\n```\n"
    )
    assert headings(page) == {"the-ledgers---head-again", "a--b", "twice", "twice-1"}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[a](other.md)", ""),
        ("[a](other.md#there)", ""),
        ("[a](#here)\n# Here", ""),
        ("[a](https://example.org/other.md#nowhere)", ""),
        ("```\n[a](missing.md)\n```", ""),
        ("[a](missing.md)", "missing.md: no such file"),
        ("[a](other.md#here)", "other.md#here: no such heading"),
        ("[a](#there)", "#there: no such heading"),
    ],
)
def test_a_link_of_markdown_that_leads_nowhere_is_named(
    tmp_path: Path, text: str, wrong: str
) -> None:
    (tmp_path / "other.md").write_text("# There\n")
    page = tmp_path / "page.md"
    page.write_text(text)
    assert list(broken_in_markdown([page])) == ([f"{page}: {wrong}"] if wrong else [])


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('<a href="sub/other.html#there">', ""),
        ('<a href="sub/other.html?x=1">', ""),
        ('<a href="#here"><p id="here">', ""),
        ('<a href="#">', ""),
        ('<a href="https://example.org/"><a href="//example.org/x"><a href="data:,">', ""),
        ('<img src="missing.png">', "missing.png: no such file"),
        ('<link href="sub/other.css">', "sub/other.css: no such file"),
        ('<a href="sub">', "sub: no such file"),
        ('<a href="sub/other.html#here">', "sub/other.html#here: no such anchor"),
        ('<a href="#there">', "#there: no such anchor"),
    ],
)
def test_a_link_of_a_site_that_leads_nowhere_is_named(
    tmp_path: Path, text: str, wrong: str
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "other.html").write_text('<p id="there"><a href="../page.html">')
    page = tmp_path / "page.html"
    page.write_text(text)
    assert list(broken_in_site(tmp_path)) == ([f"{page}: {wrong}"] if wrong else [])
