"""Run the tests in other worlds: each leg in a chroot that debootstrap makes.

A leg lives in a mount and a PID namespace of its own: when its first process ends, so does whatever
it started, and its mounts are gone. Only then is the chroot removed. The host's package mirror,
proxies, certificates and pip configuration are used inside.
"""

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

HOME = Path(__file__).resolve().parent.parent
PACKAGES = (
    "ca-certificates", "python3-venv", "libvirt-clients-qemu", "python3-lxml",
    "python3-cryptography", "ovmf", "libvirt-daemon", "libvirt-daemon-driver-qemu",
    "libvirt-clients", "libxml2-utils", "qemu-system-x86", "python3-libvirt", "postgresql",
    "gcc", "libc6-dev", "libvirt-dev", "pkg-config", "python3-dev",
)  # fmt: skip
COPIED = ("pyproject.toml", "*.md", "LICENSE", ".ci", "docs", "src", "tests", "tools", "vectors")
DATA = "/srv/real-data"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
SOURCE = "/srv/sev-attest"
NOT_RUN = 75
"""The exit code of a leg whose packages cannot be installed."""


@dataclass(frozen=True, kw_only=True)
class Leg:
    """One world. A leg that is not ``stable`` may lack packages; ``oldest`` pins dependencies."""

    name: str
    suite: str
    packages: tuple[str, ...] = ()
    stable: bool = True
    oldest: bool = False
    minutes: int = 25


LEGS = (
    Leg(name="bookworm", suite="bookworm"),
    Leg(name="trixie", suite="trixie"),
    Leg(name="sid", suite="sid", packages=("ovmf-amdsev",), stable=False),
    Leg(name="oldest", suite="bookworm", oldest=True),
)

# In the leg's namespaces


class NotInstalled(Exception):
    """Debian's packages cannot be installed."""


KEPT = re.compile("CI|PIP_.*|.*_proxy", re.IGNORECASE)
"""What tests and pip inside see of the host's environment; the rest may name its files."""


def run(
    *command: object,
    root: Path | None = None,
    quiet: bool = False,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Run a command, in the chroot ``root`` if one is named; raises CalledProcessError."""
    words = [str(word) for word in command]
    environment = dict(os.environ)
    if root:
        words = ["chroot", str(root), *words]
        environment = {name: text for name, text in environment.items() if KEPT.fullmatch(name)}
        environment |= {"HOME": "/root", "LC_ALL": "C.UTF-8", "PATH": PATH}
    print("$", shlex.join(words), flush=True)
    process = subprocess.Popen(  # noqa: S603 - commands of our own
        words, env={**environment, **variables}, stdout=subprocess.DEVNULL if quiet else None
    )
    # The first process of a PID namespace has to wait for every orphan.
    while (ended := os.wait())[0] != process.pid:
        pass
    process.returncode = os.waitstatus_to_exitcode(ended[1])
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)


def build(leg: Leg, root: Path) -> None:
    """Install Debian with the packages of the live tests; raises NotInstalled."""
    try:
        run("debootstrap", "--variant=minbase", leg.suite, root, *mirror(), quiet=True)
        mount(root)
        configure_apt(root)
        run("apt-get", "update", "-qq", root=root)
        words = ("apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES)
        run(
            *words,
            *leg.packages,
            root=root,
            quiet=True,
            variables={"DEBIAN_FRONTEND": "noninteractive"},
        )
    except subprocess.CalledProcessError as error:
        raise NotInstalled(shlex.join(error.cmd[:6])) from None
    configure_pip(root)


def mount(root: Path) -> None:
    """Bind what the tests need of the host; in this mount namespace only."""
    run("mount", "-t", "proc", "proc", root / "proc")
    run("mount", "--rbind", "/sys", root / "sys")
    run("mount", "--rbind", "/dev", root / "dev")
    data = os.environ.get("SEV_ATTEST_REAL_DATA")
    if data:
        place = Path(f"{root}{DATA}")
        place.mkdir()
        run("mount", "--bind", "-o", "ro", data, place)


def mirror() -> list[str]:
    """Find the Debian archive that this host takes its packages from; empty if it uses none."""
    found = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)", "Label: Debian"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    places = [line.split()[1] for line in found.stdout.splitlines() if line.startswith("Debian ")]
    return places[:1]


def configure_apt(root: Path) -> None:
    """Take over the host's settings for fetching packages, and start no services."""
    dumped = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True)  # noqa: S607
    kept = re.findall(r"^Acquire::(?:https?|Retries|Check)\b.*;$", dumped.stdout, re.MULTILINE)
    # The archive of sid may be older than its Release file allows.
    settings = [*kept, 'Acquire::Check-Valid-Until "false";', ""]
    (root / "etc/apt/apt.conf.d/90host").write_text("\n".join(settings))
    (root / "etc/dpkg/dpkg.cfg.d/unsafe").write_text("force-unsafe-io\n")
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    for name in ("resolv.conf", "hosts"):
        shutil.copy(f"/etc/{name}", root / "etc")


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


