"""``sev-attest snp measure``."""

import base64
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import Run
from sev_attest.cli import snp_diagnosis
from sev_attest.cli.options.snp_guest import SnpGuestOptions
from sev_attest.errors import Unsupported
from sev_attest.guest import CpuModel, KernelHashes, SnpProfile
from sev_attest.guest.diagnosis.search import Diagnosis
from sev_attest.guest.spec import SNP_LAYOUTS
from sev_attest.snp.digest import launch_digest
from sev_attest.snp.firmware import SnpFirmware
from sev_attest.testing import ovmf_image
from sev_attest.testing.images import SNP_SECTIONS, svsm_image

OVMF = ovmf_image(8192, sections=SNP_SECTIONS)
OTHER = ovmf_image(8192, seed=b"other", sections=SNP_SECTIONS)
MILAN = CpuModel.named("EPYC-Milan")
SNP = ("snp", "measure", "-f", "fw")
CPU = ("--cpu-model-name", "EPYC-Milan")
GUEST = (*SNP, "-n", "2", *CPU)
KERNEL = ("-k", "kernel", "-r", "initrd", "-e", "quiet")
LONG = ("--diagnose-budget", "600")


@pytest.fixture(autouse=True)
def files(here: Path) -> Path:
    """Lay out a guest's files."""
    for name, data in {
        "fw": OVMF,
        "plain": ovmf_image(8192),
        "svsm": svsm_image(),
        "kernel": b"kernel",
        "initrd": b"initrd",
    }.items():
        Path(name).write_bytes(data)
    return here


def digest_of(**given: Any) -> bytes:
    parts: dict[str, Any] = {"vcpus": 2, "vmsa": MILAN} | given
    return launch_digest(OVMF, **parts)


# the digest


def test_it_prints_the_digest_in_hex_or_base64(run: Run) -> None:
    digest = digest_of()
    assert run(*GUEST).out == f"{digest.hex()}\n"
    shown = f"{base64.b64encode(digest).decode()}\n"
    assert run(*GUEST, "--format", "base64").out == shown
    assert run(*GUEST, "-q").out == f"{digest.hex()}\n"
    document = json.loads(run(*GUEST, "--json").out)
    assert document["schema"] == "sev-attest/snp-measure/1"
    assert (document["ok"], document["digest"]) == (True, digest.hex())
    assert (document["vcpus"], document["vmsa_profile"]) == (2, "qemu")
    assert document["measured"][-1]["digest"] == digest.hex()


def test_a_kernel_is_measured_by_its_files_or_its_hashes(run: Run) -> None:
    digest = digest_of(kernel=b"kernel", initrd=b"initrd", cmdline="quiet")
    assert run(*GUEST, *KERNEL).out == f"{digest.hex()}\n"
    hashes = [hashlib.sha256(data).hexdigest() for data in (b"kernel", b"initrd", b"quiet\0")]
    assert run(*GUEST, "--kernel-hashes", ":".join(hashes)).out == f"{digest.hex()}\n"
    document = json.loads(run(*GUEST, *KERNEL, "--json").out)
    assert [*document["kernel_hashes"].values()] == hashes


@pytest.mark.parametrize("name", [name for name in SNP_LAYOUTS if "svsm" not in name])
def test_every_profile_and_feature_is_an_option(run: Run, name: str) -> None:
    given = (*GUEST, "--vmsa-profile", name, "--guest-features", "0x21")
    digest = digest_of(vmsa=SnpProfile(name=name, cpu=MILAN, features=0x21))
    assert run(*given).out == f"{digest.hex()}\n"
    numbers = ("--cpu-family", "25", "--cpu-model", "1", "--cpu-stepping", "1")
    same = (*SNP, "-n", "2", *numbers, "--vmsa-profile", name, "--guest-features", "33")
    assert run(*same).out == f"{digest.hex()}\n"


def test_a_profile_with_a_cpu_of_its_own_needs_none(run: Run) -> None:
    digest = digest_of(vmsa=SnpProfile(name="ec2"))
    assert run(*SNP, "-n", "2", "--vmsa-profile", "ec2").out == f"{digest.hex()}\n"
    ran = run(*GUEST, "--vmsa-profile", "ec2")
    assert (ran.code, ran.out) == (0, f"{digest.hex()}\n")
    assert "note: profile ec2 shows guests a CPU of its own" in ran.err


def test_features_without_snp_s_own_bit_are_noted(run: Run) -> None:
    ran = run(*GUEST, "--guest-features", "0x20")
    assert ran.code == 0
    assert "note: guest features 0x20 lack bit 0 (SNP active)" in ran.err
    assert "note" not in run(*GUEST, "--guest-features", "0x20", "-q").err
    assert "lack bit 0" in run(*SNP, "-n", "1-2", *CPU, "--guest-features", "0x20").err


