"""The options that say what a guest boots, and how its vCPUs are set up."""

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sev_attest._encoding import blob
from sev_attest.cli import completion
from sev_attest.cli.bundle import Options, option
from sev_attest.cli.inputs import BYTE, FILE, Number, large_files, read_small
from sev_attest.cli.usage import usage
from sev_attest.errors import Unsupported, reading
from sev_attest.guest.spec import VMSA_PROFILES

if TYPE_CHECKING:
    from sev_attest.cli.documents.parts import KernelHashes as HashesFacts
    from sev_attest.guest.cpu import CpuModel
    from sev_attest.guest.kernel_hashes import KernelHashes
    from sev_attest.guest.vmsa import VmsaPages, VmsaProfile

_MODEL = ("cpu_family", "cpu_model", "cpu_stepping")
BUILT = (*_MODEL, "cpu_model_name", "vmsa_profile")
PAGES = ("vmsa_cpu0", "vmsa_cpu1")
KERNEL = ("kernel", "initrd", "cmdline")


class CpuOptions(Options, title="The guest's vCPUs"):
    """The CPU that a guest sees, and how its VMM sets it up."""

    cpu_family: int | None = option(
        "--cpu-family", type=Number(270), help="CPU family, to build vCPU state from."
    )
    cpu_model: int | None = option("--cpu-model", type=BYTE, help="CPU model.")
    cpu_stepping: int | None = option("--cpu-stepping", type=Number(15), help="CPU stepping.")
    cpu_model_name: str | None = option(
        "--cpu-model-name",
        metavar="NAME",
        shell_complete=completion.cpu_models,
        help="Instead: QEMU's name (EPYC-Milan-v2).",
    )
    vmsa_profile: str | None = option(
        "--vmsa-profile",
        metavar="NAME",
        shell_complete=completion.vmsa_profiles,
        help=f"How the VMM sets up vCPUs: {', '.join(VMSA_PROFILES)} "
        f"(default: {VMSA_PROFILES[0]}).",
    )

    def model(self) -> "CpuModel | None":
        """Return the CPU model, None if no option names one.

        Raises Unsupported for an unknown name, or options that contradict each other.
        """
        family, model, stepping = self.cpu_family, self.cpu_model, self.cpu_stepping
        numbers = self.stated(*_MODEL)
        if self.cpu_model_name is None and not numbers:
            return None
        from sev_attest.guest.cpu import CpuModel

        if self.cpu_model_name is not None:
            if numbers:
                raise usage(
                    "--cpu-model-name excludes --cpu-family, --cpu-model and --cpu-stepping"
                )
            return CpuModel.named(self.cpu_model_name)
        if family is None or model is None or stepping is None:
            raise usage("--cpu-family, --cpu-model, --cpu-stepping go together")
        return CpuModel(family=family, model=model, stepping=stepping)

    @classmethod
    def profiles(cls) -> "type[VmsaProfile]":
        """Return the type of the profile."""
        from sev_attest.guest.vmsa import VmsaProfile

        return VmsaProfile

    def profile(self) -> "VmsaProfile | None":
        """Return how the vCPUs are set up, None if these options name no vCPU state.

        Raises Unsupported for an unknown profile, and as :meth:`model` does.
        """
        name, cpu = self.vmsa_profile, self.model()
        if name is None and cpu is None:
            return None
        kind = self.profiles()
        if name is None:
            return kind(cpu=cpu)
        if cpu is None and name in kind.layouts and kind.needs_cpu(name):
            return None
        return kind(name=name, cpu=cpu)

    def notes(self) -> list[str]:
        """Return a note if the profile shows guests another CPU than the options name."""
        name, cpu = self.vmsa_profile, self.stated(*_MODEL, "cpu_model_name")
        if name is None or not cpu or self.profiles().shows_cpu(name):
            return []
        return [f"profile {name} shows guests a CPU of its own: {cpu[0]} plays no part"]


