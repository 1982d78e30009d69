"""What ``requirements check`` shows of ``[snp]`` in owner.toml."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sev_attest.cli.render import count
from sev_attest.owner.advisories import AdvisoryVerdict
from sev_attest.owner.requirements import ANY, TEST
from sev_attest.owner.snp_advisories import evaluate, version_text
from sev_attest.owner.snp_minimum import SnpMinimum
from sev_attest.owner.snp_reference import NO_HOST_DATA, SnpReferenceValue
from sev_attest.owner.snp_requirements import LISTS, SnpRequirements

_OTHERS = ("permits", "demands", "platform_set", "platform_clear", "acknowledged", "refused")
_SILENT = ("denied_chip_ids", "demands", "platform_set", "platform_clear", "acknowledged",
           "refused")  # fmt: skip
"""Lists of which an empty one is not shown."""


def facts(found: SnpRequirements, now: datetime) -> dict[str, Any]:
    """Return what is allowed, for a JSON document."""
    return {
        **{name: sorted(getattr(found, name)) for name in (*LISTS, "vmpls", *_OTHERS)},
        "min_abi": version_text(found.min_abi),
        "provisional": found.provisional,
        "minimum": {name: _minimum(least) for name, least in found.minimum.items()},
        "launches": [_launch(one, now) for one in found.launches],
    }


def _minimum(least: SnpMinimum) -> dict[str, Any]:
    committed = least.committed_firmware
    return {
        "firmware": version_text(least.firmware),
        "committed_firmware": committed and version_text(committed),
        "reported": dict(least.reported),
        "committed": least.committed and dict(least.committed),
        "launch": least.launch and dict(least.launch),
        "current_mitigations": least.current_mitigations,
        "launch_mitigations": least.launch_mitigations,
    }


def _launch(one: SnpReferenceValue, now: datetime) -> dict[str, Any]:
    return {
        "name": one.name,
        "digests": {digest.hex(): words for digest, words in (one.digests or {}).items()},
        "id_keys": sorted(key.hex() for key in one.id_keys or ()),
        "author_keys": sorted(key.hex() for key in one.author_keys or ()),
        "family_id": one.family_id and one.family_id.hex(),
        "image_id": one.image_id and one.image_id.hex(),
        "guest_svn": one.guest_svn,
        "host_data": ANY if one.host_data is None else one.host_data.hex(),
        "expires": one.expires and one.expires.isoformat(),
        "expired": one.expired(now),
        "note": one.note,
    }


def lines(found: SnpRequirements, now: datetime, *, verbose: bool) -> Iterator[str]:
    """Yield what is allowed, as lines of text."""
    shown = facts(found, now)
    for name in (*LISTS, "vmpls", *_OTHERS):
        words = "any" if ANY in shown[name] else ", ".join(map(str, shown[name]))
        if words or name not in _SILENT:
            yield f"SNP {name.replace('_', ' ')}: {words or 'none'}"
    if any(found.min_abi):
        yield f"SNP policy: ABI {shown['min_abi']} or later"
    yield f"SNP provisional firmware: {'allowed' if found.provisional else 'refused'}"
    for name, least in found.minimum.items():
        yield f"SNP {name}: {', '.join(_least(least))}"
    for launch in found.launches:
        yield _launch_line(launch, now)
        if verbose:
            for digest, words in (launch.digests or {}).items():
                yield f"  {digest.hex()} {words}"


def _least(least: SnpMinimum) -> Iterator[str]:
    """Yield each version of a minimum in words."""
    yield f"firmware {version_text(least.firmware)} or later"
    if least.committed_firmware is not None:
        yield f"committed firmware {version_text(least.committed_firmware)}"
    for name in ("reported", "committed", "launch"):
        if tcb := getattr(least, name):
            versions = " ".join(f"{component} {version}" for component, version in tcb.items())
            yield f"{name} TCB {versions}"
    for name in ("current", "launch"):
        if bits := getattr(least, f"{name}_mitigations"):
            yield f"{name} mitigations {bits:#x}"


def _launch_line(launch: SnpReferenceValue, now: datetime) -> str:
    """Return what is asked of a launch, in one line."""
    lists = {"id key": launch.id_keys, "author key": launch.author_keys}
    ids = {"family_id": launch.family_id, "image_id": launch.image_id}
    parts = [
        count(len(launch.digests or {}), "digest"),
        *(count(len(keys), name) for name, keys in lists.items() if keys),
        *(f"{name} {value.hex()}" for name, value in ids.items() if value),
    ]
    if launch.guest_svn:
        parts.append(f"guest_svn {launch.guest_svn}")
    data = launch.host_data
    shown = ANY if data is None else "zeros" if data == NO_HOST_DATA else data.hex()
    end = f"expires {launch.expires.isoformat()}" if launch.expires else "no end"
    parts += [f"host_data {shown}", "EXPIRED" if launch.expired(now) else end]
    return f"SNP launch {launch.name}: {', '.join(parts)} {launch.note}".rstrip()


def used(found: SnpRequirements) -> bool:
    """Return whether somebody filled it in."""
    return bool(found.products or found.launches)


def notes(found: SnpRequirements, now: datetime) -> tuple[list[str], bool]:
    """Return notes on what no report can meet, and whether some report can meet the rest."""
    none = "so no guest of SEV-SNP is allowed"
    said = [
        f"snp {name.replace('_', ' ')}: the list is empty, {none}"
        for name in ("products", "cpuids", "vmpls")
        if not getattr(found, name)
    ]
    if found.products == {TEST}:
        said.append(f"snp products: test allows roots alone, and no product is there, {none}")
    if not (found.chip_ids or found.csp_ids):
        said.append(f"snp chip ids and csp ids: both lists are empty, {none}")
    if not any(not launch.expired(now) for launch in found.launches):
        said.append("snp: there is no launch that has not expired, so none is allowed")
    blocked = {product: _blocking(found, product) for product in found.allowed_products}
    possible = not said and not all(blocked.values())
    if found.csp_ids and found.denied_chip_ids:
        said.append(
            "snp csp ids: a report that a VLEK signed names no chip, so it may be a denied one: "
            "none is allowed beside denied_chip_ids"
        )
        possible = possible and bool(found.chip_ids)
    said += [
        f"snp {product}: weaknesses of every report are not acknowledged, "
        f"so no guest on it is allowed: {', '.join(ids)}"
        for product, ids in blocked.items()
        if ids
    ]
    return said, possible


def _blocking(found: SnpRequirements, product: str) -> list[str]:
    """Return the weaknesses that no report rules out, and nothing but a word lets pass."""
    return [
        exposure.advisory.id
        for exposure in evaluate(product, None)
        if exposure.verdict is AdvisoryVerdict.AFFECTED
        and exposure.advisory.id not in found.acknowledged
    ]
