"""The options that name keys and secrets, and the reading of them."""

from typing import Any

import click

from sev_attest._encoding import blob
from sev_attest.cli.inputs import FILE, options, read_small
from sev_attest.errors import Unsupported, reading
from sev_attest.sev.keys import TransportKeys

KEYS = ("tik", "tek", "tk")
key_options = options(
    click.option("--tik", type=FILE, metavar="FILE", help="TIK of the session."),
    click.option("--tek", type=FILE, metavar="FILE", help="TEK of the session."),
    click.option("--tk", type=FILE, metavar="FILE", help="TEK and TIK in one file, in this order."),
)


def check_keys(given: dict[str, Any]) -> None:
    """Refuse key options that are missing or contradict each other; raises Unsupported."""
    if given["tk"] is not None and (given["tik"] is not None or given["tek"] is not None):
        raise Unsupported("--tk excludes --tik and --tek", check="usage")
    if given["tk"] is None and (given["tik"] is None or given["tek"] is None):
        raise Unsupported("the session's keys are needed: --tik and --tek, or --tk", check="usage")


def read_keys(given: dict[str, Any]) -> TransportKeys:
    """Read the session's keys."""
    check_keys(given)
    if given["tk"] is not None:
        with reading(given["tk"]):
            return TransportKeys.from_tk(read_small(given["tk"], "TK"))
    return TransportKeys(tek=_key(given["tek"], "TEK"), tik=_key(given["tik"], "TIK"))


def _key(path: str, name: str) -> bytes:
    with reading(path):
        return blob(read_small(path, name), (16,), name)


def read_secrets(given: tuple[str, ...]) -> dict[str, bytes]:
    """Read the secrets of ALIAS-OR-GUID:PATH options, by GUID or alias."""
    secrets: dict[str, bytes] = {}
    for text in given:
        name, _, path = text.partition(":")
        if not path:
            # The text stays out of the message: it may be the secret itself.
            raise Unsupported("a secret is given as ALIAS-OR-GUID:PATH", check="usage")
        if name in secrets:
            raise Unsupported(f"there are two secrets for {name}", check="secret.twice")
        try:
            secrets[name] = read_small(path, "secret")
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"the file of secret {name}") from None
    return secrets
