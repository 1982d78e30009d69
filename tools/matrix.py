"""Run the tests in other worlds: each leg in a chroot of its own (chroot.py).

The host's certificates and its pip configuration are used inside.
"""

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from chroot import NAMESPACES, chroot_folder, debootstrap, install, run

HOME = Path(__file__).resolve().parent.parent
PACKAGES = (
    "ca-certificates", "python3-venv", "libvirt-clients-qemu", "python3-lxml",
    "python3-cryptography", "ovmf", "libvirt-daemon", "libvirt-daemon-driver-qemu",
    "libvirt-clients", "libxml2-utils", "qemu-system-x86", "python3-libvirt", "postgresql",
    "pgbouncer", "gcc", "libc6-dev", "linux-libc-dev", "libvirt-dev", "pkg-config", "python3-dev",
)  # fmt: skip
COPIED = ("pyproject.toml", "*.md", "LICENSE", ".ci", "docs", "src", "tests", "tools", "vectors")
DATA = "/srv/real-data"
SOURCE = "/srv/sev-attest"
NOT_RUN = 75
"""The exit code of a leg whose packages cannot be installed."""


WORLD = """
tell() { sed 's/^/world: /'; }
python3 --version | tell
dpkg-query -W -f '${Package} ${Version}\\n' libvirt0 qemu-system-x86 ovmf postgresql | tell
.venv/bin/pip list --format freeze | grep -E '^(click|cryptography|psycopg|pytest)==' | tell
"""


@dataclass(frozen=True, kw_only=True)
class Leg:
    """One world. A leg that is not ``stable`` may lack packages; ``oldest`` pins dependencies."""

    name: str
    suite: str
    packages: tuple[str, ...] = ()
    stable: bool = True
    oldest: bool = False


LEGS = (
    Leg(name="bookworm", suite="bookworm"),
    Leg(name="trixie", suite="trixie"),
    Leg(name="sid", suite="sid", packages=("ovmf-amdsev",), stable=False),
    Leg(name="oldest", suite="bookworm", oldest=True),
)

# In the leg's namespaces


def build(leg: Leg, root: Path) -> None:
    """Install Debian with the packages of the live tests."""
    debootstrap(leg.suite, root)
    mount_data(root)
    install(root, *PACKAGES, *leg.packages)
    configure_pip(root)


def mount_data(root: Path) -> None:
    """Bind the data of real platforms; in this mount namespace only."""
    data = os.environ.get("SEV_ATTEST_REAL_DATA")
    if data:
        place = Path(f"{root}{DATA}")
        place.mkdir()
        run("mount", "--bind", "-o", "ro", data, place)
        guide = Path(data).with_name("launch-security-sev.txt")  # libvirt's, for the lab
        if guide.exists():
            shutil.copy(guide, place.parent)


def configure_pip(root: Path) -> None:
    """Take over the host's certificates and its pip configuration."""
    home = Path.home()
    bundle = Path(os.environ.get("PIP_CERT", "/etc/ssl/certs/ca-certificates.crt"))
    settings = (home / ".config/pip/pip.conf", home / ".pip/pip.conf", Path("/etc/pip.conf"))
    for name in (bundle, *settings):
        if name.exists():
            place = Path(f"{root}{name}")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(name, place)


