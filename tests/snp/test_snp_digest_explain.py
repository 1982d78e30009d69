"""snp/diagnosis.py: what explains a launch digest that differs; it names exactly that."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from sev_attest._wire import guid_bytes, le
from sev_attest.guest import CpuModel, KernelHashes, SnpProfile, VmsaPages
from sev_attest.guest.diagnosis.search import Diagnosis
from sev_attest.guest.spec import EFI_NV_DATA_VOLUME, SNP_LAYOUTS
from sev_attest.snp.diagnosis import RANK, RULED_OUT, SnpClues, explain_digest
from sev_attest.snp.digest import SnpGuest, launch_digest, snp_pages_for
from sev_attest.snp.firmware import SnpFirmware, Svsm
from sev_attest.testing import ovmf_image
from sev_attest.testing.images import SNP_SECTIONS, svsm_image

OVMF = ovmf_image(1 << 14, sections=SNP_SECTIONS)
OTHER = ovmf_image(1 << 14, seed=b"other", sections=SNP_SECTIONS)
STORE = (bytes(16) + guid_bytes(EFI_NV_DATA_VOLUME) + le(1 << 12, 8)).ljust(1 << 12, b"\xff")
LINE = b"root=/dev/vda quiet splash"
MILAN = CpuModel.named("EPYC-Milan")
PAGES = SnpProfile(cpu=MILAN).pages(0x80_B004)


@dataclass
class Case:
    """A guest as it was launched, and as it was stated; a spoiler changes one of the two."""

    measured: dict[str, Any]
    stated: dict[str, Any]
    clues: dict[str, Any] = field(default_factory=dict)

    def expected(self) -> bytes:
        """Return the digest of what was launched; ``line`` is what was hashed, NUL and all."""
        given = self.measured.copy()
        kernel, line = given.pop("kernel"), given.pop("line")
        initrd = given.pop("initrd")
        if kernel is not None:
            hashes = KernelHashes.of(kernel, initrd)
            kernel = replace(hashes, cmdline=KernelHashes.of(line).kernel)
        return launch_digest(given.pop("firmware"), kernel=kernel, **given)

    def explain(self, budget: float = 600) -> Diagnosis:
        """Ask why the digest is not that of what is stated."""
        stated = self.stated
        firmware = stated["firmware"]
        if isinstance(firmware, bytes):
            firmware = SnpFirmware.read(firmware)
        profile = stated["vmsa"] if isinstance(stated["vmsa"], SnpProfile) else None
        pages = snp_pages_for(profile, firmware) if profile else stated["vmsa"]
        kernel = None
        if stated["kernel"] is not None:
            kernel = KernelHashes.of(stated["kernel"], stated["initrd"], stated["line"])
        layout = profile.name if profile else "qemu"
        guest = SnpGuest(firmware=firmware, vmsa=pages, kernel=kernel, layout=layout)
        image = stated["firmware"] if isinstance(stated["firmware"], bytes) else None
        return explain_digest(
            self.expected(),
            guest=guest,
            vcpus=stated["vcpus"],
            profile=profile,
            clues=SnpClues(cmdline=stated["line"], image=image, **self.clues),
            budget=budget,
        )


@pytest.fixture
def case() -> Case:
    same = {
        "firmware": OVMF, "kernel": b"kernel", "initrd": b"initrd", "vcpus": 4,
        "vmsa": SnpProfile(cpu=MILAN),
    }  # fmt: skip
    return Case({**same, "line": LINE + b"\0"}, {**same, "line": LINE})


Spoiler = Callable[[Case], None]


def launched(**parts: object) -> Spoiler:
    return lambda case: case.measured.update(parts)


def stated(**parts: object) -> Spoiler:
    return lambda case: case.stated.update(parts)


def at_hand(*images: tuple[str, bytes]) -> Spoiler:
    return lambda case: case.clues.update(images=images)


def both(*spoilers: Spoiler) -> Spoiler:
    def spoil(case: Case) -> None:
        for spoiler in spoilers:
            spoiler(case)

    return spoil


def profile(**parts: Any) -> SnpProfile:
    return SnpProfile(**{"cpu": MILAN} | parts)


def reordered() -> SnpFirmware:
    """Return the firmware with its section for hashes before all others."""
    firmware = SnpFirmware.read(OVMF)
    return replace(firmware, sections=(firmware.sections[-1], *firmware.sections[:-1]))


BOOT_FOR_ALL = VmsaPages(boot=PAGES.boot, ap=PAGES.boot)
SWAPPED = VmsaPages(boot=PAGES.ap or b"", ap=PAGES.boot)
SINGLES: dict[str, tuple[str, Spoiler]] = {
    "no kernel hashes": ("kernel.hashes-off", launched(kernel=None)),
    "no initrd": ("kernel.no-initrd", launched(initrd=None)),
    "swapped": ("kernel.swapped", launched(kernel=b"initrd", initrd=b"kernel")),
    "newline": ("cmdline", launched(line=LINE + b"\n\0")),
    "empty line": ("cmdline", launched(line=b"\0")),
    "blanks": ("cmdline", launched(line=b"root=/dev/vda  quiet splash\0")),
    "vcpus": ("vcpus", launched(vcpus=5)),
    "many vcpus": ("vcpus", launched(vcpus=512)),
    "fpu": ("vmsa.profile", launched(vmsa=profile(name="qemu-old"))),
    "ec2": ("vmsa.profile", launched(vmsa=profile(name="ec2"))),
    "gce": ("vmsa.profile", launched(vmsa=profile(name="gce"))),
    "debug swap": ("guest.features", launched(vmsa=profile(features=0x21))),
    "an odd bit": ("guest.features", launched(vmsa=profile(features=0x81))),
    "model": ("cpu.model", launched(vmsa=profile(cpu=CpuModel.named("EPYC-Genoa")))),
    "stepping": (
        "cpu.stepping",
        launched(vmsa=profile(cpu=CpuModel(family=25, model=1, stepping=7))),
    ),
    "hashes first": ("kernel.section", launched(firmware=reordered())),
    "hashes last": (
        "kernel.section",
        both(stated(firmware=reordered()), launched(firmware=SnpFirmware.read(OVMF))),
    ),
    "other firmware": (
        "firmware.other",
        both(launched(firmware=OTHER), at_hand(("bad", bytes(4096)), ("other", OTHER))),
    ),
    "joined": (
        "firmware.joined",
        both(launched(firmware=STORE + OVMF), at_hand(("VARS", STORE))),
    ),
    "code alone": ("firmware.code-alone", stated(firmware=STORE + OVMF)),
    "swapped pages": ("vmsa.swapped", both(launched(vmsa=PAGES), stated(vmsa=SWAPPED))),
    "boot for all": ("vmsa.boot-for-all", launched(vmsa=BOOT_FOR_ALL)),
}


@pytest.mark.parametrize(("hypothesis", "spoil"), SINGLES.values(), ids=SINGLES)
def test_a_single_difference_is_named(case: Case, hypothesis: str, spoil: Spoiler) -> None:
    spoil(case)
    found = case.explain()
    assert [finding.hypothesis for finding in found.findings] == [hypothesis]
    assert found.complete


def test_every_hypothesis_is_shown_here() -> None:
    assert {hypothesis for hypothesis, _ in SINGLES.values()} == RULED_OUT.keys() == RANK.keys()


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("vcpus", "newline"), ("vcpus", "fpu"), ("model", "debug swap"), ("no initrd", "gce"),
        ("no kernel hashes", "vcpus"), ("other firmware", "vcpus"),
    ],
)  # fmt: skip
def test_two_differences_are_named(case: Case, one: str, two: str) -> None:
    (first, spoil), (second, spoil_more) = SINGLES[one], SINGLES[two]
    spoil(case)
    if {one, two} == {"model", "debug swap"}:
        case.measured["vmsa"] = profile(cpu=CpuModel.named("EPYC-Genoa"), features=0x21)
    else:
        spoil_more(case)
    (finding,) = case.explain().findings
    assert {*finding.hypothesis.split("+")} == {first, second}


@pytest.mark.parametrize("given", [False, True], ids=["profile", "pages"])
def test_any_known_vcpu_state_is_found(case: Case, *, given: bool) -> None:
    case.measured |= {
        "vcpus": 47,
        "vmsa": profile(name="qemu-old", features=0x221, cpu=CpuModel.named("EPYC-Turin")),
    }
    if given:
        case.stated["vmsa"] = PAGES
    (finding,) = case.explain().findings
    assert finding.hypothesis == "vcpus+vmsa.profile+guest.features+cpu.model"
    assert finding.changes == {
        "num_cpus": 47,
        "vmsa_profile": "qemu-old",
        "guest_features": "0x221",
        "cpu_model_name": "EPYC-Turin",
    }
    assert bool(finding.meaning) is given


def test_the_stated_count_may_be_right_and_all_else_wrong(case: Case) -> None:
    case.measured["vmsa"] = profile(
        name="qemu-old", features=0x21, cpu=CpuModel.named("EPYC-Turin")
    )
    (finding,) = case.explain().findings
    assert finding.hypothesis == "vmsa.profile+guest.features+cpu.model"


def test_an_svsm_s_fpu_state_and_firmware_are_found(case: Case) -> None:
    module = Svsm.read(svsm_image())
    right = SnpFirmware.with_svsm(OVMF, module, 0x1000)
    other = SnpFirmware.with_svsm(OTHER, module, 0x1000)
    nothing = {"kernel": None, "initrd": None, "line": None, "firmware": right}
    for name in ("svsm", "svsm-init2"):
        case.stated |= {**nothing, "vmsa": profile(name=name)}
        for launched_as in {"svsm", "svsm-init2"} - {name}:
            case.measured |= {**nothing, "vmsa": profile(name=launched_as)}
            (finding,) = case.explain().findings
            assert finding.changes == {"vmsa_profile": launched_as}
            assert not finding.meaning
    case.measured |= {"firmware": other, "vmsa": case.stated["vmsa"]}
    case.clues = {
        "images": [("other", OTHER)],
        "read": lambda image: SnpFirmware.with_svsm(image, module, 0x1000),
    }
    (finding,) = case.explain().findings
    assert finding.hypothesis == "firmware.other"


@pytest.mark.parametrize("name", [name for name in SNP_LAYOUTS if "svsm" not in name])
def test_another_vmm_is_no_slip(case: Case, name: str) -> None:
    case.stated["vmsa"] = profile(name=name)
    for other in SNP_LAYOUTS:
        if "svsm" not in other and other != name:
            case.measured["vmsa"] = profile(name=other)
            (finding,) = case.explain().findings
            assert finding.hypothesis == "vmsa.profile"
            slip = name.removesuffix("-old") == other.removesuffix("-old")
            assert bool(finding.meaning) is not slip
            assert ("outside the measured firmware" in finding.meaning) is (other == "krun")


def test_features_that_the_guest_did_without_are_said(case: Case) -> None:
    case.stated["vmsa"] = profile(features=0x221)
    (finding,) = case.explain().findings
    assert finding.meaning == "then the guest ran without debug swap, secure TSC"
    case.stated["vmsa"], case.measured["vmsa"] = profile(), profile(features=0x221)
    (finding,) = case.explain().findings
    assert finding.meaning == ""


def test_a_search_without_result_says_what_it_rules_out(case: Case) -> None:
    case.measured["firmware"] = OTHER
    found = case.explain()
    assert (found.findings, found.complete) == ((), True)
    assert found.tried > 1000
    for words in ("another number of vCPUs", "other guest features", "kernel and initrd swapped"):
        assert any(words in one for one in found.ruled_out)
    assert not any("at hand" in one for one in found.ruled_out)


def test_what_was_left_out_is_not_ruled_out(case: Case) -> None:
    case.measured["firmware"] = OTHER
    case.clues = {"images": [("x", OVMF + OVMF)], "left_out": {"firmware.other"}}
    found = case.explain()
    assert (found.findings, found.complete) == ((), False)
    assert not any("at hand" in one for one in found.ruled_out)


def test_no_time_is_no_search(case: Case) -> None:
    case.measured["vcpus"] = 5
    found = case.explain(budget=0)
    assert (found.findings, found.tried, found.complete, found.ruled_out) == ((), 0, False, ())


def test_progress_is_told(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sev_attest.guest.diagnosis.search._TELL_EVERY", 100)
    firmware = SnpFirmware.read(OVMF)
    told: list[int] = []
    guest = SnpGuest(firmware=firmware, vmsa=PAGES)
    explain_digest(bytes(48), guest=guest, vcpus=1, budget=600, progress=told.append)
    assert told[:3] == [100, 200, 300]


def test_a_page_for_one_vcpu_leaves_others_untried(case: Case) -> None:
    """No page says how the other vCPUs start, so what would need it fits nothing."""
    guest = SnpGuest(firmware=SnpFirmware.read(OVMF), vmsa=VmsaPages(boot=PAGES.boot))
    found = explain_digest(bytes(48), guest=guest, vcpus=1, budget=600)
    assert (found.findings, found.complete) == ((), True)
