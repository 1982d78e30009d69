"""Comparing what may have been launched with a measurement."""

import hashlib
import hmac
from collections.abc import Callable, Collection, Iterable, Iterator

from sev_attest.errors import SevAttestError
from sev_attest.guest.diagnosis.changes import ordered
from sev_attest.guest.diagnosis.search import Digests
from sev_attest.guest.firmware import Firmware
from sev_attest.guest.kernel_hashes import KernelHashes
from sev_attest.guest.spec import VMSA_PROFILES
from sev_attest.guest.vmsa import VmsaPages, VmsaProfile
from sev_attest.sev.diagnosis.hypotheses import Launch
from sev_attest.sev.digest import MeasuredGuest, pages_for
from sev_attest.sev.launch import expected_measure, measured_fields
from sev_attest.sev.launch_info import LaunchInfo
from sev_attest.sev.policy import GuestPolicy

_BLOCK = 64  # of SHA-256, bytes
_BUILD = 3  # offset of BUILD in the measured fields


class Trial:
    """Compares launches with a measurement; nothing is hashed twice.

    ``digest`` is the launch digest of a launch without firmware.
    """

    def __init__(self, info: LaunchInfo, digest: bytes | None) -> None:
        """Begin with nothing hashed."""
        self._info = info
        self._given = digest
        self._digests = Digests()

    def fits(self, launch: Launch) -> bool:
        """Return whether this launch would have that measurement."""
        digest = self._digest(launch)
        return digest is not None and hmac.compare_digest(
            expected_measure(
                launch.keys.tik,
                api=(launch.api_major, launch.api_minor),
                build_id=launch.build_id,
                policy=GuestPolicy(launch.policy),
                digest=digest,
                nonce=self._info.nonce,
            ),
            self._info.measure,
        )

    def vcpus(self, launch: Launch, counts: Collection[int]) -> int | None:
        """Return the first of ``counts`` vCPUs with which an SEV-ES launch fits; None for none."""
        found = self._each(launch, max(counts))
        numbers = (launch.api_major, launch.api_minor), launch.build_id, launch.policy
        nonce = self._info.nonce
        messages = (
            (count, measured_fields(*numbers, found[count - 1], nonce))
            for count in counts
            if count <= len(found)
        )
        return self._first(launch.keys.tik, messages)

    def build(self, launch: Launch, api: tuple[int, int]) -> int | None:
        """Return the first build of which a launch on this API fits; None for none."""
        digest = self._digest(launch)
        if digest is None:
            return None
        fields = measured_fields(api, 0, launch.policy, digest, self._info.nonce)
        start, end = fields[:_BUILD], fields[_BUILD + 1 :]
        messages = ((build, start + bytes((build,)) + end) for build in range(256))
        return self._first(launch.keys.tik, messages)

    def _first(self, tik: bytes, messages: Iterable[tuple[int, bytes]]) -> int | None:
        """Return the number of the first message whose HMAC is the measurement's."""
        mac, measure = macs(tik), self._info.measure
        for number, message in messages:
            if hmac.compare_digest(mac(message), measure):
                return number
        return None

    def _digest(self, launch: Launch) -> bytes | None:
        """Return a launch digest; None for a guest that cannot exist."""
        count = launch.vcpus if launch.es else 1
        found = self._each(launch, count)
        return found[count - 1] if len(found) >= count else None

    def _each(self, launch: Launch, count: int) -> list[bytes]:
        """Return at least ``count`` digests of a guest, fewer if there are no more."""
        firmware = launch.firmware
        if firmware is None:
            return [] if self._given is None else [self._given]
        booted = launch.hashes and (launch.kernel, launch.initrd, launch.cmdline)
        state = launch.es and (launch.layout, launch.cpu, launch.order)
        return self._digests.up_to(
            count, firmware, (booted, state), lambda: _digests(launch, firmware)
        )


def macs(key: bytes) -> Callable[[bytes], bytes]:
    """Return what computes HMAC-SHA256 under one key of at most 64 bytes.

    It copies the states after the key's two blocks: a third of the time of ``hmac.digest``.

    Source: RFC 2104.
    """
    block = key.ljust(_BLOCK, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def mac(message: bytes) -> bytes:
        first, second = inner.copy(), outer.copy()
        first.update(message)
        second.update(first.digest())
        return second.digest()

    return mac


def _digests(launch: Launch, firmware: Firmware) -> Iterator[bytes]:
    """Yield the digests for 1, 2, ... vCPUs; none for a guest that cannot exist."""
    kernel = None
    if launch.hashes:
        kernel = KernelHashes(kernel=launch.kernel, initrd=launch.initrd, cmdline=launch.cmdline)
    try:
        guest = MeasuredGuest(
            firmware=firmware,
            kernel=kernel,
            vmsa=_pages(launch, firmware) if launch.es else None,
        )
    except SevAttestError:  # this firmware starts no such guest
        return
    yield from guest.each()


def _pages(launch: Launch, firmware: Firmware) -> VmsaPages:
    pages = launch.given
    if pages is None or launch.layout or launch.cpu:
        profile = VmsaProfile(name=launch.layout or VMSA_PROFILES[0], cpu=launch.cpu)
        pages = pages_for(profile, firmware)
    return ordered(pages, launch.order)
