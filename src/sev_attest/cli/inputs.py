"""What commands take in: numbers, files, standard input, and the options that several share."""

import errno
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeVar, cast

import click

from sev_attest.cli import render
from sev_attest.errors import MalformedInput, SevAttestError, Unsupported, reading

if TYPE_CHECKING:
    from sev_attest.owner.ledger import Ledger
    from sev_attest.sev.chain.chain import Collected
    from sev_attest.sev.chain.roots import Root

Function = TypeVar("Function", bound=Callable[..., Any])

STDIN = "-"
_NUMBER = re.compile(r"-?[0-9]{1,20}|0[xX][0-9A-Fa-f]{1,16}")
_MAX_SMALL = 1 << 20
_PROGRESS_FROM = 64 << 20


class Number(click.ParamType):  # type: ignore[type-arg] # generic since click 8.4
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
        text = str(value).strip()
        if not _NUMBER.fullmatch(text):
            self.fail(f"{text!r} is no number (decimal, or hex with 0x)", param, ctx)
        number = int(text, 16 if text[:2] in ("0x", "0X") else 10)
        if not self.least <= number <= self.most:
            self.fail(f"{text} is not in {self.least}..{self.most}", param, ctx)
        return number


class NumberRange(click.ParamType):  # type: ignore[type-arg] # generic since click 8.4
    """A number from 1 on, or two with a dash between them."""

    name = "range"

    def __init__(self, most: int) -> None:
        """Accept 1 to ``most``."""
        self.number = Number(most, 1)

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> range:
        """Read "4" or "1-64"."""
        first, dash, last = str(value).partition("-")
        least = self.number.convert(first, param, ctx)
        most = self.number.convert(last, param, ctx) if dash else least
        if most < least:
            self.fail(f"{value!s} is no range: the second number is the smaller", param, ctx)
        return range(least, most + 1)


class FileName(click.ParamType):  # type: ignore[type-arg] # generic since click 8.4
    """The name of a file, or ``-``; an empty one is a shell variable that was not set."""

    name = "file"

    def __init__(self, *, stdin: bool = True) -> None:
        """Accept ``-`` or, for an output, refuse it."""
        self.stdin = stdin

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """Refuse an empty name."""
        if not str(value):
            self.fail("the file's name is empty", param, ctx)
        if value == STDIN and not self.stdin:
            self.fail("this is written to a file, not to standard output", param, ctx)
        return str(value)


BYTE = Number(0xFF)
FILE = FileName()
FOLDER = click.Path(exists=True, file_okay=False)
OUTPUT = FileName(stdin=False)
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
    click.option(
        "-q", "--quiet", is_flag=True, help="Print nothing but errors and what was asked for."
    ),
    click.option("-v", "--verbose", is_flag=True, help="Explain every step."),
)

input_options = options(
    click.option("--sev", type=FILE, metavar="FILE", help="The platform's chain (as an INPUT)."),
    click.option("--oca", type=FILE, metavar="FILE", help="Take the OCA from here."),
    click.option(
        "--cek", type=FILE, metavar="FILE", help="Take the CEK from here (the one AMD signed)."
    ),
    click.option("--ca", type=FILE, metavar="FILE", help="Take ASK and ARK from here."),
)
chain_options = options(
    input_options,
    click.option(
        "--trust-root",
        type=FILE,
        metavar="FILE",
        multiple=True,
        help="Also trust this ARK, which is not AMD's (a test platform).",
    ),
)

ledger_option = click.option(
    "--ledger",
    type=OUTPUT,
    metavar="PATH|URL|none",
    help="Ledger of launches: a file, or postgresql://HOST/DATABASE (default: one per user).",
)


def open_ledger(given: str | None, *, create: bool = True) -> "Ledger | None":
    """Open the ledger that ``--ledger`` names; None for "none".

    Raises LedgerError if it cannot be used, or is missing and ``create`` is False; Unsupported if
    the default one is in a home folder that does not exist.
    """
    if given == "none":
        return None
    from sev_attest.owner.ledger import Ledger, check_home, default_place

    if given is None and create:
        check_home()
    return Ledger.open(given or default_place(), create=create)


def give_up(ledger: "Ledger", session_id: str, reason: str) -> None:
    """Note that a session failed, if that can be noted: what went wrong first is what matters."""
    with suppress(SevAttestError):
        ledger.fail(session_id, reason)


def read_small(path: str, what: str) -> bytes:
    """Read a small file (``-``: standard input); raises OSError, MalformedInput if large."""
    with reading(path), nullcontext(stdin()) if path == STDIN else _opened(path) as file:
        data = file.read(_MAX_SMALL + 1)
        if len(data) > _MAX_SMALL:
            raise MalformedInput(what, "length", f"more than {_MAX_SMALL} bytes")
    return data


def _opened(path: str) -> BinaryIO:
    return open(path, "rb")  # noqa: PTH123 - pathlib is slow to import


