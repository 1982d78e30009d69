"""Print text for people, or one JSON document."""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from sev_attest.cli import terminal
from sev_attest.errors import Failure

if TYPE_CHECKING:
    from sev_attest.cli.documents.parts import Check
    from sev_attest.cli.documents.parts import Failure as DocumentedFailure
    from sev_attest.cli.documents.printer import Printer
    from sev_attest.sev.chain.ca import AmdCaCertificate
    from sev_attest.sev.chain.certificate import Certificate
    from sev_attest.sev.chain.chain import Chain
    from sev_attest.sev.chain.verify import VerifiedChain
    from sev_attest.sev.launch_info import LaunchInfo
    from sev_attest.sev.policy import GuestPolicy

_PARTS = 4096
_CHECK_WIDTH = 26
_NEWEST_API = (1, 255)
_SNP_ONE = 1 << 17
"""Bit 17 of every policy of SEV-SNP is one (AMD 56860, "Guest Policy")."""
_MARK = "[\u2022\u2b11](\u0337|\u0338)?"
_COLORS = {"ok": "green", "FAIL": "red", "-": "yellow"}
_DIFF = {"-": "red", "+": "green", "@": "cyan"}
LEGEND = " • = self signed, ⬑ = signs, •̷ = invalid self sign, ⬑̸ = invalid signs"


def one_line(text: str) -> str:
    """Return text in which nothing steers a terminal: unprintable characters are escaped.

    For all that others chose: file names, values, names in a ledger.
    """
    return _escaped(text, kept="")


def count(number: int, what: str) -> str:
    """Return a number of things: ``1 event``, ``2 events``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def raw(content: bytes, *, err: bool = False) -> None:
    """Print text of many lines that others wrote: byte for byte to a file or pipe.

    On a terminal, characters that are not printable (ESC, U+009B, U+202E) are escaped, except tab
    and newline.
    """
    stream = sys.stderr if err else sys.stdout
    if stream.isatty():
        text = content.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
        click.echo(_escaped(text, kept="\n\t"), nl=False, err=err)
    else:
        click.echo(content, nl=False, err=err)


def _escaped(text: str, kept: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else f"\\x{ord(c):02x}" for c in text)


OTHER_NAMES: Mapping[str, str] = {"snp-challenge": "snp-challenge-made"}
"""Documents of commands whose own name is that of a file's schema, with their name."""


def any_document(command: str, /, *, ok: bool, **fields: object) -> None:
    """Print the JSON document of a command; fields that are iterators as lists.

    Nothing is printed before _PARTS parts are known: an error is then a document of its own. Call
    :data:`document` where the command is known: it holds the fields to their types.
    """
    parts = document_parts(command, ok=ok, **fields)
    kept: list[str] = []
    for part in parts:
        kept.append(part)
        if len(kept) == _PARTS:
            click.echo("".join(kept), nl=False)
            kept.clear()
    click.echo("".join(kept), nl=False)


document: "Printer" = any_document
"""Print the JSON document of a command, as ``documents/printer.py`` has it."""


def document_parts(command: str, *, ok: bool, **fields: object) -> Iterator[str]:
    """Yield the text of a JSON document in parts: a list that is an iterator is never in memory."""
    import json

    def indented(value: object) -> str:
        return json.dumps(value, indent=2).replace("\n", "\n  ")

    before = "{"
    for name, value in ({"schema": f"sev-attest/{command}/1", "ok": ok} | fields).items():
        yield f"{before}\n  {json.dumps(name)}: "
        before = ","
        if not isinstance(value, Iterator):
            yield indented(value)
            continue
        opening = "["
        for item in value:
            yield f"{opening}\n    " + indented(item).replace("\n", "\n  ")
            opening = ","
        yield "[]" if opening == "[" else "\n  ]"
    yield "\n}\n"


def errors(failures: Iterable[Failure]) -> "list[DocumentedFailure]":
    """Return failures for a JSON document."""
    return [{"check": f.check, "message": f.message, "hint": f.hint} for f in failures]


def notes(lines: Iterable[str]) -> None:
    """Print notes on standard error, one line each: standard output is for the verdict alone."""
    for line in lines:
        with suppress(OSError):  # a note that nobody reads ends no command
            terminal.say(f"note: {one_line(line)}", err=True)


def checks(
    every: Iterable[str], held: AbstractSet[str], failed: AbstractSet[str] = frozenset()
) -> "list[Check]":
    """Return the checks for a JSON document; "ok" is null for one that was not made."""
    return [{"id": c, "ok": True if c in held else False if c in failed else None} for c in every]


