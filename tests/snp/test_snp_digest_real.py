"""snp/: launch digests of real firmware, published or from hardware."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from conftest import Run
from judge_parts import table_of
from judge_snp_digest import Loaded, launch_digests, loaded
from sev_attest.guest import CpuModel, KernelHashes, SnpProfile
from sev_attest.snp.digest import launch_digest
from sev_attest.snp.firmware import Section, SnpFirmware, Svsm

NOT_OF_ANY_KERNEL = {"svsm-2-ssm-0.0.13", "svsm-4-ssm-0.0.13"}
"""The peer's SVSM page has MXCSR and no FCW: half of what a kernel writes."""


def model(signature: int) -> CpuModel | None:
    """Return the CPU of a CPUID signature, as AMD APM vol. 3 puts it together; None for 0."""
    if not signature:
        return None
    family = (signature >> 8 & 15) + (signature >> 20 & 0xFF)
    return CpuModel(
        family=family, model=signature >> 4 & 15 | signature >> 12 & 0xF0, stepping=signature & 15
    )


@cache
def image(folder: Path, name: str, prefix: str) -> SnpFirmware:
    return SnpFirmware.read(folder / name, prefix=bytes.fromhex(prefix) if prefix else None)


def firmware_of(folder: Path, inputs: dict[str, Any]) -> SnpFirmware:
    """Return the firmware of a case: an image, with or without its prefix, or parsed metadata."""
    if "parsed" in inputs:
        parsed = inputs["parsed"]
        return SnpFirmware(
            prefix=bytes.fromhex(parsed["OVMFHash"]),
            sections=[
                Section(int(one["GPA"], 16), int(one["Size"], 16), one["SectionTypeInt"])
                for one in parsed["MetadataItems"]
            ],
            reset_address=int(parsed["ResetEIP"], 16),
        )
    if "svsm" in inputs:
        module = Svsm.read(folder / inputs["svsm"])
        return SnpFirmware.with_svsm(folder / inputs["firmware"], module, inputs["vars_size"])
    return image(folder, inputs["firmware"], inputs.get("ld", ""))


def kernel_of(inputs: dict[str, Any]) -> KernelHashes | None:
    if "sha256" in inputs:
        return KernelHashes(**{n: bytes.fromhex(digest) for n, digest in inputs["sha256"].items()})
    if "kernel" in inputs:
        parts = (inputs[name].encode() for name in ("kernel", "initrd", "cmdline"))
        return KernelHashes.of(*parts)
    return None


def test_real_launch_digests(real: Path) -> None:
    folder = real / "snp"
    if not folder.is_dir():
        pytest.skip("there is no real SEV-SNP data")
    known = json.loads((folder / "expected.json").read_text())["launch_digests"]
    wrong = []
    for name, case in known.items():
        inputs = case["inputs"]
        profile = SnpProfile(
            name=layout_of(inputs), cpu=model(inputs["sig"]), features=inputs.get("features", 1)
        )
        digest = launch_digest(
            firmware_of(folder, inputs),
            kernel=kernel_of(inputs),
            vcpus=inputs["vcpus"],
            vmsa=profile,
        )
        if digest.hex() != case["digest"]:
            wrong.append(name)
    assert set(wrong) == NOT_OF_ANY_KERNEL
    assert len(known) > 50


def second(folder: Path, inputs: dict[str, Any], layout: str) -> bytes:
    """Return the digest that the second implementation of the vectors computes."""
    if "parsed" in inputs:
        parsed = inputs["parsed"]
        declared = [
            (int(one["GPA"], 16), int(one["Size"], 16), one["SectionTypeInt"])
            for one in parsed["MetadataItems"]
        ]
        start = int(parsed["ResetEIP"], 16)
        guest = Loaded(bytes.fromhex(parsed["OVMFHash"]), declared, 1 << 32, start)
    else:
        svsm = (folder / inputs["svsm"]).read_bytes() if "svsm" in inputs else b""
        image = (folder / inputs["firmware"]).read_bytes()
        guest = loaded(image, layout, svsm, inputs.get("vars_size", 0))
        if "ld" in inputs:
            guest = guest._replace(digest=bytes.fromhex(inputs["ld"]))
    kernel = kernel_of(inputs)
    table = table_of(kernel.kernel, kernel.initrd, kernel.cmdline) if kernel else None
    given: dict[str, Any] = {"signature": inputs["sig"], "features": inputs.get("features", 1)}
    return launch_digests(guest, inputs["vcpus"], layout=layout, table=table, **given)[-1]


