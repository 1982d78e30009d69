"""GUIDs of OVMF and QEMU, and limits: numbers and names, no logic.

Source: OVMF (OvmfPkg/ResetVector, OvmfPkg/AmdSev); QEMU's target/i386/sev.c.
"""

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

HASH_TABLE_SIZE = 176
"""Bytes of the table of kernel hashes, padding included."""
MAX_VCPUS = 4096
"""Most vCPUs of QEMU's q35 machine."""
VMSA_PROFILES = (
    "qemu-legacy", "qemu-init2", "krun", "ec2", "gce",
    "qemu-legacy+debug-swap", "qemu-init2+debug-swap",
)  # fmt: skip
"""How a VMM sets up vCPUs (:class:`VmsaProfile`)."""
SNP_LAYOUTS = {
    "qemu": "qemu-init2", "qemu-old": "qemu-legacy", "ec2": "ec2", "ec2-old": "ec2-old",
    "gce": "gce", "krun": "krun", "svsm": "svsm", "svsm-init2": "svsm-init2",
}  # fmt: skip
"""The same for SEV-SNP (``SnpProfile``), and which vCPU state each name stands for."""
