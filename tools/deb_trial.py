"""Try Debian's package in a clean chroot: it needs nothing but Debian, and leaves nothing behind.

python3 tools/deb_trial.py DEB FOLDER       the trial itself, in the namespaces of a chroot
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from chroot import NAMESPACES, chroot_folder, debootstrap, install, run

SUITE = "trixie"
"""Debian 13: the first release whose cryptography is new enough."""

TRIAL = """
home=$(mktemp -d)
chown nobody "$home"
own() { runuser -u nobody -- env HOME="$home" "$@"; }
cd "$home"

dpkg-query -W python3 python3-click python3-cryptography python3-pyasn1
if python3 -m pip --version; then exit 1; fi
for module in click cryptography pyasn1; do
    dpkg -S "$(own python3 -c "import $module; print($module.__file__)")"
done
test -d /usr/lib/python3/dist-packages/sev_attest/__pycache__

own sev-attest --version
own sev-attest verify --help >help.txt
grep '^Usage: sev-attest verify ' help.txt
own sev-attest demo >demo.txt
tail -n 1 demo.txt | grep -x '# That was the whole story.'
own python3 -c 'import importlib.metadata as m; print(m.version("sev-attest"))'
"""
MANUAL = """
for page in $(dpkg -L sev-attest | grep '/man/.*gz$'); do
    said=$(man --warnings -l -Tutf8 "$page" 2>&1 >/dev/null || echo "man failed")
    test -z "$said" || { echo "$page: $said"; exit 1; }
done
"""
REMOVED = """
dpkg --purge sev-attest
left=$(find /etc /usr /var/lib/dpkg/info -name '*sev?attest*')
test -z "$left" || { echo "left behind: $left"; exit 1; }
"""
LINTIAN = (
    "lintian", "--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0",
    "--suppress-tags",
)  # fmt: skip
ALLOWED = (
    "initial-upload-closes-no-bugs",  # of packages that go into Debian
    "bogus-mail-host",  # --maintainer of tools/deb
    "bogus-mail-host-in-debian-changelog",
)
"""What lintian need not say."""


def has_manuals(root: Path) -> bool:
    """Return whether manual pages were made for the package."""
    return any((root / "usr/share/man/man1").glob("sev-attest*"))


def inside(deb: Path, root: Path) -> int:
    """Install, use, judge and remove the package, as the first process of its namespaces."""
    try:
        debootstrap(SUITE, root)
        shutil.copy(deb, root / "srv")
        install(root, f"/srv/{deb.name}")
        run("sh", "-ec", TRIAL, root=root)
        install(root, "lintian", "man-db")
        run("sh", "-ec", MANUAL, root=root)
        allowed = ALLOWED if has_manuals(root) else (*ALLOWED, "no-manual-page")
        run(*LINTIAN, ",".join(allowed), f"/srv/{deb.name}", root=root)
        run("sh", "-ec", REMOVED, root=root)
    except subprocess.CalledProcessError as error:
        print(f"error: it ended with {error.returncode}: {shlex.join(error.cmd)}", flush=True)
        return 1
    return 0


def check(deb: Path) -> int:
    """Try a package in a clean chroot; return an exit code."""
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        print("error: --check is for root, with debootstrap installed", file=sys.stderr)
        return 2
    if subprocess.run([*NAMESPACES, "true"], check=False).returncode:  # noqa: S603
        print("not checked: this host allows no mount namespaces (is it a container?)")
        return 0
    with chroot_folder("deb") as root:
        words = [*NAMESPACES, sys.executable, __file__, str(deb), str(root)]
        return subprocess.run(words, stdin=subprocess.DEVNULL, check=False).returncode  # noqa: S603


if __name__ == "__main__":
    sys.exit(inside(Path(sys.argv[1]), Path(sys.argv[2])))
