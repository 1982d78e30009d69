"""What the tests share: no network, simulated platforms, the command line, the real data."""

import _socket
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import schemas
from sev_attest import _crypto, sev
from sev_attest.cli import exits, render
from sev_attest.cli.commands.validate import command as validate
from sev_attest.cli.main import cli
from sev_attest.testing import Authority, Platform
from sev_attest.testing.pytest import (
    sev_host,
    sev_ledger,
    sev_platform,
    sev_requirements,
    sev_roots,
    sev_store,
    snp_host,
    snp_platform,
    snp_roots,
)

__all__ = [  # fixtures
    "sev_host", "sev_ledger", "sev_platform", "sev_requirements", "sev_roots", "sev_store",
    "snp_host", "snp_platform", "snp_roots",
]  # fmt: skip

POLICY_ES = 0x5

# No test is timed: machines are noisy. CI tries the same examples each time, people try new ones.
settings.register_profile(
    "here",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("here")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def refuse(one: socket.socket, where: Any) -> None:
        if one.family != socket.AF_UNIX:
            raise AssertionError("a test reached for the network")
        connect(one, where)

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def _loopback(monkeypatch: pytest.MonkeyPatch, _no_network: None) -> None:
    """Let these tests reach 127.0.0.1, and nothing else."""
    refuse = socket.socket.connect

    def only_here(self: socket.socket, address: Any) -> None:
        here = self.family == socket.AF_INET and address[0] == "127.0.0.1"
        (_socket.socket.connect if here else refuse)(self, address)

    monkeypatch.setattr(socket.socket, "connect", only_here)


@pytest.fixture(scope="session")
def states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which each test has its own state."""
    return tmp_path_factory.mktemp("states")


@pytest.fixture(autouse=True)
def unfit(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Hold every JSON document that is printed to its schema: in this process, and in others."""
    wrong: list[str] = []
    made, start = render.document_parts, subprocess.run

    def document_parts(command: str, *, ok: bool, **fields: object) -> Iterator[str]:
        parts = []
        for part in made(command, ok=ok, **fields):
            parts.append(part)
            yield part
        wrong.extend(schemas.misfits_of("".join(parts)))

    def run(*arguments: Any, **settings: Any) -> Any:
        ran = start(*arguments, **settings)
        wrong.extend(schemas.misfits_of(ran.stdout))
        return ran

    monkeypatch.setattr(render, "document_parts", document_parts)
    monkeypatch.setattr(subprocess, "run", run)
    yield wrong
    assert not wrong


TESTS = count()


@pytest.fixture(autouse=True)
def _own_state(states: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the ledger of whoever runs the tests out of them."""
    # Most tests never look: a folder for each of them would cost more than they do.
    monkeypatch.setenv("XDG_STATE_HOME", str(states / str(next(TESTS))))
    for name in ("LEDGER", "STORE", "REQUIREMENTS", "COLOR"):
        monkeypatch.delenv(f"SEV_ATTEST_{name}", raising=False)


@pytest.fixture(scope="session")
def real() -> Path:
    """Find the data of real platforms, which is not ours to ship."""
    folder = os.environ.get("SEV_ATTEST_REAL_DATA")
    if not folder:
        pytest.skip("SEV_ATTEST_REAL_DATA names no folder of real platform data")
    return Path(folder)


@pytest.fixture(scope="session", params=[2048, 4096], ids=["naples-shaped", "milan-shaped"])
def platform(request: pytest.FixtureRequest) -> Platform:
    """Return a simulated platform of each shape."""
    return Platform(b"a test platform", authority=Authority(request.param))


@pytest.fixture(scope="session")
def milan() -> Platform:
    """Return one simulated platform, where the shape does not matter."""
    return Platform(b"a test platform")


@pytest.fixture(scope="session")
def verified(milan: Platform) -> sev.VerifiedChain:
    """Return its chain, verified up to its own root."""
    return sev.verify_chain(milan.export(), roots=[milan.authority.root])


@pytest.fixture
def remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have signatures computed once: a sweep then pays for what each change concerns."""
    point = cache(_crypto.p384_point)
    ecdsa, rsa_pss = _crypto.ecdsa_sha256_holds, _crypto.rsa_pss_holds
    known: dict[tuple[object, ...], bool] = {}

    def ecdsa_holds(key: _crypto.P384PublicKey, numbers: tuple[int, int], data: bytes) -> bool:
        asked = (id(key), numbers, data)  # point() keeps each key alive
        if asked not in known:
            known[asked] = ecdsa(key, numbers, data)
        return known[asked]

    monkeypatch.setattr(_crypto, "p384_point", point)
    monkeypatch.setattr(_crypto, "ecdsa_sha256_holds", ecdsa_holds)
    monkeypatch.setattr(_crypto, "rsa_pss_holds", cache(rsa_pss))


@pytest.fixture
def session(verified: sev.VerifiedChain) -> sev.Session:
    """Return a new session for an SEV-ES guest."""
    return sev.Session.create(verified, policy=sev.GuestPolicy(POLICY_ES))


@dataclass(frozen=True)
class Ran:
    """What a command line did."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def notes(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("note: ")]

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if not line.startswith("note: ")]


Run = Callable[..., Ran]


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line in this process; a search has all the time that it needs."""
    # Five seconds may be few on a busy machine.
    budget = next(one for one in validate.params if one.name == "diagnose_budget")
    monkeypatch.setattr(budget, "default", 600.0)

    def call(*arguments: object) -> Ran:
        code = exits.run(cli, [str(argument) for argument in arguments])
        sys.stdout.flush()
        captured = capfdbinary.readouterr()
        return Ran(code, captured.out.decode(), captured.err.decode())

    return call


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
