"""What the steps of a release have in common, for SEV and SEV-SNP."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from sev_attest.errors import RequirementsNotMet, SevAttestError, Unsupported

if TYPE_CHECKING:
    from sev_attest.owner.requirements import Met
    from sev_attest.owner.secret_sources import SecretSource


class ReleaseSteps(ABC):
    """The steps from what was verified to a committed release.

    If a step refuses, or the block ends before the last step, the attempt is bound to what was
    verified all the same: nobody can try several guests with it. What the ledger says of the
    attempt comes first: an error that it raises replaces the other one.
    """

    def __init__(self, secrets: "Mapping[str, bytes] | SecretSource") -> None:
        """Take the secrets by name, or the source that is asked for them."""
        self._secrets: Mapping[str, bytes] | SecretSource = secrets
        self._checked = False
        self._bound = False
        self.met: Met | None = None
        """What the requirements allow the guest as; set by ``check()``."""
        self.secret_count: int = 0
        """How many secrets are released; set by ``build()``."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._bind()

    @contextmanager
    def _binding(self) -> Iterator[None]:
        """Bind the attempt also if a step refuses."""
        try:
            yield
        except SevAttestError as error:
            unmet = error.failures if isinstance(error, RequirementsNotMet) else ()
            self._bind(" ".join(failure.check for failure in unmet))
            raise

    def _bind(self, unmet: str = "") -> None:
        if not self._bound:
            self._bound = True
            self._bind_in_ledger(unmet)

    @abstractmethod
    def _bind_in_ledger(self, unmet: str) -> None:
        """Bind the attempt; ``unmet`` are the requirements that were not met, for the log."""

    def _asked(self) -> Mapping[str, bytes]:
        """Return the secrets; a source is asked for the launch that the requirements allow."""
        source = self._secrets
        if isinstance(source, Mapping):
            return source
        if not self._checked or self.met is None:
            raise RuntimeError("build() comes after check()")
        found = source.secrets(self.met.name)
        if not found:
            raise Unsupported("the source has no secret to release", check="secret.none")
        return found
