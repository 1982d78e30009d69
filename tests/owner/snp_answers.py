"""What a guest of SEV-SNP answers to a challenge, for the tests of its owner's side."""

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sev_attest._keys import Kem
from sev_attest.owner.requirements import Requirements
from sev_attest.snp.challenge import Challenge
from sev_attest.snp.sealed import SealedSecrets, open_sealed
from sev_attest.snp.transport import TransportKey, TransportPrivateKey
from sev_attest.snp.verify import VerifiedReport
from snp_demands import ALL, DIGEST, FIELDS, GENOA, HOST_DATA, ID_KEY, MET, reported

SECRETS = {"luks-key": b"the disk key", "token": bytes(range(64))}
DEMANDS = Requirements(snp=MET)


def owner_toml(launch: str) -> str:
    """Return owner.toml for reports of GENOA; ``launch`` says what is asked of the launch "web"."""
    return f"""
schema = "sev-attest/requirements/1"
[snp]
products = ["genoa", "test"]
chip_ids = ["{GENOA.hwid.hex()}"]
cpuids = ["*"]
vmpls = [0]
[snp.minimum.genoa]
firmware = "1.55.43"
reported = {{ bootloader = 10, tee = 0, snp = 23, microcode = 84 }}
[snp.policy]
permits = ["smt"]
demands = ["single-socket"]
[snp.platform]
set = ["alias-check-complete"]
[[snp.launch]]
name = "web"
{launch}
[snp.advisories]
acknowledged = [{", ".join(f'"{name}"' for name in sorted(ALL))}]
"""


OWNER = owner_toml(
    f'digest = "{DIGEST.hex()}"\nid_keys = ["{ID_KEY.hex()}"]\nhost_data = "{HOST_DATA.hex()}"'
)
"""DEMANDS for the command line, but for what is narrower there."""


@dataclass(frozen=True)
class Answer:
    """A report for a challenge, and the transport key that it binds."""

    challenge: Challenge
    report: VerifiedReport
    private: TransportPrivateKey = field(repr=False)

    @property
    def key(self) -> TransportKey:
        return self.private.public

    def open(self, sealed: SealedSecrets, challenge: Challenge | None = None) -> dict[str, bytes]:
        """Open sealed secrets in the guest, with what it has."""
        parsed = SealedSecrets.from_json(sealed.to_json())
        return open_sealed(parsed, self.private, self.report.report, challenge or self.challenge)


def answer(
    challenge: Challenge, kem: Kem = Kem.X25519, seed: int | None = None, **fields: Any
) -> Answer:
    """Answer a challenge in the guest that MET allows; ``fields`` of the report may differ.

    ``seed`` makes the key, and with it the report, the same each time.
    """
    private = (
        TransportPrivateKey.generate(kem)
        if seed is None
        else TransportPrivateKey(kem=kem, private=seed.to_bytes(32, "big"))
    )
    data = challenge.report_data(private.public)
    return Answer(challenge, reported(report_data=data, **fields), private)


@cache
def raw_answer(challenge: Challenge, seed: int) -> tuple[bytes, bytes]:
    """Return the report and the public key of an answer, as files."""
    private = TransportPrivateKey(kem=Kem.X25519, private=seed.to_bytes(32, "big"))
    fields: dict[str, Any] = FIELDS | {"key_info": 1}
    fields["report_data"] = challenge.report_data(private.public)
    report = GENOA.report(version=5, **fields)
    return report, private.public.to_json()
