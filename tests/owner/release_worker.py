"""A process that goes for the release of a session, for the tests: in a race, or until it dies.

``race PLACE``: for each case that comes on standard input, tries to release its secret with the
ledger at PLACE, and says how it went.
``fork``: for each KIND, NAME, POINT and OPTIONs that come, has a child make an attempt of that name
and release a secret in it (`session` and `validate`; for SEV-SNP `snp challenge` and `snp
release`), which is killed at the point of that number; 0 is none, and tells all.
"""

import base64
import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest

from sev_attest import sev
from sev_attest.cli import exits
from sev_attest.cli.main import cli
from sev_attest.owner import LaunchRecord, Ledger, Requirements, release, release_snp
from sev_attest.owner.advisories import load
from sev_attest.owner.requirements import Minimum, ReferenceValue
from sev_attest.snp.challenge import Challenge
from sev_attest.testing import Authority, Platform, launch_guest, ovmf_image
from snp_answers import DEMANDS, answer, raw_answer
from workers import fork_for_each, race_for_each, say

ANY = frozenset({"*"})
SECRETS = {"luks-key": b"the disk key"}
OVMF = ovmf_image(1 << 13)


def demands(*digests: bytes) -> Requirements:
    """Demand what a simulated platform of the usual age meets."""
    return Requirements(
        generations=frozenset({"test"}),
        ceks=ANY,
        platform_ids=ANY,
        pdhs=ANY,
        minimum={"test": Minimum(api=(1, 55), build=24)},
        launches=(ReferenceValue(name="web", digests=dict.fromkeys(digests, "")),),
        acknowledged=frozenset(advisory.id for advisory in load()),
    )


def case_line(keys: sev.TransportKeys, record: LaunchRecord, report: str, digest: bytes) -> str:
    """Write a case for the workers."""
    case = {
        "tk": (keys.tek + keys.tik).hex(),
        "record": record.to_bytes().decode(),
        "report": report,
        "digest": digest.hex(),
    }
    return json.dumps(case)


def snp_case_line(challenge: Challenge, seed: int) -> str:
    """Write a case of SEV-SNP for the workers: each makes the same answer."""
    return json.dumps({"challenge": challenge.to_json().decode(), "seed": seed})


def _race(ledger: Ledger, line: str) -> None:
    case = json.loads(line)
    if "challenge" in case:
        challenge = Challenge.from_json(case["challenge"].encode())
        by = answer(challenge, seed=case["seed"] + 1)
        release_snp(
            by.report,
            key=by.key,
            challenge=challenge.name,
            ledger=ledger,
            requirements=DEMANDS,
            secrets=SECRETS,
        )
        return
    release(
        sev.LaunchInfo.from_text(case["report"]),
        keys=sev.TransportKeys.from_tk(case["tk"].encode()),
        record=LaunchRecord.from_bytes(case["record"].encode()),
        requirements=demands(bytes.fromhex(case["digest"])),
        ledger=ledger,
        secrets=SECRETS,
    )


@cache
def platform() -> Platform:
    """Give the platform of those who die: the same keys each time."""
    return Platform(b"deaths", authority=Authority(2048))


def session_command(name: str) -> list[str]:
    """Make a session, in the folder where chain, root, firmware and secret are."""
    given = ["--name", name, "chain", "1", "--trust-root", "root", "--ledger", "ledger"]
    return ["session", *given]


def validate_command(name: str) -> list[str]:
    """Release the secret to the launch whose report is there."""
    given = ["--launch-info", f"{name}.info", "--record", f"{name}.launch.json", "-f", "fw"]
    keys = ["--tik", f"{name}_tik.bin", "--tek", f"{name}_tek.bin", "--ledger", "ledger"]
    packet = ["--secret-header", f"{name}.header", "--secret-payload", f"{name}.payload"]
    return ["validate", *given, *keys, *packet, "-s", "luks-key:key"]


def _launch(name: str) -> None:
    """Start the guest, as the host does."""
    godh, session = (
        base64.b64decode(Path(f"{name}_{kind}.b64").read_bytes()) for kind in ("godh", "session")
    )
    guest = launch_guest(platform(), policy=1, godh=godh, session=session, firmware=OVMF)
    Path(f"{name}.info").write_text(guest.domlaunchsecinfo())


def challenge_command(name: str) -> list[str]:
    """Make a challenge, in the folder where certificates, requirements and secret are."""
    return ["snp", "challenge", "--name", name, "--ledger", "ledger"]


def release_command(name: str) -> list[str]:
    """Release the secret to the guest whose report is there."""
    answered = ["--challenge", f"{name}.challenge.json", "--transport-key", f"{name}.key.json"]
    given = ["--trust-root", "ark.der", "--requirements", "owner.toml", "--ledger", "ledger"]
    secret = ["--secret", "luks-key:key", "--out", f"{name}.sealed.json"]
    return ["snp", "release", f"{name}.report", "certs.der", *answered, *given, *secret]


def _answer(name: str) -> None:
    """Answer the challenge, as the guest does."""
    asked = Challenge.from_json(Path(f"{name}.challenge.json").read_bytes())
    report, key = raw_answer(asked, 7)
    Path(f"{name}.report").write_bytes(report)
    Path(f"{name}.key.json").write_bytes(key)


class Way(NamedTuple):
    """How a kind of attempt is made, answered on the host or in the guest, and released."""

    make: Callable[[str], list[str]]
    answer: Callable[[str], None]
    release: Callable[[str], list[str]]


WAYS = {
    "sev": Way(session_command, _launch, validate_command),
    "snp": Way(challenge_command, _answer, release_command),
}


def _die(kind: str, name: str, number: str, *options: str) -> None:
    way = WAYS[kind]
    passed: list[str] = []
    now = ""

    def reach(point: str) -> None:
        passed.append(f"{now} {point}")
        if len(passed) == int(number):
            os.kill(os.getpid(), signal.SIGKILL)

    def deadly(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            point = f"{what} {arguments[1].split()[0]}" if what == "execute" else what
            reach(f"before {point}")
            result = function(*arguments, **more)
            reach(f"after {point}")
            return result

        return call

    class Deadly(sqlite3.Connection):
        execute = deadly("execute", sqlite3.Connection.execute)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Deadly))
        patch.setattr(click, "echo", deadly("echo", click.echo))
        for function in ("fsync", "link", "rename", "replace", "unlink"):
            patch.setattr(os, function, deadly(function, getattr(os, function)))
        for step in ("create", "bind", "release", "fail", "disconnect"):
            patch.setattr(Ledger, step, deadly(f"ledger {step}", getattr(Ledger, step)))
        now = "make"
        codes = [exits.run(cli, [*way.make(name), *options])]
        way.answer(name)
        now = "release"
        codes.append(exits.run(cli, [*way.release(name), *options]))
    say(json.dumps({"codes": codes, "points": passed}))


if __name__ == "__main__":
    for name in ("session", "validate", "snp"):  # imports them, for the children
        found = cli.get_command(click.Context(cli), name)
        assert found
        if isinstance(found, click.Group):
            for part in ("challenge", "release"):
                assert found.get_command(click.Context(found), part)
    platform()
    ROLES: dict[str, Callable[..., None]] = {
        "race": partial(race_for_each, _race),
        "fork": partial(fork_for_each, _die),
    }
    ROLES[sys.argv[1]](*sys.argv[2:])
