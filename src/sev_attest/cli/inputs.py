"""What commands take in: numbers, files, standard input, and the options that several share."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

import click

from sev_attest.errors import MalformedInput, Unsupported, reading

if TYPE_CHECKING:
    from sev_attest.chain.files import Collected
    from sev_attest.chain.roots import Root

Function = TypeVar("Function", bound=Callable[..., Any])

STDIN = "-"
_MAX_SMALL = 1 << 20
_PROGRESS_FROM = 64 << 20


class Number(click.ParamType[int]):
    """A number, decimal or 0x hex, within a range."""

    name = "number"

    def __init__(self, most: int, least: int = 0) -> None:
        """Accept ``least`` to ``most``."""
        self.least = least
        self.most = most

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Read the text of an option."""
        text = str(value).strip().lower()
        try:
            number = int(text, 16) if text.startswith("0x") else int(text, 10)
        except ValueError:
            self.fail(f"{text!r} is no number (decimal, or hex with 0x)", param, ctx)
        if not self.least <= number <= self.most:
            self.fail(f"{text} is not in {self.least}..{self.most}", param, ctx)
        return number


BYTE = Number(0xFF)
POLICY = Number(0xFFFF_FFFF)


def options(*decorators: Callable[[Function], Function]) -> Callable[[Function], Function]:
    """Bundle options, so that they show in the help in the order given."""

    def decorate(function: Function) -> Function:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def option_name(parameter: str) -> str:
    """Name the option that fills a parameter."""
    return f"--{parameter.replace('_', '-')}"


output_options = options(
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead."),
    click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors."),
    click.option("-v", "--verbose", is_flag=True, help="Explain every step."),
)

chain_options = options(
    click.option("--sev", metavar="FILE", help="The platform's chain (as an INPUT)."),
    click.option("--oca", metavar="FILE", help="Take the OCA from here."),
    click.option("--cek", metavar="FILE", help="Take the CEK from here (the one AMD signed)."),
    click.option("--ca", metavar="FILE", help="Take ASK and ARK from here."),
    click.option(
        "--trust-root",
        metavar="FILE",
        multiple=True,
        help="Also trust this ARK, which is not AMD's (a test platform).",
    ),
)


def read_small(path: str, what: str) -> bytes:
    """Read a small file (``-``: standard input); raises OSError, MalformedInput if large."""
    if path == STDIN:
        data = sys.stdin.buffer.read(_MAX_SMALL + 1)
    else:
        with Path(path).open("rb") as file:
            data = file.read(_MAX_SMALL + 1)
    if len(data) > _MAX_SMALL:
        with reading(path):
            raise MalformedInput(what, "length", f"more than {_MAX_SMALL} bytes")
    return data


@contextmanager
def large_file(path: str) -> Iterator[BinaryIO]:
    """Open a file to be streamed (``-``: standard input); a large one shows its progress."""
    if path == STDIN:
        yield sys.stdin.buffer
        return
    with Path(path).open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        if size < _PROGRESS_FROM or not sys.stderr.isatty():
            yield file
            return
        with click.progressbar(length=size, label=f"hashing {path}", file=sys.stderr) as bar:
            yield cast("BinaryIO", _Progress(file, bar.update))


class _Progress:
    """A file whose reads are counted."""

    def __init__(self, file: BinaryIO, update: Callable[[int], object]) -> None:
        self._file = file
        self._update = update

    def read(self, size: int) -> bytes:
        """Read, and move the bar."""
        chunk = self._file.read(size)
        self._update(len(chunk))
        return chunk


def collect(inputs: tuple[str, ...], given: dict[str, Any]) -> "Collected":
    """Gather the certificates of the inputs and of :data:`chain_options`."""
    from sev_attest.chain.files import Collected, certificate_of, read_contents
    from sev_attest.spec import Usage

    sources = (*inputs, given["sev"]) if given["sev"] else inputs
    if not sources:
        raise Unsupported(
            "no chain was given",
            check="usage",
            hint="name what `sevctl export` wrote, or a folder of certificates (- is stdin)",
        )
    collected = Collected()
    for source in sources:
        if source == STDIN:
            with reading("standard input"):
                contents = read_contents(read_small(source, "chain"))
            collected.add(contents, "standard input")
        else:
            collected.add_path(Path(source))
    for usage, option in ((Usage.OCA, "oca"), (Usage.CEK, "cek")):
        if given[option]:
            with reading(given[option]):
                found = certificate_of(usage, read_small(given[option], "certificate"))
                collected.replace(found)
    if given["ca"]:
        with reading(given["ca"]):
            data = read_small(given["ca"], "certificate")
            for usage in (Usage.ASK, Usage.ARK):
                collected.replace(certificate_of(usage, data))
    return collected


def trusted_roots(given: dict[str, Any]) -> "list[Root]":
    """Name the roots: AMD's, and those of ``--trust-root``."""
    from sev_attest.chain.ca import CaCertificate
    from sev_attest.chain.files import read_contents
    from sev_attest.chain.roots import Root, amd_roots

    roots = list(amd_roots())
    for path in given["trust_root"]:
        with reading(path):
            found = read_contents(read_small(path, "root")).certificates
            ca = {c.role: c for c in found if isinstance(c, CaCertificate)}
            if "ARK" not in ca:
                raise MalformedInput("root", "ARK", "there is no ARK certificate in this file")
            roots.append(Root(ark=ca["ARK"], ask=ca.get("ASK")))
    return roots
