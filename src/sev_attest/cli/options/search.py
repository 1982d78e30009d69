"""The options for the search that follows a mismatch."""

from typing import NamedTuple

from sev_attest.cli.bundle import option
from sev_attest.cli.inputs import FOLDER
from sev_attest.cli.options.firmware_search import FirmwareSearchOptions
from sev_attest.cli.options.guest import GuestOptions
from sev_attest.cli.options.keys import KeyOptions
from sev_attest.cli.options.reported import ReportedOptions


class SearchOptions(FirmwareSearchOptions, title="Diagnosis"):
    """Whether and where to look for the cause of a mismatch."""

    keys: str | None = option(
        "--keys", type=FOLDER, metavar="DIR", help="Look for the right keys in here too."
    )


class Stated(NamedTuple):
    """The options that a search uses: what did not match, and where to look for what would."""

    reported: ReportedOptions
    guest: GuestOptions
    keys: KeyOptions
    search: SearchOptions
