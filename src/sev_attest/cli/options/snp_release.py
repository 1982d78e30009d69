"""The options of ``snp release``: what the guest answered, what it gets, and where that goes."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from sev_attest.cli.bundle import Options, option
from sev_attest.cli.environment import REQUIREMENTS
from sev_attest.cli.inputs import FILE, OUTPUT
from sev_attest.cli.options.keys import read_secrets
from sev_attest.cli.outputs import check_writable, write_all
from sev_attest.cli.usage import usage
from sev_attest.errors import Unsupported
from sev_attest.snp.document import is_name

if TYPE_CHECKING:
    from sev_attest.owner.requirements import Requirements
    from sev_attest.owner.secret_sources import SecretSource
    from sev_attest.snp.sealed import SealedSecrets


class AnswerOptions(Options, title="Challenge"):
    """The challenge, and the key with which the guest answered it."""

    challenge: str = option(
        "--challenge",
        type=FILE,
        metavar="FILE",
        required=True,
        help="NAME.challenge.json, as `snp challenge` wrote it.",
    )
    transport_key: str = option(
        "--transport-key",
        type=FILE,
        metavar="FILE",
        required=True,
        help="The key that the guest made for it (transport-key.json).",
    )


class SnpReleaseOptions(Options, title="Requirements and secrets"):
    """What the owner demands of the guest, and the secrets that it gets."""

    requirements: str = option(
        "--requirements",
        type=FILE,
        metavar="FILE",
        envvar=REQUIREMENTS,
        required=True,
        help="Check the report against [snp] of this owner.toml.",
    )
    requirements_now: bool = option(
        "--requirements-now",
        is_flag=True,
        help="Accept other --requirements than the challenge was made under.",
    )
    launch: str | None = option(
        "--launch",
        metavar="NAME",
        help="Which launch of --requirements the secrets are for, if it allows several.",
    )
    secret: tuple[str, ...] = option(
        "--secret",
        metavar="NAME:PATH",
        multiple=True,
        help="Release the secret in this file under a name; can be repeated.",
    )
    secret_source: str | None = option(
        "--secret-source",
        metavar="SOURCE",
        help="Take the secrets from folder:PATH, vault:URL or command:PATH, for the launch that "
        "--requirements allow.",
    )
    out: str = option(
        "--out",
        type=OUTPUT,
        metavar="FILE",
        required=True,
        help="Write the sealed secrets here, for `guest open`.",
    )
    force: bool = option("--force", is_flag=True, help="Write over a file that exists.")

    @property
    def files(self) -> tuple[str, ...]:
        """The files that are read."""
        return (self.requirements, *(text.partition(":")[2] for text in self.secret))

    def errors(self) -> Iterator[Unsupported]:
        """Yield an error for each of these options that is missing or malformed."""
        if not self.secret and self.secret_source is None:
            yield usage("--secret or --secret-source is needed")
        if self.secret and self.secret_source is not None:
            yield usage("--secret-source excludes --secret")
        seen = set()
        for text in self.secret:
            name, _, path = text.partition(":")
            if not (path and is_name(name)):
                # The text stays out of the message: it may be the secret itself.
                words = "a secret is given as NAME:PATH, its name has letters, digits and _ . + -"
                yield usage(words)
            elif name in seen:
                yield Unsupported(f"there are two secrets for {name}", check="secret.twice")
            seen.add(name)

    def read_requirements(self) -> "Requirements":
        """Read --requirements."""
        from sev_attest.cli.commands.requirements import read_requirements

        return read_requirements(self.requirements)

    def secrets(self) -> "dict[str, bytes] | SecretSource":
        """Read the secrets of --secret, or return the --secret-source, not asked yet."""
        if self.secret_source is None:
            return read_secrets(self.secret)
        from sev_attest.owner.secret_sources import secret_source

        return secret_source(self.secret_source)

    def check_out(self, places: Iterable[str]) -> None:
        """Raise what :meth:`write` would; ``places`` are those of the files beside it."""
        check_writable((self.out, *places), force=self.force)

    def write(self, sealed: "SealedSecrets", beside: Iterable[tuple[str, bytes]]) -> None:
        """Write the sealed secrets and the files ``beside`` them: all, or none."""
        write_all([(self.out, sealed.to_json()), *beside], force=self.force)
