"""Completion for shells: click's own, started safely, and the names that this project knows.

A shell's script runs ``sev-attest`` without arguments, with what was typed in COMP_WORDS. Nothing
here creates, changes or locks anything, and no error is shown.
"""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from sev_attest.errors import SevAttestError, Unsupported

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem, ShellComplete

PROGRAM = "sev-attest"
SHELLS = ("bash", "zsh", "fish")
_VARIABLE = "_SEV_ATTEST_COMPLETE"
_INSTRUCTIONS = tuple(f"{shell}_complete" for shell in SHELLS)
_FISH_SPLIT = "string split"
_SECONDS = 0.5
_MOST = 1000
_WORD = r"[A-Za-z0-9_.+:@%/-]+"
"""Names that no shell takes for more than a word."""


def wanted(arguments: list[str]) -> str:
    """Return the shell that asks for completion; empty for none.

    Arguments are a command to run, whatever the environment says: a variable must not keep a
    launch from being verified.
    """
    asked = os.environ.get(_VARIABLE, "")
    return asked.partition("_")[0] if not arguments and asked in _INSTRUCTIONS else ""


def complete(group: click.Group, shell: str) -> int:
    """Print what completes the words in COMP_WORDS; return the exit code.

    It is that of a usage error: shells ignore it, and nothing was verified.
    """
    # Nobody can act on an error in the middle of a line, be it a bug.
    with suppress(Exception, KeyboardInterrupt):
        click.echo(_class_of(shell)(group, {}, PROGRAM, _VARIABLE).complete())
    return Unsupported.exit_code


def script(shell: str) -> str:
    """Return the script with which a shell completes this program's words."""
    from click.shell_completion import ShellComplete

    kind = _class_of(shell)
    # click's own source() of bash runs the bash in PATH first, to see how old it is.
    source = ShellComplete.source(kind(click.Group(PROGRAM), {}, PROGRAM, _VARIABLE))
    # A value may have commas (no-debug,es): click's script for fish would drop what follows one.
    return source.replace(_FISH_SPLIT, f"{_FISH_SPLIT} -m 1") if shell == "fish" else source


def _class_of(shell: str) -> "type[ShellComplete]":
    from click.shell_completion import BashComplete, FishComplete, ZshComplete

    return {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}[shell]


def commands(rows: Iterable[tuple[str, str]], incomplete: str) -> "list[CompletionItem[str]]":
    """Return the commands of a group that begin so, each with its line in the help."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(name, help=line) for name, line in rows if name.startswith(incomplete)]


def cpu_models(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return QEMU's names of CPU models."""
    from sev_attest.guest.cpu import QEMU_MODELS

    return _listed(QEMU_MODELS, incomplete)


def vmsa_profiles(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the ways in which VMMs set up vCPUs of SEV-ES guests."""
    from sev_attest.guest.spec import VMSA_PROFILES

    return _listed(VMSA_PROFILES, incomplete)


def snp_layouts(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the ways in which VMMs start SEV-SNP guests."""
    from sev_attest.guest.spec import SNP_LAYOUTS

    return _listed(SNP_LAYOUTS, incomplete)


def policies(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names that make up a policy."""
    from sev_attest.sev.policy import BITS

    return _listed([*(name for name, _, _ in BITS.values()), "api>="], incomplete)


def schema_names(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of the JSON Schemas."""
    from sev_attest.cli import schemas

    return _listed(schemas.names(), incomplete)


def sessions(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of sessions in the ledger that the command line names, the newest first.

    A ledger on a server is not asked: it may take long.
    """
    from sev_attest.owner.ledger.place import default_path
    from sev_attest.owner.ledger.sqlite import recent_names

    place = ctx.params.get("store") or ctx.params.get("ledger")
    if place == "none" or "://" in (place or ""):
        return []
    with suppress(SevAttestError, OSError):
        found = recent_names(place or default_path(), _MOST, _SECONDS)
        fitting = (name for name in found if name.startswith(incomplete))
        return [*dict.fromkeys(name for name in fitting if re.fullmatch(_WORD, name))]
    return []


def _listed(names: Iterable[str], incomplete: str) -> list[str]:
    """Return the names that complete the last one of a list with commas."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in names if name.startswith(last)]
