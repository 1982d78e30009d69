"""Who makes an attempt and releases its secret is killed at every point, 200 times at least.

Whatever was left, no secret leaves twice, and the ledger says what became of each attempt.
"""

import base64
import json
import random
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

import release_worker
from conftest import Run
from release_worker import OVMF, SECRETS, WAYS, platform
from sev_attest._keys import Kem
from sev_attest.snp.sealed import SealedSecrets
from snp_answers import OWNER
from snp_demands import GENOA
from snp_material import needs
from workers import run_forked

KILLS = 200
OLD = "what stood there"


def worker(kind: str, name: str, point: int, *options: str) -> subprocess.CompletedProcess[str]:
    return run_forked(release_worker.__file__, kind, name, point, *options)


def points(kind: str, name: str, *options: str) -> list[str]:
    """Name the points that a whole run passes."""
    ran = worker(kind, name, 0, *options)
    told = json.loads(ran.stdout.splitlines()[-1])
    assert told["codes"] == [0, 0], ran
    found: list[str] = told["points"]
    return found


@pytest.fixture
def desk(here: Path) -> Path:
    authority = platform().authority
    Path("root").write_bytes(authority.ask.to_bytes() + authority.ark.to_bytes())
    Path("chain").write_bytes(platform().export().to_bytes())
    Path("fw").write_bytes(OVMF)
    Path("key").write_bytes(SECRETS["luks-key"])
    Path("ark.der").write_bytes(GENOA.authority.ark)
    Path("certs.der").write_bytes(GENOA.certificates())
    Path("owner.toml").write_text(OWNER)
    return here


def packet(name: str) -> list[object]:
    """Return what is there of a packet, or of sealed secrets; each file is whole."""
    found: list[object] = []
    sealed = Path(f"{name}.sealed.json")
    if sealed.exists() and sealed.read_text() != OLD:
        found.append(SealedSecrets.from_json(sealed.read_bytes()))
    for kind, whole in (("header", 52), ("payload", 64)):
        path = Path(f"{name}.{kind}")
        if path.exists() and path.read_text() != OLD:
            data = base64.b64decode(path.read_bytes(), validate=True)
            assert len(data) == whole, (path, len(data))
            found.append(data)
    return found


def state(run: Run, name: str) -> str:
    """Hold the ledger to what it must be after any death; give the session's state."""
    assert run("ledger", "verify", "--ledger", "ledger").code == 0
    listed = json.loads(run("ledger", "list", "--ledger", "ledger", "--json").out)["sessions"]
    exported = json.loads(run("ledger", "export", "--ledger", "ledger").out)
    released = Counter(e["session_id"] for e in exported["events"] if e["kind"] == "released")
    for row in listed:
        assert row["explained"].startswith(f"{row['state']}: ")
        assert len(row["explained"]) > len(row["state"]) + 2
        assert released[row["session_id"]] == (row["state"] == "released")
    states = [row["state"] for row in listed if row["name"] == name]
    assert len(states) <= 1
    return str(states[0]) if states else "none"


@pytest.mark.parametrize("kind", ["sev", pytest.param("snp", marks=needs(Kem.X25519))])
def test_a_release_survives_death_at_every_point(run: Run, desk: Path, kind: str) -> None:
    points(kind, "warm")  # makes the ledger: the next ones take the same way each time
    ways = {
        "new": ([], points(kind, "new")),
        "over": (["--force"], points(kind, "over", "--force")),
    }
    kills = [(way, at) for way, (_, names) in ways.items() for at in range(1, len(names) + 1)]
    every = len(kills)  # and then some of them again
    kills += random.Random(0).choices(kills, k=max(0, KILLS - len(kills)))
    seen: Counter[str] = Counter()
    for number, (way, at) in enumerate(kills):
        options, names = ways[way]
        name, point = f"vm{number}", names[at - 1]
        for left in Path().glob(".sev-attest.*"):  # or the next run takes steps to remove them
            left.unlink()
        if options:  # and over files that stand there
            for end in ("header", "payload", "sealed.json"):
                Path(f"{name}.{end}").write_text(OLD)
        died = worker(kind, name, at, *options)
        assert died.returncode == -signal.SIGKILL, (point, died)
        found = state(run, name)
        if packet(name) or "Injected" in died.stdout:
            assert found == "released", point
        assert found != "failed", point
        if point.startswith("release"):
            again = run(*WAYS[kind].release(name), "--force")
            assert again.code == (5 if found == "released" else 0), (point, again)
            assert state(run, name) == "released"
        seen[f"{point.split()[0]}: {found}"] += 1
    assert len(kills) >= KILLS
    print(f"\n{len(kills)} kills at {every} points")
    for what, count in sorted(seen.items()):
        print(f"killed in {what}: {count}")
