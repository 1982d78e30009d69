"""Puts the man pages into the wheel: ``share/man/man1`` of the environment it is installed in."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).parent


class ManPages(BuildHookInterface[Any]):
    """Makes the pages from the commands of the source that is built."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add a file for each page; an editable install has none, and no other system reads any."""
        if version == "editable" or os.name != "posix":
            return
        sys.dont_write_bytecode = True
        sys.path.insert(0, str(HERE))
        from make_man import write

        self._folder = tempfile.TemporaryDirectory()
        for path in write(Path(self._folder.name)):
            build_data["shared_data"][str(path)] = f"share/man/man1/{path.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was made; the wheel has it."""
        del version, build_data, artifact_path
        if hasattr(self, "_folder"):
            self._folder.cleanup()
