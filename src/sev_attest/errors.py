"""The exceptions of sev-attest, and the exit code of each.

For bytes that a stranger chose, the library raises only a :class:`SevAttestError`. An ``OSError``
for a file that cannot be read stays an ``OSError``.

=====  ==========================================================================
exit   meaning
=====  ==========================================================================
1      not verified: a signature, the chain, the measurement, a requirement of the owner
2      usage: options missing, contradictory or out of range; not supported
3      refused because the result would not be secure
4      the guest is configured so that it cannot be attested
5      the guest or the session is in the wrong state
6      input that is unreadable or malformed
=====  ==========================================================================
"""


class SevAttestError(Exception):
    """Base class of all errors.

    ``check`` is a stable id for programs (``chain.pek.signed-by-cek``). ``hint`` says what to do.
    ``source`` is the file or option that the input came from, if known (:class:`reading`).
    ``facts`` is what a command adds to its JSON document.
    """

    exit_code = 6

    def __init__(self, message: str = "", *, check: str = "", hint: str = "") -> None:
        """Store the message, the check id and the hint."""
        super().__init__(message)
        self.check: str = check
        self.hint: str = hint
        self.source: str = ""
        self.facts: dict[str, object] = {}

    def __str__(self) -> str:
        """Return the message, after the source if that is known."""
        message = super().__str__()
        return f"{self.source}: {message}" if self.source else message


_SELF_EXPLAINING = ("", "length", "format", "base64", "range", "incomplete", "conflict", "godh",
                    "qmp", "snp")  # fmt: skip


class MalformedInput(SevAttestError):
    """Input that does not have the expected form.

    ``structure`` and ``field`` name what was read ("SEV certificate", "version"), ``part`` which of
    several ("OCA"), ``offset`` the place in it, in bytes.
    """

    exit_code = 6

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
        """Store what was read, and what is wrong with it."""
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
    """``with reading("tik.bin"):`` adds the source to errors raised inside.

    Applies to :class:`MalformedInput`, :class:`NotAttestable`, :class:`NotVerified`, and an
    ``OSError`` without a file name.
    """

    def __init__(self, source: str) -> None:
        """Store the name of the file or option that is read; ``-`` is standard input."""
        self.source: str = "standard input" if source == "-" else source

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        """Add the source to an error that has none: the innermost source wins."""
        if isinstance(error, MalformedInput | NotAttestable | NotVerified):
            error.source = error.source or self.source
        elif isinstance(error, OSError) and error.filename is None:
            error.filename = self.source


class Unsupported(SevAttestError):
    """Arguments that are missing or contradict each other, or a case that is not supported."""

    exit_code = 2


class Insecure(SevAttestError):
    """The result would not be secure."""

    exit_code = 3


class NotAttestable(SevAttestError):
    """The guest is configured so that it cannot be attested."""

    exit_code = 4


class WrongState(SevAttestError):
    """The guest or the session is in the wrong state: not paused, already released, closed."""

    exit_code = 5


class NotVerified(SevAttestError):
    """A signature, the measurement or a requirement of the owner does not hold."""

    exit_code = 1


class ChainFailure:
    """One failed step of the chain check: its ``check`` id, the ``certificate``, and words."""

    __slots__ = ("certificate", "check", "hint", "message")

    def __init__(self, check: str, certificate: str, message: str, hint: str = "") -> None:
        """Name the step that failed, the certificate it failed for, and why."""
        self.check = check
        self.certificate = certificate
        self.message = message
        self.hint = hint

    def __repr__(self) -> str:
        """Show the id and the words."""
        return f"ChainFailure({self.check!r}, {self.message!r})"


class ChainInvalid(NotVerified):
    """A certificate chain that does not reach a trusted root.

    ``failures`` holds every failed step in order; ``check`` and ``certificate`` are the first's.
    ``held`` are the ids of the checks that did hold; any other one failed or could not be made.
    """

    def __init__(
        self, failures: tuple[ChainFailure, ...] = (), held: frozenset[str] = frozenset()
    ) -> None:
        """Collect the failed steps; there is at least one."""
        first = failures[0]
        super().__init__(
            "; ".join(failure.message for failure in failures), check=first.check, hint=first.hint
        )
        self.failures = failures
        self.held = held
        self.certificate = first.certificate

    def __reduce__(
        self,
    ) -> tuple[type["ChainInvalid"], tuple[tuple[ChainFailure, ...], frozenset[str]]]:
        """Pickle by what it was made of (for worker processes)."""
        return type(self), (self.failures, self.held)


class Failure:
    """One demand that was not met: its ``check`` id, words, and what to do."""

    __slots__ = ("check", "hint", "message")

    def __init__(self, check: str, message: str, hint: str = "") -> None:
        """Name the demand and say why it was not met."""
        self.check = check
        self.message = message
        self.hint = hint

    def __repr__(self) -> str:
        """Show the id and the words."""
        return f"{type(self).__name__}({self.check!r}, {self.message!r})"


class RequirementsNotMet(NotVerified):
    """A right measurement of a launch that its owner does not want.

    ``failures`` holds every demand that was not met; ``check`` is the first's.
    """

    def __init__(self, failures: tuple[Failure, ...] = ()) -> None:
        """Collect what was not met; there is at least one."""
        first = failures[0]
        super().__init__(
            "; ".join(failure.message for failure in failures), check=first.check, hint=first.hint
        )
        self.failures = failures

    def __reduce__(self) -> tuple[type["RequirementsNotMet"], tuple[tuple[Failure, ...]]]:
        """Pickle by what it was made of (for worker processes)."""
        return type(self), (self.failures,)


class LaunchRefused(NotVerified):
    """The host's report contradicts what the owner requires of this launch."""


class MeasurementMismatch(NotVerified):
    """The measurement does not match the owner's inputs.

    It never carries the expected value: a host that knows it can report it as its own.
    """
