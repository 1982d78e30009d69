"""Checks of QEMU's firmware descriptors, by which libvirt selects the firmware of a guest.

Source: QEMU docs/interop/firmware.json. A file in /etc masks one of the same name in /usr; an empty
file, or a link to /dev/null, masks without replacing. The file names give the order.
"""

import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from sev_attest.host.inspect.check import Answer, Check, Need, check, missing, note, ok, unknown
from sev_attest.host.inspect.machine import Machine
from sev_attest.host.inspect.tree import Tree

_FOLDERS = ("/etc/qemu/firmware", "/usr/local/share/qemu/firmware", "/usr/share/qemu/firmware")
"""The first wins."""
_MAX_DESCRIPTOR = 1 << 18
_WITHIN = ("/etc", "/usr")
_READS = "/etc/qemu/firmware, /usr/share/qemu/firmware"
_PACKAGES = (
    "install one (Fedora: edk2-ovmf; Debian forky and later: ovmf-amdsev; for Debian 12 and 13, "
    "build OVMF's AmdSev yourself)"
)
_INSTALL = f"{_PACKAGES}, or name the firmware's file in <loader> of the domain"
_STATELESS = (
    f"{_PACKAGES}, or name a build for SEV yourself: "
    "<loader type='rom'>/path/OVMF.amdsev.fd</loader>"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """One descriptor: its file, the firmware's features, the image, and whether it has no store."""

    path: str
    features: frozenset[str]
    image: str
    stateless: bool


def descriptors(tree: Tree) -> Iterator[Descriptor]:
    """Yield the descriptors of a tree for x86_64, in their order; malformed ones are left out.

    Raises Unreadable if a folder or a file cannot be read.
    """
    places: dict[str, str] = {}
    for folder in _FOLDERS:
        for name in tree.names(folder) or ():
            if name.endswith(".json"):
                places.setdefault(name, f"{folder}/{name}")
    for _, path in sorted(places.items()):
        info = tree.stat(path)
        if info is None or stat.S_ISCHR(info.st_mode):
            continue  # a link to /dev/null
        found = _parse(path, tree.read(path, _MAX_DESCRIPTOR) or b"")
        if found is not None:
            yield found


def _parse(path: str, data: bytes) -> Descriptor | None:
    """Return a descriptor, None if it is malformed or for another architecture."""
    try:
        whole = json.loads(data)
        mapping = whole["mapping"]
        device = mapping["device"]
        mode = mapping.get("mode", "split")
        image = mapping["executable"]["filename"] if device == "flash" else mapping["filename"]
        targets = {target["architecture"] for target in whole["targets"]}
        features = frozenset(map(str, whole["features"]))
    except Exception:  # noqa: BLE001 - a stranger's JSON: any type, any depth
        return None
    if "x86_64" not in targets or not isinstance(image, str):
        return None
    # A flash has a store for variables unless its mode says otherwise; what is loaded into memory
    # (-bios) never has one.
    stateless = device != "flash" or mode == "stateless"
    return Descriptor(path=path, features=features, image=image, stateless=stateless)


def _fitting(machine: Machine, need: Need) -> list[Descriptor]:
    return [one for one in descriptors(machine.tree) if need.feature in one.features]


def _judge(machine: Machine, found: list[Descriptor], what: str, fix: str) -> Answer | None:
    """Return the answer for the first descriptor, which libvirt selects; None if there is none."""
    if not found:
        return None
    chosen = found[0]
    if not machine.tree.exists(chosen.image):
        named, folder = f"{chosen.path} names {chosen.image}", chosen.image.rpartition("/")[0]
        if not machine.tree.live and not machine.tree.exists(folder):
            what = f"{named}: its folder is not in this copy"
            return unknown(what, f"`ls -l {chosen.image}` on the host")
        return missing(f"{named}, which is missing", fix)
    text = f"{what}: {chosen.image} ({chosen.path})"
    if "requires-smm" in chosen.features:
        return note(f"{text}, which needs SMM: bad for SEV, impossible for SEV-ES", fix)
    return ok(text)


@check(
    "host.descriptor", "libvirt can select firmware for such guests", _READS,
    "guide: Boot loader; QEMU firmware.json", within=_WITHIN,
)  # fmt: skip
def any_firmware(machine: Machine, need: Need) -> Answer:
    """Look for the feature, and for the image."""
    found = _judge(machine, _fitting(machine, need), need.feature, _INSTALL)
    others = ", ".join(one.feature for one in Need if _fitting(machine, one))
    only = f" (there is {others})" if others else ""
    return found or note(f"no firmware descriptor has {need.feature}{only}", _INSTALL, absent=True)


@check(
    "host.descriptor.stateless", "libvirt can select stateless firmware, which can be attested",
    _READS, "guide: Boot loader, <loader stateless='yes'/>", within=_WITHIN,
)  # fmt: skip
def stateless(machine: Machine, need: Need) -> Answer:
    """Look for firmware of that kind without a store for variables."""
    fitting = [one for one in _fitting(machine, need) if one.stateless]
    found = _judge(machine, fitting, "stateless", _STATELESS)
    return found or note(
        f"no descriptor of stateless firmware has {need.feature}", _STATELESS, absent=True
    )


CHECKS: tuple[Check, ...] = (any_firmware, stateless)
