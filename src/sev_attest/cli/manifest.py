"""The manifests of ``sev-attest measure`` and ``snp measure``: launch digests to allow."""

import json
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sev_attest.cli.options.boot import StateOptions, hashes_of
from sev_attest.cli.options.guest import GuestRangeOptions
from sev_attest.cli.options.snp_guest import SnpGuestOptions, SnpInputs
from sev_attest.cli.outputs import write_all
from sev_attest.cli.usage import usage
from sev_attest.errors import Unsupported
from sev_attest.owner.manifest_file import MANIFEST_SCHEMA, SNP_MANIFEST_SCHEMA
from sev_attest.sev.digest import MeasuredGuest
from sev_attest.sev.policy import GuestPolicy

if TYPE_CHECKING:
    from sev_attest.cli.documents.files import (
        Manifest,
        ManifestLaunch,
        SnpManifest,
        SnpManifestLaunch,
    )

Guests = TypeVar("Guests", GuestRangeOptions, SnpGuestOptions)


def kinds(guest: Guests) -> list[Guests]:
    """Return the guest with each CPU model and each VMSA profile that its options list."""
    return [
        guest.replace(cpu_model_name=model, vmsa_profile=profile)
        for model, profile in product(_names(guest.cpu_model_name), _names(guest.vmsa_profile))
    ]


def _names(text: str | None) -> list[str | None]:
    return [None] if text is None else [*text.split(",")]


def manifest_errors(
    guest: GuestRangeOptions, *, beside: list[str], explain: bool, form: str | None
) -> Iterator[Unsupported]:
    """Yield an error for options that exclude a manifest; ``beside`` are those of a measurement."""
    if guest.launch_digest is not None:
        yield usage("--manifest needs the guest itself, not --launch-digest")
    yield from output_errors(beside=beside, explain=explain, form=form)


def output_errors(*, beside: list[str], explain: bool, form: str | None) -> Iterator[Unsupported]:
    """Yield an error for output that a manifest is not."""
    if beside:
        yield usage(f"--manifest holds digests: it excludes {', '.join(beside)}")
    if explain:
        yield usage("--manifest excludes --explain")
    if form is not None:
        yield usage("--manifest excludes --format: its digests are hex")


def write_manifest(
    guests: list[GuestRangeOptions],
    policy: GuestPolicy,
    place: str,
    *,
    force: bool,
    progress: bool,
) -> int:
    """Write the digest of each guest with each number of vCPUs; return how many there are.

    The guests differ in their vCPUs only, so that firmware and kernel are read once. Raises
    Unsupported for a profile that needs a CPU model and has none.
    """
    guest = guests[0].read(policy, progress=progress)
    launches = [launch for options in guests for launch in _launches(guest, options)]
    launches = launches if policy.es else launches[:1]
    firmware = guest.firmware
    document: Manifest = {
        "schema": MANIFEST_SCHEMA,
        "firmware": {
            "file": Path(str(guests[0].firmware)).name,
            "size": firmware.size,
            "sha256": firmware.sha256.hex(),
        },
        "kernel_hashes": hashes_of(guest.kernel),
        "launches": launches,
    }
    return _write(document, len(launches), place, force=force)


def write_snp_manifest(
    guests: list[SnpGuestOptions], place: str, *, force: bool, progress: bool
) -> int:
    """Write the digest of each SEV-SNP guest with each number of vCPUs; return how many there are.

    The guests differ in their vCPUs only, so that firmware and kernel are read once. Raises as
    :func:`write_manifest`.
    """
    inputs = guests[0].read(progress=progress)
    launches = [launch for options in guests for launch in _snp_launches(inputs, options)]
    document: SnpManifest = {
        "schema": SNP_MANIFEST_SCHEMA,
        "firmware": {
            "file": Path(str(guests[0].firmware)).name,
            "size": inputs.firmware.size,
            "pages_digest": inputs.firmware.prefix.hex(),
        },
        "kernel_hashes": hashes_of(inputs.kernel),
        "launches": launches,
    }
    return _write(document, len(launches), place, force=force)


def _write(document: Mapping[str, object], count: int, place: str, *, force: bool) -> int:
    data = json.dumps(document, indent=2).encode() + b"\n"
    write_all([(Path(place), data)], force=force)
    return count


def _snp_launches(inputs: SnpInputs, options: SnpGuestOptions) -> "list[SnpManifestLaunch]":
    """Return the launches of one CPU model and profile, or of the pages that were given."""
    counts = options.num_cpus or range(1, 2)
    digests = options.guest(inputs).digests(counts[-1])
    features = options.guest_features
    return [
        {
            "vcpus": count,
            "cpu": _cpu_name(options),
            "vmsa_profile": options.layout,
            "guest_features": None if features is None else f"{features:#x}",
            "digest": digests[count - 1].hex(),
        }
        for count in counts
    ]


def _cpu_name(options: StateOptions) -> str | None:
    cpu = options.model()
    return options.cpu_model_name or (f"signature {cpu.signature:#x}" if cpu else None)


def _launches(guest: MeasuredGuest, options: GuestRangeOptions) -> "list[ManifestLaunch]":
    """Return the launches of one CPU model and VMSA profile, or of the pages that were given."""
    counts = options.num_cpus
    if guest.vmsa is None or counts is None:
        return [{"digest": guest.digests()[0].hex()}]
    profile = options.profile()
    if options.vmsa_cpu0 is None:
        vmsa = options.vmsa(guest.firmware)
        guest = MeasuredGuest(firmware=guest.firmware, kernel=guest.kernel, vmsa=vmsa)
    digests = guest.digests(counts[-1])
    return [
        {
            "vcpus": count,
            "cpu": _cpu_name(options),
            "vmsa_profile": profile.name if profile else None,
            "digest": digests[count - 1].hex(),
        }
        for count in counts
    ]
