"""``sev-attest snp measure``."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from sev_attest.cli import render, terminal
from sev_attest.cli.bundle import Command, Options, option
from sev_attest.cli.inputs import OUTPUT, stdin_errors
from sev_attest.cli.options.common import DigestOptions, ManifestOptions
from sev_attest.cli.options.firmware_search import FirmwareSearchOptions
from sev_attest.cli.options.snp_guest import (
    SnpGuestOptions,
    SnpMeasured,
    measure_snp_guest,
    read_digest,
)
from sev_attest.cli.usage import refuse, usage
from sev_attest.errors import NotVerified, Unsupported

if TYPE_CHECKING:
    from sev_attest.cli.documents.snp import SnpMeasureFacts


class ExpectOptions(Options, title="Comparison"):
    """The digest to compare with."""

    expect: str | None = option(
        "--expect",
        metavar="HEX|B64",
        help="Compare with this digest (a report's measurement), and say why it differs.",
    )

    def digest(self) -> bytes | None:
        """Return the digest, 48 bytes; None without the option."""
        if self.expect is None:
            return None
        return read_digest("--expect", self.expect, "launch digest")


class SnpManifestOptions(ManifestOptions, title="Manifest"):
    """Where every digest is written."""

    manifest: str | None = option(
        "--manifest",
        type=OUTPUT,
        metavar="FILE",
        help="Write every digest to this file; then --cpu-model-name and --vmsa-profile take "
        "several names, with commas.",
    )


class SnpOutputOptions(DigestOptions, title="Output"):
    """How a digest is printed."""

    explain: bool = option(
        "--explain", is_flag=True, help="List everything measured, and the digest after it."
    )


@click.command(
    "measure",
    cls=Command,
    examples=(
        "sev-attest snp measure --firmware OVMF.fd --num-cpus 4 --cpu-model-name EPYC-Milan",
        (
            "sev-attest snp measure --firmware OVMF.fd --kernel vmlinuz --cmdline "
            "'console=ttyS0' --num-cpus 4 --cpu-model-name EPYC-Milan --expect "
            '"$(cat digest.hex)"'
        ),
    ),
)
@SnpGuestOptions.given("guest")
@ExpectOptions.given("expect")
@FirmwareSearchOptions.given("search")
@SnpManifestOptions.given("manifest")
@SnpOutputOptions.given("output")
def command(
    *,
    guest: SnpGuestOptions,
    expect: ExpectOptions,
    search: FirmwareSearchOptions,
    manifest: ManifestOptions,
    output: DigestOptions,
) -> None:
    """Compute the launch digest of an SEV-SNP guest.

    --num-cpus takes a range (1-64) too, and then prints a digest for each count. With --expect the
    digest is compared with a report's: exit code 1 and the likely cause if it differs.
    """
    if manifest.manifest is not None:
        _manifest(guest, expect, manifest, output)
        return
    refuse(
        guest.errors(),
        _expect_errors(guest, expect, output),
        stdin_errors(*guest.files),
    )
    expected = expect.digest()
    counts = guest.num_cpus
    if counts is not None and len(counts) > 1:
        _print_table(guest, counts, output)
        return
    measured = measure_snp_guest(guest, progress=output.text)
    if expected is not None and measured.digest != expected:
        raise _differs(expected, measured, guest, search, output)
    if output.as_json:
        render.document("snp-measure", ok=True, **_facts(measured, expected))
        return
    for line in measured.lines() if output.explain or output.verbose else ():
        click.echo(line, err=not output.explain)
    render.notes(measured.notes if output.text else ())
    shown = output.shown(measured.digest)
    terminal.say(shown if expected is None else f"OK: the launch digest is {shown}")


def _expect_errors(
    guest: SnpGuestOptions, expect: ExpectOptions, output: DigestOptions
) -> Iterator[Unsupported]:
    """Yield an error for options that need one number of vCPUs."""
    many = guest.num_cpus is not None and len(guest.num_cpus) > 1
    if many and output.explain:
        yield usage("--explain needs one number of vCPUs")
    if many and expect.expect is not None:
        yield usage("--expect needs one number of vCPUs")


def _manifest(
    guest: SnpGuestOptions,
    expect: ExpectOptions,
    options: ManifestOptions,
    output: DigestOptions,
) -> None:
    """Write the manifest, and print how many digests it has."""
    from sev_attest.cli.manifest import kinds, output_errors, write_snp_manifest

    guests = kinds(guest)
    refuse(
        guests[0].errors(),
        output_errors(beside=expect.stated("expect"), explain=output.explain, form=output.form),
        stdin_errors(*guest.files),
    )
    place = str(options.manifest)
    count = write_snp_manifest(guests, place, force=options.force, progress=output.text)
    if output.as_json:
        render.document("snp-measure", ok=True, manifest=place, digests=count)
    elif output.text:
        click.echo(f"wrote {render.one_line(place)}: {render.count(count, 'digest')}")


def _print_table(guest: SnpGuestOptions, counts: range, output: DigestOptions) -> None:
    """Print the digest for each count, computed in one pass over the guest."""
    digests = guest.guest(guest.read(progress=output.text)).digests(counts[-1])
    if output.as_json:
        table = {str(count): digests[count - 1].hex() for count in counts}
        render.document("snp-measure", ok=True, digests=table, notes=guest.notes())
        return
    render.notes(guest.notes() if output.text else ())
    for count in counts:
        click.echo(f"{count:4} {output.shown(digests[count - 1])}")


def _facts(measured: SnpMeasured, expected: bytes | None) -> "SnpMeasureFacts":
    """Return the fields of a JSON document."""
    return {
        "expected": None if expected is None else expected.hex(),
        "notes": measured.notes,
        **measured.facts,
    }


def _differs(
    expected: bytes,
    measured: SnpMeasured,
    guest: SnpGuestOptions,
    search: FirmwareSearchOptions,
    output: DigestOptions,
) -> NotVerified:
    """Return the error for a digest that differs, with its likely cause."""
    error = NotVerified(
        f"the launch digest differs: this guest has {measured.digest.hex()}, expected was "
        f"{expected.hex()}",
        check="snp.launch-digest",
        hint="--explain shows what went into it, to compare with what the host started",
    )
    error.facts = {**_facts(measured, expected)}
    for line in measured.lines() if output.text and (output.explain or output.verbose) else ():
        click.echo(line, err=not output.explain)
    if not (search.no_diagnose or output.quiet):
        from sev_attest.cli.advice import Told, add_cause

        def find() -> Told:
            from sev_attest.cli.snp_diagnosis import diagnose

            return diagnose(expected, measured, options=guest, search=search, progress=output.text)

        add_cause(error, measured.notes, find)
    for note in measured.notes:
        error.add_note(note)
    return error
