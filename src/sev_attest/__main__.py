"""``python -m sev_attest``."""

from sev_attest.cli.main import main

main()
