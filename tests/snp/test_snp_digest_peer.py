"""Others compute the same digests, or refuse the same inputs: sev-snp-measure, and our own judge.

Where sev-snp-measure differs is named. The judge is the second implementation of the vectors.
"""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sevsnpmeasure import guest as peer
from sevsnpmeasure.vmm_types import VMMType

import judge_parts
import judge_snp_digest
from sev_attest import SevAttestError
from sev_attest.guest import CpuModel, SnpProfile
from sev_attest.guest.cpu import QEMU_MODELS
from sev_attest.guest.spec import SNP_LAYOUTS
from sev_attest.snp.digest import launch_digest
from sev_attest.testing import ovmf_image
from sev_attest.testing.images import SNP_SECTIONS, svsm_image

MILAN = CpuModel.named("EPYC-Milan")
LAYOUTS = {"qemu": VMMType.QEMU, "ec2": VMMType.ec2, "gce": VMMType.gce}
CASES = 300


def sections(pick: random.Random) -> list[tuple[int, int, int]]:
    """Return sections in any order, one page each for secrets, CPUID and hashes."""
    kinds = [pick.choice((1, 4)) for _ in range(pick.randrange(4))] + [2, 3]
    kinds += [0x10] * (pick.random() < 0.7)
    pick.shuffle(kinds)
    found, address = [], pick.randrange(0x100) * 0x1000
    for kind in kinds:
        pages = 1 if kind in (2, 3, 0x10) else pick.randrange(1, 20)
        found.append((address, pages * 0x1000, kind))
        address += (pages + pick.randrange(3)) * 0x1000
    pick.shuffle(found)
    return found


def hash_table(found: list[tuple[int, int, int]], pick: random.Random) -> tuple[int, int] | None:
    """Return an area for the table in its section, or none where there is no section."""
    for address, _, kind in found:
        if kind == 0x10:
            return address + pick.randrange(0, 4096 - 176 + 1, 16), 0x400
    return (0x81_0C00, 0x400) if pick.random() < 0.5 else None


class Guest(NamedTuple):
    """A guest that was drawn: everything that is measured of it."""

    image: bytes
    layout: str
    vcpus: int
    features: int
    cpu: CpuModel
    kernel: bytes | None
    initrd: bytes | None
    line: str | None
    svsm: bytes | None
    vars_size: int

    @property
    def ours(self) -> bytes | str:
        """Our digest, or the check of our refusal."""
        profile = SnpProfile(name=self.layout, cpu=self.cpu, features=self.features)
        try:
            return launch_digest(
                self.image, kernel=self.kernel, initrd=self.initrd, cmdline=self.line,
                vcpus=self.vcpus, vmsa=profile, svsm=self.svsm, vars_size=self.vars_size,
            )  # fmt: skip
        except SevAttestError as error:
            return error.check

    @property
    def second(self) -> bytes | str:
        """The digest of the second implementation, or the check of its refusal."""
        table = None
        if self.kernel is not None:
            table = judge_parts.hash_table(
                self.kernel, self.initrd or b"", (self.line or "").encode()
            )
        try:
            guest = judge_snp_digest.loaded(
                self.image, self.layout, self.svsm or b"", self.vars_size
            )
            return judge_snp_digest.launch_digests(
                guest, self.vcpus, layout=self.layout, signature=self.cpu.signature,
                features=self.features, table=table,
            )[-1]  # fmt: skip
        except judge_parts.Refused as error:
            return error.check


def guest(seed: int, layouts: Iterable[str] = LAYOUTS) -> Guest:
    """Draw a guest."""
    pick = random.Random(seed)
    found = sections(pick)
    image = ovmf_image(
        4096 * pick.randrange(1, 8),
        seed=bytes([seed & 0xFF]),
        reset_address=pick.choice([0x80_B004, 0xFFC0_1234, 0x1234, None]),
        hash_table=hash_table(found, pick),
        sections=None if pick.random() < 0.05 else found,
    )
    image = bytes(4096 * pick.randrange(3)) + image
    layout, vcpus = pick.choice([*layouts]), pick.randrange(1, 6)
    features = pick.choice([0x1, 0x21, 0x201, 0x221])
    cpu = CpuModel.named(pick.choice([*QEMU_MODELS]))
    kernel, initrd = pick.choice([(None, None), (b"kernel", None), (b"", b"initrd")])
    line = pick.choice(["", "quiet", "root=/dev/vda  quiet"]) if kernel is not None else None
    svsm, vars_size = None, 0
    if layout.startswith("svsm"):
        entry = pick.randrange(0, 0x2000, 4)
        svsm = svsm_image(0x2000, seed=bytes([seed & 0xFF]), entry=entry, sections=found)
        vars_size = 4096 * pick.randrange(5)
    return Guest(
        image, layout, vcpus, features, cpu, kernel, initrd, line, svsm, vars_size
    )  # fmt: skip


def test_digests_are_the_peer_s(tmp_path: Path) -> None:
    drawn = [guest(seed) for seed in range(CASES)]
    both = [(one.ours, theirs(tmp_path, one)) for one in drawn]
    differ = [
        seed
        for seed, (ours, peers) in enumerate(both)
        if ours != peers
        and not (isinstance(ours, str) and peers is None)
        and ours != "firmware.snp-metadata"  # named below
    ]
    assert differ == []
    assert sum(isinstance(ours, bytes) for ours, _ in both) > 100


