"""The files that owners and guests keep and exchange."""

from typing import Annotated, Literal, NotRequired, TypedDict

from sev_attest.cli.documents.parts import (
    AnyGeneration,
    Base64,
    Count,
    Hex32,
    Hex48,
    Hex64,
    KernelHashes,
    Policy32,
    Time,
    rules,
)

Name = Annotated[str, rules({"pattern": "^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}$"})]
Text = Annotated[str, rules({"minLength": 1})]
KemId = Literal[0x0020, 0x647A]
"""HPKE's registry: X25519, and ML-KEM-768 with X25519."""


class LaunchRecord(TypedDict):
    """NAME.launch.json: what an owner knows of a session. Nothing in it is secret."""

    schema: Literal["sev-attest/launch/1"]
    name: str
    """What the owner calls the launch."""
    created: str
    """When it was made, in UTC."""
    root: str | None
    """The trusted root of the platform; null if it was not verified."""
    generation: AnyGeneration | None
    """The generation of AMD's chips; null if it was not verified, or the root is not AMD's."""
    claimed_platform_id: Hex64 | None
    """The id of the platform, as the host claims it."""
    cek: Hex32 | None
    """The fingerprint of the CEK; null if it was not verified."""
    pdh: Hex32
    """The fingerprint of the PDH."""
    policy: Policy32
    """The guest policy."""
    kernel_hashes: bool
    """Whether libvirt was asked to measure the kernel."""
    session_id: Hex32
    """The id of the session's keys."""
    godh_sha256: Hex32
    """SHA-256 of the GODH certificate."""
    session_sha256: Hex32
    """SHA-256 of the session blob."""
    mac: Hex32
    """HMAC-SHA256 of the other fields, with the session's keys."""


class ManifestFirmware(TypedDict):
    """The firmware of a manifest's guests."""

    file: str
    """The name of the file."""
    size: Count
    """Its size in bytes."""
    sha256: Hex32
    """Its SHA-256."""


class ManifestLaunch(TypedDict):
    """A launch that a manifest allows."""

    digest: Hex32
    """The launch digest."""
    vcpus: NotRequired[Count]
    """How many vCPUs; SEV-ES only."""
    cpu: NotRequired[str | None]
    """The CPU model; SEV-ES only."""
    vmsa_profile: NotRequired[str | None]
    """The VMSA profile; SEV-ES only."""


class Manifest(TypedDict):
    """The launch digests that `measure --manifest` writes, for owner.toml."""

    schema: Literal["sev-attest/manifest/1"]
    firmware: ManifestFirmware
    """The firmware."""
    kernel_hashes: KernelHashes | None
    """The hashes of a kernel that is booted directly."""
    launches: Annotated[list[ManifestLaunch], rules({"minItems": 1})]
    """The launches, at least one."""


class SnpManifestFirmware(TypedDict):
    """The firmware of the guests of an SEV-SNP manifest."""

    file: str
    """The name of the file."""
    size: Count
    """Its size in bytes."""
    pages_digest: Hex48
    """The launch digest after its pages."""


class SnpManifestLaunch(TypedDict):
    """A launch that an SEV-SNP manifest allows."""

    digest: Hex48
    """The launch digest."""
    vcpus: Count
    """How many vCPUs."""
    cpu: str | None
    """The CPU model; null if the pages of the vCPUs were given."""
    vmsa_profile: str
    """The layout of the VMM."""
    guest_features: str | None
    """The guest features in hex; null if they were not given."""


class SnpManifest(TypedDict):
    """The launch digests that `snp measure --manifest` writes, for owner.toml."""

    schema: Literal["sev-attest/snp-manifest/1"]
    firmware: SnpManifestFirmware
    """The firmware."""
    kernel_hashes: KernelHashes | None
    """The hashes of a kernel that is booted directly."""
    launches: Annotated[list[SnpManifestLaunch], rules({"minItems": 1})]
    """The launches, at least one."""


class SnpChallenge(TypedDict):
    """NAME.challenge.json: a challenge for one report and one release. Nothing in it is secret."""

    schema: Literal["sev-attest/snp-challenge/1"]
    name: Name
    """What the owner calls it."""
    nonce: Hex32
    """Random bytes, for one report."""
    created: Time
    """When it was made."""
    expires: Time | None
    """When its time is over; null if it does not expire."""
    kems: Annotated[list[KemId], rules({"minItems": 1, "uniqueItems": True})]
    """The kinds of transport keys that the owner accepts, the preferred one first: HPKE's ids."""


class SnpTransportKey(TypedDict):
    """transport-key.json: the public key that secrets are sealed to."""

    schema: Literal["sev-attest/snp-transport-key/1"]
    kem: KemId
    """Its kind: HPKE's id."""
    public_key: Base64
    """The raw key."""


class SnpTransportPrivateKey(TypedDict):
    """The private transport key. It is secret, and stays in the guest."""

    schema: Literal["sev-attest/snp-transport-private-key/1"]
    kem: KemId
    """Its kind: HPKE's id."""
    private_key: Base64
    """The raw key, which is secret."""


class SnpSealed(TypedDict):
    """Secrets that are sealed to a guest's transport key. Nothing in it is readable to others."""

    schema: Literal["sev-attest/snp-sealed/1"]
    challenge: Name
    """The name of the challenge."""
    nonce: Hex32
    """The nonce of the challenge."""
    report_sha384: Hex48
    """SHA-384 of the report."""
    kem: KemId
    """HPKE's id of the key's kind."""
    kdf: Literal[1]
    """HPKE's id of HKDF-SHA256."""
    aead: Literal[2]
    """HPKE's id of AES-256-GCM."""
    enc: Base64
    """What HPKE encapsulates."""
    ciphertext: Base64
    """The secrets, encrypted, with their tag."""
