"""Write the site's pages of the commands: one for each, from its help, and an index."""

import re
from collections.abc import Iterator
from pathlib import Path

from cli_tree import Page, Section, marked, program

_SPECIAL = re.compile(r"([\\`*_<>\[\]#|~$&{}])")


def write(folder: Path) -> list[Path]:
    """Write all pages into a folder, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for page in program().walk():
        made.append(folder / f"{page.name}.md")
        made[-1].write_text("\n".join([*_lines(page), ""]), encoding="utf-8")
    return made


def _lines(page: Page) -> Iterator[str]:
    yield from (f"# {page.typed}", "")
    yield from _paragraphs(page.text)
    yield from ("```text", " ".join((page.typed, *page.usage)), "```", "")
    for section in page.groups:
        yield from _commands(page, section)
    yield from (f"```{{program}} {page.typed}", "```", "")
    for section in page.options:
        yield from _options(section)
    for section in page.epilog:
        yield from (f"## {escaped(section.title or 'Notes')}", "")
        yield from _options(section, titled=False)
    if page.variables:
        yield from ("## Environment", "")
        yield from (f"- `{name}` stands for `{option}`." for name, option in page.variables)
        yield ""
    yield "The [exit codes](../README.md#exit-codes) are the same for every command."


def _commands(page: Page, section: Section) -> Iterator[str]:
    names = {command.words[-1]: command.name for command in page.commands}
    yield from (f"## {escaped(section.title)}", "")
    for name, summary in section.rows:
        yield f"- [`{name}`]({names[name]}.md): {escaped(summary)}"
    yield from ("", "```{toctree}", ":hidden:", "")
    yield from (f"{name} <{names[name]}>" for name, _ in section.rows)
    yield from ("```", "")


def _options(section: Section, *, titled: bool = True) -> Iterator[str]:
    if titled:
        yield from (f"## {escaped(section.title)}", "")
    for names, text in section.rows:
        yield from (f"````{{option}} {names}", escaped(text), "````", "")
    yield from _paragraphs(section.text)


def _paragraphs(texts: tuple[str, ...]) -> Iterator[str]:
    for text in texts:
        if text.startswith("\n"):
            yield from ("```console", *text[1:].splitlines(), "```", "")
        else:
            yield from (escaped(text), "")


def escaped(text: str) -> str:
    """Return text as Markdown that shows it as it is; what is typed as it stands is code."""
    return "".join(
        f"`{part}`" if typed else _SPECIAL.sub(r"\\\1", part) for part, typed in marked(text)
    )
