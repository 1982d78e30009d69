"""What the live tests share: the option --long, and a PostgreSQL server of their own."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from postgres_server import Server, binaries


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="the long forms of the live tests")


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    """Return whether the long forms are wanted."""
    return bool(request.config.getoption("--long"))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    programs = binaries()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed (apt-get install postgresql)")
    # Not pytest's folder: its name is too long for a socket, and closed to other users.
    with tempfile.TemporaryDirectory(prefix="ledger") as folder:
        made = Server(programs, Path(folder))
        made.start()
        print(f"\nPostgreSQL from {programs}")
        try:
            yield made
        finally:
            if made.process:
                made.stop()


@pytest.fixture
def url(server: Server) -> str:
    return server.new_database()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "ledger.sqlite3")
    found: str = request.getfixturevalue("url")
    return found
