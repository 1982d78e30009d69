"""The files near those that were named, where a search for a cause looks for what would fit."""

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from sev_attest.cli.inputs import STDIN

MOST_FILES = 64
_MOST_NAMES = 1000
MOST_SMALL = 64 << 10
_MOST_IMAGE = 16 << 20
_IMAGE_UNIT = 4096  # QEMU takes no other sizes
_IMAGES = (".fd", ".bin", ".rom")


@dataclass(frozen=True, slots=True)
class AtHand:
    """Looks through the folders of files that were named, until ``end``.

    ``firmware`` is the image that was measured, ``firmware_dir`` a folder to look for others in.
    ``left_out`` names the hypotheses that are not fully tried: the time was up, or there were too
    many files, or too large ones.
    """

    firmware: str | None
    firmware_dir: str | None
    end: float
    left_out: set[str] = field(default_factory=set)

    def image(self) -> bytes | None:
        """Return the firmware that was measured; None if it is gone, a pipe or too large."""
        path = self.firmware
        if path is None or path == STDIN or time.monotonic() >= self.end:
            return None
        with suppress(OSError):
            return read(Path(path), _MOST_IMAGE)
        return None

    def images(self) -> Iterator[tuple[str, bytes]]:
        """Yield other firmware images with their names, one at a time."""
        hypotheses = ("firmware.other", "firmware.joined")
        count = 0
        for path in self.files(self.firmware, folder=self.firmware_dir, hypotheses=hypotheses):
            if path.suffix not in _IMAGES:
                continue
            try:
                data = read(path, _MOST_IMAGE)
            except OSError as error:
                if error.errno == errno.EFBIG:
                    self.left_out.update(hypotheses)
                continue
            if not data or len(data) % _IMAGE_UNIT:
                continue
            if count == MOST_FILES:
                self.left_out.update(hypotheses)
                return
            count += 1
            yield str(path), data

    def files(
        self, *named: str | None, folder: str | None, hypotheses: tuple[str, ...]
    ) -> Iterator[Path]:
        """Yield what lies beside the files that options name, and in the folder that one names."""
        folders = [Path(file).parent for file in named if file is not None and file != STDIN]
        folders += [Path(folder)] if folder else []
        for found in dict.fromkeys(folders):
            try:
                with os.scandir(found) as entries:
                    names = sorted(entry.name for entry in islice(entries, _MOST_NAMES + 1))
            except OSError:
                continue  # a folder that cannot be read has nothing to try
            if len(names) > _MOST_NAMES:
                self.left_out.update(hypotheses)
            for name in names[:_MOST_NAMES]:
                if time.monotonic() >= self.end:
                    self.left_out.update(hypotheses)
                    return
                yield found / name


def read(path: Path, most: int) -> bytes:
    """Read a file; raises OSError for a large one, a pipe or a device."""
    with open(path, "rb", opener=_open) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(path))
        if found.st_size > most:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        return file.read(most)


def _open(path: str, flags: int) -> int:
    # Opening a pipe must not wait for its writer. Windows has neither the flag nor such pipes.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
