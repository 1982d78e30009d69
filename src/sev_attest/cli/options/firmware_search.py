"""The options for the search that follows a launch digest that differs."""

import click

from sev_attest.cli.bundle import Options, option
from sev_attest.cli.inputs import FOLDER


class FirmwareSearchOptions(Options, title="Diagnosis"):
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
