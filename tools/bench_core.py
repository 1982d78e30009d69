"""What the lines of the benchmark are made of: a line, how it is timed, and what is worked on."""

import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from sev_attest import sev
from sev_attest.guest import CpuModel, Firmware, VmsaProfile
from sev_attest.sev.launch import expected_measure
from sev_attest.testing import Authority, Platform, ovmf_image

Run = Callable[[], float]
"""Does the work once; gives what it took (seconds, MiB or another amount)."""
MIB = 1 << 20
POLICY = 0x5
TOOL = [str(Path(sys.executable).parent / "sev-attest")]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the table: what is measured, against what, and what is to be reached.

    ``ratio`` is "rate" (the reference's time over ours: more is better), "share" (ours over the
    reference's: less is better) or "more" (ours less the reference's, in ``unit``).
    """

    name: str
    what: str
    against: str
    reach: str
    ratio: str
    unit: str = "ms"
    ours: Run
    reference: Run
    rounds: int = 9


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much work there is."""

    folder: Path
    short: bool
    long: bool = False

    def of(self, full: int, short: int) -> int:
        """Choose between the full run's number and the short one's."""
        return short if self.short else full


# What takes how long


def timed(work: Callable[[], object], times: int = 1) -> Run:
    """Time some work: seconds for one, out of ``times`` in a row."""

    def run() -> float:
        begin = time.perf_counter()
        for _ in range(times):
            work()
        return (time.perf_counter() - begin) / times

    return run


def in_threads(work: Callable[[], object], threads: int, times: int) -> Run:
    """Time work that ``threads`` do at once: seconds for one piece of it, all together."""

    def run() -> float:
        each = timed(work, times)
        begin = time.perf_counter()
        running = [threading.Thread(target=each) for _ in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        return (time.perf_counter() - begin) / times / threads

    return run


def child(command: list[str], *, memory: bool = False, code: int = 0) -> Run:
    """Time a whole process, which must end with ``code``: seconds, or its peak memory in MiB."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    # A process inherits the peak of the one that starts it: a small one has to.
    starter = [sys.executable, "-I", "-S", "-c", _STARTER] if memory else []

    def run() -> float:
        begin = time.perf_counter()
        ran = subprocess.run(  # noqa: S603 - commands of our own
            [*starter, *command], capture_output=True, check=False, env=environment
        )
        took = time.perf_counter() - begin
        if ran.returncode != code:
            raise RuntimeError(f"{command} gave {ran.returncode}: {ran.stderr.decode()}")
        return int(ran.stderr.split()[-1]) / 1024 if memory else took

    return run


_STARTER = """
import os, sys
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(child, 0)
print(usage.ru_maxrss, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def works(command: list[str]) -> bool:
    """Tell whether a peer is there and runs."""
    try:
        child(command)()
    except (OSError, RuntimeError):
        return False
    return True


absent: list[str] = []
"""The peers that are not installed."""


def installed(commands: list[list[str]], name: str) -> list[str]:
    """Return the first command that runs; empty if none does, and then the peer is absent."""
    found = next((command for command in commands if works(command)), [])
    if not found and name not in absent:
        absent.append(name)
    return found


def both(
    line: Line, ours: list[str], reference: list[str], reach: str, *, code: int = 0
) -> Iterator[Line]:
    """Yield a line for the time of two processes, and one for their memory.

    ``reach`` is of the memory; ``code`` is what ours ends with.
    """
    yield replace(line, ours=child(ours, code=code), reference=child(reference))
    yield replace(
        line,
        name=f"{line.name}-memory",
        what=f"{line.what}, peak memory",
        unit="MiB",
        reach=reach,
        ours=child(ours, memory=True, code=code),
        reference=child(reference, memory=True),
        rounds=3,
    )


def content(path: Path, size: int) -> Path:
    """Write a file of ``size`` bytes that look random, no two MiB alike."""
    if not path.exists():
        block = secrets.token_bytes(MIB)
        with path.open("wb") as file:
            for number in range(0, size, MIB):
                file.write((number.to_bytes(8, "little") + block[8:])[: size - number])
    return path


def firmware(scale: Scale) -> Path:
    """Write an OVMF image of 4 MiB."""
    path = scale.folder / "firmware"
    if not path.exists():
        path.write_bytes(ovmf_image(4 * MIB))
    return path


def chain_of(bits: int) -> tuple[Platform, bytes]:
    """Make a platform with RSA keys of that size, and its whole chain as `sevctl export --full`."""
    authority = Authority(bits)
    made = Platform(b"bench", authority=authority)
    chain = replace(made.export(), ask=authority.ask, ark=authority.ark)
    return made, chain.to_bytes()


@cache
def verified() -> sev.VerifiedChain:
    """Return a verified platform."""
    made, data = chain_of(4096)
    return sev.verify_chain(sev.Chain.from_bytes(data), roots=[made.authority.root])


def es_guest(image: Path) -> sev.MeasuredGuest:
    """Describe an SEV-ES guest."""
    found = Firmware.read(image)
    profile = VmsaProfile(cpu=CpuModel.named("EPYC-Milan"))
    return sev.MeasuredGuest(firmware=found, vmsa=profile.pages(found.reset_address()))


def launch() -> tuple[sev.TransportKeys, sev.LaunchInfo, bytes]:
    """Make the keys of a launch, what an honest host reports of it, and its digest."""
    keys = sev.TransportKeys(tik=secrets.token_bytes(16), tek=secrets.token_bytes(16))
    digest, nonce = bytes(32), secrets.token_bytes(16)
    measure = expected_measure(
        keys.tik,
        api=(1, 55),
        build_id=24,
        policy=sev.GuestPolicy(POLICY),
        digest=digest,
        nonce=nonce,
    )
    info = sev.LaunchInfo(
        measurement=measure + nonce, api_major=1, api_minor=55, build_id=24, policy=POLICY
    )
    return keys, info, digest
