"""pytest fixtures for tests of your own service: see docs/testing.md.

Enable them in your top ``conftest.py``: ``pytest_plugins = ["sev_attest.testing.pytest"]``.
"""

import pytest

from sev_attest.sev.chain.roots import Root, amd_roots
from sev_attest.testing.host import Host
from sev_attest.testing.platform import Platform


@pytest.fixture
def sev_platform(request: pytest.FixtureRequest) -> Platform:
    """Return a simulated platform for this test, with the same keys on every run."""
    return Platform(request.node.nodeid.encode())


@pytest.fixture
def sev_host(sev_platform: Platform) -> Host:
    """Return an honest host with that platform; set its ``fault`` to make it lie."""
    return Host(sev_platform)


@pytest.fixture
def sev_roots(sev_platform: Platform) -> list[Root]:
    """Return AMD's roots and the platform's, for ``verify_chain(chain, roots=...)``."""
    return [*amd_roots(), sev_platform.authority.root]
