"""The states of a platform and of a guest, and the results of firmware commands.

Source: as :mod:`sev_attest.sev.spec`. Apart from it: no verification needs them.
"""

from enum import IntEnum


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
