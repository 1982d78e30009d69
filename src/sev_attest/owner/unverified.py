"""The refusal of a session whose platform nobody verified.

The record of a session says so, and so does the ledger: neither can be left out to hide it.
"""

from typing import Literal

from sev_attest.errors import Insecure


def unverified(source: Literal["ledger", "record"]) -> Insecure:
    """Return the error for a session of an unverified platform; ``source`` is what says so."""
    return Insecure(
        "nobody verified the platform that this session was made for",
        check=f"{source}.unverified",
        hint="make a session for a verified chain",
    )
