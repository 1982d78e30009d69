"""The options that write the evidence of a verdict."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sev_attest.cli.bundle import Options, option
from sev_attest.cli.evidence.keep import Kept
from sev_attest.cli.inputs import OUTPUT
from sev_attest.cli.usage import usage
from sev_attest.errors import Unsupported

if TYPE_CHECKING:
    from sev_attest.cli.evidence.document import OfCommand

_KINDS = (".html", ".json")


class EvidenceOptions(Options, title="Evidence"):
    """Where the evidence of a verdict is written."""

    evidence: tuple[str, ...] = option(
        "--evidence",
        type=OUTPUT,
        metavar="FILE",
        multiple=True,
        help="Write the evidence of the verdict, or of the refusal: FILE.html is a page, FILE.json "
        "can be verified again. Can be repeated.",
    )

    def errors(self) -> Iterator[Unsupported]:
        """Yield an error for a file of another kind, and for a page without what makes it."""
        places = self.evidence or ()
        for place in places:
            if not place.endswith(_KINDS):
                yield usage(f"--evidence {place}: the name ends in .html or .json")
        if any(place.endswith(".html") for place in places):
            yield from page_errors()

    def kept(self, command: "OfCommand", *, force: bool) -> Kept:
        """Return what keeps the evidence of a command; it keeps nothing without ``--evidence``."""
        return Kept(command, self.evidence or (), force=force)


class EvidenceFileOptions(EvidenceOptions, title="Evidence"):
    """The same, for commands that write no other file."""

    force: bool = option("--force", is_flag=True, help="Write over a file that exists.")


def page_errors() -> Iterator[Unsupported]:
    """Yield an error if Jinja2, which makes pages, is not installed, or does not work."""
    from importlib.util import find_spec

    words = "is not installed"
    if find_spec("jinja2") is not None:
        from sev_attest.cli.evidence import page

        try:
            page.read_template()  # what it lacks must show now, and not after a release
        except Exception as error:  # noqa: BLE001 - whatever its modules raise
            words = f"is installed, but does not work ({type(error).__name__})"
        else:
            return
    yield Unsupported(
        f"a page needs Jinja2, which {words}",
        check="evidence.jinja2",
        hint="`pip install '.[evidence]'` in a clone, or Debian's python3-jinja2; FILE.json "
        "needs nothing",
    )
