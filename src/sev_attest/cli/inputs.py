"""What commands take in: numbers, files, standard input."""

import errno
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from threading import Lock
from typing import TYPE_CHECKING, BinaryIO, Self, cast

import click

from sev_attest.cli import render
from sev_attest.cli.usage import usage
from sev_attest.errors import MalformedInput, SevAttestError, Unsupported, reading

if TYPE_CHECKING:
    from click import ParamType as ParamType  # noqa: PLC0414 - others take it from here
    from click.shell_completion import CompletionItem
else:

    class ParamType(click.ParamType):
        """Click's; there it is generic since 8.4 only."""

        def __class_getitem__(cls, _type: object) -> type:
            """Return the class itself."""
            return cls


STDIN = "-"
_NUMBER = re.compile(r"-?[0-9]{1,20}|0[xX][0-9A-Fa-f]{1,16}")
_MAX_SMALL = 1 << 20
_PROGRESS_FROM = 64 << 20


class Number(ParamType[int]):
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
            is_file = os.path.isfile(text)  # noqa: PTH113 - pathlib is slow to import
            what = "is a file, not a number" if is_file else "is no number"
            self.fail(f"{text!r} {what} (decimal, or hex with 0x)", param, ctx)
        number = int(text, 16 if text[:2] in ("0x", "0X") else 10)
        if not self.least <= number <= self.most:
            self.fail(f"{text} is not in {self.least}..{self.most}", param, ctx)
        return number


class Policy(Number):
    """A guest policy, 32 bits."""

    def __init__(self) -> None:
        """Accept 32 bits."""
        super().__init__(0xFFFF_FFFF)

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Read the number; for the names of `sev-attest policy`, say what prints it."""
        names = str(value)
        if _composes(names):
            from shlex import quote

            self.fail(
                f"{names!r} is no number: `sev-attest policy {quote(names)}` prints it", param, ctx
            )
        return super().convert(value, param, ctx)


def _composes(text: str) -> bool:
    """Return whether a text has the names of a policy, joined by commas."""
    if _NUMBER.fullmatch(text.strip()):
        return False
    from sev_attest.sev.policy import compose

    try:
        compose(text.split(","))
    except SevAttestError:
        return False
    return True


class NumberRange(ParamType[range]):
    """A number from 1 on, or two with a dash between them."""

    name = "range"

    def __init__(self, most: int) -> None:
        """Accept 1 to ``most``."""
        self.number: Number = Number(most, 1)

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


class FileName(ParamType[str]):
    """The name of a file, or ``-``. An empty name is refused: a shell variable was not set."""

    name = "file"

    def __init__(self, *, stdin: bool = True) -> None:
        """Accept ``-`` or, for an output, refuse it."""
        self.stdin = stdin

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """Return the name; an empty one is an error."""
        if not str(value):
            self.fail("the file's name is empty", param, ctx)
        if value == STDIN and not self.stdin:
            self.fail("this is written to a file, not to standard output", param, ctx)
        return str(value)

    def shell_complete(
        self, _ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> "list[CompletionItem[str]]":
        """Have the shell complete names of files, or of folders alone."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type="dir" if param.metavar == "DIR" else "file")]


class Folder(FileName):
    """The name of a folder that can be read."""

    name = "folder"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """Return the name; anything else than a folder is an error."""
        place = str(value)
        # Not pathlib: it is slow to import.
        if not os.path.isdir(place) or not os.access(place, os.R_OK):  # noqa: PTH112
            self.fail(f"{place!r} is not a folder that can be read", param, ctx)
        return place


class Uri(ParamType[str]):
    """A URI. An empty one is refused: to libvirt it would be this machine."""

    name = "uri"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """Return the URI; an empty one is an error."""
        if not str(value):
            self.fail("the URI is empty", param, ctx)
        return str(value)


class Release(ParamType[str]):
    """The version of a program, "9.0"."""

    name = "version"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """Return the text; one that is no version is an error."""
        from sev_attest.domain_xml.versions import read_version

        try:
            read_version(str(value))
        except Unsupported as error:
            self.fail(str(error), param, ctx)
        return str(value)


class Api(ParamType[tuple[int, int]]):
    """An API version, "1.55"."""

    name = "api"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Read MAJOR.MINOR."""
        major, dot, minor = str(value).partition(".")
        if not (major and dot and minor):
            self.fail(f"{str(value)!r} is no API version: MAJOR.MINOR, such as 1.55", param, ctx)
        return BYTE.convert(major, param, ctx), BYTE.convert(minor, param, ctx)


API = Api()
BYTE = Number(0xFF)
FILE = FileName()
FOLDER = Folder()
OUTPUT = FileName(stdin=False)
RELEASE = Release()
URI = Uri()
POLICY = Policy()


def read_small(path: str, what: str, most: int = _MAX_SMALL) -> bytes:
    """Read a file (``-``: standard input) of at most ``most`` bytes.

    Raises OSError, MalformedInput if it is larger.
    """
    with reading(path), nullcontext(stdin()) if path == STDIN else _opened(path) as file:
        data = file.read(most + 1)
        if len(data) > most:
            raise MalformedInput(what, "length", f"more than {most} bytes")
    return data


def _opened(path: str) -> BinaryIO:
    return open(path, "rb")  # noqa: PTH123 - pathlib is slow to import


def value_hint(value: str) -> str:
    """Return what to do if the text of an option is the name of a file; "" if it is not."""
    if not os.path.isfile(value):  # noqa: PTH113 - pathlib is slow to import
        return ""
    from shlex import quote

    return f'this takes the value itself: "$(cat {quote(value)})"'


def stdin() -> BinaryIO:
    """Return standard input; raises OSError if it is closed."""
    if sys.stdin is None:  # its descriptor is closed
        raise OSError(errno.EBADF, "it is closed", "standard input")
    return sys.stdin.buffer


def stdin_errors(*names: str | None) -> Iterator[Unsupported]:
    """Yield an error if more than one of the files would be standard input."""
    if names.count(STDIN) > 1:
        yield usage("only one input can be standard input (-)")


@contextmanager
def large_file(path: str, *, progress: bool = True) -> Iterator[BinaryIO]:
    """Open a file to be streamed (``-``: standard input); a large one may show its progress."""
    with large_files(path, progress=progress) as files:
        yield files[0]


@contextmanager
def large_files(*paths: str, progress: bool = True) -> Iterator[list[BinaryIO]]:
    """Open several files, for several threads; one bar shows the progress of all."""
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
    """A file that is read to its end; its errors carry its name."""

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
        """Return how many bytes there are to read; 0 for standard input, of unknown size."""
        return 0 if self._path == STDIN else os.fstat(self.fileno()).st_size

    def counted(
        self, update: Callable[[int], object], lock: AbstractContextManager[object]
    ) -> None:
        """Move a bar with every read; ``lock`` is the bar's."""
        self._update, self._lock = update, lock

    def read(self, size: int) -> bytes:
        """Read up to ``size`` bytes."""
        with reading(self._path):
            chunk = self._file.read(size)
        if self._update is not None:
            with self._lock:
                self._update(len(chunk))
        return chunk
