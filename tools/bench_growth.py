"""The lines of the benchmark for the search for a mismatch, and for how work grows."""

import base64
import hmac
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from bench_core import (
    MIB,
    POLICY,
    TOOL,
    Line,
    Run,
    Scale,
    chain_of,
    child,
    content,
    es_guest,
    firmware,
    launch,
    timed,
)
from bench_process import validate_options
from sev_attest import sev
from sev_attest.cli.main import main as command_line
from sev_attest.guest import CpuModel, VmsaProfile
from sev_attest.guest.firmware import sha256_of
from sev_attest.sev.diagnosis.search import explain_mismatch


def search_lines(scale: Scale) -> Iterator[Line]:
    """The search for what explains a mismatch: the whole command, and each combination."""
    options = validate_options(scale)
    options[options.index("--policy") + 1] = str(POLICY)
    measurement = base64.b64encode(secrets.token_bytes(48)).decode()
    options[options.index("--measurement") + 1] = measurement
    command = [
        *TOOL, "validate", *options, "--num-cpus", "1", "--cpu-model-name", "EPYC-Milan",
        "--ledger", "none", "--diagnose-budget", "60",
    ]  # fmt: skip
    yield Line(
        name="diagnosis",
        what="`validate` of a mismatch: 512 vCPUs x CPU models x profiles, 4 MiB firmware",
        against="5 s",
        reach="<= 0.2",
        ratio="share",
        unit="s",
        ours=child(command, code=1),
        reference=lambda: 5.0,
        rounds=scale.of(5, 1),
    )
    keys, info, _ = launch()
    info = replace(info, measurement=secrets.token_bytes(48))
    guest = es_guest(firmware(scale))
    profile = VmsaProfile(cpu=CpuModel.named("EPYC-Milan"))
    policy, message = sev.GuestPolicy(POLICY), bytes(56)

    def search() -> int:
        found = explain_mismatch(
            info, keys=keys, policy=policy, guest=guest, vcpus=1, profile=profile, budget=600
        )
        return found.tried

    tried = search()
    yield Line(
        name="diagnosis-each",
        what=f"the search without result, for each of its {tried} combinations",
        against="hmac.digest of as many bytes",
        reach=">= 0.6",
        ratio="rate",
        unit="µs",
        ours=_shared(timed(search), tried),
        reference=timed(lambda: hmac.digest(keys.tik, message, "sha256"), 100_000),
        rounds=scale.of(9, 1),
    )


def _shared(run: Run, pieces: int) -> Run:
    return lambda: run() / pieces


def growth_lines(scale: Scale) -> Iterator[Line]:
    """How work grows: what one more piece takes, among many and among few."""
    chains, vcpus, initrd = scale.of(20, 2), scale.of(40, 4), scale.of(5, 1)
    made, data = chain_of(4096)
    root = scale.folder / "root"
    root.write_bytes(made.authority.ark.to_bytes())
    folder = scale.folder / "chains"
    folder.mkdir()
    names = [str(folder / str(number)) for number in range(100 * chains)]
    for name in names:
        Path(name).write_bytes(data)

    def verify(count: int) -> Run:
        # In this process: a start-up for each would hide how the work grows.
        command = ["verify", "--each", "--quiet", "--trust-root", str(root), *names[:count]]
        return timed(lambda: succeed(command))

    guest = es_guest(firmware(scale))

    def digest(mib: int) -> Run:
        path = content(scale.folder / f"initrd-{mib}", mib * MIB)
        return timed(lambda: sha256_of(path))

    work: tuple[tuple[str, str, int, Callable[[int], Run]], ...] = (
        ("chains", "chain in one call of `verify --each`", chains, verify),
        ("vcpus", "vCPU, all digests", vcpus, lambda n: timed(lambda: guest.digests(n))),
        ("initrd", "MiB of initrd", initrd, digest),
    )
    for slug, what, base, run in work:
        small, middle, large = (run(base * times) for times in (1, 10, 100))
        yield Line(
            name=f"grows-{slug}",
            what=f"one more {what}, from {10 * base} to {100 * base}",
            against=f"from {base} to {10 * base}",
            reach="<= 1.1",
            ratio="share",
            unit="µs",
            ours=_slope(middle, large, 90 * base),
            reference=_slope(small, middle, 9 * base),
            rounds=scale.of(7, 2),
        )


def _slope(less: Run, more: Run, pieces: int) -> Run:
    """Return what one more piece takes."""
    return lambda: (more() - less()) / pieces


def succeed(command: list[str]) -> None:
    """Run a command line in this process; raises RuntimeError if it fails."""
    try:
        command_line(command)
    except SystemExit as ended:
        if ended.code:
            raise RuntimeError(f"{command[:2]} ended with {ended.code}") from None
