"""A process that races for the release of a session that waits in a store, for the tests.

``race PLACE``: for each case that comes on standard input, tries to release its secret.
"""

import json
import sys

from release_worker import SECRETS, demands
from sev_attest import sev
from sev_attest.owner import Ledger, PendingSessions, key_encryption, release
from workers import race_for_each


def _race(ledger: Ledger, line: str) -> None:
    case = json.loads(line)
    release(
        sev.LaunchInfo.from_text(case["report"]),
        session=case["session"],
        store=PendingSessions(ledger, key_encryption(case["kek"])),
        requirements=demands(bytes.fromhex(case["digest"])),
        secrets=SECRETS,
    )


if __name__ == "__main__":
    assert sys.argv[1] == "race"
    race_for_each(_race, sys.argv[2])
