"""A simulated host in a folder, for commands that are processes of their own.

``simulated-host.json`` describes the host; ``guests/NAME.json`` is a guest, with the keys that the
firmware keeps for it. Whoever changes something holds a lock on the folder and replaces files as a
whole: those who only read need no lock, and a process that is killed leaves no half-written file.
Everything is readable by its owner alone.
"""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import shake_128
from pathlib import Path

from sev_attest.errors import (
    MalformedInput,
    NotAttestable,
    SevAttestError,
    Unsupported,
    WrongState,
)
from sev_attest.sev.chain.chain import Chain
from sev_attest.sev.chain.roots import Generation
from sev_attest.sev.spec import Status
from sev_attest.testing.host import Fault, Host
from sev_attest.testing.images import ovmf_image
from sev_attest.testing.platform import FirmwareError
from sev_attest.testing.qemu import GuestInputs, QemuError
from sev_attest.testing.state import HostState, SavedGuest

STATE = "simulated-host.json"
"""What makes a folder a simulated host."""
_GUESTS = "guests"
_NEW = ".new"
_MAX_NAME = 100
_NAME = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.+-]{{0,{_MAX_NAME - 1}}}")
_FIRMWARE_SIZE = 4 << 20
_IMAGE_SIZE = 1 << 20
_REFUSALS: dict[Status, tuple[type[SevAttestError], str]] = {
    Status.BAD_MEASUREMENT: (
        WrongState,
        "a session is for one platform and one policy, a packet of secrets for one launch",
    ),
    Status.INVALID_CERTIFICATE: (SevAttestError, "the GODH is damaged: make a new session"),
    Status.INVALID_LEN: (SevAttestError, "the session or the packet is cut short, or another file"),
    Status.POLICY_FAILURE: (NotAttestable, "the policy demands a newer API than the host has"),
}
"""Errors for the firmware's status codes, and hints; WrongState for others."""


