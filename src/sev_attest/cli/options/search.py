"""The options for the search that follows a mismatch."""

from typing import NamedTuple

import click

from sev_attest.cli.bundle import Options, option
from sev_attest.cli.inputs import FOLDER
from sev_attest.cli.options.guest import GuestOptions
from sev_attest.cli.options.keys import KeyOptions
from sev_attest.cli.options.reported import ReportedOptions


class FirmwareSearchOptions(Options, title="After a mismatch"):
    """Whether, how long and where to look for the cause of a digest that differs."""

    no_diagnose: bool = option(
        "--no-diagnose", is_flag=True, help="After a mismatch, do not look for what would fit."
    )
    diagnose_budget: float = option(
        "--diagnose-budget",
        type=click.FloatRange(min=0, max=86400),
        default=5,
        metavar="SECONDS",
        help="Look no longer than this (default: 5).",
    )
    firmware_dir: str | None = option(
        "--firmware-dir",
        type=FOLDER,
        metavar="DIR",
        help="Look for the right firmware in here too.",
    )


class SearchOptions(FirmwareSearchOptions, title="After a mismatch"):
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
