"""Values of the library as parts of evidence."""

from typing import TYPE_CHECKING

from sev_attest.cli.evidence.document import (
    CertificatePart,
    ChainPart,
    KernelPart,
    LaunchPart,
    MeasuredPart,
    RangePart,
    RecordPart,
    ReportPart,
)
from sev_attest.cli.evidence.keep import Kept
from sev_attest.cli.evidence.reader import encoded
from sev_attest.sev.digest import MeasuredRange
from sev_attest.snp.pages import PAGE_SIZE

if TYPE_CHECKING:
    from sev_attest.cli.options.guest import Measured
    from sev_attest.cli.options.reported import Reported
    from sev_attest.cli.options.snp_guest import SnpMeasured
    from sev_attest.guest.kernel_hashes import KernelHashes
    from sev_attest.owner.record import LaunchRecord
    from sev_attest.snp.certificates import Certificate


def chain_part(kept: Kept) -> ChainPart | None:
    """Return the chain, and the root that it leads to."""
    chain, root = kept.chain, kept.root
    if chain is None:
        return None
    return {
        "root": None if root is None else root.name,
        "generation": None if root is None else root.generation,
        "platform_id": _hex(chain.platform_id),
        "certificates": [
            CertificatePart(
                role=one.role,
                fingerprint=one.fingerprint,
                subject=None,
                not_before=None,
                not_after=None,
                bytes=encoded(one.to_bytes()),
            )
            for one in chain.certificates
        ],
    }


def _hex(data: bytes | None) -> str | None:
    return None if data is None else data.hex()


def record_part(record: "LaunchRecord") -> RecordPart:
    """Return what a record says. Its MAC stays with the owner: only his keys can check it."""
    return {
        "name": record.name,
        "session_id": record.session_id,
        "created": record.created,
        "root": record.root,
        "generation": record.generation,
        "cek": record.cek,
        "pdh": record.pdh,
        "kernel_hashes": record.kernel_hashes,
    }


def launch_part(reported: "Reported") -> LaunchPart:
    """Return what the host reports: its measurement is known to it, the expected one is not."""
    info = reported.info
    return {
        "measurement": encoded(info.measurement),
        "nonce": info.nonce.hex(),
        "api_major": info.api_major,
        "api_minor": info.api_minor,
        "build_id": info.build_id,
        "policy": reported.policy.value,
        "reported_policy": info.policy,
    }


def measured_part(measured: "Measured | SnpMeasured") -> MeasuredPart:
    """Return the guest that was meant: its digest, and what it is computed of."""
    kernel = measured.guest.kernel if measured.guest else None
    return {
        "digest": measured.digest.hex(),
        "vcpus": measured.vcpus,
        "ranges": ranges_of(measured),
        "kernel_hashes": None if kernel is None else _kernel(kernel),
    }


def _kernel(kernel: "KernelHashes") -> KernelPart:
    return {
        "kernel": kernel.kernel.hex(),
        "initrd": kernel.initrd.hex(),
        "cmdline": kernel.cmdline.hex(),
    }


def ranges_of(measured: "Measured | SnpMeasured") -> list[RangePart]:
    """Return the pieces that were measured, in order; none for a digest that was given."""
    found = []
    for one in measured.ranges:
        if isinstance(one, MeasuredRange):
            at, size, digest = one.offset, one.size, one.sha256
        else:
            at, size, digest = one.address, one.pages * PAGE_SIZE, one.digest
        found.append(RangePart(what=one.what, at=at, size=size, digest=digest))
    return found


def report_part(kept: Kept) -> ReportPart | None:
    """Return the report, what it was verified with, and what it had to say."""
    from sev_attest.snp.certificates import Certificate
    from sev_attest.snp.revocation import RevocationList

    case, verified = kept.case, kept.verified
    if case is None:
        return None
    runtime, expected = case.expected.runtime_data, case.expected
    return {
        "report": encoded(case.evidence.report.raw),
        "at": (verified.at if verified else kept.at or kept.began).isoformat(),
        "product": verified.product.value if verified else None,
        "root": verified.root.name if verified else None,
        "certificates": [
            certificate_part(one)
            for one in dict.fromkeys(kept.certificates)
            if isinstance(one, Certificate)
        ],
        "revocation_lists": [
            encoded(one.raw) for one in kept.certificates if isinstance(one, RevocationList)
        ],
        "runtime_data": None
        if runtime is None
        else {"hash_name": runtime.hash_name, "content": encoded(runtime.content)},
        "report_data": _hex(expected.report_data),
        "launch_digest": _hex(expected.launch_digest),
    }


def certificate_part(one: "Certificate") -> CertificatePart:
    """Return an X.509 certificate, and what is in it."""
    return {
        "role": one.kind.name,
        "fingerprint": one.fingerprint,
        "subject": one.subject.common_name,
        "not_before": one.not_before.isoformat(),
        "not_after": one.not_after.isoformat(),
        "bytes": encoded(one.raw),
    }
