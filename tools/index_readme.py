"""README.md for a package index, which has none of the files that its links lead to.

A metadata hook of hatchling, named in pyproject.toml.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"\[([^]]+)\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)")
"""A link to a file of this project: its text and the file's name."""
NOTE = "The source distribution has the files that are named here."


def for_index(readme: str) -> str:
    """Return README.md with names of files in place of links to them, and :data:`NOTE`."""

    def named(link: re.Match[str]) -> str:
        text, file = link.groups()
        return text if text == file else f"{text} ({file})"

    return f"{LINK.sub(named, readme)}\n{NOTE}\n"


class IndexReadme(MetadataHookInterface):
    """Fills ``readme``."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the description that an index shows."""
        readme = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": for_index(readme)}