def test_the_second_implementation_computes_them_too(real: Path) -> None:
    """Among them are those that hardware measured."""
    folder = real / "snp"
    if not folder.is_dir():
        pytest.skip("there is no real SEV-SNP data")
    known = json.loads((folder / "expected.json").read_text())["launch_digests"]
    wrong = {
        name
        for name, case in known.items()
        if second(folder, case["inputs"], layout_of(case["inputs"])).hex() != case["digest"]
    }
    assert wrong == NOT_OF_ANY_KERNEL
    assert sum("hardware" in name for name in known) >= 5


def layout_of(inputs: dict[str, Any]) -> str:
    layout: str = inputs.get("vmm", "svsm" if "svsm" in inputs else "qemu")
    return layout


def options_of(folder: Path, inputs: dict[str, Any]) -> list[object]:
    """Return the options of a case; its kernel's parts are files here."""
    given: list[object] = ["--firmware", folder / inputs["firmware"], "--num-cpus", inputs["vcpus"]]
    given += ["--guest-features", inputs.get("features", 1)]
    cpu = model(inputs["sig"])
    if cpu is not None:
        given += ["--cpu-family", cpu.family, "--cpu-model", cpu.model]
        given += ["--cpu-stepping", cpu.stepping]
    if "svsm" in inputs:
        given += ["--svsm", folder / inputs["svsm"], "--vars-size", inputs["vars_size"]]
    for name, option in (("ld", "--firmware-digest"), ("vmm", "--vmsa-profile")):
        given += [option, inputs[name]] if name in inputs else []
    if "sha256" in inputs:
        names = ("kernel", "initrd", "cmdline")
        given += ["--kernel-hashes", ":".join(inputs["sha256"][name] for name in names)]
    if "kernel" in inputs:
        for name in ("kernel", "initrd"):
            Path(name).write_text(inputs[name])
        given += ["--kernel", "kernel", "--initrd", "initrd", "--cmdline", inputs["cmdline"]]
    return given


def test_real_launch_digests_of_images_are_those_of_the_command_line(
    run: Run, here: Path, real: Path
) -> None:
    folder = real / "snp"
    known = json.loads((folder / "expected.json").read_text())["launch_digests"]
    seen = 0
    for name, case in known.items():
        # The command line takes no parsed metadata: there is an image to give.
        if "parsed" in case["inputs"] or name in NOT_OF_ANY_KERNEL:
            continue
        ran = run("snp", "measure", *options_of(folder, case["inputs"]))
        assert (ran.code, ran.out) == (0, f"{case['digest']}\n"), name
        seen += 1
    assert seen > 45


@pytest.mark.parametrize(("vcpus", "begin"), [(2, "54f444a0"), (4, "a250e27d")])
def test_a_real_svsm_with_the_fpu_s_state(real: Path, vcpus: int, begin: str) -> None:
    folder = real / "snp" / "firmware"
    if not folder.is_dir():
        pytest.skip("there is no real SEV-SNP data")
    digest = launch_digest(
        folder / "svsm_ovmf.fd",
        svsm=folder / "svsm.bin",
        vars_size=540672,
        vcpus=vcpus,
        vmsa=SnpProfile(name="svsm-init2", cpu=CpuModel.named("EPYC-v4")),
    )
    assert digest.hex().startswith(begin)