def test_a_range_of_vcpus_gives_the_digest_of_each(run: Run) -> None:
    table = run(*SNP, "-n", "2-5", *CPU).lines
    assert [int(line.split()[0]) for line in table] == [2, 3, 4, 5]
    for line in table:
        count, digest = line.split()
        assert digest_of(vcpus=int(count)).hex() == digest
    document = json.loads(run(*SNP, "-n", "2-5", *CPU, "--json").out)
    assert document["digests"] == dict(line.split() for line in table)
    assert run(*SNP, "-n", "2-5", *CPU, "-q").lines == table


def test_explain_lists_every_piece(run: Run) -> None:
    shown = run(*GUEST, *KERNEL, "--explain")
    assert shown.lines[-1] == digest_of(kernel=b"kernel", initrd=b"initrd", cmdline="quiet").hex()
    for part in (
        "0xffffe000      2 NORMAL     firmware: ",
        "0x80d000      1 SECRETS    SECRETS: ",
        "0x810000      1 NORMAL     KERNEL_HASHES: ",
        f"kernel: sha256 {hashlib.sha256(b'kernel').hexdigest()}",
        "0xfffffffff000      1 VMSA       VMSA of vCPU 1: ",
        "launch digest: ",
    ):
        assert part in shown.out, part
    quiet = run(*GUEST, "-v")
    assert quiet.out == f"{digest_of().hex()}\n"
    assert "KERNEL_HASHES: " in quiet.err


def test_pages_may_be_given(run: Run) -> None:
    pages = SnpProfile(cpu=MILAN).pages(0x80_B004)
    Path("v0").write_bytes(pages.boot)
    Path("v1").write_bytes(pages.ap or b"")
    given = (*SNP, "-n", "2", "-0", "v0", "-1", "v1")
    assert run(*given).out == f"{digest_of().hex()}\n"
    google = launch_digest(OVMF, vcpus=1, vmsa=SnpProfile(name="gce"))
    Path("v0").write_bytes(SnpProfile(name="gce").pages(0x80_B004).boot)
    ran = run(*SNP, "-n", "1", "-0", "v0", "--vmsa-profile", "gce")
    assert ran.out == f"{google.hex()}\n"  # its sections are measured as Google's


def test_the_firmware_s_digest_takes_the_place_of_its_pages(run: Run) -> None:
    prefix = SnpFirmware.read(OVMF).prefix
    Path("fw").write_bytes(OVMF[-4096:])
    for text in (prefix.hex(), base64.b64encode(prefix).decode()):
        assert run(*GUEST, "--firmware-digest", text).out == f"{digest_of().hex()}\n"
    ran = run(*GUEST, "--firmware-digest", "00")
    assert (ran.code, ran.out) == (6, "")
    assert "error: --firmware-digest: firmware digest" in ran.err


def test_an_svsm_has_profiles_of_its_own(run: Run) -> None:
    given: dict[str, Any] = {"svsm": svsm_image(), "vars_size": 0x2000, "vcpus": 2}
    options = ("snp", "measure", "-f", "plain", "-n", "2", *CPU, "--svsm", "svsm")
    digest = launch_digest(ovmf_image(8192), vmsa=MILAN, **given)
    assert run(*options, "--vars-size", "0x2000").out == f"{digest.hex()}\n"
    later = SnpProfile(name="svsm-init2", cpu=MILAN)
    digest = launch_digest(ovmf_image(8192), vmsa=later, **given)
    ran = run(*options, "--vars-size", "8192", "--vmsa-profile", "svsm-init2")
    assert ran.out == f"{digest.hex()}\n"
    ran = run(*options, "--vars-size", "0", "--vmsa-profile", "qemu")
    assert (ran.code, ran.out) == (2, "")
    assert "VMSA profile qemu does not start from an SVSM" in ran.err
    assert "hint: with an SVSM, --vmsa-profile is svsm or svsm-init2" in ran.err