def test_digests_and_refusals_are_those_of_the_second_implementation() -> None:
    drawn = [guest(seed, SNP_LAYOUTS) for seed in range(CASES)]
    differ = [seed for seed, one in enumerate(drawn) if one.ours != one.second]
    assert differ == []
    measured = {one.layout for one in drawn if isinstance(one.ours, bytes)}
    assert measured == {*SNP_LAYOUTS}
    refused = {one.ours for one in drawn if isinstance(one.ours, str)}
    assert refused == {
        "firmware.hash-section", "firmware.sev-es-reset", "firmware.snp-metadata", "svsm.kernel",
    }  # fmt: skip


def theirs(folder: Path, one: Guest) -> bytes | None:
    """Return the peer's digest of a guest; None if it refuses."""
    return peer_digest(
        folder, one.image, one.kernel, one.initrd, one.line,
        vcpus=one.vcpus, cpu=one.cpu, features=one.features, layout=one.layout,
    )  # fmt: skip


def peer_digest(
    folder: Path,
    image: bytes,
    kernel: bytes | None = None,
    initrd: bytes | None = None,
    line: str | None = None,
    *,
    vcpus: int = 1,
    cpu: CpuModel = MILAN,
    features: int = 1,
    layout: str = "qemu",
) -> bytes | None:
    """Return the peer's digest, None if it refuses: it has no errors of its own."""
    paths = []
    for name, data in (("fw", image), ("kernel", kernel), ("initrd", initrd)):
        (folder / name).write_bytes(data or b"")
        paths.append("" if data is None else str(folder / name))
    try:
        digest: bytes = peer.snp_calc_launch_digest(
            vcpus, cpu.signature, *paths, line or "", features, "", LAYOUTS[layout]
        )
    except Exception:  # noqa: BLE001 - whatever it fails with
        return None
    return digest


# Where the two differ, on purpose.


@pytest.mark.parametrize(
    ("given", "check"),
    [
        ({}, "firmware.snp-metadata"),
        ({"sections": SNP_SECTIONS, "reset_address": 0}, "firmware.sev-es-reset"),
        ({"sections": [(0x1000, 0x2000, 1), (0x2000, 0x1000, 2)]}, "firmware-sev-metadata.section"),
        ({"sections": [(0x1001, 0x1000, 2)]}, "firmware-sev-metadata.section"),
        ({"sections": [(0x1000, 1, 2)]}, "firmware-sev-metadata.section"),
        ({"sections": [(0xFFFF_F000, 0x1000, 1)]}, "firmware-sev-metadata.section"),
        ({"sections": [(0, 0x1000_1000, 1)]}, "firmware-sev-metadata.section size"),
    ],
)
def test_the_peer_gives_digests_that_nothing_can_launch_with(
    given: dict[str, Any], check: str, tmp_path: Path
) -> None:
    image = ovmf_image(**given)
    assert peer_digest(tmp_path, image)
    with pytest.raises(SevAttestError) as caught:
        launch_digest(image, vcpus=1, vmsa=MILAN)
    assert caught.value.check == check


def test_the_peer_measures_hashes_where_the_firmware_does_not_look(tmp_path: Path) -> None:
    image = ovmf_image(sections=SNP_SECTIONS, hash_table=(0x90_0C00, 0x400))
    assert peer_digest(tmp_path, image, b"kernel")
    with pytest.raises(SevAttestError, match="outside the section"):
        launch_digest(image, kernel=b"kernel", vcpus=1, vmsa=MILAN)


def test_the_peer_measures_one_page_of_secrets_and_cpuid_however_large(tmp_path: Path) -> None:
    """QEMU launches every page of a section."""
    for kind in (2, 3):
        image = ovmf_image(sections=[(0x1000, 0x2000, kind)])
        theirs = peer_digest(tmp_path, image)
        assert theirs not in (None, launch_digest(image, vcpus=1, vmsa=MILAN))


def test_the_peer_refuses_sections_that_qemu_knows_since_9_1(tmp_path: Path) -> None:
    image = ovmf_image(sections=[(0x1000, 0x1000, 0x77)])
    assert peer_digest(tmp_path, image) is None
    assert launch_digest(image, vcpus=1, vmsa=MILAN)


def test_the_peer_s_svsm_page_has_half_of_the_fpu_s_state(tmp_path: Path) -> None:
    """Hardware's pages of 2024 had none of it, and KVM now writes all of it."""
    (tmp_path / "fw").write_bytes(ovmf_image(8192))
    (tmp_path / "svsm").write_bytes(svsm_image())
    paths = str(tmp_path / "fw"), 0x2000, str(tmp_path / "svsm")
    theirs = peer.svsm_calc_launch_digest(2, MILAN.signature, *paths, dump_vmsa=False)
    for name in ("svsm", "svsm-init2"):
        profile = SnpProfile(name=name, cpu=MILAN)
        given: dict[str, Any] = {
            "svsm": svsm_image(),
            "vars_size": 0x2000,
            "vcpus": 2,
            "vmsa": profile,
        }
        assert launch_digest(ovmf_image(8192), **given) != theirs
