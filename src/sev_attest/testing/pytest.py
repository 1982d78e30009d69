"""pytest fixtures for tests of your own service: see docs/testing.md.

Enable them in your top ``conftest.py``: ``pytest_plugins = ["sev_attest.testing.pytest"]``.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from sev_attest.owner import Ledger, Minimum, PendingSessions, ReferenceValue, Requirements
from sev_attest.owner.advisories import load
from sev_attest.owner.key_wrapping import KEY_SIZE, KeyFile
from sev_attest.sev.chain.roots import Root, amd_roots
from sev_attest.snp.roots import Root as SnpRoot
from sev_attest.snp.roots import amd_roots as amd_snp_roots
from sev_attest.testing.host import Host
from sev_attest.testing.platform import Platform
from sev_attest.testing.snp import SnpPlatform
from sev_attest.testing.snp_host import SnpHost

SERVER = "SEV_ATTEST_TEST_LEDGER"
"""The environment variable with the URL of a PostgreSQL database for ``sev_ledger``."""


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


@pytest.fixture
def snp_platform(request: pytest.FixtureRequest) -> SnpPlatform:
    """Return a simulated SEV-SNP chip, a Milan, for this test, with the same keys on every run."""
    return SnpPlatform.of(request.node.nodeid.encode())


@pytest.fixture
def snp_host(snp_platform: SnpPlatform) -> SnpHost:
    """Return an honest host with that chip; set its ``fault`` to make it lie."""
    return SnpHost(snp_platform)


@pytest.fixture
def snp_roots(snp_platform: SnpPlatform) -> list[SnpRoot]:
    """Return AMD's roots and the chip's, for ``verify_report(..., roots=...)``."""
    return [*amd_snp_roots(), snp_platform.authority.root]


class MakeRequirements(Protocol):
    """What ``sev_requirements`` is."""

    def __call__(self, **launches: bytes) -> Requirements:
        """Return requirements that allow these launches: a name, and its launch digest."""


@pytest.fixture
def sev_requirements(sev_platform: Platform) -> MakeRequirements:
    """Return a function that makes requirements: ``sev_requirements(web=digest)``.

    They allow simulated platforms only, of the firmware of ``sev_platform`` or newer, with any
    policy. Every known advisory is acknowledged.
    """

    def make(**launches: bytes) -> Requirements:
        anything = frozenset({"*"})
        return Requirements(
            generations=frozenset({"test"}),
            ceks=anything,
            platform_ids=anything,
            pdhs=anything,
            minimum={"test": Minimum(api=sev_platform.api, build=sev_platform.build)},
            launches=tuple(
                ReferenceValue(name=name, digests={digest: ""}) for name, digest in launches.items()
            ),
            acknowledged=frozenset(advisory.id for advisory in load()),
        )

    return make


@pytest.fixture
def sev_ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Return an empty ledger for this test.

    It is a file; or a schema of its own in the PostgreSQL database that the environment variable
    SEV_ATTEST_TEST_LEDGER names, which is dropped afterwards.
    """
    url = os.environ.get(SERVER)
    if not url:
        with Ledger.open(tmp_path / "ledger.sqlite3") as ledger:
            yield ledger
        return
    with _schema(url) as place, Ledger.open(place) as ledger:
        yield ledger


@contextmanager
def _schema(url: str) -> Iterator[str]:
    """Make a schema in a database, and yield the URL of a ledger there; drop it at the end."""
    import psycopg

    name = f"sev_attest_test_{os.urandom(8).hex()}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}".encode())
        try:
            yield f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{name}"
        finally:
            connection.execute(f"DROP SCHEMA {name} CASCADE".encode())


@pytest.fixture
def sev_store(sev_ledger: Ledger, tmp_path: Path) -> PendingSessions:
    """Return a store for sessions that wait, in ``sev_ledger``; its KEK is made for this test."""
    path = tmp_path / "kek"
    path.touch(mode=0o600)
    path.write_bytes(os.urandom(KEY_SIZE))
    return PendingSessions(sev_ledger, KeyFile(str(path)))