def floors() -> str:
    """Pin every dependency in pyproject.toml to the oldest version that it allows."""
    project = tomllib.loads((HOME / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    stated = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for name in ("libvirt", "qmp", "postgres", "test"):
        stated += extras[name]
    lines = (re.sub(r"\[.*\]", "", line).replace(">=", "==") for line in sorted(set(stated)))
    return "".join(f"{line}\n" for line in lines)


def prepare(leg: Leg, root: Path) -> dict[str, str]:
    """Copy the working tree and install its dependencies; give the variables of its tests."""
    place = Path(f"{root}{SOURCE}")
    place.mkdir()
    for pattern in COPIED:
        for path in HOME.glob(pattern):
            run("cp", "-R", path, place)
    variables = {}
    if os.environ.get("SEV_ATTEST_REAL_DATA"):
        variables["SEV_ATTEST_REAL_DATA"] = DATA
    if leg.oldest:
        text = floors()
        print(text, end="", flush=True)
        (place / "oldest.txt").write_text(text)
        variables["PIP_CONSTRAINT"] = f"{SOURCE}/oldest.txt"
    setup = f"cd {SOURCE} && . tools/_setup && setup test"
    run("sh", "-c", setup, "tools/test", root=root, variables=variables)
    run("sh", "-c", f"cd {SOURCE} && {WORLD}", root=root)
    return variables


LIVE = "tools/test -n 2 --dist loadfile -q tests/live"
STEPS = {
    "offline": "tools/test -n 2 -q",
    "agreement": f"{LIVE}/test_virt_qemu_sev_validate.py",
    "live": LIVE,
    "lab": "tools/lab -q --capture=fd",
}
"""What a leg may run; ``live`` includes ``agreement``."""
USUAL = ("offline", "agreement", "lab")
ALL = ("offline", "live", "lab")


def inside(leg: Leg, root: Path, given: argparse.Namespace) -> int:
    """Run a leg, as the first process of its namespaces; give its exit code."""

    def late(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, late)
    signal.alarm(60 * given.minutes)
    now, failed = "install", []
    try:
        build(leg, root)
        variables = prepare(leg, root)
        for now in given.only or (ALL if given.all else USUAL):
            print(f"\nstep: {now}", flush=True)
            try:
                run("sh", "-c", f"cd {SOURCE} && {STEPS[now]}", root=root, variables=variables)
            except subprocess.CalledProcessError:
                failed.append(now)
    except subprocess.CalledProcessError as error:
        print(f"not installed: {shlex.join(error.cmd[:6])}", flush=True)
        return NOT_RUN
    except TimeoutError:
        print(f"{now}: not done in {given.minutes} minutes", flush=True)
        return NOT_RUN if now == "install" else 1
    return 1 if failed else 0


# Outside

SUMMARY = re.compile(r"=* ?((?:\d+ \w+, )*\d+ \w+) in [\d.]+s")
"""Pytest's last line."""
PASSED = "passed"
NOT_INSTALLED = "not run: its packages cannot be installed"


@dataclass
class Result:
    """What a leg did."""

    leg: Leg
    verdict: str
    world: list[str]
    tests: dict[str, str]
    minutes: float

    def row(self) -> str:
        """Write its line of the table."""
        tests = "; ".join(f"{step}: {counts}" for step, counts in self.tests.items())
        cells = (self.leg.name, ", ".join(self.world), tests, f"{self.minutes:.1f}", self.verdict)
        return f"| {' | '.join(cells)} |"


def run_leg(leg: Leg) -> Result:
    """Run one leg in namespaces of its own, and print what it prints with its name before it."""
    begin = time.monotonic()
    result = Result(leg, "", [], {}, 0)
    step = ""
    with chroot_folder(leg.name) as root:
        words = [*NAMESPACES, sys.executable, *sys.argv, "--inside", leg.name, str(root)]
        with subprocess.Popen(  # noqa: S603 - ourselves
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            for line in process.stdout or ():
                print(f"{leg.name} | {line}", end="", flush=True)
                step = line[6:].strip() if line.startswith("step: ") else step
                if line.startswith("world: "):
                    result.world.append(line[7:].strip())
                if found := SUMMARY.match(line):
                    result.tests[step] = found[1]
    code = process.returncode
    missing = "not installed, and it must be" if leg.stable else NOT_INSTALLED
    result.verdict = {0: PASSED, NOT_RUN: missing}.get(code, "failed")
    result.minutes = (time.monotonic() - begin) / 60
    return result


def main() -> int:
    """Run the legs that were asked for, two at a time."""
    by_name = {leg.name: leg for leg in LEGS}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("legs", nargs="*", metavar="LEG", help=f"of {', '.join(by_name)}")
    parser.add_argument("--all", action="store_true", help="all live tests, not agreement and lab")
    parser.add_argument("--only", action="append", choices=STEPS, help="this; can be repeated")
    parser.add_argument("--minutes", type=int, default=30, help="time limit of a leg (30)")
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := set(given.legs) - by_name.keys():
        parser.error(f"no such leg: {', '.join(sorted(unknown))}")
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        parser.error("this is for root, with debootstrap installed")
    chosen = [leg for leg in LEGS if leg.name in given.legs or not given.legs]
    if given.inside:
        return inside(by_name[given.inside[0]], Path(given.inside[1]), given)
    if subprocess.run([*NAMESPACES, "true"], check=False).returncode:  # noqa: S603
        print("no leg was run: this host allows no mount namespaces (is it a container?)")
        return 0
    with ThreadPoolExecutor(max_workers=2) as pool:
        results = list(pool.map(run_leg, chosen))
    print("\n| leg | with | tests | minutes | |\n|---|---|---|---|---|")
    for result in results:
        print(result.row())
    return int(any(result.verdict not in (PASSED, NOT_INSTALLED) for result in results))


if __name__ == "__main__":
    sys.exit(main())
