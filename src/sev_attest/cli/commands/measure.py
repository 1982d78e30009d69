"""``sev-attest measure``."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from sev_attest._encoding import blob, to_base64
from sev_attest.cli import render
from sev_attest.cli.bundle import Command, Options, bare_option, option, option_name
from sev_attest.cli.inputs import BYTE, FILE, POLICY, stdin_errors
from sev_attest.cli.options.common import NUMBERS, DigestOptions, ManifestOptions
from sev_attest.cli.options.guest import GuestRangeOptions, Measured, measure_guest
from sev_attest.cli.options.keys import read_key
from sev_attest.cli.usage import refuse, usage
from sev_attest.errors import Unsupported, reading
from sev_attest.sev.policy import GuestPolicy

if TYPE_CHECKING:
    from sev_attest.cli.documents.guests import MeasureFacts
    from sev_attest.sev.launch_info import LaunchInfo


class HmacOptions(Options, title="The measurement to expect"):
    """The fields of the measurement's HMAC, except policy and launch digest."""

    tik: str | None = option(
        "--tik", type=FILE, metavar="FILE", help="TIK: print the measurement to expect."
    )
    nonce: str | None = option("--nonce", metavar="B64", help="The firmware's nonce, 16 bytes.")
    measurement: str | None = option(
        "-m", "--measurement", metavar="B64", help="Take the nonce from this one."
    )
    api_major: int | None = option("--api-major", type=BYTE, help="SEV API major version.")
    api_minor: int | None = option("--api-minor", type=BYTE, help="SEV API minor version.")
    build_id: int | None = option("--build-id", type=BYTE, help="SEV firmware build.")

    def errors(self, policy: int | None) -> Iterator[Unsupported]:
        """Yield an error for fields that are missing, or useless without --tik."""
        if self.tik is None:
            beside = self.stated("nonce", "measurement", *NUMBERS)
            if beside:
                yield usage(f"{beside[0]} is for the measurement: --tik is needed")
            return
        missing = [option_name(name) for name in NUMBERS if getattr(self, name) is None]
        missing += ["--policy"] if policy is None else []
        if missing:
            yield usage(f"--tik needs {', '.join(missing)} too")
        if len(self.stated("nonce", "measurement")) != 1:
            yield usage("--tik needs one of --nonce and --measurement")


@click.command(
    "measure",
    cls=Command,
    examples=(
        "sev-attest measure --firmware OVMF.fd",
        (
            "sev-attest measure --firmware OVMF.amdsev.fd --kernel vmlinuz --initrd "
            "initrd.img --cmdline 'console=ttyS0' --policy 0x5 --num-cpus 1-8 "
            "--cpu-model-name EPYC-Milan"
        ),
        (
            "sev-attest measure --firmware OVMF.fd --policy 0x1 --tik vm1_tik.bin --nonce "
            "AAAAAAAAAAAAAAAAAAAAAA== --api-major 1 --api-minor 55 --build-id 24"
        ),
    ),
)
@GuestRangeOptions.given("guest")
@bare_option("--policy", type=POLICY, help="Guest policy; its ES bit decides (default: plain SEV).")
@HmacOptions.given("hmac")
@ManifestOptions.given("manifest")
@DigestOptions.given("output")
def command(
    *,
    guest: GuestRangeOptions,
    policy: int | None,
    hmac: HmacOptions,
    manifest: ManifestOptions,
    output: DigestOptions,
) -> None:
    """Compute the launch digest of a guest, or with --tik the measurement to expect.

    For SEV and SEV-ES; for SEV-SNP, see `snp measure`.

    --num-cpus takes a range (1-64) too, and then prints a digest for each count. Keep a
    measurement to yourself: a host that knows it can report it as its own. The firmware itself is
    needed: its SHA-256 is not enough, because the digest continues where that hash ends.
    """
    meant = GuestPolicy(policy or 0)
    if manifest.manifest is not None:
        _manifest(guest, meant, hmac, manifest, output)
        return
    refuse(
        guest.errors(),
        guest.vcpu_errors(meant) if guest.launch_digest is None else (),
        _count_errors(guest, hmac, output),
        hmac.errors(policy),
        stdin_errors(guest.firmware, guest.kernel, guest.initrd, hmac.tik),
    )
    counts = guest.num_cpus
    if counts is not None and len(counts) > 1 and meant.es:
        _print_table(guest, meant, counts, output)
        return
    count = None if counts is None else counts[0]
    measured = measure_guest(guest, count, meant, progress=output.text)
    info = None if hmac.tik is None else _expected(hmac, hmac.tik, meant, measured)
    if output.as_json:
        render.document("measure", ok=True, **_facts(meant, measured, info))
        return
    lines = [*measured.lines(), *(render.hmac_lines(info, meant) if info else ())]
    for line in lines if output.explain or output.verbose else ():
        click.echo(line, err=not output.explain)
    render.notes([*measured.notes, *render.snp_policy_notes(meant)] if output.text else ())
    click.echo(to_base64(info.measurement) if info else output.shown(measured.digest))


