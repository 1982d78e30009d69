"""The words of evidence: what others need not know of this machine is left out."""

import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

import click

from sev_attest.cli.advice import typed
from sev_attest.cli.inputs import STDIN
from sev_attest.errors import Unsupported

_GUEST = (
    "firmware", "kernel", "initrd", "cmdline", "kernel_hashes", "num_cpus", "cpu_family",
    "cpu_model", "cpu_stepping", "cpu_model_name", "vmsa_profile", "vmsa_cpu0", "vmsa_cpu1",
    "guest_features", "firmware_digest", "svsm", "vars_size",
)  # fmt: skip
_KEYS = ("tik", "tk")
_RECORD = ("tek", "record")
_CMDLINE = "CMDLINE"
"""What stands for a kernel's command line: some have a secret in it."""


def base_name(place: str) -> str:
    """Return the last part of a file's name."""
    return "standard input" if place == STDIN else os.path.basename(place.rstrip("/")) or place  # noqa: PTH119


def scrubber(values: Mapping[str, object]) -> Callable[[str], str]:
    """Return what removes the folders of files from a text, and a kernel's command line.

    ``values`` are those of the options that the command was given.
    """
    places = sorted(set(_places(values)), key=len, reverse=True)
    line = values.get("cmdline")
    typed_line = f"--cmdline {shlex.quote(str(line))}"

    def scrubbed(text: str) -> str:
        if line is not None:
            text = text.replace(typed_line, f"--cmdline {_CMDLINE}")
        for place in places:
            text = text.replace(place, base_name(place))
        for folder in (os.getcwd(), os.path.expanduser("~")):  # noqa: PTH109, PTH111
            text = text.replace(f"{folder.rstrip('/')}/", "") if folder != "/" else text
        return text

    return scrubbed


def _places(values: Mapping[str, object]) -> Iterator[str]:
    """Yield every name that has a folder in it: of the options, and of the default ledger."""
    from sev_attest.owner.ledger.place import default_path

    with suppress(Unsupported):  # a user without a home folder
        yield default_path()
    for value in values.values():
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, str):
                _, _, path = one.partition(":")  # of ALIAS-OR-GUID:PATH
                yield from (place for place in (one, path) if "/" in place.rstrip("/"))


def repeat_command(
    context: click.Context,
    places: tuple[str, ...],
    *,
    launch: bool,
    guest: bool,
    requirements: bool,
) -> str:
    """Return the command that recomputes this evidence offline, without the folders of files.

    ``launch``, ``guest`` and ``requirements`` say whether the evidence has a use for the session's
    keys and record, for a description of the guest, and for requirements: `evidence verify` refuses
    what it has none for.
    """
    record = context.params.get("record") is not None
    repeated = {
        "trust_root",
        *(_KEYS if launch else ()),
        *(_RECORD if launch and record else ()),
        *(_GUEST if guest else ()),
        # Those of a launch are asked of the platform in its record.
        *(("requirements",) if requirements and (record or not launch) else ()),
    }
    names = [base_name(place) for place in places if place.endswith(".json")]
    values = {
        name: _shown(name, value) if name in repeated else None
        for name, value in context.params.items()
    }
    words = [shlex.quote(names[0] if names else "EVIDENCE.json"), *typed(context, values)]
    return " ".join(["sev-attest evidence verify", *words])


def _shown(name: str, value: object) -> object:
    """Return an option's value without what is nobody's business."""
    if isinstance(value, tuple):
        return tuple(base_name(one) for one in value)
    if name == "cmdline" and value is not None:
        return _CMDLINE
    return base_name(value) if isinstance(value, str) and value else value