def copy_source(leg: Leg, root: Path) -> None:
    """Copy the working tree, without what is built in it."""
    place = Path(f"{root}{SOURCE}")
    place.mkdir()
    for pattern in COPIED:
        for path in HOME.glob(pattern):
            run("cp", "-R", path, place)
    if leg.oldest:
        text = floors()
        print(text, end="", flush=True)
        (place / "oldest.txt").write_text(text)


def steps(*, everything: bool) -> Iterator[tuple[str, str]]:
    """Name the steps of a leg, and what each runs."""
    yield "offline", "tools/test -n 2 -q"
    live = "tools/test -n 2 --dist loadfile -q tests/live"
    if everything:
        yield "live", live
    else:
        yield "agreement", f"{live}/test_virt_qemu_sev_validate.py"
    yield "lab", "tools/lab -q"


WORLD = """
printf 'world: '
python3 --version
dpkg-query -W -f '${Package} ${Version}\\n' libvirt0 qemu-system-x86 ovmf 'postgresql-1?' |
    sed 's/^/world: /'
"""
VERSIONS = """
.venv/bin/pip list --disable-pip-version-check --format freeze |
    grep -E '^(click|cryptography|psycopg|pytest|hypothesis)==' | sed 's/^/world: /'
"""


def inside(leg: Leg, root: Path, *, everything: bool) -> int:
    """Run a leg, as the first process of its namespaces; give its exit code."""

    def late(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, late)
    signal.alarm(60 * leg.minutes)
    now = "its packages"
    failed = []
    try:
        build(leg, root)
        copy_source(leg, root)
        run("sh", "-c", WORLD, root=root)
        variables = {}
        if os.environ.get("SEV_ATTEST_REAL_DATA"):
            variables["SEV_ATTEST_REAL_DATA"] = DATA
        if leg.oldest:
            variables["PIP_CONSTRAINT"] = f"{SOURCE}/oldest.txt"
        for now, command in steps(everything=everything):
            print(f"step: {now}", flush=True)
            try:
                run("sh", "-c", f"cd {SOURCE} && {command}", root=root, variables=variables)
            except subprocess.CalledProcessError:
                failed.append(now)
        run("sh", "-c", f"cd {SOURCE} && {VERSIONS}", root=root, variables=variables)
    except NotInstalled as error:
        print(f"not installed: {error}", flush=True)
        return NOT_RUN
    except TimeoutError:
        print(f"{now}: not done in {leg.minutes} minutes", flush=True)
        return 1
    return 1 if failed else 0


# Outside

NAMESPACES = (
    "unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child",
)  # fmt: skip
SUMMARY = re.compile(r"=* ?((?:\d+ \w+, )*\d+ \w+) in [\d.]+s")
"""Pytest's last line."""


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


@contextmanager
def chroot_folder(name: str) -> Iterator[Path]:
    """Make the folder of a chroot, and remove it when nothing is mounted in it."""
    folder = Path(tempfile.mkdtemp(prefix=f"matrix-{name}-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        if f" {folder}" in Path("/proc/self/mountinfo").read_text(encoding="utf-8"):
            raise RuntimeError(f"{folder} has mounts: it is left there")
        subprocess.run(["rm", "-rf", "--one-file-system", folder], check=True)  # noqa: S603, S607


def run_leg(leg: Leg, *, everything: bool) -> Result:
    """Run one leg in namespaces of its own, and print what it prints with its name before it."""
    begin = time.monotonic()
    result = Result(leg, "", [], {}, 0)
    step = ""
    with chroot_folder(leg.name) as root:
        words = [*NAMESPACES, sys.executable, __file__, "--inside", str(root), leg.name]
        words += ["--all"] if everything else []
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
    verdict = "passed" if not code else "FAILED"
    if code == NOT_RUN:
        verdict = "NOT INSTALLED" if leg.stable else "not run"
    result.verdict = verdict
    result.minutes = (time.monotonic() - begin) / 60
    return result


def main() -> int:
    """Run the legs that were asked for, two at a time."""
    names = [leg.name for leg in LEGS]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("legs", nargs="*", metavar="LEG", help=f"of {', '.join(names)}")
    parser.add_argument("--all", action="store_true", help="all live tests, not agreement and lab")
    parser.add_argument("--inside", metavar="ROOT", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := set(given.legs) - set(names):
        parser.error(f"no such leg: {', '.join(sorted(unknown))}")
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        parser.error("this is for root, with debootstrap installed")
    chosen = [leg for leg in LEGS if leg.name in given.legs or not given.legs]
    if given.inside:
        return inside(chosen[0], Path(given.inside), everything=given.all)
    with ThreadPoolExecutor(max_workers=2) as pool:
        results = list(pool.map(lambda leg: run_leg(leg, everything=given.all), chosen))
    print("\n| leg | with | tests | minutes | |\n|---|---|---|---|---|")
    for result in results:
        print(result.row())
    return int(any(result.verdict.isupper() for result in results))


if __name__ == "__main__":
    sys.exit(main())
