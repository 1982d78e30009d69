"""The options that describe a guest, and the launch digest they give."""

import hashlib
import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import click

from sev_attest._encoding import blob
from sev_attest.cli.inputs import BYTE, FILE, Number, large_file, option_name, options, read_small
from sev_attest.errors import Unsupported, reading
from sev_attest.measure.digest import launch_digest
from sev_attest.measure.kernel_hashes import KernelHashes
from sev_attest.measure.ovmf import Firmware
from sev_attest.measure.vmsa import MAX_VCPUS, CpuModel, VmsaPages
from sev_attest.policy import GuestPolicy

guest_options = options(
    click.option("-f", "--firmware", type=FILE, metavar="FILE", help="Firmware image."),
    click.option("-k", "--kernel", type=FILE, metavar="FILE", help="Kernel, if booted directly."),
    click.option("-r", "--initrd", type=FILE, metavar="FILE", help="Initrd of that kernel."),
    click.option("-e", "--cmdline", metavar="TEXT", help="Command line of that kernel."),
    click.option(
        "--kernel-hashes",
        metavar="HEX:HEX:HEX",
        help="SHA-256 of kernel, initrd and command line (with its NUL), instead of these.",
    ),
    click.option("--launch-digest", metavar="HEX|B64", help="Launch digest, instead of all these."),
    click.option("-n", "--num-cpus", type=Number(MAX_VCPUS, 1), help="Number of vCPUs (SEV-ES)."),
    click.option(
        "-0", "--vmsa-cpu0", type=FILE, metavar="FILE", help="State of the boot vCPU (SEV-ES)."
    ),
    click.option(
        "-1", "--vmsa-cpu1", type=FILE, metavar="FILE", help="State of the other vCPUs (SEV-ES)."
    ),
    click.option("--cpu-family", type=Number(270), help="CPU family, to build that state from."),
    click.option("--cpu-model", type=BYTE, help="CPU model."),
    click.option("--cpu-stepping", type=Number(15), help="CPU stepping."),
)
FILES = ("firmware", "kernel", "initrd", "vmsa_cpu0", "vmsa_cpu1")
_MODEL = ("cpu_family", "cpu_model", "cpu_stepping")
_PAGES = ("vmsa_cpu0", "vmsa_cpu1")
_VCPU = ("num_cpus", *_PAGES, *_MODEL)
_HASHES = ("kernel", "initrd", "cmdline")


@dataclass(slots=True)
class Measured:
    """The launch digest, and what went into it: SHA-256 (hex) of each part, in order."""

    digest: bytes
    parts: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def check_guest(given: dict[str, Any]) -> None:
    """Refuse guest options that contradict each other; raises Unsupported."""

    def there(*names: str) -> list[str]:
        return [option_name(name) for name in names if given[name] is not None]

    digest, hashes = there("launch_digest"), there("kernel_hashes")
    parts, model, pages = there(*_HASHES), there(*_MODEL), there(*_PAGES)
    beside = there("firmware", *_HASHES, "kernel_hashes", *_VCPU)
    rules = (
        (digest and beside, f"--launch-digest excludes {', '.join(beside)}"),
        (not digest and not there("firmware"), "--firmware (or --launch-digest) is needed"),
        (hashes and parts, f"--kernel-hashes excludes {', '.join(parts)}"),
        (parts and "--kernel" not in parts, f"--kernel is needed for {' and '.join(parts)}"),
        (model and pages, "--vmsa-cpu0/1 exclude --cpu-family, --cpu-model and --cpu-stepping"),
        (0 < len(model) < len(_MODEL), "--cpu-family, --cpu-model, --cpu-stepping go together"),
        (pages == ["--vmsa-cpu1"], "--vmsa-cpu1 needs --vmsa-cpu0"),
    )
    for broken, message in rules:
        if broken:
            raise Unsupported(message, check="usage")


def measure_guest(given: dict[str, Any], policy: GuestPolicy, *, progress: bool) -> Measured:
    """Compute the launch digest of the options; raises what :func:`launch_digest` does."""
    if given["launch_digest"] is not None:
        with reading("--launch-digest"):
            return Measured(blob(given["launch_digest"].encode(), (32,), "launch digest"))
    with reading(given["firmware"]), large_file(given["firmware"], progress=progress) as file:
        firmware = Firmware.read(file)
    parts = {"firmware": firmware.sha256.hex()}
    kernel = _kernel_hashes(given, progress=progress)
    if kernel is not None:
        parts |= {name: getattr(kernel, name).hex() for name in _HASHES}
        parts["kernel hashes table"] = hashlib.sha256(kernel.to_bytes()).hexdigest()
    notes = []
    vcpus, vmsa = None, None
    if policy.es:
        vcpus = given["num_cpus"]
        with reading(given["firmware"]):
            vmsa = _vmsa(given, firmware)
        parts |= {"VMSA of the boot vCPU": hashlib.sha256(vmsa.boot).hexdigest()}
        if vmsa.ap is not None:
            parts |= {"VMSA of each other vCPU": hashlib.sha256(vmsa.ap).hexdigest()}
    elif any(given[name] is not None for name in _VCPU):
        notes.append(f"policy {policy} is plain SEV: vCPU options play no part in its measurement")
    with reading(given["firmware"]):
        digest = launch_digest(firmware, kernel=kernel, vcpus=vcpus, vmsa=vmsa)
    return Measured(digest, parts, notes)


def _kernel_hashes(given: dict[str, Any], *, progress: bool) -> KernelHashes | None:
    if given["kernel_hashes"] is not None:
        parts = given["kernel_hashes"].split(":")
        names = [name for name, text in zip(_HASHES, parts, strict=False) if text]
        if len(parts) != len(_HASHES) or "kernel" not in names:
            raise Unsupported(
                "--kernel-hashes takes KERNEL:INITRD:CMDLINE (the last two may be empty)",
                check="usage",
            )
        with reading("--kernel-hashes"):
            hashes = {
                n: blob(p.encode(), (32,), n) for n, p in zip(_HASHES, parts, strict=True) if p
            }
            return KernelHashes(**hashes)
    if given["kernel"] is None:
        return None
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(large_file(given[name], progress=progress))
            for name in ("kernel", "initrd")
            if given[name] is not None
        }
        cmdline = given["cmdline"]
        return KernelHashes.of(**files, cmdline=None if cmdline is None else os.fsencode(cmdline))


def _vmsa(given: dict[str, Any], firmware: Firmware) -> VmsaPages:
    if given["num_cpus"] is None:
        raise Unsupported("an SEV-ES policy needs the number of vCPUs: --num-cpus", check="usage")
    if given["cpu_family"] is not None:
        cpu = CpuModel(
            family=given["cpu_family"], model=given["cpu_model"], stepping=given["cpu_stepping"]
        )
        return VmsaPages.qemu_legacy(cpu, firmware.reset_address())
    if given["vmsa_cpu0"] is None:
        raise Unsupported(
            "an SEV-ES policy needs the vCPUs' state: --vmsa-cpu0 (and --vmsa-cpu1), "
            "or --cpu-family, --cpu-model and --cpu-stepping",
            check="usage",
        )
    boot = _page(given["vmsa_cpu0"])
    ap = None if given["vmsa_cpu1"] is None else _page(given["vmsa_cpu1"])
    return VmsaPages(boot=boot, ap=ap)


def _page(path: str) -> bytes:
    with reading(path):
        page = read_small(path, "VMSA page")
        VmsaPages(boot=page)  # here, so that an error names the file
    return page
