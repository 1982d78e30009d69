"""The options of a connection to a host, and the connection."""

from typing import TYPE_CHECKING

import click

from sev_attest.cli.bundle import Options, option
from sev_attest.cli.inputs import URI, Number
from sev_attest.errors import Insecure

if TYPE_CHECKING:
    from sev_attest.host import HostConnection


class ConnectOptions(Options, title="The host"):
    """The host to connect to."""

    connect: str | None = option(
        "-c",
        "--connect",
        type=URI,
        metavar="URI",
        help="The host: a URI of libvirt's, qmp+unix:///PATH or qmp+tcp://HOST:PORT.",
    )
    timeout: int = option(
        "--timeout",
        type=Number(86400, 1),
        default=60,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait for each of its answers.",
    )


def is_qmp(uri: str | None) -> bool:
    """Return whether a URI is that of a QMP socket."""
    return uri is not None and uri.lower().startswith("qmp+")


def connect(uri: str, timeout: float, *, insecure: bool) -> "tuple[HostConnection, list[str]]":
    """Open a connection that closes when the command ends; return it, and notes.

    ``timeout`` is in seconds. Raises Insecure if the host is this machine and ``insecure`` is
    False.
    """
    from sev_attest.host import libvirt, qmp

    kind = qmp.QmpConnection if is_qmp(uri) else libvirt.LibvirtConnection
    host: HostConnection = kind(uri, timeout)
    click.get_current_context().call_on_close(host.close)
    if not host.is_local():
        return host, []
    message = "this is the host itself, or cannot be told from it: it could change what you see"
    if not insecure:
        raise Insecure(
            message,
            check="host.local",
            hint="run it on a machine that you trust, with the host's --launch-info or a remote "
            "--connect; for tests, --insecure goes on",
        )
    return host, [f"INSECURE: {message}"]