class StateOptions(CpuOptions, title="The guest's vCPUs"):
    """How the vCPUs of a guest are set up: their pages, or what these are built from."""

    vmsa_cpu0: str | None = option(
        "-0", "--vmsa-cpu0", type=FILE, metavar="FILE", help="Boot vCPU's state."
    )
    vmsa_cpu1: str | None = option(
        "-1", "--vmsa-cpu1", type=FILE, metavar="FILE", help="Other vCPUs' state."
    )

    def state_errors(self, others: Sequence[str] = BUILT) -> Iterator[Unsupported]:
        """Yield an error for options that contradict each other, or make no profile.

        ``others`` are the fields that exclude pages.
        """
        pages, built = self.stated(*PAGES), self.stated(*others)
        if built and pages:
            yield usage(f"--vmsa-cpu0/1 exclude {', '.join(built)}")
        elif pages == ["--vmsa-cpu1"]:
            yield usage("--vmsa-cpu1 needs --vmsa-cpu0")
        try:
            self.profile()
        except Unsupported as error:
            yield error

    def read_pages(self) -> "VmsaPages | None":
        """Read the pages; None if no option names one."""
        if self.vmsa_cpu0 is None:
            return None
        from sev_attest.guest.vmsa import VmsaPages

        boot = read_page(self.vmsa_cpu0)
        ap = None if self.vmsa_cpu1 is None else read_page(self.vmsa_cpu1)
        return VmsaPages(boot=boot, ap=ap)


class KernelOptions(Options, title="The guest"):
    """What a guest boots."""

    firmware: str | None = option(
        "-f", "--firmware", type=FILE, metavar="FILE", help="Firmware image."
    )
    kernel: str | None = option(
        "-k", "--kernel", type=FILE, metavar="FILE", help="Kernel, booted directly."
    )
    initrd: str | None = option(
        "-r", "--initrd", type=FILE, metavar="FILE", help="Initrd of that kernel."
    )
    cmdline: str | None = option(
        "-e", "--cmdline", metavar="TEXT", help="Command line of that kernel."
    )
    kernel_hashes: str | None = option(
        "--kernel-hashes",
        metavar="HEX:HEX:HEX",
        help="SHA-256 of kernel, initrd and command line (with its NUL), instead of these.",
    )

    def kernel_errors(self) -> Iterator[Unsupported]:
        """Yield an error for parts of a kernel that contradict each other, or have none."""
        parts = self.stated(*KERNEL)
        if self.kernel_hashes is not None and parts:
            yield usage(f"--kernel-hashes excludes {', '.join(parts)}")
        elif parts and self.kernel is None:
            yield usage(f"--kernel is needed for {' and '.join(parts)}")

    def read_kernel(self, *, progress: bool) -> "KernelHashes | None":
        """Hash the kernel, or read its hashes; None if no option names one."""
        if self.kernel_hashes is not None:
            return _kernel_hashes(self.kernel_hashes)
        if self.kernel is None:
            return None
        from sev_attest.guest.kernel_hashes import KernelHashes

        cmdline = None if self.cmdline is None else os.fsencode(self.cmdline)
        paths = (self.kernel,) if self.initrd is None else (self.kernel, self.initrd)
        with large_files(*paths, progress=progress) as (kernel, *rest):
            return KernelHashes.of(kernel, rest[0] if rest else None, cmdline)


def _kernel_hashes(text: str) -> "KernelHashes":
    """Read KERNEL:INITRD:CMDLINE, SHA-256 each."""
    from sev_attest.guest.kernel_hashes import KernelHashes

    parts = text.split(":")
    stated = [name for name, part in zip(KERNEL, parts, strict=False) if part]
    if len(parts) != len(KERNEL) or "kernel" not in stated:
        raise usage("--kernel-hashes takes KERNEL:INITRD:CMDLINE (the last two may be empty)")
    with reading("--kernel-hashes"):
        digests = zip(KERNEL, map(os.fsencode, parts), strict=True)
        return KernelHashes(
            **{n: blob(part, (32,), n, only_text=True) for n, part in digests if part}
        )


def hashes_of(kernel: "KernelHashes | None") -> "HashesFacts | None":
    """Return the hashes of a kernel in hex, by name, for JSON; None without one."""
    if kernel is None:
        return None
    return {
        "kernel": kernel.kernel.hex(),
        "initrd": kernel.initrd.hex(),
        "cmdline": kernel.cmdline.hex(),
    }


def read_page(path: str) -> bytes:
    """Read a VMSA page, 4096 bytes, from a file."""
    from sev_attest.guest.vmsa import VmsaPages

    with reading(path):
        page = read_small(path, "VMSA page")
        VmsaPages(boot=page)  # here, so that an error names the file
    return page


def no_state(what: str) -> Unsupported:
    """Return the error for a guest whose vCPUs' state no option names."""
    return usage(
        f"{what} needs the vCPUs' state: --vmsa-cpu0 (and --vmsa-cpu1), "
        "--cpu-model-name, or --cpu-family, --cpu-model and --cpu-stepping"
    )
