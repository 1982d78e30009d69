"""``sev-attest completion``."""

import click

from sev_attest.cli.bundle import Command
from sev_attest.cli.completion import SHELLS, script


@click.command(
    "completion",
    cls=Command,
    examples=(
        "source <(sev-attest completion bash)",
        "sev-attest completion zsh > ~/.zfunc/_sev-attest",
        "sev-attest completion fish > ~/.config/fish/completions/sev-attest.fish",
    ),
)
@click.argument("shell", type=click.Choice(SHELLS))
def command(*, shell: str) -> None:
    """Print the script with which a shell completes commands, options and names.

    It goes where the shell reads it at its start: for bash, a line in ~/.bashrc as below; for zsh,
    a folder of its fpath; for fish, its folder of completions. Names of sessions come from a
    ledger in a file, not from one on a server.
    """
    click.echo(script(shell), nl=False)