def stdin() -> BinaryIO:
    """Give standard input; raises OSError if it is closed."""
    if sys.stdin is None:  # its descriptor is closed
        raise OSError(errno.EBADF, "it is closed", "standard input")
    return sys.stdin.buffer


def one_stdin(names: Iterable[str | None]) -> None:
    """Refuse standard input for two things at once; raises Unsupported."""
    if sum(name == STDIN for name in names) > 1:
        raise Unsupported("only one input can be standard input (-)", check="usage")


@contextmanager
def large_file(path: str, *, progress: bool = True) -> Iterator[BinaryIO]:
    """Open a file to be streamed (``-``: standard input); a large one may show its progress."""
    with large_files(path, progress=progress) as files:
        yield files[0]


@contextmanager
def large_files(*paths: str, progress: bool = True) -> Iterator[list[BinaryIO]]:
    """Open several, for several threads; one bar shows how far all of them have come."""
    with ExitStack() as stack:
        files = [stack.enter_context(_Source(path)) for path in paths]
        size = sum(file.size() for file in files)
        if size >= _PROGRESS_FROM and progress and sys.stderr.isatty():
            label = render.one_line(f"hashing {', '.join(paths)}")
            bar = click.progressbar(length=size, label=label, file=sys.stderr)
            update, lock = stack.enter_context(bar).update, Lock()
            for file in files:
                file.counted(update, lock)
        yield [cast("BinaryIO", file) for file in files]


class _Source:
    """A file that is read to its end; what goes wrong with it carries its name."""

    def __init__(self, path: str) -> None:
        self._path = path
        with reading(path):
            self._file = stdin() if path == STDIN else _opened(path)
        self.fileno = self._file.fileno
        self._update: Callable[[int], object] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._path != STDIN:
            self._file.close()

    def size(self) -> int:
        """Tell how much there is to read; 0 for standard input, which nobody knows."""
        return 0 if self._path == STDIN else os.fstat(self.fileno()).st_size

    def counted(self, update: Callable[[int], object], lock: AbstractContextManager[Any]) -> None:
        """Move a bar with every read; ``lock`` is that of the bar."""
        self._update, self._lock = update, lock

    def read(self, size: int) -> bytes:
        """Read up to ``size`` bytes."""
        with reading(self._path):
            chunk = self._file.read(size)
        if self._update is not None:
            with self._lock:
                self._update(len(chunk))
        return chunk


def collect(
    inputs: tuple[str, ...], given: dict[str, Any], fetched: dict[str, bytes] | None = None
) -> "Collected":
    """Gather the certificates of the inputs and of :data:`input_options`.

    ``fetched`` is what came from elsewhere, by the place where it came from.
    """
    from pathlib import Path

    from sev_attest.sev.chain.chain import Collected
    from sev_attest.sev.chain.packaging import certificate_of, read_contents
    from sev_attest.sev.spec import Usage

    sources = inputs if given["sev"] is None else (*inputs, given["sev"])
    one_stdin((*sources, given["oca"], given["cek"], given["ca"], *given.get("trust_root", ())))
    if not (sources or fetched):
        raise Unsupported(
            "no chain was given",
            check="usage",
            hint="name what `sevctl export` wrote, or a folder of certificates (- is stdin)",
        )
    collected = Collected()
    for place, data in (fetched or {}).items():
        with reading(place):
            collected.add(read_contents(data), place)
    for source in sources:
        if source == STDIN:
            with reading("standard input"):
                contents = read_contents(read_small(source, "chain"))
            collected.add(contents, "standard input")
        else:
            collected.add_path(Path(source))
    for usage, option in ((Usage.OCA, "oca"), (Usage.CEK, "cek")):
        if given[option] is not None:
            with reading(given[option]):
                found = certificate_of(usage, read_small(given[option], "certificate"))
                collected.replace(found)
    if given["ca"] is not None:
        with reading(given["ca"]):
            data = read_small(given["ca"], "certificate")
            for usage in (Usage.ASK, Usage.ARK):
                collected.replace(certificate_of(usage, data))
    return collected


def trusted_roots(given: dict[str, Any]) -> "list[Root]":
    """Name the roots: AMD's, and those of ``--trust-root``."""
    from sev_attest.sev.chain.ca import AmdCaCertificate
    from sev_attest.sev.chain.packaging import read_contents
    from sev_attest.sev.chain.roots import Root, amd_roots

    roots = list(amd_roots())
    for path in given["trust_root"]:
        with reading(path):
            found = read_contents(read_small(path, "root")).certificates
            ca = {c.role: c for c in found if isinstance(c, AmdCaCertificate)}
            if "ARK" not in ca:
                raise MalformedInput("root", "ARK", "there is no ARK certificate in this file")
            roots.append(Root(ark=ca["ARK"], ask=ca.get("ASK")))
    return roots
