"""Digests over real OVMF builds equal those of sev-snp-measure (needs Debian's ovmf package)."""

import os
from pathlib import Path

import pytest
from sevsnpmeasure import guest as peer
from sevsnpmeasure.vmm_types import VMMType

from sev_attest import NotAttestable, sev
from sev_attest.guest import CpuModel, Firmware, VmsaProfile

IMAGES = sorted(
    {*Path("/usr/share/OVMF").glob("*CODE*.fd"), *Path("/usr/share/ovmf").glob("OVMF*.fd")}
)
REAL = os.environ.get("SEV_ATTEST_REAL_DATA")
if REAL:
    IMAGES.append(Path(REAL) / "firmware" / "OVMF.amdsev.fd")


def test_the_images_are_there() -> None:
    assert len(IMAGES) >= 4, "apt-get install ovmf"


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.name)
def test_digests_equal_those_of_sev_snp_measure(image: Path, here: Path) -> None:
    firmware = Firmware.read(image)
    assert sev.launch_digest(firmware) == peer.sev_calc_launch_digest(str(image), None, None, None)
    cpu = CpuModel.named("EPYC-Milan")
    pages = VmsaProfile(name="qemu-init2", cpu=cpu).pages(firmware.reset_address())
    digests = sev.MeasuredGuest(firmware=firmware, vmsa=pages).digests(8)
    for count in (1, 2, 5, 8):
        theirs = peer.seves_calc_launch_digest(
            count, cpu.signature, str(image), None, None, None, vmm_type=VMMType.QEMU
        )
        assert digests[count - 1] == theirs
    area = firmware.hash_area()
    if area and all(area):
        Path("kernel").write_bytes(b"kernel" * 999)
        theirs = peer.sev_calc_launch_digest(str(image), "kernel", None, "console=ttyS0")
        ours = sev.launch_digest(firmware, kernel=Path("kernel"), cmdline="console=ttyS0")
        assert ours == theirs
    else:
        with pytest.raises(NotAttestable):
            sev.launch_digest(firmware, kernel=b"kernel")
