"""Versions of what runs on a host and in a guest."""

import re
from typing import NamedTuple

from sev_attest.errors import Unsupported

_VERSION = re.compile(r"v?([0-9]{1,6}(?:\.[0-9]{1,6}){0,3})(?:[^0-9.].*)?")
Version = tuple[int, ...]


class Versions(NamedTuple):
    """The versions that the owner knows. A version that is None is assumed to be current."""

    libvirt: Version | None = None
    qemu: Version | None = None
    host_kernel: Version | None = None
    guest_kernel: Version | None = None


def read_version(text: str) -> Version:
    """Return the numbers of a version, 1 to 4 of them. Raises Unsupported if there are none.

    >>> read_version("6.1.0-13-amd64")
    (6, 1, 0)
    """
    found = _VERSION.fullmatch(text.strip())
    if not found:
        raise Unsupported(f"{text!r} is not a version (9.0, or 11.3.0)", check="version")
    return tuple(map(int, found[1].split(".")))


def before(version: Version | None, least: Version) -> bool:
    """Return whether a version is known and older than ``least``."""
    if version is None:
        return False
    length = max(len(version), len(least))
    padded = [(*v, *[0] * (length - len(v))) for v in (version, least)]
    return padded[0] < padded[1]


def dotted(version: Version) -> str:
    """Return a version as text, for example ``9.2``."""
    return ".".join(map(str, version))
