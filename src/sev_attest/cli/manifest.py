"""The manifest of ``sev-attest measure --manifest``: launch digests that owner.toml can allow."""

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from sev_attest.cli.options.guest import GuestRangeOptions
from sev_attest.cli.outputs import write_all
from sev_attest.cli.usage import usage
from sev_attest.errors import Unsupported
from sev_attest.owner.requirements_file import MANIFEST_SCHEMA
from sev_attest.sev.digest import MeasuredGuest
from sev_attest.sev.policy import GuestPolicy


def kinds(guest: GuestRangeOptions) -> list[GuestRangeOptions]:
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
    kernel = guest.kernel
    hashes = kernel and {n: getattr(kernel, n).hex() for n in ("kernel", "initrd", "cmdline")}
    document = {
        "schema": MANIFEST_SCHEMA,
        "firmware": {
            "file": Path(str(guests[0].firmware)).name,
            "size": guest.firmware.size,
            "sha256": guest.firmware.sha256.hex(),
        },
        "kernel_hashes": hashes,
        "launches": launches,
    }
    data = json.dumps(document, indent=2).encode() + b"\n"
    write_all([(Path(place), data)], force=force)
    return len(launches)


def _launches(guest: MeasuredGuest, options: GuestRangeOptions) -> list[dict[str, object]]:
    """Return the launches of one CPU model and VMSA profile, or of the pages that were given."""
    counts = options.num_cpus
    if guest.vmsa is None or counts is None:
        return [{"digest": guest.digests()[0].hex()}]
    cpu, profile = options.model(), options.profile()
    if options.vmsa_cpu0 is None:
        vmsa = options.vmsa(guest.firmware)
        guest = MeasuredGuest(firmware=guest.firmware, kernel=guest.kernel, vmsa=vmsa)
    digests = guest.digests(counts[-1])
    return [
        {
            "vcpus": count,
            "cpu": options.cpu_model_name or (cpu and f"signature {cpu.signature:#x}"),
            "vmsa_profile": profile and profile.name,
            "digest": digests[count - 1].hex(),
        }
        for count in counts
    ]
