"""The launch digest as a chain of pages: each page's PAGE_INFO is hashed onto the digest so far.

Source: AMD 56860 (SEV-SNP ABI), "Layout of the PAGE_INFO structure", as sev-snp-measure cites it.
PAGE_INFO is 112 bytes: digest so far (48), SHA-384 of the page (48; zeros for pages whose contents
are not measured), length (u16), page type (u8), IMI (u8), three bytes of VMPL permissions and one
reserved byte (all zero), guest physical address (u64).
"""

from collections.abc import Iterable, Iterator
from enum import IntEnum
from hashlib import sha384

PAGE_SIZE = 4096
START = bytes(48)
"""The launch digest before the first page."""
NO_CONTENTS = bytes(48)
"""What stands for the contents of a page that are not measured."""
VMSA_ADDRESS = 0xFFFF_FFFF_F000
"""Guest physical address of every vCPU's page: that of -1, cut to 48 bits and to a page."""
FOUR_GIB = 1 << 32
_INFO_SIZE = 0x70


class PageType(IntEnum):
    """PAGE_TYPE of SNP_LAUNCH_UPDATE; only NORMAL and VMSA pages have measured contents."""

    NORMAL = 1
    VMSA = 2
    ZERO = 3
    UNMEASURED = 4
    SECRETS = 5
    CPUID = 6


def extend(digest: bytes, kind: PageType, address: int, contents: Iterable[bytes]) -> bytes:
    """Return the launch digest after consecutive pages of one kind, the first at ``address``.

    ``contents`` has 48 bytes for each page: its SHA-384, or :data:`NO_CONTENTS`.
    """
    info = _INFO_SIZE.to_bytes(2, "little") + bytes([kind, 0, 0, 0, 0, 0])
    for content in contents:
        digest = sha384(digest + content + info + address.to_bytes(8, "little")).digest()
        address += PAGE_SIZE
    return digest


class PageHasher:
    """Hashes the pages of a file that arrives in chunks of any size; each distinct page once.

    ``contents`` grows by the SHA-384 of each page.
    """

    __slots__ = ("_content", "_known", "_page", "contents", "rest")

    def __init__(self) -> None:
        """Begin with nothing."""
        self.contents: list[bytes] = []
        self.rest: bytes = b""
        """What has come of a page that is not complete yet."""
        self._known: dict[bytes, bytes] = {}
        self._page = self._content = b""

    def take(self, chunk: bytes) -> None:
        """Take the next bytes of the file."""
        data = self.rest + chunk if self.rest else chunk
        end = len(data) - len(data) % PAGE_SIZE
        page, content, add = self._page, self._content, self.contents.append
        for offset in range(0, end, PAGE_SIZE):
            # Most pages of firmware repeat the page before: comparing is faster than a look-up.
            if not page or not data.startswith(page, offset):
                page = data[offset : offset + PAGE_SIZE]
                found = self._known.get(page)
                if found is None:
                    found = self._known[page] = sha384(page).digest()
                content = found
            add(content)
        self._page, self._content, self.rest = page, content, data[end:]


def contents_of(data: bytes) -> list[bytes]:
    """Return the SHA-384 of each whole page of ``data``."""
    hasher = PageHasher()
    hasher.take(data)
    return hasher.contents


def vcpu_digests(digest: bytes, pages: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the launch digest after the first vCPU's page, after the second's, and so on."""
    known: dict[bytes, bytes] = {}
    for page in pages:
        content = known.get(page)
        if content is None:
            content = known[page] = sha384(page).digest()
        digest = extend(digest, PageType.VMSA, VMSA_ADDRESS, (content,))
        yield digest