# refusals


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("-n", "2", *CPU), "--firmware is needed"),
        (("-f", "fw", *CPU), "an SEV-SNP guest needs the number of vCPUs: --num-cpus"),
        (("-f", "fw", "-n", "2"), "an SEV-SNP guest needs the vCPUs' state: --vmsa-cpu0"),
        (("-f", "fw", "-n", "2", "--vmsa-profile", "xen", *CPU), "no VMSA profile 'xen'"),
        (("-f", "fw", "-n", "2", "--cpu-family", "25"), "go together"),
        (("-f", "fw", "-n", "2", *CPU, "-0", "v0"), "--vmsa-cpu0/1 exclude --cpu-model-name"),
        (
            ("-f", "fw", "-n", "2", "-0", "v0", "--guest-features", "1"),
            "--vmsa-cpu0/1 exclude --guest-features",
        ),
        (("-f", "fw", "-n", "2", "-1", "v0", *CPU[:0]), "--vmsa-cpu1 needs --vmsa-cpu0"),
        (("-f", "fw", "-n", "2", *CPU, "-e", "x"), "--kernel is needed for --cmdline"),
        (
            ("-f", "fw", "-n", "2", *CPU, "-k", "kernel", "--kernel-hashes", "x"),
            "--kernel-hashes excludes --kernel",
        ),
        (("-f", "fw", "-n", "2", *CPU, "--vars-size", "0"), "--svsm is needed"),
        (("-f", "fw", "-n", "2", *CPU, "--vmsa-profile", "svsm"), "needs --svsm and --vars-size"),
        (("-f", "fw", "-n", "2", *CPU, "--svsm", "svsm"), "--svsm needs --vars-size"),
        (
            ("-f", "fw", "-n", "2", *CPU, "--svsm", "s", "--vars-size", "0", "-k", "kernel"),
            "--svsm excludes --kernel",
        ),
        (("-f", "-", "-n", "2", *CPU, "-k", "-"), "only one input can be standard input"),
        (("-f", "fw", "-n", "1-2", *CPU, "--explain"), "--explain needs one number of vCPUs"),
        (("-f", "fw", "-n", "1-2", *CPU, "--expect", "00"), "--expect needs one number of vCPUs"),
        (("-f", "fw", "-n", "0", *CPU), "0 is not in 1..4096"),
        (("-f", "fw", "-n", "2", *CPU, "--guest-features", f"{1 << 64}"), "is not in 0.."),
        (("-f", "fw", "-n", "2", *CPU, "--policy", "1"), "--policy"),
    ],
)
def test_options_that_are_missing_or_contradict_each_other(
    run: Run, given: tuple[str, ...], words: str
) -> None:
    ran = run("snp", "measure", *given)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err


def test_a_state_is_needed_by_the_library_s_callers_too(run: Run) -> None:
    options = SnpGuestOptions(**dict.fromkeys(SnpGuestOptions.declared()) | {"firmware": "fw"})
    with pytest.raises(Unsupported, match="needs the vCPUs' state"):
        options.guest(options.read(progress=False))


@pytest.mark.parametrize(
    ("data", "more", "code", "words"),
    [
        (ovmf_image(8192), (), 4, "fw: the firmware has no SEV metadata"),
        (ovmf_image(8192, sections=SNP_SECTIONS[:-1]), ("-k", "none"), 4, "no section for kernel"),
        (OVMF[1:], (), 6, "fw: firmware: 8191 bytes are not whole pages of 4096"),
        (b"", (), 6, "fw: firmware: the file is empty"),
        (svsm_image(), (), 6, "fw: firmware: this is an SVSM"),
        (
            ovmf_image(8192, sections=SNP_SECTIONS, reset_address=None),
            (),
            4,
            "fw: the firmware has no SEV-ES reset block",
        ),
        (
            ovmf_image(8192, sections=[(0, 0xFFFF_F000, 1)]),
            (),
            6,
            "fw: firmware SEV metadata section size: more than 256 MiB in all sections",
        ),
        (
            ovmf_image(8192, sections=[(0x1000, 0x2000, 1), (0x2000, 0x1000, 2)]),
            (),
            6,
            "section SECRETS at 0x2000, 0x1000 bytes: it overlaps section SEC_MEM at 0x1000",
        ),
        (OVMF, ("-k", "none"), 6, "none: No such file or directory"),
        (OVMF, ("--expect", "zz"), 6, "--expect: launch digest"),
        (OVMF, ("--expect", "00" * 32), 6, "--expect: launch digest: 32 bytes, expected 48"),
        (OVMF, ("--svsm", "fw", "--vars-size", "0"), 6, "fw: SVSM: this is not an SVSM"),
    ],
)
def test_what_cannot_start_is_refused_in_words(
    run: Run, data: bytes, more: tuple[str, ...], code: int, words: str
) -> None:
    Path("fw").write_bytes(data)
    ran = run(*GUEST, *more)
    assert (ran.code, ran.out, words in ran.err) == (code, "", True), ran.err
    document = json.loads(run(*GUEST, *more, "--json").out)
    assert (document["schema"], document["ok"]) == ("sev-attest/snp-measure/1", False)


