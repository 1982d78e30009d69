"""Recompute what evidence claims, as far as its own bytes and the inputs at hand allow.

Nothing that the file says is taken for granted: chains and reports are verified from their bytes,
up to pinned roots or those that are named here; a measurement is computed under the TIK.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, cast

from sev_attest.cli.evidence.claims import AtHand, Claim, checks_again, same
from sev_attest.cli.evidence.document import (
    STRUCTURE,
    ChainPart,
    Evidence,
    LaunchPart,
    MeasuredPart,
    RecordPart,
)
from sev_attest.cli.evidence.reader import decoded, unhexed
from sev_attest.cli.evidence.recompute_report import recompute_report
from sev_attest.cli.evidence.recompute_requirements import judge_again
from sev_attest.cli.evidence.values import record_part
from sev_attest.errors import (
    ChainInvalid,
    MalformedInput,
    MeasurementMismatch,
    NotVerified,
)
from sev_attest.sev.keys import TransportKeys
from sev_attest.sev.launch_info import LaunchInfo
from sev_attest.sev.policy import GuestPolicy

if TYPE_CHECKING:
    from sev_attest.sev.launch import VerifiedLaunch
    from sev_attest.snp.verify import VerifiedReport

_NEEDED: Mapping[str, tuple[str, ...]] = {
    "verify": ("chain.ark.trusted",),
    "snp-verify": ("snp.report.signature",),
    "snp-release": ("snp.report.signature", "snp.report-data"),
    "validate": ("launch.measurement",),
    "launch": ("launch.measurement",),
}
"""What the success of each command rests on, whatever options it was given."""


def recompute(evidence: Evidence, at_hand: AtHand) -> list[Claim]:
    """Return every claim with what was found; raises MalformedInput for bytes of another kind."""
    claimed = {one["id"]: one["ok"] for one in evidence["checks"]}
    if len(claimed) != len(evidence["checks"]):
        raise MalformedInput(STRUCTURE, "checks", "a check is there twice")
    chain, report, launch = evidence["chain"], evidence["report"], evidence["launch"]
    found: list[Claim] = []
    verified_launch: VerifiedLaunch | None = None
    verified_report: VerifiedReport | None = None
    if chain is not None:
        found += _chain(chain, claimed, at_hand)
    if report is not None:
        claims, verified_report = recompute_report(report, claimed, at_hand)
        found += claims
    if launch is not None:
        judged = _judged(launch, evidence["measured"], at_hand)
        verified_launch = judged.launch
        found += _launch(evidence, judged, claimed, at_hand)
    meant = meant_digest(evidence)
    if meant is not None:
        was_judged = launch is not None or report is not None
        found.append(_digest(meant, evidence["measured"], at_hand, judged=was_judged))
    found += _ledger(evidence)
    absent = list(_absent(evidence, found))
    known = {one.check for one in (*found, *absent)}
    required = judge_again(evidence, at_hand, verified_launch, verified_report)
    return [*found, *absent, *_others(evidence, known, claimed), *required]


def _absent(evidence: Evidence, found: list[Claim]) -> Iterator[Claim]:
    """Yield a claim that does not hold for a verdict without what it has to rest on."""
    known = {one.check for one in found if one.needed}
    for check in _NEEDED[evidence["command"]] if evidence["ok"] else ():
        if check not in known:
            yield Claim(check=check, claimed=True, found=False, why="nothing in the file shows it",
                        needed=True)  # fmt: skip


def _chain(part: ChainPart, claimed: Mapping[str, bool | None], at_hand: AtHand) -> Iterator[Claim]:
    from sev_attest.sev.chain.chain import Chain
    from sev_attest.sev.chain.verify import CHECKS, verify_chain

    data = b"".join(decoded(one["bytes"], "chain") for one in part["certificates"])
    chain = Chain.from_bytes(data)
    root, generation = None, None
    failed: dict[str, str] = {}
    try:
        verified = verify_chain(chain, roots=at_hand.roots)
    except ChainInvalid as error:
        held: frozenset[str] = error.held
        failed = {one.check: one.message for one in error.failures}
    else:
        held, root, generation = frozenset(CHECKS), verified.root.name, verified.generation
        chain = verified.chain
    yield from checks_again(CHECKS, held, failed, claimed)
    prints = {one.role: one.fingerprint for one in chain.certificates}
    yield same(
        "chain.fingerprints",
        all(prints.get(one["role"]) == one["fingerprint"] for one in part["certificates"]),
        "the fingerprints are those of the certificates",
        "the fingerprints are not those of the certificates",
    )
    why = f"it leads to {root}" if root else "it leads to no trusted root"
    alike = (part["root"], part["generation"]) == (root, generation)
    other = part["root"] if part["root"] != root else f"one of AMD {part['generation']}"
    yield same("chain.root", alike, why, f"{why}, not to {other}")


def _launch(
    evidence: Evidence, judged: "_Judged", claimed: Mapping[str, bool | None], at_hand: AtHand
) -> Iterator[Claim]:
    from sev_attest.sev.launch import CHECKS

    measured, record = evidence["measured"], evidence["record"]
    held, failed, _ = judged
    given, launch = at_hand.record, evidence["launch"]
    if given is not None and launch is not None and given.policy != launch["policy"]:
        words = f"the session was made for policy {GuestPolicy(given.policy)}"
        held, failed = held - {"launch.policy"}, failed | {"launch.policy": words}
    for check, words in CHECKS.items():
        claim = claimed.get(check)
        found = True if check in held else False if check in failed else None
        why, needed = failed.get(check, words), claim is not None
        if check == "launch.measurement":
            needed = True
            why = why if found is not None else _no_measurement(measured, failed)
        elif found is None and not failed:
            why = "the host reported nothing for it, or nothing was demanded"
        elif claim is None and not (evidence["ok"] and check in failed):
            found = None  # nothing was reported or demanded, so it was not made
        yield Claim(check=check, claimed=claim, found=found, why=why, needed=needed)
    if record is not None and at_hand.tik is not None:
        keys = TransportKeys(tik=at_hand.tik, tek=bytes(16))
        holds = keys.session_id == record["session_id"]  # both are public
        yield same(
            "record.session",
            holds,
            "the TIK is that of the session in the record",
            "the TIK is not that of the session in the record",
        )
    if record is not None or evidence["chain"] is not None:
        yield _platform(record, evidence["chain"], at_hand)


def _platform(record: RecordPart | None, chain: ChainPart | None, at_hand: AtHand) -> Claim:
    """Return whether chain and record in the file agree, and are those of the owner's record.

    Nothing binds what the file says of the platform to the session's keys: only the MAC of the
    owner's record does.
    """
    given = None if at_hand.record is None else record_part(at_hand.record)
    told = [one for one in (record, given) if one is not None]
    if chain is not None and not all(_names(one, chain) for one in told):
        wrong = "the session was made for another platform than that of the chain"
        return same("record.platform", holds=False, why="", why_not=wrong)
    if given is not None:
        return same(
            "record.platform",
            record in (None, given),
            "the platform is that of the record that was given, under the session's keys",
            "the platform is not that of the record that was given",
        )
    why = "the file has the fingerprints of the platform, and not its chain (--record)"
    if chain is not None:
        why = "nothing in the file binds its chain to the keys of the session (--record)"
    claimed = None if record is not None and record["root"] is None else True
    return Claim(check="record.platform", claimed=claimed, found=None, why=why)


def _names(record: RecordPart, chain: ChainPart) -> bool:
    """Return whether a record is of the platform of a chain."""
    prints = {one["role"]: one["fingerprint"] for one in chain["certificates"]}
    named = (record["pdh"], record["cek"], record["root"])
    return named == (prints.get("PDH"), prints.get("CEK"), chain["root"])


class _Judged(NamedTuple):
    """Which checks of a launch hold, and why others fail; the launch, if all of them were made."""

    held: set[str]
    failed: dict[str, str]
    launch: "VerifiedLaunch | None" = None


def _judged(part: LaunchPart, measured: MeasuredPart | None, at_hand: AtHand) -> _Judged:
    """Judge a launch, as far as the inputs allow."""
    from sev_attest.cli.verdict import unchecked
    from sev_attest.sev.launch import CHECKS, verify_launch

    info = LaunchInfo(
        measurement=decoded(part["measurement"], "launch.measurement"),
        api_major=part["api_major"],
        api_minor=part["api_minor"],
        build_id=part["build_id"],
        policy=part["reported_policy"],
    )
    digest = unhexed(measured["digest"], "measured.digest") if measured else bytes(32)
    # Without the TIK, the steps before the measurement are still taken.
    keys = TransportKeys(tik=at_hand.tik or bytes(16), tek=bytes(16))
    policy = GuestPolicy(part["policy"])
    unmade = unchecked(info, policy)
    if info.nonce != unhexed(part["nonce"], "launch.nonce"):
        raise MalformedInput(STRUCTURE, "launch.nonce", "is not that of the measurement")
    try:
        launch = verify_launch(info, keys=keys, policy=policy, digest=digest)
    except NotVerified as error:
        order = list(CHECKS)
        held = set(order[: order.index(error.check)]) - unmade
        known = not isinstance(error, MeasurementMismatch) or (at_hand.tik and measured)
        return _Judged(held, {error.check: str(error)} if known else {})
    if at_hand.tik and measured:
        return _Judged(CHECKS.keys() - unmade, {}, launch)
    return _Judged(CHECKS.keys() - unmade - {"launch.measurement"}, {})


def _no_measurement(measured: MeasuredPart | None, failed: Mapping[str, str]) -> str:
    """Return why a measurement could not be recomputed."""
    if failed:
        return "an earlier check failed"
    if measured is None:
        return "the file has no launch digest"
    return "it is the HMAC under the TIK, which only the owner has (--tik)"


def meant_digest(evidence: Evidence) -> str | None:
    """Return the launch digest of the guest that was meant, in hex; None if none was.

    Raises MalformedInput for two of them: a report would be held to one, the guest to the other.
    """
    measured, report = evidence["measured"], evidence["report"]
    digest = measured and measured["digest"]
    if report is None:
        return digest
    if measured is not None and digest != report["launch_digest"]:
        raise MalformedInput(STRUCTURE, "measured.digest", "is not the report's launch_digest")
    return report["launch_digest"]


def _digest(digest: str, part: MeasuredPart | None, at_hand: AtHand, *, judged: bool) -> Claim:
    """Return whether the guest that was described has the launch digest of the file.

    ``judged``: the evidence has the launch or report that was held to it.
    """
    mine = at_hand.measured
    if mine is None:
        why = "describe the guest (--firmware ...)" if judged else "nothing was compared with it"
        why = f"it is what the file says: {why}"
        return Claim(check="measured.digest", claimed=True, found=None, why=why)
    holds = mine["digest"] == digest
    if part is not None:  # a digest that was given says no more
        holds = holds and part["ranges"] in ([], mine["ranges"])
        holds = holds and part["vcpus"] in (None, mine["vcpus"])
        holds = holds and part["kernel_hashes"] in (None, mine["kernel_hashes"])
    return same(
        "measured.digest",
        holds,
        "it is that of the guest that was described",
        "it is not that of the guest that was described",
    )


def _ledger(evidence: Evidence) -> Iterator[Claim]:
    """Yield whether each event has its own hash; only the ledger shows that none is missing."""
    if not evidence["ledger"]:
        return
    from sev_attest.owner.ledger.story import event_hash

    names = ("seq", "time", "session_id", "kind", "detail", "previous")
    rows = [cast("dict[str, object]", one) for one in evidence["ledger"]]
    holds = all(row["hash"] == event_hash(tuple(row[name] for name in names)) for row in rows)
    why = "each event has its own hash; only the ledger itself shows that none is missing"
    yield same("ledger.events", holds, why, "there is an event that does not have its own hash")


def _others(
    evidence: Evidence, known: set[str], claimed: Mapping[str, bool | None]
) -> Iterator[Claim]:
    """Yield the claims for which the file has nothing to recompute them from."""
    # Those of requirements are told by one claim, if there are any.
    told = ("requirements.",) if evidence["requirements"] is not None else ()
    for check, ok in claimed.items():
        if check not in known and not check.startswith(told):
            why = "the file has nothing that shows it"
            yield Claim(check=check, claimed=ok, found=None, why=why, needed=ok is True)
