"""Hosts that can be asked, and told: libvirt, QMP. What they say is the host's claim, no more.

Each needs an extra that is imported only when it is used.
"""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from sev_attest.errors import MalformedInput, SevAttestError
from sev_attest.sev.launch_info import Claims

Value = TypeVar("Value")


class HostError(SevAttestError):
    """A host that cannot be reached, does not answer in time, or cannot do what it is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainConfig:
    """What a host says that it started: the parts of a domain's XML that matter to its owner."""

    sev: bool
    owner_keys: bool
    """Whether it has both dhCert and session."""
    kernel_hashes: bool
    nvram: bool
    firmware: str | None = None
    kernel: str | None = None
    initrd: str | None = None
    cmdline: str | None = None
    cpu_mode: str = ""
    cpu_model: str = ""


class RunningGuest(Protocol):
    """A guest on a host."""

    starts: str
    """What starts one paused there, in words for people."""
    resumes: str
    """What lets one run there."""

    @property
    def config(self) -> DomainConfig | None:
        """What it was started with; None where the host does not tell."""

    def state(self) -> str:
        """Tell its state: "paused", or the host's word for another."""

    def claims(self) -> Claims:
        """Read what the host reports of its launch."""

    def vcpus(self) -> int:
        """Count its vCPUs."""

    def cpu(self) -> tuple[int, int, int] | None:
        """Give family, model and stepping of the host's own CPU, if the host tells."""

    def confirm(self) -> None:
        """Make sure that it is still the guest that was found; raises WrongState, HostError."""

    def inject(self, header: bytes, payload: bytes) -> None:
        """Pass it a packet. Raises WrongState if it is refused; then the guest has no secret.

        Raises HostError if nobody knows whether it arrived.
        """

    def resume(self) -> None:
        """Let it run."""


class Host(Protocol):
    """A connection to a host."""

    def close(self) -> None:
        """Disconnect; raises nothing."""

    def is_local(self) -> bool:
        """Tell whether it is this machine, or cannot be told from it."""

    def chain(self) -> bytes:
        """Fetch its platform's certificates, as JSON with QMP's names."""

    def guest(self, name: str | None) -> RunningGuest:
        """Find a guest. Raises HostError if there is none of that name."""


UNSURE = (
    "the guest may have the secret: do not send it again, start the guest anew in a new session"
)
"""What to do when an answer to a secret does not come."""

UNREADABLE = "an answer that cannot be read"
"""What a host answered, where a library fails on it; the answer itself is not quoted."""
MOST_TEXT = 1 << 16
"""The most characters that are read of what a host says of a launch."""
_MOST_WORDS = 500


def bounded(text: str, what: str) -> str:
    """Give a text back that is no longer than :data:`MOST_TEXT`; raises MalformedInput."""
    if len(text) > MOST_TEXT:
        raise MalformedInput(what, "length", f"more than {MOST_TEXT} characters")
    return text


def words(text: str) -> str:
    """Give the first words of what a host says is wrong; they may be many."""
    return text[:_MOST_WORDS]


def within(seconds: float, what: str, call: Callable[[], Value]) -> Value:
    """Call, but do not wait for longer; raises HostError then. What it waited for goes on."""
    done: queue.SimpleQueue[tuple[Value | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            done.put((call(), None))
        except BaseException as error:  # noqa: BLE001 - raised again, over there
            done.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        value, error = done.get(timeout=seconds)
    except queue.Empty:
        raise HostError(
            f"{what}: no answer in {seconds:g} seconds",
            check="host.timeout",
            hint="--timeout waits for longer",
        ) from None
    if error is not None:
        raise error
    return value  # type: ignore[return-value] # it is call()'s where there is no error