def _count_errors(
    guest: GuestRangeOptions, hmac: HmacOptions, output: DigestOptions
) -> Iterator[Unsupported]:
    """Yield an error for options that need one number of vCPUs, or no measurement."""
    many = guest.num_cpus is not None and len(guest.num_cpus) > 1
    if many and output.explain:
        yield usage("--explain needs one number of vCPUs")
    if many and hmac.tik is not None:
        yield usage("--tik needs one number of vCPUs")
    if hmac.tik is not None and output.form is not None:
        yield usage("--format is for the digest: a measurement is base64")


def _manifest(
    guest: GuestRangeOptions,
    policy: GuestPolicy,
    hmac: HmacOptions,
    options: ManifestOptions,
    output: DigestOptions,
) -> None:
    """Write the manifest, and print how many digests it has."""
    from sev_attest.cli.manifest import kinds, manifest_errors, write_manifest

    guests = kinds(guest)
    refuse(
        guests[0].errors(),
        guests[0].vcpu_errors(policy) if guest.launch_digest is None else (),
        manifest_errors(guest, beside=hmac.stated("tik", "nonce", "measurement", *NUMBERS),
                        explain=output.explain, form=output.form),
        stdin_errors(guest.firmware, guest.kernel, guest.initrd),
    )  # fmt: skip
    place = str(options.manifest)
    count = write_manifest(guests, policy, place, force=options.force, progress=output.text)
    if output.as_json:
        render.document("measure", ok=True, manifest=place, digests=count)
    elif output.text:
        click.echo(f"wrote {render.one_line(place)}: {render.count(count, 'digest')}")


def _print_table(
    guest: GuestRangeOptions, policy: GuestPolicy, counts: range, output: DigestOptions
) -> None:
    """Print the digest for each count, computed in one pass over the guest."""
    digests = guest.read(policy, progress=output.text).digests(counts[-1])
    if output.as_json:
        table = {str(count): digests[count - 1].hex() for count in counts}
        render.document("measure", ok=True, digests=table, policy=policy.value)
        return
    for count in counts:
        click.echo(f"{count:4} {output.shown(digests[count - 1])}")


def _facts(policy: GuestPolicy, measured: Measured, info: "LaunchInfo | None") -> "MeasureFacts":
    """Return the fields of a JSON document."""
    told = measured.facts
    facts: MeasureFacts = {
        "policy": policy.value,
        "notes": [*measured.notes],
        "measurement": None,
        "digest": told["digest"],
        "measured": told["measured"],
        "kernel_hashes": told["kernel_hashes"],
    }
    if info is not None:
        facts["api_major"] = info.api_major
        facts["api_minor"] = info.api_minor
        facts["build_id"] = info.build_id
        facts["nonce"] = info.nonce.hex()
        facts["measurement"] = to_base64(info.measurement)
    return facts


def _expected(
    options: HmacOptions, tik: str, policy: GuestPolicy, measured: Measured
) -> "LaunchInfo":
    """Compute the measurement that an honest host would report."""
    from sev_attest.sev.launch import expected_measure
    from sev_attest.sev.launch_info import LaunchInfo, read_measurement

    key = read_key(tik, "TIK")
    if options.nonce is not None:
        with reading("--nonce"):
            nonce = blob(os.fsencode(options.nonce), (16,), "nonce", only_text=True)
    else:
        with reading("--measurement"):
            nonce = read_measurement(os.fsencode(options.measurement or ""))[32:]
    major, minor, build = (getattr(options, name) for name in NUMBERS)
    measure = expected_measure(
        key,
        api=(major, minor),
        build_id=build,
        policy=policy,
        digest=measured.digest,
        nonce=nonce,
    )
    return LaunchInfo(
        measurement=measure + nonce,
        api_major=major,
        api_minor=minor,
        build_id=build,
        policy=policy.value,
    )
