"""A platform's certificates: its chain for guest owners, and the OCA of its own owner."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from sev_attest.errors import ChainInvalid, NotVerified, SevAttestError, WrongState, reading
from sev_attest.host.device import Command, Device, PlatformStatus
from sev_attest.host.device_errors import status_error
from sev_attest.sev.chain.certificate import Certificate
from sev_attest.sev.chain.chain import Chain, Collected
from sev_attest.sev.chain.packaging import certificate_of, read_contents
from sev_attest.sev.chain.roots import Root
from sev_attest.sev.chain.verify import VerifiedChain, verify_chain, verify_owned
from sev_attest.sev.spec import Usage
from sev_attest.sev.states import PlatformState, Status

_UNSIGNED_CEK = "chain.cek.unsigned"


def exported_chain(device: Device) -> Chain:
    """Return the PDH, PEK, OCA and CEK of a platform, and its id if the firmware reports one.

    The CEK is without AMD's signature. Does not verify: anything.

    Raises HostError and WrongState as the device does, MalformedInput for a damaged certificate.
    """
    pdh, rest = device.pdh_cert_export()
    with reading(device.path):
        chain = Chain.from_bytes(pdh + rest)
    platform_id = None
    with suppress(SevAttestError):  # it is for the address of the signed CEK only
        platform_id = device.get_id()
    return replace(chain, platform_id=platform_id)


def with_signed_cek(chain: Chain, data: bytes, source: str) -> Chain:
    """Return the chain with the CEK that AMD signed; ``source`` is where ``data`` is from.

    Raises MalformedInput for anything but one CEK, NotVerified for the CEK of another chip.
    Does not verify: its signature.
    """
    collected = Collected()
    collected.add(read_contents(chain.to_bytes()), source)
    collected.platform_id = chain.platform_id
    with reading(source):
        collected.replace(certificate_of(Usage.CEK, data))
    return collected.chain()


def verify_exported(chain: Chain, *, roots: Sequence[Root], signed: bool) -> VerifiedChain | None:
    """Verify a chain that this host exports.

    Without ``signed``, AMD's signature on the CEK may be missing: the result is None then.

    Raises ChainInvalid if anything else is wrong with it.
    """
    try:
        return verify_chain(chain, roots=roots)
    except ChainInvalid as error:
        if signed or {failure.check for failure in error.failures} != {_UNSIGNED_CEK}:
            raise
    return None


def require_no_guests(device: Device, status: PlatformStatus) -> None:
    """Raise WrongState if guests run: then the firmware keeps the keys of the platform."""
    if status.state is PlatformState.WORKING or status.guest_count:
        raise WrongState(
            f"{device.path}: SEV guests are running ({status.guest_count})",
            check="device.guests",
            hint="stop this host's SEV guests, then try again",
        )


def verify_import(
    device: Device, status: PlatformStatus, *, pek: Certificate, oca: Certificate
) -> None:
    """Check what PEK_CERT_IMPORT will check, and say more about it than the firmware does.

    Raises ChainInvalid if the OCA does not sign itself or the PEK, NotVerified if that PEK is not
    this platform's, WrongState if guests run or the platform has an owner.
    """
    verify_owned(pek=pek, oca=oca)
    require_no_guests(device, status)
    if status.externally_owned:
        raise status_error(device.path, Command.PEK_CERT_IMPORT.name, Status.ALREADY_OWNED)
    if pek.body != Certificate.from_bytes(device.pek_csr()).body:
        raise NotVerified(
            "this PEK is not the one of this platform, or its keys were renewed since its CSR",
            check="device.other-pek",
            hint="make a new CSR, and sign it",
        )
