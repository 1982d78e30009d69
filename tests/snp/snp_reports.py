"""Reports of SEV-SNP guests, and their packagings, laid out by hand: nothing of `snp/` is used."""

import base64
import hashlib
import struct
import uuid
from collections.abc import Callable

SIZE = 1184
FIELDS = {
    "version": (0x000, 4), "guest_svn": (0x004, 4), "policy": (0x008, 8), "family_id": (0x010, 16),
    "image_id": (0x020, 16), "vmpl": (0x030, 4), "signature_algo": (0x034, 4),
    "current_tcb": (0x038, 8), "platform_info": (0x040, 8), "key_info": (0x048, 4),
    "report_data": (0x050, 64), "measurement": (0x090, 48), "host_data": (0x0C0, 32),
    "id_key_digest": (0x0E0, 48), "author_key_digest": (0x110, 48), "report_id": (0x140, 32),
    "report_id_ma": (0x160, 32), "reported_tcb": (0x180, 8), "cpuid_family": (0x188, 1),
    "cpuid_model": (0x189, 1), "cpuid_stepping": (0x18A, 1), "chip_id": (0x1A0, 64),
    "committed_tcb": (0x1E0, 8), "current_build": (0x1E8, 1), "current_minor": (0x1E9, 1),
    "current_major": (0x1EA, 1), "committed_build": (0x1EC, 1), "committed_minor": (0x1ED, 1),
    "committed_major": (0x1EE, 1), "launch_tcb": (0x1F0, 8), "launch_mit_vector": (0x1F8, 8),
    "current_mit_vector": (0x200, 8), "signature_r": (0x2A0, 48), "signature_s": (0x2E8, 48),
}  # fmt: skip
"""Offset and size of each field, as AMD 56860 has them."""
RESERVED = {
    2: ((0x04C, 4), (0x188, 24), (0x1EB, 1), (0x1EF, 1), (0x1F8, 168)),
    3: ((0x04C, 4), (0x18B, 21), (0x1EB, 1), (0x1EF, 1), (0x1F8, 168)),
    5: ((0x04C, 4), (0x18B, 21), (0x1EB, 1), (0x1EF, 1), (0x208, 152)),
}
"""The reserved ranges of the signed part, by version."""
GENOA = {"cpuid_family": 0x19, "cpuid_model": 0x11, "cpuid_stepping": 1}
VCEK = "63da758d-e664-4564-adc5-f4b93be8accd"
VLEK = "a8074bc2-a25a-483e-aae6-39c045a0b8a1"
EXTRA = "ecae0c0f-9502-43b1-afa2-0ae2e0d565b6"


def report(version: int = 3, /, **fields: int | bytes) -> bytes:
    """Lay out a report: every field not given has bytes that tell it from the others."""
    known = {"version": version, "policy": 0x30000, "signature_algo": 1, "key_info": 0}
    if version != 2:
        known |= GENOA
    laid = bytearray(SIZE)
    for number, (name, (offset, size)) in enumerate(FIELDS.items(), 1):
        if (name.startswith("cpuid") and version == 2) or ("mit_vector" in name and version != 5):
            continue
        value = (known | fields).get(name, bytes([number]) * size)
        laid[offset : offset + size] = value if isinstance(value, bytes) else le(value, size)
    return bytes(laid)


def le(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")


def header(data: bytes, *, status: int = 0, size: int | None = None) -> bytes:
    """Put the header of the kernel's response before it."""
    return struct.pack("<II24x", status, len(data) if size is None else size) + data


def table(*entries: tuple[str, bytes]) -> bytes:
    """Make a certificate table; contents follow the entries in their order."""
    places, contents = b"", b""
    at = (len(entries) + 1) * 24
    for guid, content in entries:
        places += uuid.UUID(guid).bytes + struct.pack("<II", at + len(contents), len(content))
        contents += content
    return places + bytes(24) + contents


JSON = b'{"keys":[{"kid":"HCLAkPub"}],"vm-configuration":{},"user-data":"00"}'


def hcl(data: bytes, content: bytes = JSON, /, **changes: int) -> bytes:
    """Make Azure's blob around a report; ``changes`` are fields that lie."""
    has = {
        "version": 2, "size": 0x4D4 + len(content), "data": 20 + len(content), "type": 2,
        "hash": 1, "length": len(content),
    } | changes  # fmt: skip
    begin = b"HCLA" + struct.pack("<III16x", has["version"], has["size"], 2)
    runtime = struct.pack("<IIIII", has["data"], 1, has["type"], has["hash"], has["length"])
    return (begin + data + runtime + content).ljust(2600, b"\0")


def bound(content: bytes = JSON, name: str = "sha256") -> bytes:
    """Return the report_data that binds runtime data."""
    return hashlib.new(name, content).digest().ljust(64, b"\0")


def url_safe(data: bytes) -> str:
    """Return base64 as URLs have it, without padding."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


PACKAGINGS: dict[str, Callable[[bytes], bytes]] = {
    "binary": lambda data: data,
    "hex": lambda data: data.hex().encode(),
    "HEX in lines": lambda data: b"\r\n".join(
        data[at : at + 16].hex().upper().encode() for at in range(0, len(data), 16)
    ),
    "base64": base64.b64encode,
    "wrapped base64": base64.encodebytes,
    "base64 with a BOM": lambda data: b"\xef\xbb\xbf" + base64.b64encode(data) + b"\r\n",
    "header": header,
    "header, 4000 bytes": lambda data: header(data).ljust(4000, b"\0"),
    "header, hex": lambda data: header(data).hex().encode(),
    "HCL": hcl,
    "HCL, base64": lambda data: base64.b64encode(hcl(data)),
    "certificate table": lambda data: data + table((VCEK, b"\x30\x82vcek"), (EXTRA, b"12345678")),
    "empty certificate table": lambda data: data + bytes(24),
    "JSON, base64 of URLs": lambda data: b'{"hcl_report": "%b"}' % url_safe(hcl(data)).encode(),
    "JSON, a list": lambda data: b'{"report": %b}' % str(list(hcl(data))).encode(),
    "JSON, hex": lambda data: b'[{"attestation_report": "%b"}]' % data.hex().encode(),
}
"""A report in every packaging of one file."""
