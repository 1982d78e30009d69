"""The table of hashes that QEMU measures for a direct kernel boot with ``kernel-hashes=on``.

Source: QEMU's target/i386/sev.c (sev_add_kernel_loader_hashes). A header (GUID, u16 length 168),
then three entries of 50 bytes (GUID, u16 length, SHA-256) for command line, initrd and kernel, in
that order, and zeros up to 176 bytes.
"""

import hashlib
from dataclasses import dataclass

from sev_attest._wire import guid_bytes, le
from sev_attest.errors import MalformedInput
from sev_attest.guest.firmware import Source, sha256_of, sha256_of_both
from sev_attest.guest.spec import (
    HASH_TABLE_SIZE,
    KERNEL_HASHES_CMDLINE,
    KERNEL_HASHES_INITRD,
    KERNEL_HASHES_KERNEL,
    KERNEL_HASHES_TABLE,
)

_ENTRY = 16 + 2 + 32
_FILLED = 16 + 2 + 3 * _ENTRY

NO_INITRD = hashlib.sha256(b"").digest()
NO_CMDLINE = hashlib.sha256(b"\0").digest()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class KernelHashes:
    """SHA-256 (32 bytes each) of kernel, initrd and command line (with its final NUL)."""

    kernel: bytes
    initrd: bytes = NO_INITRD
    cmdline: bytes = NO_CMDLINE

    def __repr__(self) -> str:
        """Show the hash of the kernel."""
        return f"KernelHashes(kernel={self.kernel.hex()})"

    def __post_init__(self) -> None:
        """Raise MalformedInput for a hash that is not 32 bytes long."""
        for name in ("kernel", "initrd", "cmdline"):
            size = len(getattr(self, name))
            if size != 32:  # noqa: PLR2004 - SHA-256
                raise MalformedInput("kernel hashes", name, f"{size} bytes, expected 32")

    @classmethod
    def of(
        cls, kernel: Source, initrd: Source | None = None, cmdline: str | bytes | None = None
    ) -> "KernelHashes":
        """Hash what is booted, in constant memory; raises OSError.

        ``cmdline`` is hashed exactly as given, with one NUL appended.
        """
        line = cmdline.encode() if isinstance(cmdline, str) else cmdline or b""
        if initrd is None:
            hashes = sha256_of(kernel), NO_INITRD
        else:
            hashes = sha256_of_both(kernel, initrd)
        digest = hashlib.sha256(line + b"\0").digest()
        return cls(kernel=hashes[0], initrd=hashes[1], cmdline=digest)

    def to_bytes(self) -> bytes:
        """Return the 176 bytes that are measured."""
        entries = (
            (KERNEL_HASHES_CMDLINE, self.cmdline),
            (KERNEL_HASHES_INITRD, self.initrd),
            (KERNEL_HASHES_KERNEL, self.kernel),
        )
        table = guid_bytes(KERNEL_HASHES_TABLE) + le(_FILLED, 2)
        for guid, digest in entries:
            table += guid_bytes(guid) + le(_ENTRY, 2) + digest
        return table.ljust(HASH_TABLE_SIZE, b"\0")
