"""Read the manifests of ``measure`` and ``snp measure``: launch digests to allow."""

import json
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Final

from sev_attest._encoding import blob, sha384_digest, unique_names
from sev_attest.errors import MalformedInput
from sev_attest.owner._toml import Table, wrong

Manifest = Callable[[str], bytes]
"""Returns the contents of the manifest of a name."""

MANIFEST_SCHEMA: Final = "sev-attest/manifest/1"
SNP_MANIFEST_SCHEMA: Final = "sev-attest/snp-manifest/1"
_WRITERS = {
    MANIFEST_SCHEMA: "`measure --manifest`, for SEV and SEV-ES",
    SNP_MANIFEST_SCHEMA: "`snp measure --manifest`, for SEV-SNP",
}
_FIELDS = frozenset({"digest", "vcpus", "cpu", "vmsa_profile"})


def named_manifest(table: Table, path: str, manifest: Manifest | None) -> bytes:
    """Return the contents of the manifest that a launch of owner.toml names."""
    if manifest is None:
        raise wrong(table.place("manifest"), "manifests cannot be read here: use a digest")
    if "\0" in path:
        raise wrong(table.place("manifest"), "is not a file name")
    return manifest(path)


def read_manifest(data: bytes) -> dict[bytes, str]:
    """Return the launch digests of SEV or SEV-ES guests, 32 bytes, each with a description.

    Raises MalformedInput for any other document.
    """
    return _read(data, MANIFEST_SCHEMA, _sha256, _FIELDS)


def read_snp_manifest(data: bytes) -> dict[bytes, str]:
    """Return the launch digests of SEV-SNP guests, 48 bytes, each with a description.

    Raises MalformedInput for any other document.
    """
    return _read(data, SNP_MANIFEST_SCHEMA, sha384_digest, _FIELDS | {"guest_features"})


def _sha256(text: bytes, structure: str) -> bytes:
    return blob(text, (32,), structure, only_text=True)


def _read(
    data: bytes, schema: str, digest: Callable[[bytes, str], bytes], fields: AbstractSet[str]
) -> dict[bytes, str]:
    try:
        document = json.loads(data, object_pairs_hook=unique_names)
    except Exception:  # noqa: BLE001 - json raises more than it documents
        reason = "this is not JSON, or a field is given twice"
        raise MalformedInput("manifest", "format", reason) from None
    if not isinstance(document, dict) or document.get("schema") != schema:
        raise MalformedInput("manifest", "schema", _other(document, schema))
    unknown = document.keys() - {"schema", "firmware", "kernel_hashes", "launches"}
    if unknown:
        raise MalformedInput("manifest", "fields", f"unknown: {', '.join(sorted(unknown))[:80]}")
    launches = document.get("launches")
    if not isinstance(launches, list) or not launches:
        raise MalformedInput("manifest", "launches", "there are none")
    return dict(_launch(one, digest, fields) for one in launches)


def _other(document: object, schema: str) -> str:
    """Return what is wrong with a document that has another schema."""
    found = document.get("schema") if isinstance(document, dict) else None
    if isinstance(found, str) and found in _WRITERS:
        return f"this is a manifest of {_WRITERS[found]}; expected one of {_WRITERS[schema]}"
    return f"this is not a {schema} document"


def _launch(
    one: object, read: Callable[[bytes, str], bytes], fields: AbstractSet[str]
) -> tuple[bytes, str]:
    """Return the digest of a launch, and its description."""
    if not isinstance(one, dict) or not isinstance(one.get("digest"), str):
        raise MalformedInput("manifest", "launches", "one has no digest")
    if one.keys() - fields:
        raise MalformedInput("manifest", "launches", "one has a field that is not known here")
    text = one["digest"].encode("ascii", "backslashreplace")
    digest = read(text, "launch digest")
    vcpus, cpu, profile = one.get("vcpus"), one.get("cpu"), one.get("vmsa_profile")
    features = one.get("guest_features")
    if not all(isinstance(value, int | str | None) for value in (vcpus, cpu, profile, features)):
        raise MalformedInput("manifest", "launches", "one has a field of another type")
    if features:
        features = f"guest features {features}"
    return digest, ", ".join(
        f"{value} vCPUs" if isinstance(value, int) else str(value)
        for value in (vcpus, cpu, profile, features)
        if value
    )
