"""Many chains in one call: ``sev-attest verify --each``."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from sev_attest.cli import render
from sev_attest.cli.exits import explain
from sev_attest.cli.options.chain import ChainOptions
from sev_attest.cli.processes import in_order
from sev_attest.errors import Failure, MalformedInput, NotVerified, SevAttestError, reading
from sev_attest.sev.chain.roots import Generation, Root
from sev_attest.sev.chain.verify import verify_chain

if TYPE_CHECKING:
    from sev_attest.cli.documents.sev import ChainVerdict


_LOST = "process.ended"


class ChainResult(NamedTuple):
    """The result for one of many chains; ``root`` is the name of its root, None if not verified.

    ``refused`` is whether it was judged and found bad; else it could not be read, or is ``lost``.
    """

    source: str
    root: str | None = None
    generation: Generation | None = None
    notes: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    refused: bool = False

    @property
    def lost(self) -> bool:
        """Whether the process that was to judge it ended before that."""
        return any(failure.check == _LOST for failure in self.failures)

    @property
    def line(self) -> str:
        """The result in one line of text."""
        if self.root is not None:
            return f"OK: {self.source}: {self.root}"
        first, *more = self.failures
        others = f" (and {len(more)} more)" if more else ""
        if self.refused:
            return f"NOT VERIFIED: {self.source}: {first.message}{others}"
        if self.lost:
            return f"NOT JUDGED: {self.source}: {first.message}"
        bug = first.check == "internal"  # the other errors name their source
        return f"NOT READ: {self.source}: {first.message}" if bug else f"NOT READ: {first.message}"

    @property
    def facts(self) -> "ChainVerdict":
        """The fields of a JSON document."""
        return {
            "input": self.source,
            "ok": self.root is not None,
            "generation": self.generation,
            "root": self.root,
            "notes": list(self.notes),
            "errors": render.errors(list(self.failures)),
        }


def verify_each(inputs: Sequence[str], certificates: ChainOptions) -> Iterator[ChainResult]:
    """Verify many chains on all cores; yield the results in the order of the inputs."""
    return in_order(partial(_judge, certificates, certificates.roots()), inputs, _not_judged)


def _judge(certificates: ChainOptions, roots: list[Root], source: str) -> ChainResult:
    try:
        with reading(source):
            chain = certificates.collect((source,)).chain()
        verified = verify_chain(chain, roots=roots)
    except Exception as error:  # noqa: BLE001 - one bad input costs one line, and so does a bug
        refused = isinstance(error, NotVerified)
        return ChainResult(source=source, failures=tuple(explain(error)[1]), refused=refused)
    return ChainResult(
        source=source,
        root=verified.root.name,
        generation=verified.generation,
        notes=tuple(render.platform_notes(verified)),
    )


def _not_judged(source: str, what: str) -> ChainResult:
    return ChainResult(source=source, failures=(Failure(_LOST, what, "verify it again"),))


def failure_of(bad: list[ChainResult], count: int) -> SevAttestError:
    """Return the error for ``count`` chains of which some are bad."""
    refused = sum(result.refused for result in bad)
    lost = [result.failures[0].message for result in bad if result.lost]
    said = []
    if refused:
        said.append(f"{refused} of {count} chains are not verified: do not trust these platforms")
    if lost:
        said.append(f"{len(lost)} of {count} chains were not judged: {lost[0]}")
    hint = "verify those again; if memory ran out, fewer at a time" if lost else ""
    if refused:
        return NotVerified("; ".join(said), check="chain.each", hint=hint)
    if lost:
        return SevAttestError(said[0], check=_LOST, hint=hint)
    return MalformedInput("chain", "each", f"{len(bad)} of {count} could not be read")