def steps(
    every: Mapping[str, str],
    held: AbstractSet[str],
    failed: AbstractSet[str] = frozenset(),
    *,
    err: bool = False,
) -> None:
    """Print each check with its result and meaning (--verbose)."""
    width = max([_CHECK_WIDTH, *(len(check) + 1 for check in every)])
    for check, words in every.items():
        verdict = "ok" if check in held else "FAIL" if check in failed else "-"
        shown = terminal.paint(f"{verdict:<5}", _COLORS[verdict], err=err)
        terminal.echo(f"{shown}{check:<{width}}{words}", err=err)


def tree(chain: "Chain", held: AbstractSet[str]) -> None:
    """Print a chain as :func:`chain_tree` draws it."""
    for line in chain_tree(chain, held):
        terminal.echo(re.sub(_MARK, _painted, line))


def _painted(mark: re.Match[str]) -> str:
    return terminal.paint(mark[0], "red" if mark[1] else "green")


def diff(lines: Iterable[str]) -> None:
    """Print a unified diff on standard error; others wrote its lines, as :func:`raw` has them."""
    for line in lines:
        color = _DIFF.get(line[:1])
        if color is None or not terminal.colored(sys.stderr):
            raw(f"{line}\n".encode(), err=True)
        else:
            terminal.echo(
                terminal.paint(_escaped(line.removesuffix("\r"), kept="\t"), color, err=True),
                err=True,
            )


def chain_tree(chain: "Chain", held: AbstractSet[str]) -> list[str]:
    """Return a chain as ``sevctl verify`` draws it: who signs whom, failed checks crossed out."""

    def signs(*checks: str) -> str:
        return "⬑" if held >= set(checks) else "⬑̸"

    def itself(check: str) -> str:
        return "•" if check in held else "•̷"

    oca = itself("chain.oca.self-signed") + signs("chain.pek.signed-by-oca")
    ark = itself("chain.ark.self-signed") + signs("chain.ask.signed-by-ark", "chain.ark.trusted")
    return [
        _line(chain.pdh, "PDH"),
        f" {signs('chain.pdh.signed-by-pek')} {_line(chain.pek, 'PEK')}",
        f"   {oca} {_line(chain.oca, 'OCA')}",
        f"    {signs('chain.pek.signed-by-cek')} {_line(chain.cek, 'CEK')}",
        f"       {signs('chain.cek.signed-by-ask')} {_line(chain.ask, 'ASK')}",
        f"         {ark} {_line(chain.ark, 'ARK')}",
    ]


def hmac_lines(info: "LaunchInfo", policy: "GuestPolicy") -> list[str]:
    """Return the fields of the measurement's HMAC, except the launch digest, as lines."""
    return [
        f"API: {info.api_major}.{info.api_minor}",
        f"build: {info.build_id}",
        f"policy: {policy}",
        f"nonce: {info.nonce.hex()}",
    ]


def fingerprints(chain: "Chain") -> dict[str, str]:
    """Return the fingerprints of a chain by role."""
    return {link.role: link.fingerprint for link in chain.certificates}


def platform_notes(platform: "VerifiedChain") -> list[str]:
    """Return notes on a root that is not AMD's, and on reserved bytes that are in use."""
    notes = []
    if platform.root.generation is None:
        notes.append("this root is not AMD's: it was trusted only because --trust-root names it")
    for link in platform.chain.certificates:
        if link.reserved:
            fields = " and ".join(link.reserved)
            notes.append(f"the {link.role} has reserved bytes in use ({fields}); they are signed")
    return notes


def policy_notes(policy: "GuestPolicy") -> list[str]:
    """Return notes on a policy of SEV-SNP, and on one that lets the host read memory."""
    notes = snp_policy_notes(policy)
    if policy.debug:
        notes.append(
            f"policy {policy} lets the host read the guest's memory with the debug commands"
        )
    return notes


def snp_policy_notes(policy: "GuestPolicy") -> list[str]:
    """Return a note if a policy must be one of SEV-SNP: as one of SEV it would start nowhere."""
    if policy.min_api <= _NEWEST_API or not policy.value & _SNP_ONE:
        return []
    api = ".".join(map(str, policy.min_api))
    note = (
        f"policy {policy} looks like one of SEV-SNP: as one of SEV or SEV-ES it demands API {api}, "
        "which no firmware has; `sev-attest snp` is for SEV-SNP guests"
    )
    return [note]


def _line(certificate: "Certificate | AmdCaCertificate | None", role: str) -> str:
    if certificate is None:
        return f"{role} (none that fits)"
    return f"{certificate.role} {certificate.key_name} {certificate.fingerprint}"
