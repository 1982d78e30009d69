"""The options of ``launch`` alone: the domain, its session, and what a refusal leaves."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

import click

from sev_attest.cli.bundle import Options, option
from sev_attest.cli.inputs import FILE, OUTPUT, POLICY, RELEASE
from sev_attest.cli.options.chain import ChainOptions
from sev_attest.cli.options.connect import ConnectOptions, is_qmp
from sev_attest.cli.usage import usage
from sev_attest.errors import Unsupported


class TargetOptions(ConnectOptions, title="The host"):
    """The host, and the domain to launch there."""

    xml: str | None = option(
        "--xml", type=FILE, metavar="FILE", help="Your domain XML; the host is to define it."
    )
    domain: str | None = option(
        "-o",
        "--domain",
        metavar="NAME",
        help="Instead: a domain that the host has defined; only its session changes.",
    )
    insecure: bool = option(
        "-i",
        "--insecure",
        is_flag=True,
        help="Go on with an unverified platform, on the host itself, or with a risky domain.",
    )

    @classmethod
    def lacking(cls, given: AbstractSet[str]) -> Iterator[Unsupported]:
        """Yield an error if no host is named, or no domain."""
        if "connect" not in given:
            yield usage("--connect is needed: the URI of the libvirt host")
        if not given & {"xml", "domain"}:
            yield usage("--xml or --domain is needed")

    def errors(self) -> Iterator[Unsupported]:
        """Yield an error for what is missing, contradicts another or is no libvirt host."""
        yield from self.lacking({name for name, given in vars(self).items() if given is not None})
        if is_qmp(self.connect):
            yield usage(
                "--connect names a QMP socket, which is that of a guest that runs already",
                hint="name a libvirt host (qemu+ssh://HOST/system), or use `session`, QEMU's -S "
                "and `validate --connect`",
            )
        if self.xml is not None and self.domain is not None:
            yield usage("--xml excludes --domain")


class HostChainOptions(ChainOptions, title="Certificates"):
    """Certificates beside those that the host sends."""

    @classmethod
    def lacking(cls, _given: AbstractSet[str]) -> Iterator[Unsupported]:
        """Yield nothing: the host has a chain."""
        return iter(())


class LaunchOptions(Options, title="Launch"):
    """How the domain is prepared and launched."""

    policy: int = option("--policy", type=POLICY, required=True, help="Guest policy.")
    name: str | None = option(
        "--name", metavar="NAME", help="What to call this launch (default: the domain's name)."
    )
    guest_kernel: str | None = option(
        "--guest-kernel",
        type=RELEASE,
        metavar="V",
        help="Version of the kernel in the guest, for the rules.",
    )
    no_prepare: bool = option(
        "--no-prepare", is_flag=True, help="Put the session into the XML, but fix nothing in it."
    )
    ignore_config: bool = option(
        "-g",
        "--ignore-config",
        is_flag=True,
        help="Go on although `domain check` finds errors in the XML.",
    )
    out: str | None = option(
        "--out", type=OUTPUT, metavar="FILE", help="Write the record of this launch here."
    )
    on_refusal: str = option(
        "--on-refusal",
        type=click.Choice(["destroy", "leave"]),
        default="destroy",
        show_default=True,
        help="What becomes of a guest that is refused; left ones stay paused.",
    )
    dry_run: bool = option(
        "--dry-run", is_flag=True, help="Change nothing: show what would be done."
    )
    force: bool = option("--force", is_flag=True, help="Write over a file that exists.")
