"""Secrets for one verified launch: the table that the guest reads, and the encrypted packet.

Sources: AMD 55766, "LAUNCH_SECRET"; the table is OVMF's (Guid/ConfidentialComputingSecret.h).
The table is a header (GUID, u32 length of the table) and entries (GUID, u32 length of the entry,
data), padded with zeros to a multiple of 16 bytes. The packet header, 52 bytes:

======  ====  =================================================
offset  size  field
======  ====  =================================================
0x00    4     FLAGS (bit 0: compressed; 0 here)
0x04    16    IV
0x14    32    MAC
======  ====  =================================================

with MAC = HMAC-SHA256(TIK, 0x01 || FLAGS || IV || length || length || ciphertext || MEASURE), both
lengths as LE32. Firmware before API 0.17 leaves MEASURE out.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from sev_attest import _crypto
from sev_attest._wire import guid_bytes, le
from sev_attest.errors import Insecure, MalformedInput, Unsupported
from sev_attest.sev.keys import TransportKeys
from sev_attest.sev.launch import VerifiedLaunch
from sev_attest.sev.spec import SECRET_LUKS, SECRET_TABLE, Context

MAX_PAYLOAD = 0x4000
"""Most bytes that KVM passes on at once: 16 KiB."""
ALIASES = {"luks-key": SECRET_LUKS}
_BLOCK = 16
_MEASURED_SINCE = (0, 17)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretPacket:
    """An encrypted packet that the host passes on to the firmware.

    ``header`` is 52 bytes; ``payload`` is the encrypted table, a multiple of 16 bytes.
    """

    header: bytes = field(repr=False)
    payload: bytes = field(repr=False)


def build_secret(
    launch: VerifiedLaunch,
    secrets: Mapping[str, bytes],
    *,
    secret_area_size: int | None = None,
    insecure: bool = False,
) -> SecretPacket:
    """Return ``secrets`` (bytes by GUID or alias), encrypted for this launch only.

    ``secret_area_size`` is that of the guest firmware (:meth:`Firmware.secret_area`), in bytes.

    Firmware before API 0.17 does not bind a secret to a launch: the host could start a second guest
    in the same session and pass it the packet. This is refused unless ``insecure``.

    Raises Insecure for such firmware; Unsupported for no secret, an empty one, one GUID twice, or
    more than 16 KiB; MalformedInput for a malformed GUID; TypeError for an unverified launch.
    """
    if not isinstance(launch, VerifiedLaunch):
        raise TypeError("a secret is built for a VerifiedLaunch: call verify_launch() first")
    if not (binds(launch) or insecure):
        raise Insecure(
            "firmware before API 0.17 does not bind a secret to its launch: any guest could get it",
            check="secret.unbound",
            hint="update the host's SEV firmware",
        )
    measure = launch.info.measure if binds(launch) else b""
    return secret_packet(
        launch.keys, measure, _bounded(secrets, secret_area_size), iv=_crypto.random_bytes(16)
    )


def build_secret_unverified(
    keys: TransportKeys, measure: bytes, secrets: Mapping[str, bytes]
) -> SecretPacket:
    """Return ``secrets``, encrypted for a MEASURE (32 bytes) that was not verified here.

    For a launch that another tool verified. Raises as :func:`build_secret`.
    """
    return secret_packet(keys, measure, _bounded(secrets), iv=_crypto.random_bytes(16))


def secret_packet(
    keys: TransportKeys, measure: bytes, plaintext: bytes, *, iv: bytes
) -> SecretPacket:
    """Return a table of secrets, encrypted for the launch with that MEASURE (32 bytes).

    ``measure`` is empty for firmware that does not bind a secret to a launch. Never use the same
    ``iv`` (16 bytes) twice with the same keys.
    """
    payload = _crypto.aes_ctr(keys.tek, iv, plaintext)
    flags = le(0, 4)
    length = le(len(payload), 4)
    message = le(Context.LAUNCH_SECRET, 1) + flags + iv + length + length + payload + measure
    mac = hmac.digest(keys.tik, message, "sha256")
    return SecretPacket(header=flags + iv + mac, payload=payload)


def _bounded(secrets: Mapping[str, bytes], area_size: int | None = None) -> bytes:
    payload = table(secrets)
    if area_size is not None and len(payload) > area_size:
        raise Unsupported(
            f"the secrets take {len(payload)} bytes, the firmware has room for {area_size}",
            check="secret.size",
        )
    if len(payload) > MAX_PAYLOAD:
        raise Unsupported(
            f"the secrets take {len(payload)} bytes, KVM passes {MAX_PAYLOAD} at most",
            check="secret.size",
        )
    return payload


def binds(launch: VerifiedLaunch) -> bool:
    """Return whether the firmware binds a secret to this launch (API 0.17 and later)."""
    return (launch.info.api_major, launch.info.api_minor) >= _MEASURED_SINCE


def table(secrets: Mapping[str, bytes]) -> bytes:
    """Return the table that the guest reads; raises as :func:`build_secret`."""
    entries: dict[bytes, bytes] = {}
    for name, secret in secrets.items():
        guid = guid_of(name)
        if guid in entries:
            raise Unsupported(
                f"there are two secrets with the GUID of {name}", check="secret.twice"
            )
        if not secret:
            raise Unsupported(f"the secret {name} is empty", check="secret.empty")
        entries[guid] = guid + le(16 + 4 + len(secret), 4) + secret
    if not entries:
        raise Unsupported("there is no secret to build", check="secret.none")
    body = b"".join(entries.values())
    whole = guid_bytes(SECRET_TABLE) + le(16 + 4 + len(body), 4) + body
    return whole + bytes(-len(whole) % _BLOCK)


def guid_of(name: str) -> bytes:
    """Return the GUID of a secret's name, 16 bytes; raises MalformedInput if it is none."""
    guid = ALIASES.get(name, name)
    try:
        raw = guid_bytes(guid)
    except ValueError:
        raw = b""
    dashes = [at for at, character in enumerate(guid) if character == "-"]
    if len(raw) != 16 or dashes != [8, 13, 18, 23]:  # noqa: PLR2004 - a GUID
        known = ", ".join(ALIASES)
        raise MalformedInput("secret", "GUID", f"{name!r} is neither a GUID nor an alias ({known})")
    return raw
