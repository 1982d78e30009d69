"""Rules for the host: its versions of libvirt and QEMU, and what it offers."""

from collections.abc import Iterator

from sev_attest.domain_xml.rule import GUIDE, Severity, Subject, Violation, rule
from sev_attest.domain_xml.versions import Version, before, dotted

_E, _W, _I = Severity
_FIRST: dict[str, Version] = {"libvirt": (4, 5), "QEMU": (2, 12), "Linux": (4, 16)}
"""The first versions with SEV. If a domain needs no later one, there is no note."""
_SNP_GUEST: Version = (5, 19)
"""The first Linux that runs as an SEV-SNP guest [from memory]."""


@rule(
    "domain.libvirt", _E,
    "libvirt is new enough for what the XML asks for (I if its version is unknown)", "libvirt NEWS",
)  # fmt: skip
def _libvirt(subject: Subject) -> Iterator[Violation]:
    domain = subject.domain
    loader = domain.root.find("os/loader")
    needs: list[tuple[Version, str]] = [(_FIRST["libvirt"], "SEV")]
    if any(device.model.endswith("-transitional") for device in domain.virtio):
        needs.append(((5, 2), "virtio-non-transitional"))
    if domain.kernel_hashes:
        needs.append(((8, 0), "kernelHashes"))
    if domain.place("os").get("firmware"):
        needs.append(((5, 2), "firmware='efi'"))
    if loader is not None and loader.get("stateless"):
        needs.append(((8, 6), "a stateless loader"))
    if loader is not None and loader.get("format") == "qcow2":
        needs.append(((9, 2), "a loader in qcow2"))
    if subject.snp:
        needs.append(((10, 5), "SEV-SNP"))
    if domain.root.find("os/shim") is not None:
        needs.append(((11, 2), "<shim>"))
    return _needs(subject, "libvirt", subject.versions.libvirt, needs)


@rule(
    "domain.qemu", _E, "QEMU is new enough for what the XML asks for (I if its version is unknown)",
    "QEMU qapi/qom.json",
)  # fmt: skip
def _qemu(subject: Subject) -> Iterator[Violation]:
    needs: list[tuple[Version, str]] = [(_FIRST["QEMU"], "SEV")]
    drivers = [device.element.find("driver") for device in subject.domain.virtio]
    if subject.versions.qemu is None and any(d is None or not d.get("iommu") for d in drivers):
        needs.append(((6, 0), "virtio without <driver iommu='on'/>"))
    if subject.domain.kernel_hashes:
        needs.append(((6, 2), "kernelHashes"))
    if subject.snp:
        needs.append(((9, 1), "SEV-SNP"))
    return _needs(subject, "QEMU", subject.versions.qemu, needs)


@rule(
    "domain.host-kernel", _E,
    "the host of an SEV-SNP guest has Linux 6.11 or later (I if its version is unknown)",
    "Linux, KVM_SEV_SNP_LAUNCH_START",
)  # fmt: skip
def _host_kernel(subject: Subject) -> Iterator[Violation]:
    needs: list[tuple[Version, str]] = [((6, 11), "SEV-SNP")] if subject.snp else []
    return _needs(subject, "Linux", subject.versions.host_kernel, [(_FIRST["Linux"], ""), *needs])


@rule(
    "domain.guest-kernel", _E,
    "an SEV-SNP guest's kernel is Linux 5.19 or later (I if its version is unknown)",
    "Linux, arch/x86/boot/compressed/sev.c",
)  # fmt: skip
def _guest_kernel(subject: Subject) -> Iterator[Violation]:
    kernel = subject.versions.guest_kernel
    if not subject.snp or not (kernel is None or before(kernel, _SNP_GUEST)):
        return
    what = f"SEV-SNP needs a guest kernel of {dotted(_SNP_GUEST)} or later"
    fix = "a newer kernel in the guest" if kernel else "nothing, if the kernel is that new"
    yield Violation(subject.domain.root, what, fix, severity=_E if kernel else _I)


def _needs(
    subject: Subject, program: str, version: Version | None, needs: list[tuple[Version, str]]
) -> Iterator[Violation]:
    missed = [need for need in needs if before(version, need[0])]
    least, feature = max(missed or needs)
    what = f"{feature} needs {program} {dotted(least)} or later"
    fix = f"a newer {program}"
    if version is None:
        if least > _FIRST[program]:
            yield Violation(
                subject.domain.root,
                what,
                f"nothing, if the host's {program} is that new",
                severity=_I,
            )
    elif missed:
        yield Violation(subject.domain.root, f"{what}, not {dotted(version)}", fix)


@rule(
    "domain.libvirt.dev-sev", _I, "libvirt lets QEMU open /dev/sev, as it does since 5.1.1", GUIDE,
)  # fmt: skip
def _dev_sev(subject: Subject) -> Iterator[Violation]:
    if before(subject.versions.libvirt, (5, 1, 1)):
        yield Violation(
            subject.domain.root,
            "libvirt up to 5.1.0 does not let QEMU open /dev/sev when it probes for SEV",
            "a newer libvirt, or other permissions on /dev/sev",
        )


@rule(
    "domain.host", _E, "the host offers what the policy asks for (if its capabilities are known)",
    "libvirt domcapabilities",
)  # fmt: skip
def _host(subject: Subject) -> Iterator[Violation]:
    host, security = subject.capabilities, subject.domain.protection
    if host is None or security is None:
        return
    if host.obstacles():
        yield Violation(security, host.foreign or "this host does not offer SEV", "another host")
    elif subject.snp:
        if not host.snp:
            what = "this host does not offer SEV-SNP"
            yield Violation(security, what, "another host, or SEV-ES")
    elif subject.es and not host.es:
        what = "this host runs no SEV-ES guests"
        yield Violation(security, what, "another host, or plain SEV")
    elif not subject.es and not host.sev:
        what = "this host runs SEV-ES guests only"
        yield Violation(security, what, "a session with bit 2 (es) in its policy")
