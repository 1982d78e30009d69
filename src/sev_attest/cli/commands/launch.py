"""``sev-attest launch``: everything from the host's chain to the guest that runs."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from sev_attest.cli.attempt import Attempt, Steps
from sev_attest.cli.bundle import Command
from sev_attest.cli.evidence.keep import Kept
from sev_attest.cli.inputs import STDIN
from sev_attest.cli.options.connect import connect
from sev_attest.cli.options.evidence import EvidenceOptions
from sev_attest.cli.options.firmware_search import FirmwareSearchOptions
from sev_attest.cli.options.guest import FILES, GuestOptions
from sev_attest.cli.options.keys import KeyOptions
from sev_attest.cli.options.launch import HostChainOptions, LaunchOptions, TargetOptions
from sev_attest.cli.options.live import Live, check_domain, check_paused
from sev_attest.cli.options.owner import DemandOptions, finish_launch
from sev_attest.cli.options.reported import Reported, ReportedOptions, read_reported
from sev_attest.cli.options.search import SearchOptions, Stated
from sev_attest.cli.options.store import StoreOptions
from sev_attest.cli.plan import (
    Plan,
    Wanted,
    plan_launch,
    read_wanted,
    session_for,
    show_plan,
    tell_dry,
)
from sev_attest.cli.sessions import creation, platform_notes
from sev_attest.cli.usage import refuse, usage
from sev_attest.cli.verdict import Case, VerdictOptions, find_allowed
from sev_attest.errors import NotAttestable, SevAttestError, Unsupported, reading

if TYPE_CHECKING:
    from sev_attest.cli.options.guest import Measured
    from sev_attest.owner.secret_sources import SecretSource


@click.command(
    "launch",
    cls=Command,
    examples=(
        (
            "sev-attest launch --connect qemu+ssh://host/system --xml vm1.xml --policy 0x5 "
            "--firmware OVMF.amdsev.fd --num-cpus 4 --cpu-model-name EPYC-Milan "
            "--inject-secret luks-key:disk.key"
        ),
        (
            "sev-attest launch --connect qemu+ssh://host/system --domain vm1 --policy 0x1 "
            "--firmware OVMF.fd --dry-run"
        ),
    ),
)
@TargetOptions.given("target")
@LaunchOptions.given("options")
@HostChainOptions.given("certificates")
@GuestOptions.given("guest")
@DemandOptions.given("owner")
@StoreOptions.given("ledger")
@FirmwareSearchOptions.given("search")
@EvidenceOptions.given("evidence")
@VerdictOptions.given("output")
def command(
    *,
    target: TargetOptions,
    options: LaunchOptions,
    certificates: HostChainOptions,
    guest: GuestOptions,
    owner: DemandOptions,
    ledger: StoreOptions,
    search: FirmwareSearchOptions,
    evidence: EvidenceOptions,
    output: VerdictOptions,
) -> None:
    """Launch a domain on a libvirt host, attest it, give it its secrets, and let it run.

    The host is asked for its chain; a session is made for it and put into the domain's XML; the
    domain is defined and started, paused. If its measurement is that of the guest that you describe
    (--firmware ...; your files, not the host's), it gets its secrets and runs. If anything is
    refused, or a signal comes, the guest is destroyed (--on-refusal) and gets nothing. Keys stay in
    memory, or in --store.
    """
    _check_usage(target, certificates, guest, owner, ledger)
    refuse(_evidence_errors(evidence, options))
    with evidence.kept("launch", force=options.force) as kept:
        _launch(target, options, certificates, guest, owner, ledger=ledger, search=search,
                output=output, kept=kept)  # fmt: skip


def _launch(
    target: TargetOptions,
    options: LaunchOptions,
    certificates: HostChainOptions,
    guest: GuestOptions,
    owner: DemandOptions,
    *,
    ledger: StoreOptions,
    search: FirmwareSearchOptions,
    output: VerdictOptions,
    kept: Kept,
) -> None:
    """Plan a launch, take its steps, and print the verdict."""
    steps = Steps(output)
    wanted = read_wanted(target, options, guest, owner, progress=output.text)
    kept.measured, kept.requirements = wanted.measured, wanted.whole
    host, notes = connect(str(target.connect), target.timeout, insecure=target.insecure)
    session = session_for(
        host, certificates, wanted.policy, target=target, steps=steps, output=output, kept=kept
    )
    kept.ledger, kept.session_id = ledger, session.keys.session_id
    plan = plan_launch(host, session, target=target, options=options, wanted=wanted, steps=steps)
    plan.notes.extend([*notes, *platform_notes(session)])
    if options.dry_run:
        tell_dry(plan, wanted, steps, output, sends=owner.sends)
        return
    if output.steps and output.text:
        show_plan(plan, err=True)
    attempt = Attempt(plan.launch, plan.record, ledger, steps, leave=options.on_refusal == "leave")
    # Twice: a signal may end an exit before its first line, but only one signal raises.
    with attempt, attempt:
        create = creation(session, plan.record, ledger, requirements=wanted.whole)
        attempt.create(create, options.out, force=options.force)
        steps.took("session", f"{plan.record.name}, policy {session.policy}")
        live = attempt.live = _started(attempt, plan, insecure=target.insecure)
        reported = kept.reported = _reported(live, plan, insecure=target.insecure)
        measured = kept.measured = _measured(reported, plan, wanted)
        case = Case(reported, measured, output)
        everywhere = SearchOptions(**vars(search), keys=None)
        stated = Stated(ReportedOptions.none(), guest, KeyOptions.none(), everywhere)
        verified = case.verify(plan.session.keys, stated)
        steps.took("measure", "the measurement is right")
        with case.refusing():
            summary = finish_launch(
                verified,
                None,
                record=plan.record,
                requirements=wanted.requirements,
                whole=wanted.whole,
                pending=None,
                secrets=_secrets(owner),
                measured=case.measured,
                guest=live,
                ledger=ledger,
                insecure=target.insecure,
                verbose=output.steps,
            )
            if not owner.sends:
                attempt.close("launched without a secret")
                live.run()
        if summary.secrets:
            steps.took("release", "the guest has its secrets")
        steps.took("run", "the guest runs")
        if output.text and not summary.secrets:
            summary.notes.append("the guest got no secret, and its session is closed")
        case.accepted(
            summary, kept, dry_run=False, domain=plan.name, guest="running", steps=steps.taken
        )


def _check_usage(
    target: TargetOptions,
    certificates: HostChainOptions,
    guest: GuestOptions,
    owner: DemandOptions,
    ledger: StoreOptions,
) -> None:
    """Raise every usage error that the options alone show."""
    files = [*(getattr(guest, name) for name in FILES), target.xml, owner.requirements]
    files += [STDIN for secret in owner.inject_secret if secret.endswith(":-")]
    refuse(
        target.errors(),
        certificates.errors((), *(name for name in files if name is not None), fetched=True),
        guest.errors() if guest.described or owner.requirements is None else (),
        owner.demand_errors(),
        ledger.store_errors(),
    )


def _evidence_errors(evidence: EvidenceOptions, options: LaunchOptions) -> Iterator[Unsupported]:
    """Yield an error for evidence that cannot be made, or of a launch that is none."""
    yield from evidence.errors()
    if evidence.evidence and options.dry_run:
        yield usage("--dry-run judges no launch: there is no evidence of it (--evidence)")


def _reported(live: Live, plan: Plan, *, insecure: bool) -> Reported:
    """Return what the host reports, held to the policy of the session."""
    reported = read_reported(
        ReportedOptions.none(),
        plan.session.keys,
        live.claims,
        record=plan.record,
        kernel=plan.record.kernel_hashes,
        insecure=insecure,
    )
    # Those of the record say again what the plan's say of the platform.
    return reported._replace(notes=[*plan.notes, *live.notes])


def _measured(reported: Reported, plan: Plan, wanted: Wanted) -> "Measured":
    """Return the owner's launch digest, or the one of those that the requirements allow."""
    if wanted.measured is not None:
        return wanted.measured
    return find_allowed(reported, plan.session.keys, wanted.digests)


def _started(attempt: Attempt, plan: Plan, *, insecure: bool) -> Live:
    """Start the guest, and check that it is paused and was started as it was defined."""
    guest = attempt.start()
    kernel = plan.record.kernel_hashes
    # Also with --insecure: it was started paused, so a host that lets it run has disobeyed.
    check_paused(guest, insecure=False)
    try:
        notes = check_domain(guest.config, kernel=kernel, insecure=insecure)
    except NotAttestable as error:
        # What was defined could be attested: the hint of `validate`, to ignore it, is wrong here.
        error.check, error.hint = (
            "launch.config",
            "the host started another domain than it was given",
        )
        raise
    with reading("the host"):
        claims = guest.claims()
    return Live(guest, claims, notes, local=False, insecure=insecure)


def _secrets(owner: DemandOptions) -> "dict[str, bytes] | SecretSource":
    """Read the secrets, now that the measurement is right."""
    try:
        return owner.secrets()
    except OSError as error:
        raise SevAttestError(f"{error.filename}: {error.strerror}", check="io") from None
