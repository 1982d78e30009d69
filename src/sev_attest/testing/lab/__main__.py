"""Run the lab: ``python -m sev_attest.testing.lab FOLDER``. See docs/lab.md."""

import sys

from sev_attest.testing.lab.libvirtd import main

sys.exit(main(sys.argv[1:]))
