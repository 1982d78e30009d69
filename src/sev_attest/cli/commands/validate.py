"""``sev-attest validate``: what virt-qemu-sev-validate does, option for option, and more."""

from collections.abc import Iterator

import click

from sev_attest.cli.bundle import Command, option_name
from sev_attest.cli.evidence.keep import Kept
from sev_attest.cli.inputs import STDIN
from sev_attest.cli.options.evidence import EvidenceOptions
from sev_attest.cli.options.guest import FILES, VCPU_STATE, GuestOptions, measure_guest
from sev_attest.cli.options.keys import KeyOptions
from sev_attest.cli.options.live import HostOptions, attach
from sev_attest.cli.options.owner import PACKET, OwnerOptions, finish_launch
from sev_attest.cli.options.reported import ReportedOptions, read_reported
from sev_attest.cli.options.search import SearchOptions, Stated
from sev_attest.cli.options.store import WaitingOptions
from sev_attest.cli.usage import refuse, usage
from sev_attest.cli.verdict import Case, VerdictOptions, find_allowed
from sev_attest.errors import Unsupported


@click.command(
    "validate",
    cls=Command,
    examples=(
        (
            "sev-attest validate --launch-info vm1.info --tik vm1_tik.bin --tek vm1_tek.bin "
            "--record vm1.launch.json --firmware OVMF.amdsev.fd --num-cpus 4 "
            "--cpu-model-name EPYC-Milan"
        ),
        (
            "sev-attest validate --connect qemu+ssh://host/system --domain vm1 --session "
            "vm1 --store launches.sqlite3 --kek kek --firmware OVMF.amdsev.fd --num-cpus 4 "
            "--cpu-model-name EPYC-Milan --inject-secret luks-key:disk.key"
        ),
    ),
)
@ReportedOptions.given("reported")
@HostOptions.given("host")
@GuestOptions.given("guest")
@KeyOptions.given("keys")
@OwnerOptions.given("owner")
@WaitingOptions.given("ledger")
@SearchOptions.given("search")
@EvidenceOptions.given("evidence")
@VerdictOptions.given("output")
def command(
    *,
    reported: ReportedOptions,
    host: HostOptions,
    guest: GuestOptions,
    keys: KeyOptions,
    owner: OwnerOptions,
    ledger: WaitingOptions,
    search: SearchOptions,
    evidence: EvidenceOptions,
    output: VerdictOptions,
) -> None:
    """Check the measurement of a launch against the guest that its owner meant to start.

    Needed are what the host reports (--measurement, --api-major, --api-minor, --build-id, --policy,
    or --launch-info with all of them) or a connection to the host (--connect, --domain); the guest
    (--firmware ...); and the session's keys, or a session that waits in --store. With a connection,
    the guest is sent its secrets and then runs.
    """
    _check_usage(reported, host, guest, keys, owner, ledger=ledger, evidence=evidence)
    with evidence.kept("validate", force=owner.force) as kept:
        _validate(reported, host, guest, keys, owner, ledger=ledger, search=search, output=output,
                  kept=kept)  # fmt: skip


def _validate(
    reported: ReportedOptions,
    host: HostOptions,
    guest: GuestOptions,
    keys: KeyOptions,
    owner: OwnerOptions,
    *,
    ledger: WaitingOptions,
    search: SearchOptions,
    output: VerdictOptions,
    kept: Kept,
) -> None:
    """Check the measurement of a launch, then what its owner requires, and print the verdict."""
    pending = ledger.take()
    session = keys.read() if pending is None else pending.keys
    record = reported.read_record() if pending is None else pending.record
    secrets = owner.secrets()
    kept.ledger, kept.session_id = ledger, session.session_id
    whole = kept.requirements = owner.read_requirements()
    requirements = owner.narrowed(whole, described=guest.described)
    # Only the owner's options describe the guest: what a host adds to them comes later.
    allowed = None if guest.described else requirements
    kernel = bool(guest.stated("kernel", "kernel_hashes"))
    live = attach(host, kernel=kernel)
    claims = live.claims if live else None
    launch = read_reported(
        reported, session, claims, record=record, kernel=kernel, insecure=host.insecure
    )
    kept.reported = launch
    if reported.policy is None and launch.record is None:
        # The host must not choose that the vCPU state which its owner means is left out.
        refuse(guest.unmeasured(launch.policy, VCPU_STATE))
    if live is not None:
        guest = guest if allowed else live.complete(guest, launch.policy)
        launch.notes.extend(live.notes)
    if allowed is not None:
        measured = find_allowed(launch, session, allowed.digests)
    else:
        measured = measure_guest(guest, guest.num_cpus, launch.policy, progress=output.text)
    kept.measured = measured
    launch.require_kernel(measured, insecure=host.insecure)
    case = Case(reported=launch, measured=measured, output=output)
    verified = case.verify(session, Stated(reported, guest, keys, search))
    with case.refusing():
        summary = finish_launch(
            verified,
            owner if live is None else None,
            record=launch.record,
            requirements=requirements,
            whole=whole,
            pending=None if owner.requirements_now else pending,
            secrets=secrets,
            measured=measured,
            guest=live,
            ledger=ledger,
            insecure=host.insecure,
            verbose=output.steps,
        )
    case.accepted(summary, kept)


def _check_usage(
    reported: ReportedOptions,
    host: HostOptions,
    guest: GuestOptions,
    keys: KeyOptions,
    owner: OwnerOptions,
    *,
    ledger: WaitingOptions,
    evidence: EvidenceOptions,
) -> None:
    """Raise the usage errors of virt-qemu-sev-validate, and those of our own options."""
    waiting = ledger.session is not None
    recorded = waiting or reported.record is not None
    excluded = [*reported.stated("launch_info"), *owner.stated(*PACKET)]
    refuse(
        host.errors(excluded),
        reported.errors(hosted=host.live, recorded=recorded),
        guest.errors(hosted=host.live) if guest.described or owner.requirements is None else (),
        () if waiting else keys.errors(),
        ledger.errors([*keys.stated("tik", "tek", "tk"), *reported.stated("record")]),
        owner.errors(record=recorded, waiting=waiting, hosted=host.live),
        evidence.errors(),
        _stdin_errors(reported, guest, keys, owner),
    )


def _stdin_errors(
    reported: ReportedOptions, guest: GuestOptions, keys: KeyOptions, owner: OwnerOptions
) -> Iterator[Unsupported]:
    """Yield an error if more than one option would read standard input."""
    found = [
        option_name(name)
        for bundle, names in (
            (reported, ("launch_info", "record")),
            (owner, ("requirements",)),
            (guest, FILES),
            (keys, ("tik", "tek", "tk")),
        )
        for name in names
        if getattr(bundle, name) == STDIN
    ]
    found += ["--inject-secret" for secret in owner.inject_secret if secret.endswith(":-")]
    if len(found) > 1:
        yield usage(f"only one of {', '.join(found)} can be standard input")
