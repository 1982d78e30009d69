"""``sev-attest snp id-block``."""

import click

from sev_attest.cli.lazy import LazyGroup

_COMMANDS = {
    "build": "make and sign an ID block for one launch digest",
    "show": "show what ID blocks and ID auths say, field by field; verifies nothing",
    "check": "verify the signatures; compare with a report and a domain's XML",
}


@click.group(
    "id-block",
    cls=LazyGroup,
    examples=("sev-attest snp id-block show vm1_idblock.b64",),
    commands_by_name=_COMMANDS,
    prefix="snp_id_block_",
)
def command() -> None:
    """Make, show and check ID blocks: an owner's signed approval of one launch.

    The platform refuses to launch a guest that is not the block's, and its reports name the key
    that approved it.
    """
