"""The codes of the SEV API: numbers and GUIDs, no logic.

Source: AMD publication 55766 (SEV API), as carried in its sevapi.h; the GUIDs are QEMU's
(target/i386/sev.c) and OVMF's (OvmfPkg/ResetVector, OvmfPkg/AmdSev).
"""

from enum import IntEnum, IntFlag

CEK_ADDRESS = "https://kdsintf.amd.com/cek/id/"
"""Where AMD serves the signed CEK of a platform id (128 hex digits behind it)."""


class Usage(IntEnum):
    """What a key is for (certificate fields ``pub_key_usage`` and ``sig_usage``)."""

    ARK = 0x0
    ASK = 0x13
    INVALID = 0x1000
    OCA = 0x1001
    PEK = 0x1002
    PDH = 0x1003
    CEK = 0x1004


class Algorithm(IntEnum):
    """Key and signature algorithms; bit 8 chooses SHA-384 over SHA-256."""

    INVALID = 0x0
    RSA_SHA256 = 0x1
    ECDSA_SHA256 = 0x2
    ECDH_SHA256 = 0x3
    RSA_SHA384 = 0x101
    ECDSA_SHA384 = 0x102
    ECDH_SHA384 = 0x103


class Curve(IntEnum):
    """Elliptic curves of an ECC public key."""

    INVALID = 0
    P256 = 1
    P384 = 2


class PolicyBit(IntFlag):
    """Bits 0-5 of the guest policy; 6-15 are reserved, 16-31 hold the minimum API version."""

    NODBG = 1 << 0
    NOKS = 1 << 1
    ES = 1 << 2
    NOSEND = 1 << 3
    DOMAIN = 1 << 4
    SEV = 1 << 5


class Context(IntEnum):
    """First byte of what an HMAC covers, so that one MAC never passes for another."""

    LAUNCH_SECRET = 0x01
    LAUNCH_MEASURE = 0x04


OVMF_FOOTER = "96b582de-1fb2-45f7-baea-a366c55a082d"
OVMF_SEV_INFO = "00f771de-1a7e-4fcb-890e-68c77e2fb44e"
OVMF_SEV_SECRET = "4c2eb361-7d9b-4cc3-8081-127c90d3d294"  # noqa: S105 - a GUID
OVMF_HASH_TABLE = "7255371f-3a3b-4b04-927b-1da6efa8d454"
OVMF_SEV_METADATA = "dc886566-984a-4798-a75e-5585a7bf67cc"
OVMF_TDX_METADATA = "e47a6535-984a-4798-865e-4685a7bf8ec2"
OVMF_IGVM_PARAMETERS = "784fa70e-3176-4677-8a20-04b68699e374"
OVMF_SVSM_INFO = "a789a612-0597-4c4b-a49f-cbb1fe9d1ddd"
EFI_NV_DATA_VOLUME = "fff12b8d-7696-4c8b-a985-2747075b4f50"

KERNEL_HASHES_TABLE = "9438d606-4f22-4cc9-b479-a793d411fd21"
KERNEL_HASHES_KERNEL = "4de79437-abd2-427f-b835-d5b172d2045b"
KERNEL_HASHES_INITRD = "44baf731-3a2f-4bd7-9af1-41e29169781d"
KERNEL_HASHES_CMDLINE = "97d02dd8-bd20-4c94-aa78-e7714d36ab2a"

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
    """What a firmware command returns (Linux: include/uapi/linux/psp-sev.h)."""

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


MAX_VCPUS = 4096
"""QEMU's q35 machine takes no more."""
VMSA_PROFILES = (
    "qemu-legacy", "qemu-init2", "krun", "ec2", "gce",
    "qemu-legacy+debug-swap", "qemu-init2+debug-swap",
)  # fmt: skip
"""How a VMM sets up vCPUs (:class:`VmsaProfile`)."""
