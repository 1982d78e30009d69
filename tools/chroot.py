"""Chroots of Debian releases, which debootstrap makes.

A chroot is made and used in a mount and a PID namespace of its own, by their first process: when
it ends, so does whatever it started, and its mounts are gone. Only then is the chroot removed. The
host's package mirror and proxies are used inside.
"""

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

NAMESPACES = (
    "unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child",
)  # fmt: skip
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
KEPT = re.compile("CI|PIP_.*|.*_proxy", re.IGNORECASE)
"""What programs inside see of the host's environment; the rest may name its files."""


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


def debootstrap(suite: str, root: Path) -> None:
    """Make a chroot of a release, with what Debian calls essential, and mount what it needs."""
    settings = apt_settings()
    proxies = re.findall(r'^Acquire::http::Proxy "(.+)";$', settings, re.MULTILINE)
    proxy = {"http_proxy": proxies[0]} if proxies else {}
    make = ("debootstrap", "--variant=minbase", suite, root, *mirror())
    run(*make, quiet=True, variables=proxy)
    mount(root)
    configure_apt(root, settings)
    run("apt-get", "update", "-qq", root=root)


def install(root: Path, *packages: str) -> None:
    """Install packages, or ``.deb`` files by their path in the chroot, and what they depend on."""
    words = ("apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages)
    run(*words, root=root, quiet=True, variables={"DEBIAN_FRONTEND": "noninteractive"})


def mount(root: Path) -> None:
    """Bind what programs need of the host; in this mount namespace only."""
    run("mount", "-t", "proc", "proc", root / "proc")
    run("mount", "--rbind", "/sys", root / "sys")
    run("mount", "--rbind", "/dev", root / "dev")


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


def apt_settings() -> str:
    """Read how this host fetches packages."""
    dumped = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True)  # noqa: S607
    kept = re.findall(r"^Acquire::(?:https?|Retries|Check)\b.*;$", dumped.stdout, re.MULTILINE)
    # The archive of sid may be older than its Release file allows.
    return "\n".join([*kept, 'Acquire::Check-Valid-Until "false";', ""])


def configure_apt(root: Path, settings: str) -> None:
    """Fetch packages as the host does, and start no services."""
    (root / "etc/apt/apt.conf.d/90host").write_text(settings)
    (root / "etc/dpkg/dpkg.cfg.d/unsafe").write_text("force-unsafe-io\n")
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    for name in ("resolv.conf", "hosts"):
        shutil.copy(f"/etc/{name}", root / "etc")


@contextmanager
def chroot_folder(name: str) -> Iterator[Path]:
    """Make the folder of a chroot, and remove it when nothing is mounted in it."""
    folder = Path(tempfile.mkdtemp(prefix=f"chroot-{name}-")).resolve()
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        if f" {folder}" in Path("/proc/self/mountinfo").read_text(encoding="utf-8"):
            raise RuntimeError(f"{folder} has mounts: it is left there")
        subprocess.run(["rm", "-rf", "--one-file-system", folder], check=True)  # noqa: S603, S607
