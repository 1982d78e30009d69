"""Reports of real platforms against one strict owner.toml: each fails what it says here."""

from datetime import UTC, datetime

from sev_attest.errors import RequirementsNotMet
from sev_attest.owner.requirements import Requirements
from sev_attest.snp.certificate_files import read_certificates
from sev_attest.snp.report import AttestationReport
from sev_attest.snp.verify import verify_report
from test_snp_real import Real, reports, verifying

__all__ = ["reports", "verifying"]  # fixtures

NOW = datetime(2026, 6, 1, tzinfo=UTC)
STRICT = """
schema = "sev-attest/requirements/1"
[snp]
products = ["*"]
chip_ids = ["*"]
csp_ids = ["CN=cc-eu-west-1.amazonaws.com"]
cpuids = ["19-01-01", "19-11-01", "19-a0-02", "1a-02-01", "1a-11-00"]
vmpls = [0]
[snp.minimum.milan]
firmware = "1.55.29"
committed_firmware = "1.55.29"
reported = { bootloader = 4, tee = 0, snp = 24, microcode = 219 }
committed = { bootloader = 4, tee = 0, snp = 24, microcode = 219 }
launch = { bootloader = 4, tee = 0, snp = 24, microcode = 219 }
[snp.minimum.genoa]
firmware = "1.55.43"
reported = { bootloader = 10, tee = 0, snp = 25, microcode = 27 }
current_mitigations = 0x3
[snp.minimum.turin]
firmware = "1.58.0"
reported = { fmc = 1, bootloader = 3, tee = 2, snp = 5, microcode = 97 }
current_mitigations = 0x3f
launch_mitigations = 0x3f
[snp.policy]
permits = ["smt"]
[snp.platform]
set = ["alias-check-complete"]
clear = ["tsme-en"]
[[snp.launch]]
name = "oak"
digest = "DIGEST"
[[snp.launch]]
name = "azure"
id_keys = ["ID_KEY"]
guest_svn = 11
[snp.advisories]
acknowledged = ["badfuse", "one-glitch", "unmeasured-inputs"]
"""

OLD_MILAN = " ".join(
    f"minimum.{check}"
    for check in (
        "firmware", "committed-firmware",
        *(f"{which}.{component}" for which in ("reported", "committed", "launch")
          for component in ("bootloader", "snp", "microcode")),
    )
)  # fmt: skip
"""A Milan of version 2: every figure of it is below the minimum."""
ADVISORIES = "advisory.CVE-2024-56161 advisory.CVE-2024-21944"
OLD = f"platform.alias-check-complete launch.digest {ADVISORIES}"
EXPECTED = {
    "milan-v2-debug-gosevguest": (f"cpuid {OLD_MILAN} policy.debug {OLD} advisory.policy-debug"),
    "milan-v2-virtee": f"cpuid {OLD_MILAN} {OLD}",
    "milan-v2-gce-automata": f"cpuid {OLD_MILAN} {OLD}",
    # Newer microcode runs than the host has committed.
    "milan-v2-azure-trustee": f"cpuid {OLD_MILAN} provisional {OLD}",
    "milan-v2-aci-sidecar": f"cpuid {OLD_MILAN} {OLD}",
    "milan-v2-azure-hcl-trustee": f"cpuid {OLD_MILAN} provisional {OLD}",
    # A VLEK of another region, and a guest at VMPL 1.
    "milan-v2-aws-vlek-openanolis": f"csp-id cpuid vmpl {OLD_MILAN} platform.tsme-en {OLD}",
    # Reported d9, committed db, current dc.
    "milan-v3-aws-vlek-constellation": (
        "minimum.reported.microcode provisional platform.tsme-en launch.digest"
    ),
    # Its ID key is trusted, its SVN is 10.
    "milan-v3-azure-hcl-v1-trustee": "launch.guest-svn",
    "milan-v3-aci-sidecar": "launch.digest",
    "milan-v3-oak": "",
    "milan-v3-aci-tav": "launch.digest",
    "genoa-v2-vmpl1-blyss-1": (
        "cpuid vmpl minimum.firmware minimum.reported.bootloader minimum.reported.snp "
        f"minimum.current-mitigations platform.tsme-en {OLD} advisory.CVE-2023-31352"
    ),
    # Version 3 tells no mitigations.
    "genoa-v3-veraison": (
        "minimum.firmware minimum.reported.snp minimum.current-mitigations launch.digest"
    ),
    "genoa-v3-azure-hcl-trustee": (
        "minimum.firmware minimum.reported.snp minimum.current-mitigations"
    ),
    "genoa-v5-oak": "minimum.current-mitigations launch.digest",
    "siena-v5-lunal": "launch.digest",
    "turin-v5-oak": (
        "minimum.firmware minimum.reported.fmc minimum.reported.bootloader minimum.reported.tee "
        "minimum.reported.snp minimum.reported.microcode minimum.current-mitigations "
        "minimum.launch-mitigations platform.tsme-en launch.digest"
    ),
    "turin-v5-fw158-openanolis": "launch.digest",
}
"""What is not met, in order; nothing: it is allowed."""


def test_every_real_report_fails_what_is_known_of_it(verifying: list[Real]) -> None:
    known = {one.name: one.known["fields"] for one in verifying}
    text = STRICT.replace("DIGEST", known["milan-v3-oak"]["measurement"])
    text = text.replace("ID_KEY", known["genoa-v3-azure-hcl-trustee"]["id_key_digest"])
    requirements = Requirements.from_toml(text.encode())
    found = {}
    for one in verifying:
        report = AttestationReport.from_bytes(one.report)
        verified = verify_report(report, read_certificates(one.vek), at=one.at)
        try:
            requirements.require_snp(verified, at=NOW)
        except RequirementsNotMet as error:
            found[one.name] = " ".join(
                failure.check.removeprefix("requirements.snp.") for failure in error.failures
            )
        else:
            found[one.name] = ""
    assert found == {name: " ".join(checks.split()) for name, checks in EXPECTED.items()}
