"""Every exception that sev-attest raises on purpose, each with its exit code.

For untrusted input the library raises only :class:`SevAttestError`. An ``OSError`` for a file that
cannot be read stays an ``OSError``.

=====  ==========================================================================
exit   meaning
=====  ==========================================================================
1      not verified: a signature, the chain, the measurement, a requirement of the owner
2      usage: options missing, contradictory or out of range; not supported
3      refused because the result would not be secure
4      the guest is configured so that it cannot be attested
5      the guest or the session is in the wrong state
6      input that cannot be read or is malformed, a file that cannot be written, or a
       worker process that ended early
=====  ==========================================================================
"""


class SevAttestError(Exception):
    """The base class of all errors.

    ``check`` is a stable id for programs (``chain.pek.signed-by-cek``). ``hint`` says what to do.
    ``source`` names the file or option that was read, if :class:`reading` knows it. ``facts`` is
    what a command adds to its JSON document.
    """

    exit_code: int = 6

    def __init__(self, message: str = "", *, check: str = "", hint: str = "") -> None:
        """Keep the message for people, the check id for programs and the hint apart."""
        super().__init__(message)
        self.check: str = check
        self.hint: str = hint
        self.source: str = ""
        self.facts: dict[str, object] = {}

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle what an error is made of, not the arguments: a worker process may raise it.

        An error that cannot be unpickled ends the whole pool of worker processes.
        """
        return type(self).__new__, (type(self), *self.args), self.__dict__

    def __str__(self) -> str:
        """Return the message, after the source if that is known."""
        message = super().__str__()
        return f"{self.source}: {message}" if self.source else message


_SELF_EXPLAINING = ("", "length", "format", "base64", "range", "incomplete", "conflict", "godh",
                    "qmp", "snp", "each")  # fmt: skip


class MalformedInput(SevAttestError):
    """Bytes or text that are not in the expected format.

    ``structure`` and ``field`` say what was read ("SEV certificate", "version"). ``part`` says
    which one of several it is ("OCA"), ``offset`` where in it, in bytes.
    """

    exit_code: int = 6

    def __init__(
        self,
        structure: str = "",
        field: str = "",
        reason: str = "",
        *,
        offset: int | None = None,
        part: str = "",
        hint: str = "",
    ) -> None:
        """Name the structure, its field and what is wrong with it."""
        slug = structure.lower().replace(" ", "-")
        super().__init__(reason, check=f"{slug}.{field}", hint=hint)
        self.structure: str = structure
        self.part: str = part
        self.field: str = field
        self.reason: str = reason
        self.offset: int | None = offset

    def __str__(self) -> str:
        """Return one line: source, structure, field, offset, reason."""
        place = "" if self.offset is None else f" at byte {self.offset:#x}"
        part = f" ({self.part})" if self.part else ""
        field = "" if self.field in _SELF_EXPLAINING else f" {self.field}"
        source = f"{self.source}: " if self.source else ""
        return f"{source}{self.structure}{part}{field}{place}: {self.reason}"


class reading:  # noqa: N801 - a context manager that reads like a word
    """Name the source of errors: ``with reading("tik.bin"):``.

    The name goes to a :class:`MalformedInput`, :class:`NotAttestable` or :class:`NotVerified`, and
    to an ``OSError`` without a file name.
    """

    def __init__(self, source: str) -> None:
        """Take the name of the file or option that is read; ``-`` is standard input."""
        self.source: str = "standard input" if source == "-" else source

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        """Name the source of an error that has none yet: the innermost name wins."""
        if isinstance(error, MalformedInput | NotAttestable | NotVerified):
            error.source = error.source or self.source
        elif isinstance(error, OSError) and error.filename is None:
            error.filename = self.source


class Unsupported(SevAttestError):
    """Options that are missing or contradict each other, or something that is not supported."""

    exit_code: int = 2


class Insecure(SevAttestError):
    """Refused because the result would not be secure."""

    exit_code: int = 3


class NotAttestable(SevAttestError):
    """The guest is configured so that it cannot be attested."""

    exit_code: int = 4


class WrongState(SevAttestError):
    """The guest or the session is in the wrong state: not paused, already released, closed."""

    exit_code: int = 5


class NotVerified(SevAttestError):
    """Do not trust it: a signature, the measurement or a requirement of the owner failed."""

    exit_code: int = 1


class Failure:
    """One check that failed, of several that were made.

    ``check`` is its id, ``message`` says what was expected and found, ``hint`` what to do ("" if
    there is nothing to say). ``certificate`` is the role of the certificate that it failed for
    ("CEK"), "" for a requirement.
    """

    __slots__ = ("certificate", "check", "hint", "message")

    def __init__(self, check: str, message: str, hint: str = "", *, certificate: str = "") -> None:
        """Keep the check id, the message and the hint apart, as an error does."""
        self.check: str = check
        self.message: str = message
        self.hint: str = hint
        self.certificate: str = certificate

    def __repr__(self) -> str:
        """Return the id and the message."""
        return f"Failure({self.check!r}, {self.message!r})"


def _joined(failures: tuple[Failure, ...]) -> str:
    return "; ".join(failure.message for failure in failures)


class ChecksFailed(NotVerified):
    """Checks that failed, of several that were made.

    ``failures`` holds every one in order; ``check`` is the first's. ``held`` are the ids of the
    checks that held; any other failed or could not be made.
    """

    def __init__(
        self, failures: tuple[Failure, ...] = (), held: frozenset[str] = frozenset()
    ) -> None:
        """Collect the failed checks, at least one."""
        super().__init__(_joined(failures), check=failures[0].check, hint=failures[0].hint)
        self.failures: tuple[Failure, ...] = failures
        self.held: frozenset[str] = held
        self.certificate: str = failures[0].certificate


class ChainInvalid(ChecksFailed):
    """A certificate chain that does not reach a trusted root.

    ``certificate`` is the role of the certificate that the first check failed for.
    """


class ReportInvalid(ChecksFailed):
    """An SEV-SNP report that is not signed by a key of AMD's, or not by the one that it states.

    ``certificate`` is the kind of the certificate that the first check failed for, or "".
    """


class IdBlockInvalid(ChecksFailed):
    """An ID block of SEV-SNP that its keys do not sign, or that is not the one expected."""


class RequirementsNotMet(NotVerified):
    """The measurement is right, but the owner's requirements do not allow the launch.

    ``failures`` holds every requirement that is not met; ``check`` is the first's.
    """

    def __init__(self, failures: tuple[Failure, ...] = ()) -> None:
        """Collect what is not met, at least one failure."""
        super().__init__(_joined(failures), check=failures[0].check, hint=failures[0].hint)
        self.failures: tuple[Failure, ...] = failures


class LaunchRefused(NotVerified):
    """The host's report contradicts what the owner knows of this launch."""


class MeasurementMismatch(NotVerified):
    """The measurement differs from the one computed from the owner's inputs.

    It never carries the expected value: a host that learns it can report it.
    """
