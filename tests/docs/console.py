"""The console blocks of a page: commands that a reader types, and the output that is shown."""

import os
import re
import subprocess
import sys
from pathlib import Path

from schemas import misfits_of

_COMMAND = re.compile(
    r"^\$ ((?:.*\\\n)*(?:.*<<EOF\n(?:.*\n)*?EOF|.*))\n((?:(?!\$ |```).*\n)*)", re.MULTILINE
)
_MARK = "@@@\n"


def commands(text: str) -> list[tuple[str, str]]:
    """Return every command of a page, in order, and its output."""
    return _COMMAND.findall(text)


def outputs(lines: list[str], folder: Path) -> list[str]:
    """Run commands as they stand, in one shell in a folder; return what each prints.

    ``sev-attest`` and ``python3`` are those under test, unless ``folder`` has a ``.venv``.
    """
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    for name, what in {"python3": "", "sev-attest": "-m sev_attest"}.items():
        (programs / name).unlink(missing_ok=True)
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {what} "$@"\n')
        (programs / name).chmod(0o755)
    ran = subprocess.run(
        ["sh", "-c", "".join(f"printf '{_MARK[:-1]}\\n'\n{line}\n" for line in lines)],
        cwd=folder,
        env=os.environ
        | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(sys.path),
            "PYTHONIOENCODING": "utf-8",
            "XDG_STATE_HOME": str(folder / "state"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        encoding="utf-8",
    )
    printed = ran.stdout.split(_MARK)[1:]
    assert not [why for text in printed for why in misfits_of(text)]
    return printed


def show_what_they_print(page: list[tuple[str, str]], folder: Path) -> None:
    """Run the commands of a page; each must print what the page shows."""
    printed = outputs([command for command, _ in page], folder)
    for (command, shown), found in zip(page, printed, strict=True):
        assert found == shown, f"$ {command}\n{found}"
