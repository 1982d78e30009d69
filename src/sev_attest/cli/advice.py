"""What is said after a search for a mismatch's cause: its hint, notes, and the command to try."""

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass

import click

from sev_attest.cli.bundle import option_name
from sev_attest.cli.inputs import STDIN
from sev_attest.cli.options.boot import KERNEL, KernelOptions
from sev_attest.errors import NotVerified
from sev_attest.guest.diagnosis.search import Diagnosis, Explanation

_ONCE = ("/dev/fd/", "/dev/stdin", "/proc/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is added to a mismatch: its hint, notes, and the fields of a JSON document."""

    hint: str
    notes: list[str]
    facts: dict[str, object]


def add_cause(error: NotVerified, notes: list[str], search: Callable[[], Told]) -> None:
    """Add to a mismatch what would fit; it stays a mismatch even if the search fails.

    ``notes`` are those of the command: it adds them to the error afterwards.
    """
    try:
        found = search()
    except KeyboardInterrupt:
        notes.append("the search was interrupted")
    except Exception as failure:  # noqa: BLE001 - the verdict stands, even after a bug
        error.add_note(f"the search for what fits failed ({type(failure).__name__}): a bug")
    else:
        error.hint = found.hint
        error.facts |= found.facts
        for note in found.notes:
            error.add_note(note)


def told(
    diagnosis: Diagnosis,
    advice: Callable[[Explanation], tuple[str | None, str]],
    *,
    what: str,
    late: bool,
    guest: KernelOptions | None,
) -> Told:
    """Return what to say of a search.

    ``advice`` returns the corrected command for a finding, and a note. ``what`` did not match
    ("measurement"). ``late``: time was up. ``guest`` is what may lack a part of a kernel; None for
    a digest that was given.
    """
    hint, notes, findings = "", [], []
    for finding in diagnosis.findings:
        command, note = advice(finding)
        findings.append(asdict(finding) | {"command": command})
        hint = f"the {what} fits if {finding.detail}"
        notes.append(note)
    if not findings:
        hint, notes = _nothing_fits(diagnosis, late=late)
        if guest is not None and guest.kernel_hashes is None:
            notes += _kernel_note(guest)
    tried = {
        "tried": diagnosis.tried,
        "complete": diagnosis.complete,
        "ruled_out": diagnosis.ruled_out,
    }
    return Told(hint=hint, notes=notes, facts={"diagnosis": findings, "search": tried})


def with_progress(
    search: Callable[[Callable[[int], object] | None], Diagnosis], *, progress: bool
) -> Diagnosis:
    """Run a search, which is shown on a terminal if ``progress``."""
    shown = progress and sys.stderr.isatty()
    try:
        return search(_show_progress if shown else None)
    finally:
        if shown:
            click.echo("\r\033[K", nl=False, err=True)


def _show_progress(tried: int) -> None:
    click.echo(f"\rlooking for what fits: {tried} combinations", nl=False, err=True)


def _nothing_fits(diagnosis: Diagnosis, *, late: bool) -> tuple[str, list[str]]:
    """Return the hint and the notes of a search without result."""
    notes = []
    if not diagnosis.complete and late:
        notes.append("the time for the search is up: --diagnose-budget SECONDS gives it more")
    elif not diagnosis.complete:
        notes.append("not every file at hand was tried: there are too many, or they are too large")
    if diagnosis.ruled_out:
        notes.append(f"ruled out: {'; '.join(diagnosis.ruled_out)}")
    hint = (
        f"none of {diagnosis.tried} likely differences explains it; "
        "--explain shows what went into it, to compare with what the host started"
    )
    return hint, notes


def _kernel_note(guest: KernelOptions) -> list[str]:
    """Return a note on what may be missing of a kernel that is booted directly."""
    missing = [option_name(name) for name in KERNEL if getattr(guest, name) is None]
    if not missing:
        return []
    names = ", ".join(missing)
    return [f"with kernelHashes='yes', name everything that is booted: {names} missing"]


def corrected(
    changes: Mapping[str, object], drop: dict[str, None] | None = None
) -> tuple[str | None, str]:
    """Return the running command with these options changed, and a note that says so.

    Options in ``drop`` are left out, and so is ``--evidence``: its files are there by now. The
    command is None if it would read an input again that can be read only once.
    """
    context = click.get_current_context()
    changes = dict(changes)
    if "cpu_family" in changes:
        changes["cpu_model_name"] = None
    elif "cpu_model_name" in changes:
        changes |= {"cpu_family": None, "cpu_model": None, "cpu_stepping": None}
    values = context.params | {"evidence": None} | changes | (drop or {})
    if any(one == STDIN or str(one).startswith(_ONCE) for v in values.values() for one in _each(v)):
        without = [
            f"without {option_name(n)}" for n in changes if changes[n] is None and context.params[n]
        ]
        words = typed(context, dict.fromkeys(context.params) | changes)
        options = ", ".join([" ".join(words), *without])
        return None, f"if you meant that: the same with {options}"
    command = " ".join([context.command_path, *typed(context, values)])
    return command, f"if you meant that: {command}"


def typed(context: click.Context, values: Mapping[str, object]) -> Iterator[str]:
    """Yield options and arguments as they would be typed."""
    for parameter in context.command.params:
        value = values[str(parameter.name)]
        if value == parameter.get_default(context) or value in (None, ()):
            continue
        for each in _each(value):
            if isinstance(parameter, click.Option):
                yield max(parameter.opts, key=len)
            if each is not True:
                yield _quoted(_text(each))


def _each(value: object) -> tuple[object, ...]:
    """Return the values of a parameter that can be there several times."""
    return value if isinstance(value, tuple) else (value,)


def _text(value: object) -> str:
    """Return a value as it would be typed."""
    if isinstance(value, bytes):
        return value.hex()
    return str(value[0]) if isinstance(value, range) else str(value)


def _quoted(word: str) -> str:
    """Return a word quoted for a shell, without unprintable characters."""
    if word.isprintable():
        return shlex.quote(word)
    plain = (
        c if c.isprintable() and c not in "'\\" else "".join(f"\\x{b:02x}" for b in os.fsencode(c))
        for c in word
    )
    return f"$'{''.join(plain)}'"