class HostFolder:
    """A simulated host in a folder. Its methods raise OSError, and MalformedInput for its files.

    A guest's name that files cannot have raises Unsupported, an unknown one WrongState.
    """

    def __init__(self, folder: Path) -> None:
        """Open a folder that :meth:`create` made."""
        self.folder: Path = folder
        if not (folder / STATE).exists():
            if not os.path.lexists(folder):
                words = f"{folder}: {os.strerror(errno.ENOENT)}"
                raise SevAttestError(words, check="simulate.folder")
            hint = "".join(f"{path.parent} is one" for path in [*folder.glob(f"*/{STATE}")][:1])
            words = f"{folder} is no simulated host: it has no {STATE}"
            raise SevAttestError(words, check="simulate.folder", hint=hint)
        self.state: HostState = HostState(**HostState.read(folder / STATE))

    @classmethod
    def create(cls, folder: Path, state: HostState) -> "HostFolder":
        """Make a new folder with a host, the root that its owner may trust, and images to launch.

        The same state makes the same bytes. Raises OSError if the folder exists.
        """
        files = {
            STATE: state.to_bytes(),
            "test-root.cert": state.platform().authority.ark.to_bytes(),
            "OVMF.fd": ovmf_image(_FIRMWARE_SIZE, seed=b"firmware" + state.seed),
            **{name: _image(name, state.seed) for name in ("vmlinuz", "initrd.img")},
        }
        if os.path.lexists(folder):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder))
        try:
            staging = Path(tempfile.mkdtemp(prefix=".sev-attest.", dir=folder.parent))
            try:
                (staging / _GUESTS).mkdir(mode=0o700)
                for name, data in files.items():
                    _write(staging / name, data)
                staging.rename(folder)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise
        except OSError as error:  # name the folder that was asked for
            raise OSError(error.errno, error.strerror, str(folder)) from None
        return cls(folder)

    def chain(self, fault: Fault | None = None) -> Chain:
        """Return the chain that the host exports, as a fault changes it (by default the host's)."""
        return self._host(fault).chain()

    def _host(self, fault: Fault | None) -> Host:
        generation = Generation(self.state.generation)
        return Host(self.state.platform(), fault or self.state.fault, generation)

    def guests(self) -> dict[str, SavedGuest]:
        """Return its guests by name."""
        found = {}
        for path in sorted((self.folder / _GUESTS).glob("*.json")):
            with suppress(FileNotFoundError):  # ended since
                found[path.stem] = SavedGuest(**SavedGuest.read(path))
        return found

    def guest(self, name: str) -> SavedGuest:
        """Return a guest."""
        try:
            return SavedGuest(**SavedGuest.read(self._place(name)))
        except FileNotFoundError:
            raise WrongState(
                f"there is no guest {name} on this simulated host", check="simulate.unknown"
            ) from None

    def start(self, name: str, inputs: GuestInputs, fault: Fault | None = None) -> SavedGuest:
        """Launch a guest, measure it and leave it paused; ``fault`` is by default the host's.

        Raises WrongState if there is one of that name, or if the firmware refuses the session;
        NotAttestable if QEMU or the firmware cannot launch this guest.
        """
        place = self._place(name)
        with self._changing():
            if place.exists():
                raise WrongState(f"there is a guest {name} already", check="simulate.exists")
            # Counted first: no nonce is used twice, even if this process is killed.
            state = HostState(**HostState.read(self.folder / STATE))
            self.state = replace(state, launches=state.launches + 1)
            self._replace(self.folder / STATE, self.state.to_bytes())
            with _refusals():
                saved = SavedGuest.of(self._host(fault).launch(**inputs))
            self._replace(place, saved.to_bytes())
        return saved

    def inject(self, name: str, header: bytes, secret: bytes) -> None:
        """Pass a packet to a paused guest. Raises WrongState if the firmware refuses it."""
        with self._changing():
            guest = self._paused(name).on(self.state.platform())
            with _refusals():
                try:
                    guest.inject(header, secret)
                except ValueError as error:
                    raise MalformedInput("secret", "format", str(error)) from None
            self._replace(self._place(name), SavedGuest.of(guest).to_bytes())

    def resume(self, name: str) -> None:
        """Let a paused guest run; the firmware forgets its keys."""
        with self._changing():
            guest = self._paused(name).on(self.state.platform())
            guest.resume()
            self._replace(self._place(name), SavedGuest.of(guest).to_bytes())

    def destroy(self, name: str) -> None:
        """Forget a guest."""
        with self._changing():
            self.guest(name)
            self._place(name).unlink()

    def _paused(self, name: str) -> SavedGuest:
        guest = self.guest(name)
        if guest.running:
            raise WrongState(f"{name} runs already", check="simulate.running")
        return guest

    def _place(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise Unsupported(
                f"{name!r} cannot be a guest's name here: 1 to {_MAX_NAME} letters, digits and "
                "_ . + -, the first a letter, a digit or _",
                check="name",
            )
        return self.folder / _GUESTS / f"{name}.json"

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the folder's lock; the system drops it if the process is killed."""
        try:
            import fcntl
        except ImportError:
            words = "a simulated host needs a POSIX system"
            raise Unsupported(words, check="simulate.posix") from None
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _replace(self, path: Path, data: bytes) -> None:
        """Replace a file as a whole. What a killed process left of a new one is removed."""
        new = self.folder / _NEW
        new.unlink(missing_ok=True)
        try:
            _write(new, data)
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    """Write a new file with mode 0600, to the disk."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _image(name: str, seed: bytes) -> bytes:
    """Return bytes to pass for a kernel or an initrd: they are measured, not run."""
    return f"simulated {name}\n".encode() + shake_128(name.encode() + seed).digest(_IMAGE_SIZE)


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what the simulated firmware and QEMU refuse into errors of this library."""
    try:
        yield
    except FirmwareError as error:
        kind, hint = _REFUSALS.get(error.status, (WrongState, ""))
        words = f"the simulated firmware refuses {error}"
        raise kind(words, check="simulate.firmware", hint=hint) from None
    except QemuError as error:
        words = f"the simulated QEMU refuses it: {error}"
        raise NotAttestable(words, check="simulate.qemu") from None
