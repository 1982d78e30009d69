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


class Context(IntEnum):
    """First byte under an HMAC, so that one MAC never passes for another."""

    LAUNCH_SECRET = 0x01
    LAUNCH_MEASURE = 0x04


SECRET_TABLE = "1e74f542-71dd-4d66-963e-ef4287ff173b"  # noqa: S105 - a GUID
SECRET_LUKS = "736869e5-84f0-4973-92ec-06879ce3da0b"  # noqa: S105 - a GUID


class PlatformState(IntEnum):
    """States of the platform (PLATFORM_STATUS)."""

    UNINIT = 0
    INIT = 1
    WORKING = 2


class GuestState(IntEnum):
    """States of a guest (GUEST_STATUS)."""

    UNINIT = 0
    LUPDATE = 1
    LSECRET = 2
    RUNNING = 3
    SUPDATE = 4
    RUPDATE = 5
    SENT = 6


class Status(IntEnum):
    """Result of a firmware command (Linux: include/uapi/linux/psp-sev.h)."""

    SUCCESS = 0
    INVALID_PLATFORM_STATE = 1
    INVALID_GUEST_STATE = 2
    INVALID_CONFIG = 3
    INVALID_LEN = 4
    ALREADY_OWNED = 5
    INVALID_CERTIFICATE = 6
    POLICY_FAILURE = 7
    INACTIVE = 8
    INVALID_ADDRESS = 9
    BAD_SIGNATURE = 10
    BAD_MEASUREMENT = 11
    ASID_OWNED = 12
    INVALID_ASID = 13
    WBINVD_REQUIRED = 14
    DFFLUSH_REQUIRED = 15
    INVALID_GUEST = 16
    INVALID_COMMAND = 17
    ACTIVE = 18
    HW_PLATFORM = 19
    HW_UNSAFE = 20
    UNSUPPORTED = 21
    INVALID_PARAM = 22
    RESOURCE_LIMIT = 23
    SECURE_DATA_INVALID = 24
