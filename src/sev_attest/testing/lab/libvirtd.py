"""The lab's folder, and the libvirtd that runs in it."""

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import sev_attest
from sev_attest.testing.lab import standin
from sev_attest.testing.lab.fault import FAULTS, AnyFault, write_fault
from sev_attest.testing.platform import Platform

NAME: str = "qemu-system-x86_64"
_FOLDERS = ("bin", "home", "config", "cache", "data", "run", "images", standin.MONITORS)
_WAIT = 60.0
"""Seconds that libvirtd may take to open its socket."""
_PAUSE = 0.1
"""Seconds between two attempts to reach it."""
_CPUS = Path("/sys/devices/system/cpu")
_SBIN = ":/usr/sbin:/sbin"
"""Where libvirtd is installed; these folders may be missing in a user's path."""


class LabError(Exception):
    """The lab cannot run here, or one of its programs failed."""


@dataclass(frozen=True, slots=True)
class Ran:
    """The result of a program."""

    code: int
    """Its exit code."""
    out: str
    err: str


class Lab:
    """One host: libvirtd in session mode, whose QEMU has SEV.

    It is a context manager: libvirtd starts on entry, and everything but the folder ends on exit.
    ``folder`` is empty or that of an earlier lab; its path must be short, because sockets are made
    in it. ``seed`` determines the platform (:class:`Platform`). ``fault`` is what the host does
    wrong.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seed: bytes = b"lab",
        fault: AnyFault | None = None,
        show: Callable[[str], object] = lambda _line: None,
    ) -> None:
        """Lay out the folder. ``show`` is called with each command line and its output.

        Raises LabError for root, and if a program or /sys is missing; OSError for the folder.
        """
        self.folder: Path = folder
        self.platform: Platform = Platform(seed)
        self._show = show
        if os.geteuid() == 0:
            raise LabError("libvirtd's session mode does not work for root: use another user")
        if not _CPUS.exists():
            raise LabError(f"{_CPUS} is missing, where libvirt reads the machine's CPUs")
        self._real = _program(NAME)
        self._libvirtd = _program("libvirtd")
        self._process: subprocess.Popen[bytes] | None = None
        for name in _FOLDERS:
            (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._write(seed)
        self.set_fault(fault)

    def _write(self, seed: bytes) -> None:
        """Write the seed, the certificates that a user needs, and the stand-in."""
        chain = self.platform.export()
        authority = self.platform.authority
        root = authority.ask.to_bytes() + authority.ark.to_bytes()
        files = {
            standin.SEED: seed,
            "test-root.cert": root,
            "cek.cert": chain.cek.to_bytes(),
        }
        for name, data in files.items():
            (self.folder / name).write_bytes(data)
        (self.folder / standin.LOG).touch()
        program = self.folder / "bin" / NAME
        program.write_text(_wrapper(self.folder, self._real))
        program.chmod(0o755)

    def set_fault(self, fault: AnyFault | None) -> None:
        """Change what the host does wrong from the next start of a guest on; None is nothing.

        A fault in the chain is set before libvirtd starts, which asks for the chain only once.
        Raises OSError.
        """
        write_fault(self.folder, fault)

    @property
    def socket(self) -> Path:
        """The socket that libvirtd listens on."""
        return self.folder / "run" / "libvirt" / "libvirt-sock"

    @property
    def pid(self) -> int:
        """The process id of libvirtd. Raises LabError if it does not run."""
        if self._process is None:
            raise LabError("libvirtd does not run")
        return self._process.pid

    @property
    def uri(self) -> str:
        """The URI to connect to."""
        return f"qemu+unix:///session?socket={self.socket}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of libvirtd."""
        variables = {
            "HOME": "home",
            "XDG_CONFIG_HOME": "config",
            "XDG_CACHE_HOME": "cache",
            "XDG_DATA_HOME": "data",
            "XDG_RUNTIME_DIR": "run",
        }
        kept = {name: os.environ[name] for name in ("LANG", "TZ") if name in os.environ}
        places = {name: str(self.folder / folder) for name, folder in variables.items()}
        path = f"{self.folder / 'bin'}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {**kept, **places, "PATH": path}

    def __enter__(self) -> Self:
        """Start libvirtd and wait for its socket. Raises LabError."""
        with (self.folder / "libvirtd.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - an installed program
                [self._libvirtd],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def _wait(self) -> None:
        ends = time.monotonic() + _WAIT
        while self.virsh("uri").code != 0:
            if self._process is None or self._process.poll() is not None:
                raise LabError(f"libvirtd ended: see {self.folder / 'libvirtd.log'}")
            if time.monotonic() > ends:
                raise LabError(f"libvirtd does not answer: see {self.folder / 'libvirtd.log'}")
            time.sleep(_PAUSE)

    def __exit__(self, *_exception: object) -> None:
        """End everything that was started."""
        self.stop()

    def stop(self) -> None:
        """End this lab's guests, libvirtd and virtlogd: those with a pid file in its folder."""
        run = self.folder / "run" / "libvirt"
        for path in (*run.glob("qemu/run/*.pid"), run / "virtlogd.pid"):
            _end(path, self.folder)
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def virsh(self, *arguments: object) -> Ran:
        """Run virsh on this host. Returns its output and exit code, whatever that is."""
        return self.run("virsh", "-c", self.uri, *arguments)

    def run(self, *command: object, variables: Mapping[str, str] | None = None) -> Ran:
        """Run a program, and show its command line and output. Raises OSError if it is missing."""
        words = [str(word) for word in command]
        ran = subprocess.run(  # noqa: S603 - the caller's command
            words, env=variables, capture_output=True, text=True, check=False
        )
        self._show(f"$ {shlex.join(words)}\n{ran.stdout}{ran.stderr}")
        return Ran(ran.returncode, ran.stdout, ran.stderr)


def main(arguments: list[str], *, pause: Callable[[], object] = signal.pause) -> int:
    """Run a lab in the folder that is named, until Ctrl-C. Returns the exit code.

    Raises SystemExit for other arguments.
    """
    parser = argparse.ArgumentParser(prog="python -m sev_attest.testing.lab")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--fault", choices=FAULTS, metavar="NAME", help=", ".join(FAULTS))
    given = parser.parse_args(arguments)
    fault = FAULTS.get(given.fault)
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)
    try:
        with (
            contextlib.suppress(KeyboardInterrupt),
            Lab(given.folder.resolve(), fault=fault) as lab,
        ):
            print(f"export LIBVIRT_DEFAULT_URI='{lab.uri}'", flush=True)  # noqa: T201
            pause()
    except (LabError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _program(name: str) -> str:
    path = os.environ.get("PATH", os.defpath) + _SBIN
    found = shutil.which(name, path=path)
    if found is None:
        raise LabError(f"{name} is not installed: see docs/lab.md")
    return found


def _wrapper(folder: Path, real: str) -> str:
    """Return the program that libvirt runs in place of QEMU."""
    source = Path(sev_attest.__file__).parent.parent
    code = (
        "import sys; from pathlib import Path; from sev_attest.testing.lab import standin; "
        "sys.exit(standin.run(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))"
    )
    words = (sys.executable, "-P", "-c", code, str(folder), real)
    return f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(source))} exec {shlex.join(words)} "$@"\n'


def _end(pid_file: Path, folder: Path) -> None:
    """End the process of a pid file, if its environment names this folder."""
    with contextlib.suppress(OSError, ValueError):
        pid = int(pid_file.read_text())
        if os.fsencode(folder) in Path("/proc", str(pid), "environ").read_bytes():
            os.kill(pid, signal.SIGTERM)
