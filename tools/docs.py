"""Build the site and the man pages, and check every link.

The site's sources are the Markdown files of the repository as they are, what ``docs/site`` has
beside them, and a page for each command. They are laid out in a folder of their own, in which
every file has the place that the links of the others give it.
"""

import argparse
import importlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sphinx.cmd.build import main as sphinx

import make_cli_pages
import make_man
from cli_tree import ROOT
from links import broken_in_markdown, broken_in_site, repository_pages

SITE = ROOT / "docs" / "site"
PACKAGES = ("sev_attest", *(f"sev_attest.{p}" for p in ("guest", "owner", "sev", "snp", "testing")))


def main() -> int:
    """Build all, print what is wrong, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--site", type=Path, default=ROOT / ".venv" / "site")
    parser.add_argument("--man", type=Path, default=ROOT / "build" / "man")
    given = parser.parse_args()
    wrong = list(broken_in_markdown(repository_pages()))
    print(f"{len(make_man.write(given.man))} man pages are in {given.man}")
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder))
        shutil.rmtree(given.site, ignore_errors=True)
        os.environ["SEV_ATTEST_SOURCE"] = str(ROOT)
        options = ["-q", "-E", "-W", "--keep-going", "-d", f"{folder}/.doctrees"]
        if sphinx([*options, "-c", str(SITE), folder, str(given.site)]):
            wrong.append("Sphinx has warned: see above")
    wrong += [*broken_in_site(given.site), *undocumented(given.site)]
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    print(f"the site is {given.site / 'index.html'}")
    return 1 if wrong else 0


def lay_out(folder: Path) -> None:
    """Lay out the site's sources in a folder."""
    for file in repository_pages():
        place = folder / file.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    shutil.copytree(SITE / "api", folder / "api")
    front = (folder / "docs" / "site" / "index.md").read_text(encoding="utf-8")
    shutil.rmtree(folder / "docs" / "site")
    front = front.replace("](../../", "](").replace("](../", "](docs/")
    (folder / "index.md").write_text(front, encoding="utf-8")
    make_cli_pages.write(folder / "cli")


def undocumented(site: Path) -> Iterator[str]:
    """Yield each public name of the library that no page has."""
    shown = {
        name
        for file in (site / "api").glob("*.html")
        for name in re.findall(r'id="(sev_attest\.[\w.]+)"', file.read_text(encoding="utf-8"))
    }
    for package in PACKAGES:
        names = {f"{package}.{name}" for name in importlib.import_module(package).__all__}
        yield from (f"{name} is on no page" for name in sorted(names - shown - {*PACKAGES}))


if __name__ == "__main__":
    sys.exit(main())
