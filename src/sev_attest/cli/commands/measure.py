"""``sev-attest measure``."""

import binascii
import os
from typing import TYPE_CHECKING, Any

import click

from sev_attest._encoding import blob
from sev_attest.cli import render
from sev_attest.cli.inputs import (
    BYTE,
    FILE,
    OUTPUT,
    POLICY,
    NumberRange,
    one_stdin,
    option_name,
    options,
    output_options,
    read_small,
)
from sev_attest.cli.options.guest import (
    Measured,
    check_guest,
    guest_options,
    measure_guest,
    read_guest,
    refuse_unmeasured,
)
from sev_attest.errors import Unsupported, reading
from sev_attest.guest.spec import MAX_VCPUS
from sev_attest.sev.policy import GuestPolicy

if TYPE_CHECKING:
    from sev_attest.sev.launch_info import LaunchInfo

_NUMBERS = ("api_major", "api_minor", "build_id")
_hmac_options = options(
    click.option("--tik", type=FILE, metavar="FILE", help="TIK: print the measurement to expect."),
    click.option("--nonce", metavar="B64", help="The firmware's nonce, 16 bytes."),
    click.option("-m", "--measurement", metavar="B64", help="Take the nonce from this one."),
    click.option("--api-major", type=BYTE, help="SEV API major version."),
    click.option("--api-minor", type=BYTE, help="SEV API minor version."),
    click.option("--build-id", type=BYTE, help="SEV firmware build."),
)


@click.command("measure")
@guest_options(NumberRange(MAX_VCPUS))
@click.option(
    "--policy", type=POLICY, help="Guest policy; its ES bit decides (default: plain SEV)."
)
@_hmac_options
@click.option("--format", "form", type=click.Choice(["hex", "base64"]),
              help="How to print the digest (default: hex).")  # fmt: skip
@click.option(
    "--manifest",
    type=OUTPUT,
    metavar="FILE",
    help="Write every digest to this file, for `requirements`; then --cpu-model-name and "
    "--vmsa-profile take several names, with commas.",
)
@click.option("--force", is_flag=True, help="Write over a file that exists.")
@click.option("--explain", is_flag=True, help="List every measured range and HMAC field.")
@output_options
def command(*, as_json: bool, quiet: bool, verbose: bool, **given: Any) -> None:
    """Compute the launch digest of a guest, or with --tik the measurement to expect.

    --num-cpus takes a range (1-64) too, and then prints a digest for each count. A measurement is
    for nobody but you: a host that knows it can report it as its own. The firmware has to be there
    itself: its SHA-256 cannot stand in for it, because the digest goes on where that hash ends.
    """
    policy = GuestPolicy(given["policy"] or 0)
    text = not (as_json or quiet)
    if given["manifest"] is not None:
        _manifest(given, policy, as_json=as_json, text=text)
        return
    _check_usage(given, policy)
    counts = given["num_cpus"]
    if counts is not None and len(counts) > 1 and policy.es:
        table = _table(given, policy, counts, progress=text)
        if as_json:
            digests = {count: digest.hex() for count, digest in table.items()}
            render.document("measure", ok=True, digests=digests, policy=policy.value)
        for count, digest in table.items() if not as_json else ():
            click.echo(f"{count:4} {_shown(digest, given['form'])}")
        return
    given["num_cpus"] = counts and counts[0]
    measured = measure_guest(given, policy, progress=text)
    info = _expected(given, policy, measured) if given["tik"] else None
    if as_json:
        render.document("measure", ok=True, **_facts(given, policy, measured, info))
        return
    lines = [*measured.lines(), *(render.hmac_lines(info, policy) if info else ())]
    for line in lines if given["explain"] or verbose else ():
        click.echo(line, err=not given["explain"])
    render.notes(measured.notes if text else (), err=True)
    click.echo(_base64(info.measurement) if info else _shown(measured.digest, given["form"]))


