"""What can be wrong with an SEV-SNP guest or its report, one thing at a time."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from enum import Enum

from sev_attest.errors import Unsupported
from sev_attest.snp.certificates import Kind
from sev_attest.snp.spec import HOST_VMPL, PolicyBit
from sev_attest.snp.tcb import Product
from sev_attest.testing.host import fault_name
from sev_attest.testing.snp import SnpAuthority
from sev_attest.testing.snp_answer import Request
from sev_attest.testing.snp_launch import SIGNING_KEY
from sev_attest.testing.x509 import Shape


class SnpFault(Enum):
    """What can be wrong with a guest or a report. A value begins with the check id that refuses it.

    What has no check id before the colon verifies, and is for the owner to judge.
    """

    FORGED_ROOT = "snp.ark.trusted"
    UNSIGNED_CA = "snp.ask.signed-by-ark"
    UNSIGNED_KEY = "snp.vek.signed-by-ask"
    OTHER_KIND = "snp.vek.kind"
    OTHER_PRODUCT = "snp.vek.product"
    OTHER_TCB = "snp.vek.tcb"
    OTHER_CHIP = "snp.vek.hwid"
    EXPIRED_VLEK = "snp.vek.validity"
    OTHER_KEY = "snp.report.signature"
    MASKED_KEY = "snp.report.signature: masked"
    RESERVED_POLICY = "snp.report.reserved: bits 26-63 of the policy"
    RESERVED_04C = "snp.report.reserved: 0x4c"
    RESERVED_188 = "snp.report.reserved: 0x188, in version 2"
    RESERVED_18B = "snp.report.reserved: 0x18b"
    RESERVED_1EB = "snp.report.reserved: 0x1eb"
    RESERVED_1EF = "snp.report.reserved: 0x1ef"
    RESERVED_1F8 = "snp.report.reserved: 0x1f8, in versions 2 and 3"
    RESERVED_208 = "snp.report.reserved: 0x208"
    REPLAYED_REPORT = "snp.report-data: another request's"
    ASKED_BY_HOST = "snp.report-data: the host's"
    WRONG_FIRMWARE_BYTE = "snp.launch-digest: firmware"
    OTHER_VCPU_COUNT = "snp.launch-digest: vCPUs"
    DEBUG_POLICY = ": policy"
    OLD_TCB = ": TCB"

    @property
    def check(self) -> str:
        """The check id of the refusal; "" if it verifies."""
        return self.value.partition(":")[0]

    @property
    def in_launch(self) -> bool:
        """Whether another guest is launched; otherwise it shows in a report."""
        return self.check == "snp.launch-digest"


def change(fault: SnpFault, request: Request) -> None:
    """Make a request's answer wrong; a fault of the launch changes nothing here.

    Raises Unsupported for a fault that this version of a report cannot have.
    """
    if fault in _CHANGES:
        _CHANGES[fault](request)
    elif fault in _RESERVED:
        offset, byte, versions = _RESERVED[fault]
        if request.version not in versions:
            which = " or ".join(map(str, versions))
            name = fault_name(fault)
            words = f"{name} shows in reports of version {which}, not {request.version}"
            raise Unsupported(words, check="simulate.fault")
        request.poked[offset] = bytes([byte])


_MASK_CHIP_KEY = 1 << 1
_EVERY = (2, 3, 5)
_RESERVED: Mapping[SnpFault, tuple[int, int, tuple[int, ...]]] = {
    SnpFault.RESERVED_POLICY: (0x00F, 0x80, _EVERY),
    SnpFault.RESERVED_04C: (0x04C, 1, _EVERY),
    SnpFault.RESERVED_188: (0x188, 1, (2,)),
    SnpFault.RESERVED_18B: (0x18B, 1, _EVERY),
    SnpFault.RESERVED_1EB: (0x1EB, 1, _EVERY),
    SnpFault.RESERVED_1EF: (0x1EF, 1, _EVERY),
    SnpFault.RESERVED_1F8: (0x1F8, 1, (2, 3)),
    SnpFault.RESERVED_208: (0x208, 1, _EVERY),
}
"""A byte to use: its offset, a value, and the versions of a report in which it is reserved."""
_EXPIRED = Shape(
    not_before=datetime(2020, 1, 1, tzinfo=UTC), not_after=datetime(2020, 12, 31, tzinfo=UTC)
)
_OTHER_PRODUCTS = {Product.MILAN: "Genoa", Product.GENOA: "Milan-B0", Product.TURIN: "Milan-B0"}


def _forged_root(request: Request) -> None:
    forged = SnpAuthority(request.platform.authority.product, forged=True)
    request.platform = replace(request.platform, authority=forged)


def _unsigned_ca(request: Request) -> None:
    request.ca_signer = Kind.ASVK if request.kind is Kind.VCEK else Kind.ASK


def _unsigned_key(request: Request) -> None:
    request.vek["signer"] = Kind.ARK


def _other_kind(request: Request) -> None:
    other = Kind.VLEK if request.kind is Kind.VCEK else Kind.VCEK
    request.fields["key_info"] = request.guest.key_info | SIGNING_KEY[other]


def _other_product(request: Request) -> None:
    request.vek["product_name"] = _OTHER_PRODUCTS[request.platform.authority.product]


def _other_tcb(request: Request) -> None:
    tcb = request.platform.tcb
    request.fields["reported_tcb"] = tcb[:-1] + bytes([tcb[-1] ^ 1])


def _other_chip(request: Request) -> None:
    request.fields["chip_id"] = request.other_chip.hwid


def _expired_vlek(request: Request) -> None:
    request.kind = Kind.VLEK
    request.vek["shape"] = _EXPIRED


def _other_key(request: Request) -> None:
    request.signer = request.other_chip


def _masked_key(request: Request) -> None:
    request.signed = False
    of_key = SIGNING_KEY[request.kind]
    request.fields["key_info"] = request.guest.key_info | _MASK_CHIP_KEY | of_key


def _replayed_report(request: Request) -> None:
    request.fields["report_data"] = hashlib.sha512(b"an earlier request").digest()


def _asked_by_host(request: Request) -> None:
    request.fields["vmpl"] = HOST_VMPL


def _debug_policy(request: Request) -> None:
    request.fields["policy"] = request.guest.policy | PolicyBit.DEBUG


def _old_tcb(request: Request) -> None:
    tcb = bytes(version // 2 for version in request.platform.tcb)
    request.platform = replace(request.platform, tcb=tcb)


_CHANGES: Mapping[SnpFault, Callable[[Request], None]] = {
    SnpFault.FORGED_ROOT: _forged_root,
    SnpFault.UNSIGNED_CA: _unsigned_ca,
    SnpFault.UNSIGNED_KEY: _unsigned_key,
    SnpFault.OTHER_KIND: _other_kind,
    SnpFault.OTHER_PRODUCT: _other_product,
    SnpFault.OTHER_TCB: _other_tcb,
    SnpFault.OTHER_CHIP: _other_chip,
    SnpFault.EXPIRED_VLEK: _expired_vlek,
    SnpFault.OTHER_KEY: _other_key,
    SnpFault.MASKED_KEY: _masked_key,
    SnpFault.REPLAYED_REPORT: _replayed_report,
    SnpFault.ASKED_BY_HOST: _asked_by_host,
    SnpFault.DEBUG_POLICY: _debug_policy,
    SnpFault.OLD_TCB: _old_tcb,
}
