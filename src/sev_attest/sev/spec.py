"""The codes of the SEV API: numbers and GUIDs, no logic.

Source: AMD publication 55766 (SEV API), as carried in its sevapi.h; the GUIDs of secrets are those
of OVMF (OvmfPkg/AmdSev) and of the Linux kernel's efi_secret driver.
"""

from enum import IntEnum, IntFlag

CEK_ADDRESS = "https://kdsintf.amd.com/cek/id/"
"""Address of signed CEKs at AMD; a platform's id follows, 128 hex digits."""


class Usage(IntEnum):
    """Usage of a key (certificate fields ``pub_key_usage`` and ``sig_usage``)."""

    ARK = 0x0
    ASK = 0x13
    INVALID = 0x1000
    OCA = 0x1001
    PEK = 0x1002
    PDH = 0x1003
    CEK = 0x1004


CERTIFICATE_SIZE = 2084
"""Bytes of an SEV certificate: PDH, PEK, OCA, CEK or GODH."""
SESSION_BLOB_SIZE = 128
"""Bytes of the session data buffer of LAUNCH_START."""
MEASUREMENT_SIZE = 48
"""Bytes of what LAUNCH_MEASURE returns: the HMAC, 32, and the nonce under it, 16."""


class PolicyBit(IntFlag):
    """Bits 0-5 of the guest policy; 6-15 are reserved, 16-31 hold the minimum API version."""

    NODBG = 1 << 0
    NOKS = 1 << 1
    ES = 1 << 2
    NOSEND = 1 << 3
    DOMAIN = 1 << 4
    SEV = 1 << 5


RESERVED_POLICY = 0xFFC0
"""Bits 6-15."""


class Context(IntEnum):
    """First byte under an HMAC, so that one MAC never passes for another."""

    LAUNCH_SECRET = 0x01
    LAUNCH_MEASURE = 0x04


SECRET_TABLE = "1e74f542-71dd-4d66-963e-ef4287ff173b"  # noqa: S105 - a GUID
SECRET_LUKS = "736869e5-84f0-4973-92ec-06879ce3da0b"  # noqa: S105 - a GUID