def _manifest(given: dict[str, Any], policy: GuestPolicy, *, as_json: bool, text: bool) -> None:
    from sev_attest.cli.manifest import write_manifest

    names = ("cpu_model_name", "vmsa_profile")
    first = {name: given[name] and given[name].partition(",")[0] for name in names}
    _check_usage(given | first, policy)
    if given["tik"] is not None:
        raise Unsupported("--manifest holds digests: --tik has no place beside it", check="usage")
    count = write_manifest(given, policy, progress=text)
    if as_json:
        render.document("measure", ok=True, manifest=given["manifest"], digests=count)
    elif text:
        click.echo(f"wrote {render.one_line(given['manifest'])}: {count} digests")


def _facts(
    given: dict[str, Any], policy: GuestPolicy, measured: Measured, info: "LaunchInfo | None"
) -> dict[str, object]:
    facts: dict[str, object] = {
        "policy": policy.value,
        "notes": measured.notes,
        "measurement": None,
    }
    if info is not None:
        facts |= {name: given[name] for name in _NUMBERS} | {"nonce": info.nonce.hex()}
        facts["measurement"] = _base64(info.measurement)
    return facts | measured.facts


def _shown(digest: bytes, form: str | None) -> str:
    return _base64(digest) if form == "base64" else digest.hex()


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


def _check_usage(given: dict[str, Any], policy: GuestPolicy) -> None:
    check_guest(given)
    refuse_unmeasured(given, policy)
    many = given["num_cpus"] is not None and len(given["num_cpus"]) > 1
    rules = (
        (many and given["explain"], "--explain needs one number of vCPUs"),
        (given["manifest"] and given["explain"], "--manifest excludes --explain"),
        (given["manifest"] and given["form"], "--manifest excludes --format: its digests are hex"),
        (given["tik"] and given["form"], "--format is for the digest: a measurement is base64"),
    )
    for broken, message in rules:
        if broken:
            raise Unsupported(message, check="usage")
    one_stdin(given[name] for name in ("firmware", "kernel", "initrd", "tik"))
    beside = [name for name in ("nonce", "measurement", *_NUMBERS) if given[name] is not None]
    if given["tik"] is None:
        if beside:
            raise Unsupported(f"{option_name(beside[0])} is for the measurement: --tik is needed",
                              check="usage")  # fmt: skip
        return
    missing = [name for name in (*_NUMBERS, "policy") if given[name] is None]
    if missing:
        raise Unsupported(f"--tik needs {option_name(missing[0])} too", check="usage")
    if (given["nonce"] is None) is (given["measurement"] is None):
        raise Unsupported("--tik needs one of --nonce and --measurement", check="usage")
    if given["num_cpus"] is not None and len(given["num_cpus"]) > 1:
        raise Unsupported("--tik needs one number of vCPUs", check="usage")


def _table(
    given: dict[str, Any], policy: GuestPolicy, counts: range, *, progress: bool
) -> dict[int, bytes]:
    """Compute the digest for each count, in one pass over the guest."""
    digests = read_guest(given, policy, progress=progress).digests(counts[-1])
    return {count: digests[count - 1] for count in counts}


def _expected(given: dict[str, Any], policy: GuestPolicy, measured: Measured) -> "LaunchInfo":
    """Compute the measurement that an honest host would report."""
    from sev_attest.sev.launch import expected_measure
    from sev_attest.sev.launch_info import LaunchInfo, read_measurement

    with reading(given["tik"]):
        tik = blob(read_small(given["tik"], "TIK"), (16,), "TIK")
    if given["nonce"] is not None:
        with reading("--nonce"):
            nonce = blob(os.fsencode(given["nonce"]), (16,), "nonce", only_text=True)
    else:
        with reading("--measurement"):
            nonce = read_measurement(os.fsencode(given["measurement"]))[32:]
    numbers = {name: given[name] for name in _NUMBERS}
    api = given["api_major"], given["api_minor"]
    measure = expected_measure(
        tik,
        api=api,
        build_id=given["build_id"],
        policy=policy,
        digest=measured.digest,
        nonce=nonce,
    )
    return LaunchInfo(measurement=measure + nonce, policy=policy.value, **numbers)
