"""The lines of the benchmark for the launch digest: large files, and many vCPUs."""

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench_core import MIB, TOOL, Line, Scale, child, content, es_guest, firmware, timed
from sev_attest import sev
from sev_attest.guest import KernelHashes


def boot_files(scale: Scale, initrd: int) -> tuple[Path, Path]:
    """Write a kernel of 64 MiB (short: 4) and an initrd of ``initrd`` MiB."""
    kernel = scale.of(64, 4)
    return (
        content(scale.folder / "kernel", kernel * MIB),
        content(scale.folder / f"initrd-{initrd}", initrd * MIB),
    )


def digest_lines(scale: Scale) -> Iterator[Line]:
    """The launch digest: large files, and many vCPUs."""
    image = firmware(scale)
    kernel, initrd = boot_files(scale, scale.of(512, 16))
    parts = (image, kernel, initrd)

    def one_core() -> None:
        for path in parts:
            with path.open("rb") as file:
                hashlib.file_digest(file, "sha256")

    def whole() -> bytes:
        return sev.launch_digest(image, kernel=kernel, initrd=initrd, cmdline="console=ttyS0")

    files = f"4 MiB firmware, {scale.of(64, 4)} MiB kernel, {scale.of(512, 16)} MiB initrd"
    yield Line(
        name="launch_digest",
        what=f"launch_digest of {files}",
        against="hashlib.sha256 over the same files, one core",
        reach=">= 1.4",
        ratio="rate",
        ours=timed(whole),
        reference=timed(one_core),
    )
    yield Line(
        name="launch_digest-bound",
        what="SHA-256 of as many bytes as the initrd has, from the core's cache",
        against="hashlib.sha256 over the same files, one core",
        reach="(bound)",
        ratio="rate",
        ours=timed(partial(_from_cache, initrd.stat().st_size)),
        reference=timed(one_core),
    )
    even = content(scale.folder / "even", kernel.stat().st_size)
    yield Line(
        name="launch_digest-even",
        what=f"kernel and initrd of {scale.of(64, 4)} MiB each",
        against="hashlib.sha256 over the same files, one core",
        reach="(by the way)",
        ratio="rate",
        ours=timed(lambda: KernelHashes.of(kernel, even)),
        reference=timed(lambda: [_file_digest(path) for path in (kernel, even)]),
    )
    small = content(scale.folder / "initrd-small", MIB)
    measure = [*TOOL, "measure", "--firmware", str(image), "--kernel", str(kernel), "--initrd"]
    yield Line(
        name="launch_digest-memory",
        what=f"peak memory of `measure` with a {scale.of(512, 16)} MiB initrd",
        against="with a 1 MiB initrd",
        reach="<= 8 MiB more",
        ratio="more",
        unit="MiB",
        ours=child([*measure, str(initrd)], memory=True),
        reference=child([*measure, str(small)], memory=True),
        rounds=5,
    )
    guest = es_guest(image)
    yield Line(
        name="digests",
        what="digests for 1 to 512 vCPUs",
        against="the digest for 512 vCPUs",
        reach="<= 1.5",
        ratio="share",
        ours=timed(lambda: guest.digests(512), 5),
        reference=timed(lambda: one_digest(guest, 512), 5),
        rounds=25,
    )


def _from_cache(size: int) -> bytes:
    """Hash one block again and again: what SHA-256 costs where reading costs nothing."""
    digest, block = hashlib.sha256(), bytes(1 << 18)
    for _ in range(size // len(block)):
        digest.update(block)
    return digest.digest()


def _file_digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def one_digest(guest: sev.MeasuredGuest, vcpus: int) -> bytes:
    """Hash an SEV-ES guest for one number of vCPUs, in the plainest way."""
    digest = guest.firmware.hasher()
    for page in guest.vmsa.for_vcpus(vcpus) if guest.vmsa else ():
        digest.update(page)
    return digest.digest()