# the manifest


def test_a_manifest_has_every_digest(run: Run) -> None:
    given = (*SNP, "-n", "1-3", "--cpu-model-name", "EPYC-Milan,EPYC-v4", "--manifest", "m")
    ran = run(*given, "--vmsa-profile", "qemu,qemu-old", "--guest-features", "0x21", *KERNEL)
    assert ran.out == "wrote m: 12 digests\n"
    document = json.loads(Path("m").read_text())
    assert document["schema"] == "sev-attest/snp-manifest/1"
    assert document["firmware"] == {
        "file": "fw", "size": 8192, "pages_digest": SnpFirmware.read(OVMF).prefix.hex(),
    }  # fmt: skip
    assert len({launch["digest"] for launch in document["launches"]}) == 12
    for launch in document["launches"]:
        vmsa = SnpProfile(
            name=launch["vmsa_profile"], cpu=CpuModel.named(launch["cpu"]), features=0x21
        )
        digest = digest_of(
            vcpus=launch["vcpus"],
            vmsa=vmsa,
            kernel=KernelHashes.of(b"kernel", b"initrd", "quiet"),
        )
        assert (launch["digest"], launch["guest_features"]) == (digest.hex(), "0x21")
    refused = run(*given)
    assert refused.code == 6
    assert "m" in refused.err
    assert json.loads(run(*given, "--force", "--json").out)["digests"] == 6
    assert run(*given, "--force", "-q").out == ""


def test_a_manifest_of_a_cpu_without_a_name(run: Run) -> None:
    numbers = ("--cpu-family", "25", "--cpu-model", "1", "--cpu-stepping", "1")
    assert run(*SNP, "-n", "1", *numbers, "--manifest", "m").code == 0
    (launch,) = json.loads(Path("m").read_text())["launches"]
    assert (launch["cpu"], launch["guest_features"]) == ("signature 0xa00f11", None)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--explain",), "--manifest excludes --explain"),
        (("--format", "hex"), "--manifest excludes --format"),
        (("--expect", "00"), "--manifest holds digests: it excludes --expect"),
    ],
)
def test_what_plays_no_part_in_a_manifest_is_refused(
    run: Run, given: tuple[str, ...], words: str
) -> None:
    ran = run(*GUEST, "--manifest", "m", *given)
    assert (ran.code, words in ran.err, Path("m").exists()) == (2, True, False)


# the comparison


def test_a_digest_that_is_as_expected(run: Run) -> None:
    digest = digest_of()
    for text in (digest.hex(), digest.hex().upper(), base64.b64encode(digest).decode()):
        ran = run(*GUEST, "--expect", text)
        assert (ran.code, ran.out, ran.err) == (0, f"OK: the launch digest is {digest.hex()}\n", "")
    document = json.loads(run(*GUEST, "--expect", digest.hex(), "--json").out)
    assert document["expected"] == document["digest"] == digest.hex()


def test_a_difference_is_an_error_and_is_explained(run: Run) -> None:
    expected = digest_of(vcpus=4, vmsa=SnpProfile(name="qemu-old", cpu=MILAN)).hex()
    ran = run(*GUEST, "--expect", expected, *LONG)
    assert (ran.code, ran.out) == (1, "")
    first, hint, note = ran.err.splitlines()
    assert first.startswith("error: the launch digest differs: this guest has ")
    assert first.endswith(f"expected was {expected}")
    assert hint == (
        "hint: the launch digest fits if it was launched with 4 vCPUs, not 2, and its vCPUs were "
        "set up as in VMSA profile qemu-old"
    )
    command = note.removeprefix("note: if you meant that: sev-attest ").split()
    assert "--num-cpus 4" in note
    assert run(*command).code == 0
    document = json.loads(run(*GUEST, "--expect", expected, *LONG, "--json").out)
    assert (document["ok"], document["exit"]) == (False, 1)
    assert document["errors"][0]["check"] == "snp.launch-digest"
    (found,) = document["diagnosis"]
    assert found["changes"] == {"num_cpus": 4, "vmsa_profile": "qemu-old"}
    assert found["command"].startswith("sev-attest snp measure ")
    assert document["search"]["complete"] is True


def test_no_search_where_none_is_wanted(run: Run) -> None:
    expected = digest_of(vcpus=4).hex()
    ran = run(*GUEST, "--expect", expected, "--no-diagnose")
    assert (ran.code, "4 vCPUs" in ran.err) == (1, False)
    assert "hint: --explain shows what went into it" in ran.err
    ran = run(*GUEST, "--expect", expected, "-q")
    assert (ran.code, "4 vCPUs" in ran.err) == (1, False)
    ran = run(*GUEST, "--expect", expected, "--explain", "--no-diagnose")
    assert ran.lines[-1] == f"launch digest: {digest_of().hex()}"
    ran = run(*GUEST, "--expect", expected, "-v", "--no-diagnose")
    assert (ran.out, "launch digest: " in ran.err) == ("", True)


