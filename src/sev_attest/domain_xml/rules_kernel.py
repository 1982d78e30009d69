"""Rules for a kernel that is booted directly: it must be measured."""

from collections.abc import Iterator

from sev_attest.domain_xml.rule import LIBVIRT, VALIDATE, Severity, Subject, Violation, rule

_E, _W, _I = Severity
_X86 = "QEMU hw/i386/x86.c"


@rule(
    "domain.kernel-hashes.missing", _E,
    "kernelHashes='yes' if there is a <kernel>", VALIDATE, mends=True,
)  # fmt: skip
def _unmeasured_kernel(subject: Subject) -> Iterator[Violation]:
    security, kernel = subject.domain.protection, subject.domain.kernel
    if kernel is None or security is None or subject.domain.kernel_hashes:
        return
    yield Violation(
        kernel,
        "kernel, initrd and command line are not measured: the host can boot others",
        "kernelHashes='yes' on <launchSecurity>",
        (subject.document.set_attribute(security, "kernelHashes", "yes"),),
    )


@rule(
    "domain.kernel-hashes.unused", _E, "no kernelHashes='yes' without a <kernel>", VALIDATE,
    mends=True,
)  # fmt: skip
def _unused_hashes(subject: Subject) -> Iterator[Violation]:
    security = subject.domain.protection
    if security is None or not subject.domain.kernel_hashes or subject.domain.kernel is not None:
        return
    meant = subject.record or subject.launch
    asked = meant is not None and meant.kernel_hashes
    yield Violation(
        security,
        "kernelHashes='yes' without a <kernel>: there is nothing to measure",
        "name <kernel> (and <initrd>, <cmdline>) in <os>, or leave kernelHashes out",
        () if asked else (subject.document.remove_attribute(security, "kernelHashes"),),
    )


@rule(
    "domain.kernel.shim", _E,
    "no <shim>: kernelHashes does not cover it (W), and libvirt refuses it without a <kernel>",
    LIBVIRT, mends=True,
)  # fmt: skip
def _shim(subject: Subject) -> Iterator[Violation]:
    for shim in subject.domain.root.all("os/shim"):
        if subject.domain.kernel is None:
            edit = subject.document.remove(shim)
            what = "a shim without a <kernel>: libvirt refuses it"
            yield Violation(shim, what, "no <shim>", (edit,))
        else:
            what = "the shim is not measured: the host can boot another"
            yield Violation(shim, what, "no <shim>", severity=_W)


@rule("domain.kernel.dtb", _W, "no <dtb>, which changes the measured kernel", _X86)
def _dtb(subject: Subject) -> Iterator[Violation]:
    for dtb in subject.domain.root.all("os/dtb"):
        what = "QEMU appends it to the kernel, whose hash is then not that of the file"
        yield Violation(dtb, what, "no <dtb>: x86 guests need none")


@rule("domain.kernel.rng-seed", _E, "QEMU is not 7.2.0 if a kernel is measured", _X86)
def _rng_seed(subject: Subject) -> Iterator[Violation]:
    version = subject.domain.machine_version or (7, 2)
    exact = subject.versions.qemu == (7, 2, 0)
    if exact and version >= (7, 2) and subject.domain.kernel is not None:
        yield Violation(
            subject.domain.place("os/type"),
            "QEMU 7.2.0 appends a random seed to the kernel: its hash cannot be predicted",
            "QEMU 7.2.1 or later, or a machine type of version 7.1",
        )
