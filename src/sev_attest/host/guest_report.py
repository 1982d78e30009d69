"""A report of this SEV-SNP guest: asked for through configfs-tsm, or else through /dev/sev-guest.

Linux has configfs-tsm since 6.7, and the device since 5.19. Where both are there, the first is
used: it needs no binary interface, and knows the lowest VMPL that a request may name.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sev_attest.errors import MalformedInput, NotAttestable, reading
from sev_attest.host import sev_guest, tsm
from sev_attest.host.connection import HostError
from sev_attest.snp.report import AttestationReport

VMPLS = range(4)
_MEASURES = (
    "in an SEV-SNP guest: `modprobe sev-guest`, and `mount -t configfs none /sys/kernel/config`; "
    "`sev-attest guest check` looks at what there is"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What firmware and host answered, and where it was asked for: ``source`` is a path.

    ``certificates`` is the host's certificate table, empty if it has none.

    Does not verify: anything. The owner does.
    """

    report: bytes
    certificates: bytes
    source: str


Way = Callable[[bytes, int | None], "tuple[bytes, bytes] | None"]
"""Asks for a report with ``report_data`` and a VMPL; None if this kernel has no such way."""
WAYS: dict[str, Way] = {tsm.FOLDER: tsm.request, sev_guest.DEVICE: sev_guest.request}


def request_report(
    report_data: bytes, *, vmpl: int | None = None, ways: dict[str, Way] | None = None
) -> Answer:
    """Ask for a report with these 64 bytes of ``report_data``.

    ``vmpl`` is 0 to 3, not below the level that this kernel runs at; by default that level, or 0 if
    it is not known.

    Raises NotAttestable if this is no SEV-SNP guest, or its kernel offers no report; HostError if
    the kernel or the firmware refuses, or answers another question than was asked.
    """
    for source, ask in (WAYS if ways is None else ways).items():
        found = ask(report_data, vmpl)
        if found is not None:
            report, certificates = found
            _check(report, report_data, vmpl, source)
            return Answer(report=report, certificates=certificates, source=source)
    raise NotAttestable(
        f"this machine offers no SEV-SNP report: neither {tsm.FOLDER} nor {sev_guest.DEVICE}",
        check="guest.report",
        hint=_MEASURES,
    )


def _check(report: bytes, report_data: bytes, vmpl: int | None, source: str) -> None:
    """Raise HostError if a report is not the answer to what was asked."""
    try:
        with reading(source):
            parsed = AttestationReport.from_bytes(report)
    except MalformedInput as error:
        raise HostError(str(error), check="guest.report.format") from None
    if parsed.report_data != report_data:
        words = f"{source}: the report carries another report_data than was asked for"
        raise HostError(words, check="guest.report-data", hint="ask again")
    if vmpl is not None and parsed.vmpl != vmpl:
        words = f"{source}: the report is for VMPL {parsed.vmpl}, VMPL {vmpl} was asked for"
        raise HostError(words, check="guest.vmpl", hint="ask again without a VMPL")
