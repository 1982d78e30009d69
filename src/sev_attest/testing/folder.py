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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import shake_128
from pathlib import Path
from typing import Unpack

from sev_attest.errors import (
    MalformedInput,
    NotAttestable,
    SevAttestError,
    Unsupported,
    WrongState,
)
from sev_attest.sev.chain.chain import Chain
from sev_attest.sev.chain.roots import Generation
from sev_attest.sev.states import Status
from sev_attest.testing.documents import read_document
from sev_attest.testing.host import Fault, Host
from sev_attest.testing.images import SNP_SECTIONS, ovmf_image
from sev_attest.testing.platform import FirmwareError
from sev_attest.testing.qemu import GuestInputs, QemuError
from sev_attest.testing.snp_answer import SnpAnswer
from sev_attest.testing.snp_fault import SnpFault
from sev_attest.testing.snp_host import ReportChoices, SnpHost
from sev_attest.testing.snp_qemu import SnpInputs
from sev_attest.testing.state import (
    AnyGuest,
    HostState,
    SavedGuest,
    SavedSnpGuest,
    saved_guest,
)

STATE = "simulated-host.json"
"""What makes a folder a simulated host."""
_GUESTS = "guests"
_NEW = ".new"
_MAX_NAME = 100
_NAME = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.+-]{{0,{_MAX_NAME - 1}}}")
_FIRMWARE_SIZE = 4 << 20
_IMAGE_SIZE = 1 << 20
_Refusals = Mapping[Status, tuple[type[SevAttestError], str]]
_REFUSALS: _Refusals = {
    Status.BAD_MEASUREMENT: (
        WrongState,
        "a session is for one platform and one policy, a packet of secrets for one launch",
    ),
    Status.INVALID_CERTIFICATE: (SevAttestError, "the GODH is damaged: make a new session"),
    Status.INVALID_LEN: (SevAttestError, "the session or the packet is cut short, or another file"),
    Status.POLICY_FAILURE: (NotAttestable, "the policy demands a newer API than the host has"),
}
"""Errors for the firmware's status codes, and hints; WrongState for others."""
_SNP_REFUSALS: _Refusals = {
    Status.BAD_MEASUREMENT: (
        WrongState,
        "the ID block is for another launch digest: `sev-attest snp measure` prints this guest's",
    ),
    Status.POLICY_FAILURE: (WrongState, "the ID block is for another policy than the guest's"),
    Status.BAD_SIGNATURE: (
        WrongState,
        "the ID block and its authentication do not belong together, or are damaged",
    ),
}
"""The same for SEV-SNP guests."""


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
        self.state: HostState = read_document(folder / STATE, HostState)

    @classmethod
    def create(cls, folder: Path, state: HostState) -> "HostFolder":
        """Make a new folder with a host, the root that its owner may trust, and images to launch.

        The same state makes the same bytes. Raises OSError if the folder exists.
        """
        files = {
            STATE: state.to_bytes(),
            "test-root.cert": state.platform().authority.ark.to_bytes(),
            "OVMF.fd": ovmf_image(
                _FIRMWARE_SIZE, seed=b"firmware" + state.seed, sections=SNP_SECTIONS
            ),
            **{name: _image(name, state.seed) for name in ("vmlinuz", "initrd.img")},
        }
        with suppress(NotAttestable):  # a generation without SEV-SNP
            files["snp-root.der"] = state.snp_platform().authority.ark
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

    def _snp_host(self, fault: SnpFault | None) -> SnpHost:
        always = self.state.fault and SnpFault.__members__.get(self.state.fault.name)
        return SnpHost(self.state.snp_platform(), fault or always)

    def guests(self) -> dict[str, AnyGuest]:
        """Return its guests by name."""
        found = {}
        for path in sorted((self.folder / _GUESTS).glob("*.json")):
            with suppress(FileNotFoundError):  # ended since
                found[path.stem] = saved_guest(path)
        return found

    def any_guest(self, name: str) -> AnyGuest:
        """Return a guest of either kind."""
        try:
            return saved_guest(self._place(name))
        except FileNotFoundError:
            raise WrongState(
                f"there is no guest {name} on this simulated host", check="simulate.unknown"
            ) from None

    def guest(self, name: str) -> SavedGuest:
        """Return an SEV or SEV-ES guest; raises WrongState for an SEV-SNP guest."""
        found = self.any_guest(name)
        if isinstance(found, SavedSnpGuest):
            words = (
                f"{name} is an SEV-SNP guest: it runs already, has no measurement, and takes no "
                "secrets"
            )
            raise WrongState(words, check="simulate.is-snp")
        return found

    def snp_guest(self, name: str) -> SavedSnpGuest:
        """Return an SEV-SNP guest; raises WrongState for an SEV or SEV-ES guest."""
        found = self.any_guest(name)
        if isinstance(found, SavedGuest):
            words = f"{name} is no SEV-SNP guest: it has no reports"
            raise WrongState(words, check="simulate.not-snp")
        return found

    def start(self, name: str, inputs: GuestInputs, fault: Fault | None = None) -> SavedGuest:
        """Launch a guest, measure it and leave it paused; ``fault`` is by default the host's.

        Raises WrongState if there is one of that name, or if the firmware refuses the session;
        NotAttestable if QEMU or the firmware cannot launch this guest.
        """
        with self._starting(name) as place, _refusals(_REFUSALS):
            saved = SavedGuest.of(self._host(fault).launch(**inputs))
            self._replace(place, saved.to_bytes())
        return saved

    def start_snp(
        self, name: str, inputs: SnpInputs, fault: SnpFault | None = None
    ) -> SavedSnpGuest:
        """Launch an SEV-SNP guest, and let it run; ``fault`` is by default the host's.

        Raises WrongState if there is one of that name, or if the firmware refuses the ID block;
        NotAttestable if the host has no SEV-SNP, or QEMU cannot launch this guest.
        """
        host = self._snp_host(fault)
        with self._starting(name) as place, _refusals(_SNP_REFUSALS):
            instance = f"launch {self.state.launches}".encode()
            saved = SavedSnpGuest.of(host.launch(instance=instance, **inputs))
            self._replace(place, saved.to_bytes())
        return saved

    def snp_report(
        self,
        name: str,
        report_data: bytes,
        fault: SnpFault | None = None,
        **chosen: Unpack[ReportChoices],
    ) -> SnpAnswer:
        """Return what an SEV-SNP guest gets for a request with 64 bytes of ``report_data``.

        ``fault`` is by default the host's; ``chosen`` is as for :meth:`SnpHost.report`. Raises
        Unsupported for a fault that this version of a report cannot have.
        """
        host = self._snp_host(fault)
        return host.report(self.snp_guest(name).on(host.platform), report_data, **chosen)

    @contextmanager
    def _starting(self, name: str) -> Iterator[Path]:
        """Count a launch, under the folder's lock; yield the place of the new guest."""
        place = self._place(name)
        with self._changing():
            if place.exists():
                raise WrongState(f"there is a guest {name} already", check="simulate.exists")
            # Counted first: no nonce is used twice, even if this process is killed.
            self.state = read_document(self.folder / STATE, HostState).launched()
            self._replace(self.folder / STATE, self.state.to_bytes())
            yield place

    def inject(self, name: str, header: bytes, secret: bytes) -> None:
        """Pass a packet to a paused guest. Raises WrongState if the firmware refuses it."""
        with self._changing():
            guest = self._paused(name).on(self.state.platform())
            with _refusals(_REFUSALS):
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
            self.any_guest(name)
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
def _refusals(known: _Refusals) -> Iterator[None]:
    """Turn what the simulated firmware and QEMU refuse into errors of this library."""
    try:
        yield
    except FirmwareError as error:
        kind, hint = known.get(error.status, (WrongState, ""))
        words = f"the simulated firmware refuses {error}"
        raise kind(words, check="simulate.firmware", hint=hint) from None
    except QemuError as error:
        words = f"the simulated QEMU refuses it: {error}"
        raise NotAttestable(words, check="simulate.qemu") from None
