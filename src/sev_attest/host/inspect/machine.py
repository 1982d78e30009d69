"""A host or guest that is looked at: its files, and facts that several checks need."""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from sev_attest._encoding import labelled_lines
from sev_attest.domain_xml.versions import Version, read_version
from sev_attest.errors import Unsupported
from sev_attest.host.inspect.packages import Packages
from sev_attest.host.inspect.tree import Once, Tree, Unreadable

if TYPE_CHECKING:
    from sev_attest.host.device import PlatformStatus

_MAX_CPUINFO = 8 << 20
"""Bytes of /proc/cpuinfo: some 1.5 KB for each logical CPU."""
_MAX_PARAGRAPH = 1 << 16
"""Characters of the first CPU in it."""
_MAX_LOG = 32 << 20
_MAX_LINES = 1 << 17
"""Lines of the log since the boot; what matters comes early."""
MAX_LINE = 1000
"""Characters of a log line that are kept."""
LOGS = ("/var/log/dmesg", "/var/log/kern.log", "/var/log/messages")
_BOOT = "Linux version "
"""The first line of the kernel's log."""
_CONTAINER_FILES = {
    "/run/.containerenv": "podman",
    "/.dockerenv": "docker",
    "/run/systemd/container": "",
}
"""Files that say that this is a container, and whose; "" if the file's text names it."""
_MODULE = "/sys/module/kvm_amd/parameters"


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What only the running machine can be asked; None for what a copied tree cannot tell.

    Each may raise Unreadable. ``cpuid`` returns the 16 bytes of a CPUID leaf, ``msr`` a model
    specific register, ``log`` the kernel's log, ``platform_status`` what the SEV firmware reports.
    """

    cpuid: Callable[[int], bytes] | None = None
    msr: Callable[[int], int] | None = None
    log: Callable[[], str] | None = None
    platform_status: "Callable[[], PlatformStatus] | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """The first CPU of /proc/cpuinfo. ``family`` and ``model`` are None if they are not there."""

    vendor: str
    name: str
    family: int | None
    model: int | None
    flags: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine: the tree of its files, and what the running one adds."""

    tree: Tree
    live: Live = field(default_factory=Live)
    facts: Once = field(default_factory=Once, init=False, repr=False, compare=False)
    """What several checks need, by any name."""

    @cached_property
    def cpu(self) -> Cpu | None:
        """Its first CPU, None if /proc/cpuinfo is missing. Raises Unreadable."""
        text = self.tree.text("/proc/cpuinfo", _MAX_CPUINFO)
        if not text:
            return None
        rows: dict[str, str] = {}
        for label, value in labelled_lines(text[:_MAX_PARAGRAPH].lstrip().partition("\n\n")[0]):
            rows.setdefault(label.lower(), value)
        return Cpu(
            vendor=rows.get("vendor_id", ""),
            name=rows.get("model name", ""),
            family=_number(rows.get("cpu family", "")),
            model=_number(rows.get("model", "")),
            flags=frozenset(rows.get("flags", rows.get("features", "")).split()),
        )

    @property
    def flags(self) -> frozenset[str]:
        """The CPU's flags; none if they cannot be read."""
        with suppress(Unreadable):
            return self.cpu.flags if self.cpu else frozenset()
        return frozenset()

    @cached_property
    def kernel(self) -> Version | None:
        """The version of the running kernel, None if it is not known. Raises Unreadable."""
        release = self.tree.text("/proc/sys/kernel/osrelease")
        if not release:
            whole = self.tree.text("/proc/version") or ""
            release = whole.partition(_BOOT)[2].partition(" ")[0]
        return version_of(release)

    @cached_property
    def command_line(self) -> tuple[str, ...] | None:
        """The words of the kernel's command line, None if it is not known. Raises Unreadable."""
        text = self.tree.text("/proc/cmdline")
        return None if text is None else tuple(text.replace('"', "").split())

    @cached_property
    def packages(self) -> Packages:
        """The package database."""
        return Packages(self.tree)

    def parameter(self, name: str) -> bool | None:
        """Return whether a parameter of kvm_amd is on, None if there is none. Raises Unreadable.

        Its text is Y or N since Linux 5.13, and was 1 or 0 before.
        """
        text = self.tree.text(f"{_MODULE}/{name}")
        return None if text is None else text.strip() in ("1", "Y", "y")

    @property
    def log(self) -> tuple[str, ...] | None:
        """The lines of the kernel's log since it booted, None if no log has them.

        A line is cut after :data:`MAX_LINE` characters. Raises Unreadable if there are logs, and
        none can be read.
        """
        return self.facts.get("log", self._log)

    def _log(self) -> tuple[str, ...] | None:
        failed: Unreadable | None = None
        readers: list[Callable[[], bytes | None]] = [
            lambda path=path: self.tree.read(path, _MAX_LOG)  # type: ignore[misc]
            for path in LOGS
        ]
        running = self.live.log
        if running is not None:
            readers.insert(0, lambda: running().encode("utf-8", "replace"))
        for reader in readers:
            try:
                data = reader() or b""
            except Unreadable as error:
                failed = failed or error
                continue
            start = data.rfind(_BOOT.encode())
            if start >= 0:
                return tuple(map(_log_line, data[start:].split(b"\n", _MAX_LINES)[:_MAX_LINES]))
        if failed is not None:
            raise failed
        return None

    @cached_property
    def container(self) -> str:
        """The kind of container that this is, "" if it is none, as far as can be seen."""
        with suppress(Unreadable):
            for path, kind in _CONTAINER_FILES.items():
                text = self.tree.text(path)
                if text is not None:
                    return kind or text.strip() or "unknown"
            for word in (self.tree.text("/proc/1/environ") or "").split("\0"):
                name, _, value = word.partition("=")
                if name == "container" and value:
                    return value
        return ""


def _log_line(line: bytes) -> str:
    return line[:MAX_LINE].decode("ascii", "replace")


def _number(text: str) -> int | None:
    digits = re.fullmatch(r"[0-9]{1,6}", text.strip())
    return int(digits[0]) if digits else None


def version_of(text: str | None) -> Version | None:
    """Return the numbers of a version, None if there is none in the text."""
    with suppress(Unsupported):
        return read_version((text or "").strip())
    return None
