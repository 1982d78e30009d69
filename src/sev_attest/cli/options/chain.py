"""The options that name certificates, and the reading of them."""

from typing import TYPE_CHECKING

from sev_attest.cli.bundle import Options, option
from sev_attest.cli.inputs import FILE, STDIN, read_small, stdin_errors
from sev_attest.cli.usage import usage
from sev_attest.errors import MalformedInput, reading

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Set as AbstractSet

    from sev_attest.errors import Unsupported
    from sev_attest.sev.chain.chain import Collected
    from sev_attest.sev.chain.roots import Root


class CertificateOptions(Options, title="Certificates"):
    """Files of certificates, beside the arguments of a command."""

    sev: str | None = option(
        "--sev", type=FILE, metavar="FILE", help="The platform's chain (as an INPUT)."
    )
    oca: str | None = option("--oca", type=FILE, metavar="FILE", help="Take the OCA from here.")
    cek: str | None = option(
        "--cek", type=FILE, metavar="FILE", help="Take the CEK from here (the one AMD signed)."
    )
    ca: str | None = option("--ca", type=FILE, metavar="FILE", help="Take ASK and ARK from here.")

    @classmethod
    def lacking(cls, given: "AbstractSet[str]") -> "Iterator[Unsupported]":
        """Yield an error if no chain is named, nor a host that sends one."""
        if not given & {"inputs", "sev", "connect"}:
            yield _no_chain()

    def errors(
        self, inputs: tuple[str, ...], *more: str, fetched: bool = False
    ) -> "Iterator[Unsupported]":
        """Yield an error if no chain is named, or if two files would be standard input.

        ``more`` are other files that the command reads; ``fetched``: a host sends a chain.
        """
        yield from stdin_errors(*inputs, self.sev, self.oca, self.cek, self.ca, *more)
        if not inputs and self.sev is None and not fetched:
            yield _no_chain()

    def collect(
        self, inputs: tuple[str, ...], fetched: dict[str, bytes] | None = None
    ) -> "Collected":
        """Read the certificates of the inputs and of these options.

        ``fetched`` has chains that a host sent, by the host's address. Verifies nothing.
        """
        from sev_attest.sev.chain.chain import Collected
        from sev_attest.sev.chain.packaging import certificate_of, read_contents
        from sev_attest.sev.spec import Usage

        collected = Collected()
        for place, data in (fetched or {}).items():
            with reading(place):
                collected.add(read_contents(data), place)
        for source in inputs if self.sev is None else (*inputs, self.sev):
            if source == STDIN:
                with reading("standard input"):
                    contents = read_contents(read_small(source, "chain"))
                collected.add(contents, "standard input")
            else:
                collected.add_path(source)
        for usages, path in (
            ((Usage.OCA,), self.oca),
            ((Usage.CEK,), self.cek),
            ((Usage.ASK, Usage.ARK), self.ca),
        ):
            if path is not None:
                with reading(path):
                    data = read_small(path, "certificate")
                    for one in usages:
                        collected.replace(certificate_of(one, data))
        return collected


def _no_chain() -> "Unsupported":
    return usage(
        "no chain was given",
        hint="name what `sevctl export` wrote, or a folder of certificates (- is stdin)",
    )


class RootOptions(Options, title="Certificates"):
    """The roots that are trusted beside AMD's."""

    trust_root: tuple[str, ...] = option(
        "--trust-root",
        type=FILE,
        metavar="FILE",
        multiple=True,
        help="Also trust this ARK, which is not AMD's (a test platform).",
    )

    def roots(self) -> "list[Root]":
        """Return the trusted roots: AMD's, and those of ``--trust-root``."""
        from sev_attest.sev.chain.ca import AmdCaCertificate
        from sev_attest.sev.chain.packaging import read_contents
        from sev_attest.sev.chain.roots import Root, amd_roots

        roots = list(amd_roots())
        for path in self.trust_root:
            with reading(path):
                found = read_contents(read_small(path, "root")).certificates
                ca = {c.role: c for c in found if isinstance(c, AmdCaCertificate)}
                if "ARK" not in ca:
                    raise MalformedInput("root", "ARK", "there is no ARK certificate in this file")
                roots.append(Root(ark=ca["ARK"], ask=ca.get("ASK")))
        return roots


class ChainOptions(RootOptions, CertificateOptions, title="Certificates"):
    """Files of certificates, and the roots that are trusted beside AMD's."""

    def errors(
        self, inputs: tuple[str, ...], *more: str, fetched: bool = False
    ) -> "Iterator[Unsupported]":
        """Yield the errors of the base class; the roots may be standard input too."""
        yield from super().errors(inputs, *self.trust_root, *more, fetched=fetched)
