"""The configuration of a running domain, and what attestation needs of it."""

from sev_attest.domain_xml.domain import parse_domain, snp_guest
from sev_attest.errors import Insecure, NotAttestable, Unsupported
from sev_attest.host.connection import DomainConfig


def read_config(xml: str) -> DomainConfig:
    """Return the configuration in a domain's XML. Raises MalformedInput."""
    domain = parse_domain(xml.encode("utf-8", "surrogatepass"))

    def text(path: str) -> str | None:
        element = domain.root.find(path)
        return None if element is None else element.text

    cpu = domain.root.find("cpu")
    return DomainConfig(
        sev=domain.launch_security is not None,
        snp=domain.snp is not None,
        owner_keys=domain.has_session,
        kernel_hashes=domain.kernel_hashes,
        nvram=domain.root.find("os/nvram") is not None,
        firmware=text("os/loader"),
        kernel=text("os/kernel"),
        initrd=text("os/initrd"),
        cmdline=text("os/cmdline"),
        cpu_mode=(cpu is not None and cpu.get("mode")) or "",
        cpu_model=text("cpu/model") or "",
        session=(text("launchSecurity/session") or "").strip(),
    )


def check_config(config: DomainConfig, *, kernel: bool, insecure: bool) -> list[str]:
    """Check that a domain's configuration can be attested; return notes.

    ``kernel`` is whether the owner expects a kernel to be measured.

    Raises NotAttestable for a domain that cannot be attested, Unsupported for an SEV-SNP guest and
    if the owner expects a kernel and the domain has no kernel hashes, and Insecure for something
    that could be measured and is not. With ``insecure``, a note takes the place of Insecure.
    """
    if config.snp:
        raise snp_guest()
    faults = (
        (not config.sev, "the domain has no <launchSecurity type='sev'>"),
        (not config.owner_keys, "the domain lacks <dhCert> or <session>"),
        (not config.firmware, "the domain names no firmware: <os><loader>"),
    )
    for broken, message in faults:
        if broken:
            raise NotAttestable(message, check="domain.config")
    booted = any((config.kernel, config.initrd, config.cmdline))
    if kernel and not config.kernel_hashes:
        raise Unsupported(
            "a kernel is given, but the domain does not have kernelHashes='yes': no kernel was "
            "measured",
            check="domain.kernel-hashes",
        )
    if config.kernel_hashes and not booted:
        raise NotAttestable(
            "the domain has kernelHashes='yes', but no kernel", check="domain.kernel-hashes"
        )
    risks = (
        (config.nvram, "the domain has an <nvram>, which is not measured", "domain.nvram"),
        (
            booted and not config.kernel_hashes,
            "the domain boots a kernel that is not measured: it does not have kernelHashes='yes'",
            "domain.kernel-hashes",
        ),
    )
    found = [(message, check) for broken, message, check in risks if broken]
    if found and not insecure:
        message, check = found[0]
        raise Insecure(message, check=check)
    return [f"INSECURE: {message}" for message, _ in found]
