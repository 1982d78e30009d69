"""The demo on a machine without a network (needs root, for a network namespace)."""

import os
import subprocess
import sys

import pytest


def test_the_demo_needs_no_network() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can take the network away")
    ran = subprocess.run(
        ["unshare", "--net", sys.executable, "-m", "sev_attest", "demo"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0
    assert "OK: Injected 1 secrets" in ran.stdout
    assert "(luks-key): 32 bytes" in ran.stdout  # what the guest sees
    assert "error: Measurement does not match, VM is not trustworthy" in ran.stderr
