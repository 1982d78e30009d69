"""The lines of the benchmark for SEV-SNP."""

import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from bench_core import MIB, TOOL, Line, Scale, both, child, installed, timed
from sev_attest import snp
from sev_attest.guest import CpuModel
from sev_attest.snp.spec import SIGNED_SIZE
from sev_attest.testing import ovmf_image
from sev_attest.testing.images import SNP_SECTIONS
from sev_attest.testing.snp import SnpPlatform

PEER = "sev-snp-measure"
PAGE = 4096
DISTINCT = 182
"""Distinct pages of a real image of 4 MiB: Debian's."""
AT = datetime(2026, 1, 1, tzinfo=UTC)


def snp_lines(scale: Scale) -> Iterator[Line]:
    """A report, its certificates, and the launch digest."""
    yield from _report_lines()
    yield from _process_lines(scale)
    yield from _digest_lines(scale)


def _report_lines() -> Iterator[Line]:
    platform = SnpPlatform.of(b"bench")
    data, certificates = platform.report(), platform.certificates()
    roots = [platform.authority.root]
    report = snp.AttestationReport.from_bytes(data)
    found = snp.read_certificates(certificates)
    yield Line(
        name="snp.verify_report",
        what="snp.verify_report, certificates parsed before",
        against="the signatures alone on `cryptography`: RSA-PSS 4096 of the VCEK, ECDSA P-384",
        reach=">= 0.85",
        ratio="rate",
        ours=timed(lambda: snp.verify_report(report, found, roots=roots, at=AT), 40),
        reference=timed(bare_checks(platform, data), 40),
        rounds=25,
    )
    yield Line(
        name="snp.read_certificates",
        what="parsing VCEK, ASK and ARK",
        against="cryptography.x509.load_der_x509_certificate of the ASK and the ARK",
        reach="(by the way)",
        ratio="share",
        ours=timed(lambda: snp.read_certificates(certificates), 40),
        reference=timed(lambda: _cas(platform), 40),
    )
    yield Line(
        name="snp.AttestationReport",
        what="parsing a report",
        against="its SHA-384",
        reach="(by the way)",
        ratio="share",
        ours=timed(lambda: snp.AttestationReport.from_bytes(data), 200),
        reference=timed(lambda: hashlib.sha384(data), 200),
    )


def _cas(platform: SnpPlatform) -> list[x509.Certificate]:
    own = platform.authority
    return [x509.load_der_x509_certificate(data) for data in (own.ask, own.ark)]


def bare_checks(platform: SnpPlatform, report: bytes) -> Callable[[], None]:
    """Return the two signatures that every new report needs checked, on keys loaded before."""
    ask, _ = _cas(platform)
    key = ask.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        raise TypeError("the key of a CA is RSA")
    vek = snp.Certificate(raw=platform.vek())
    scheme = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
    r, s = (
        int.from_bytes(report[at : at + 72], "little") for at in (SIGNED_SIZE, SIGNED_SIZE + 72)
    )
    signature = utils.encode_dss_signature(r, s)
    ecdsa = ec.ECDSA(hashes.SHA384())
    own = platform.key(snp.Kind.VCEK).public_key()

    def check() -> None:
        key.verify(vek.signature, vek.body, scheme, hashes.SHA384())
        own.verify(signature, report[:SIGNED_SIZE], ecdsa)

    return check


def _process_lines(scale: Scale) -> Iterator[Line]:
    """`snp measure` beside the peer; `snp verify` is in bench_process."""
    image = str(firmware_image(scale))
    if peer := sev_snp_measure(image):
        ours = [*TOOL, "snp", "measure", "--firmware", image, "--num-cpus", "4",
                "--cpu-model-name", "EPYC-v4"]  # fmt: skip
        line = Line(
            name="snp-measure-peer",
            what="`snp measure`, 4 vCPUs",
            against="sev-snp-measure --mode snp, same inputs",
            reach="<= 0.60",
            ratio="share",
            ours=child(ours),
            reference=child(peer),
            rounds=scale.of(41, 3),
        )
        yield from both(line, ours, peer, "(by the way)")
        floor = child([sys.executable, "-c", "import click, hashlib"])
        what = "python -c 'import click, hashlib'"
        yield replace(line, name="snp-measure-bound", what=what, reach="(bound)", ours=floor)


def sev_snp_measure(image: str) -> list[str]:
    """Find AMD's and IBM's tool; empty if there is none."""
    path = Path(sys.executable).parent / PEER
    arguments = ["--mode", "snp", "--vcpus", "4", "--vcpu-type", "EPYC-v4", "--ovmf", image]
    return installed([[sys.executable, str(path), *arguments]], PEER)


def firmware_image(scale: Scale) -> Path:
    """Write an OVMF image of 4 MiB; like a real one, most of it is 0xff."""
    path = scale.folder / "snp-firmware"
    if not path.exists():
        code = ovmf_image(DISTINCT * PAGE, sections=SNP_SECTIONS)
        path.write_bytes(code.rjust(4 * MIB, b"\xff"))
    return path


def _digest_lines(scale: Scale) -> Iterator[Line]:
    """The launch digest in this process."""
    path = firmware_image(scale)
    image = path.read_bytes()
    cpu = CpuModel.named("EPYC-v4")
    yield Line(
        name="snp.launch_digest",
        what="snp.launch_digest, 4 vCPUs, 4 MiB of firmware",
        against="SHA-384 of the distinct pages and of the chain's blocks",
        reach="<= 2.2",
        ratio="share",
        ours=timed(lambda: snp.launch_digest(path, vcpus=4, vmsa=cpu), 20),
        reference=timed(partial(_bare_digest, image), 20),
        rounds=25,
    )
    found = snp.SnpFirmware.read(path)
    models = [CpuModel.named(name) for name in ("EPYC-v4", "EPYC-Milan", "EPYC-Genoa")]
    yield Line(
        name="snp.launch_digest-again",
        what="three more hypotheses on firmware that was read",
        against="snp.launch_digest of the image",
        reach="<= 0.1",
        ratio="share",
        ours=timed(lambda: [snp.launch_digest(found, vcpus=4, vmsa=model) for model in models], 20),
        reference=timed(lambda: snp.launch_digest(path, vcpus=4, vmsa=cpu), 20),
        rounds=25,
    )


def _bare_digest(image: bytes) -> bytes:
    """Hash each distinct page, and as many blocks of the chain as a guest with 4 vCPUs has."""
    for page in {image[at : at + PAGE] for at in range(0, len(image), PAGE)}:
        hashlib.sha384(page)
    digest = bytes(48)
    rest = bytes(64)
    sections = sum(size for _, size, _ in SNP_SECTIONS)
    for _ in range((len(image) + sections) // PAGE + 4):
        digest = hashlib.sha384(digest + rest).digest()
    return digest
