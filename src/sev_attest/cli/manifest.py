"""The manifest of ``sev-attest measure --manifest``: launch digests that owner.toml can allow."""

import json
from itertools import product
from pathlib import Path
from typing import Any

from sev_attest.cli.options.guest import cpu_model, profile, read_guest, read_vmsa
from sev_attest.cli.outputs import write_all
from sev_attest.errors import Unsupported
from sev_attest.owner.requirements_file import MANIFEST_SCHEMA
from sev_attest.sev.digest import MeasuredGuest
from sev_attest.sev.policy import GuestPolicy


def write_manifest(given: dict[str, Any], policy: GuestPolicy, *, progress: bool) -> int:
    """Write the digest for each number of vCPUs, CPU model and VMSA profile; gives how many.

    The guest is read once. Raises Unsupported for a digest that is given, instead of a guest, and
    for a profile that needs a CPU model and has none.
    """
    if given["launch_digest"] is not None:
        raise Unsupported("--manifest needs the guest itself, not --launch-digest", check="usage")
    kinds = [
        given | {"cpu_model_name": model, "vmsa_profile": layout}
        for model, layout in product(_names(given["cpu_model_name"]), _names(given["vmsa_profile"]))
    ]
    guest = read_guest(kinds[0], policy, progress=progress)
    launches = [launch for kind in kinds for launch in _launches(guest, kind)]
    kernel = guest.kernel
    hashes = kernel and {n: getattr(kernel, n).hex() for n in ("kernel", "initrd", "cmdline")}
    document = {
        "schema": MANIFEST_SCHEMA,
        "firmware": {
            "file": Path(given["firmware"]).name,
            "size": guest.firmware.size,
            "sha256": guest.firmware.sha256.hex(),
        },
        "kernel_hashes": hashes,
        "launches": launches if policy.es else launches[:1],
    }
    data = json.dumps(document, indent=2).encode() + b"\n"
    write_all([(Path(given["manifest"]), data)], force=given["force"])
    return len(launches if policy.es else launches[:1])


def _names(text: str | None) -> list[str | None]:
    return [None] if text is None else [*text.split(",")]


def _launches(guest: MeasuredGuest, given: dict[str, Any]) -> list[dict[str, object]]:
    """Give the launches of one CPU model and VMSA profile, or with the pages that were given."""
    if guest.vmsa is None:
        return [{"digest": guest.digests()[0].hex()}]
    cpu = cpu_model(given)
    built = profile(given, cpu)
    if given["vmsa_cpu0"] is None:
        vmsa = read_vmsa(given, guest.firmware)
        guest = MeasuredGuest(firmware=guest.firmware, kernel=guest.kernel, vmsa=vmsa)
    digests = guest.digests(given["num_cpus"][-1])
    return [
        {
            "vcpus": count,
            "cpu": given["cpu_model_name"] or (cpu and f"signature {cpu.signature:#x}"),
            "vmsa_profile": built and built.name,
            "digest": digests[count - 1].hex(),
        }
        for count in given["num_cpus"]
    ]