def test_firmware_at_hand_is_tried_and_is_no_slip(run: Run) -> None:
    expected = launch_digest(OTHER, vcpus=2, vmsa=MILAN).hex()
    Path("others").mkdir()
    Path("others/other.fd").write_bytes(OTHER)
    ran = run(*GUEST, "--expect", expected, *LONG, "--firmware-dir", "others")
    assert "hint: the launch digest fits if its firmware was others/other.fd" in ran.err
    assert "note: firmware decides what the guest runs" in ran.err
    ran = run(*GUEST, "--expect", expected, *LONG)
    assert "likely differences explains it" in ran.err
    assert "note: ruled out: another number of vCPUs" in ran.err
    assert "name everything that is booted: --kernel, --initrd, --cmdline missing" in ran.err


def test_with_an_svsm_firmware_at_hand_is_put_above_it(run: Run) -> None:
    Path("other.fd").write_bytes(OTHER)
    given: dict[str, Any] = {"svsm": svsm_image(), "vars_size": 0x1000, "vcpus": 2, "vmsa": MILAN}
    expected = launch_digest(OTHER, **given).hex()
    options = (*GUEST, "--svsm", "svsm", "--vars-size", "4096", *LONG)
    ran = run(*options, "--expect", expected)
    assert "fits if its firmware was other.fd" in ran.err
    ran = run(*options, "--expect", "00" * 48)
    assert "name everything that is booted" not in ran.err


def test_a_slip_of_the_command_line_gives_the_right_command(run: Run) -> None:
    expected = digest_of(kernel=b"kernel", initrd=b"initrd", cmdline="quiet ").hex()
    ran = run(*GUEST, *KERNEL, "--expect", expected, *LONG)
    assert "fits if the command line had a blank at its end" in ran.err
    assert "note: what is booted is yours to decide" in ran.err


def test_swapped_pages_give_the_command_with_the_pages_as_they_were(run: Run) -> None:
    pages = SnpProfile(cpu=MILAN).pages(0x80_B004)
    Path("v0").write_bytes(pages.ap or b"")
    Path("v1").write_bytes(pages.boot)
    ran = run(*SNP, "-n", "2", "-0", "v0", "-1", "v1", "--expect", digest_of().hex(), *LONG)
    assert "fits if the vCPUs' pages are swapped" in ran.err
    assert "--vmsa-cpu0 v1 --vmsa-cpu1 v0" in ran.err


def test_what_was_read_from_a_pipe_is_not_in_a_command(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("fw").open("rb") as file:
        monkeypatch.setattr(sys, "stdin", file)
        file.buffer = file  # type: ignore[attr-defined] # as standard input has it
        ran = run(
            "snp", "measure", "-f", "-", "-n", "2", *CPU, "--expect", digest_of(vcpus=3).hex(),
            *LONG,
        )  # fmt: skip
    assert "note: if you meant that: the same with --num-cpus 3" in ran.err


def test_an_interrupted_or_broken_search_leaves_the_verdict(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(error: BaseException) -> Any:
        def explain(*_arguments: object, **_given: object) -> Diagnosis:
            raise error

        return explain

    asked = (*GUEST, "--expect", "00" * 48)
    for error, words in (
        (KeyboardInterrupt(), "note: the search was interrupted"),
        (ZeroDivisionError(), "note: the search for what fits failed (ZeroDivisionError): a bug"),
    ):
        monkeypatch.setattr(snp_diagnosis, "explain_digest", fail(error))
        ran = run(*asked)
        assert (ran.code, words in ran.err.splitlines()) == (1, True)


def test_without_time_nothing_is_looked_at(run: Run) -> None:
    ran = run(*GUEST, "--expect", digest_of(vcpus=3).hex(), "--diagnose-budget", "0")
    assert ran.code == 1
    assert "note: the time for the search is up" in ran.err


@pytest.mark.skipif(os.name != "posix", reason="a pipe of the system")
def test_a_file_may_come_through_a_pipe(run: Run) -> None:
    reader, writer = os.pipe()
    os.write(writer, OVMF)
    os.close(writer)
    try:
        ran = run("snp", "measure", "-f", f"/dev/fd/{reader}", "-n", "2", *CPU)
    finally:
        os.close(reader)
    assert ran.out == f"{digest_of().hex()}\n"
