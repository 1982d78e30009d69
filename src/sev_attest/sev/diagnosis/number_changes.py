"""Differences in what goes with the digest: keys, API and build, policy."""

from collections.abc import Iterator, Mapping
from itertools import combinations, permutations, product

from sev_attest.guest.diagnosis.search import Change, Combination, Tried
from sev_attest.sev.diagnosis.hypotheses import Clues, Launch
from sev_attest.sev.diagnosis.trial import Trial
from sev_attest.sev.keys import TransportKeys
from sev_attest.sev.policy import BITS, GuestPolicy
from sev_attest.sev.spec import PolicyBit

_BYTE = 0xFF
_MINORS = range(_BYTE + 1)
_POLICY_LIMIT = 0xFFFF_FFFF
_OTHER = "launch.other"
_NUMBERS = ("api_major", "api_minor", "build_id")
_OLDER = (
    "then it ran on older firmware than these numbers say: if the host reported them for this "
    "launch, take that for an attack"
)
_CLAIMED = (
    "it may be of another launch, or the host reports numbers of firmware that it did not run: ask "
    "for measurement and numbers of one launch, and use no session for two"
)


def key_changes(stated: Launch, clues: Clues) -> Iterator[Change]:
    """Yield TIK and TEK swapped, and the other keys at hand."""
    swapped = TransportKeys(tek=stated.keys.tik, tik=stated.keys.tek)
    yield Change(
        hypothesis="keys.swapped",
        detail="TIK and TEK are swapped",
        parts={"keys": swapped},
        options={"keys": "swapped"},
    )
    for name, keys in clues.keys.items():
        unknown = (
            f"then the measurement was made in another session ({name}), of which no record of a "
            "verified platform and this policy is at hand: do not trust it"
        )
        yield Change(
            hypothesis="keys.other",
            detail=f"the keys are those of {name}",
            parts={"keys": keys},
            options={"keys": name},
            meaning="" if name in clues.verified else unknown,
        )


def number_changes(stated: Launch, clues: Clues) -> Iterator[Change]:
    """Yield other API versions and builds: swapped, read in another base, any other byte."""
    values = {name: getattr(stated, name) for name in _NUMBERS}
    for order in list(permutations(_NUMBERS))[1:]:
        parts = {
            name: values[other]
            for name, other in zip(_NUMBERS, order, strict=True)
            if values[other] != values[name]
        }
        if parts:
            yield _number("numbers.swapped", stated, clues, parts)
    hexed = {name: _other_base(value) for name, value in values.items()}
    for size in range(1, len(_NUMBERS) + 1):
        for names in combinations(_NUMBERS, size):
            for bases in product((0, 1), repeat=size):
                parts = {n: hexed[n][base] for n, base in zip(names, bases, strict=True)}
                if all(0 <= part <= _BYTE and part != values[n] for n, part in parts.items()):
                    yield _number("numbers.base", stated, clues, parts)
    for name in reversed(_NUMBERS):
        for value in range(_BYTE + 1):
            if value != values[name]:
                yield _number("numbers.one", stated, clues, {name: value}, likely=False)


def _other_base(value: int) -> tuple[int, int]:
    """Return the decimal digits read as hex, and the hex digits read as decimal (or -1)."""
    digits = f"{value:x}"
    return int(str(value), 16), int(digits) if digits.isdigit() else -1


def _number(
    hypothesis: str,
    stated: Launch,
    clues: Clues,
    parts: Mapping[str, int],
    *,
    likely: bool = True,
) -> Change:
    words = {"api_major": "API major", "api_minor": "API minor", "build_id": "build"}
    found = [
        f"{words[name]} was {value}, not {getattr(stated, name)}" for name, value in parts.items()
    ]
    claimed = "" if set(parts) <= set(clues.typed) else _CLAIMED
    older = _firmware_of(stated._replace(**parts)) < _firmware_of(stated)  # type: ignore[arg-type] # numbers alone
    return Change(
        hypothesis=hypothesis,
        detail=" and ".join(found),
        parts=parts,
        options=parts,
        meaning=_OLDER if older else claimed,
        likely=likely,
    )


def _firmware_of(launch: Launch) -> tuple[int, int, int]:
    return launch.api_major, launch.api_minor, launch.build_id


def policy_changes(stated: Launch, clues: Clues) -> Iterator[Change]:
    """Yield other policies: the record's, read in another base, with one or two other bits."""
    seen = {stated.policy}

    def change(hypothesis: str, value: int, *, likely: bool = True) -> Iterator[Change]:
        if value not in seen and 0 <= value <= _POLICY_LIMIT:
            seen.add(value)
            yield _policy(hypothesis, stated, value, likely=likely)

    if clues.recorded is not None:
        yield from change("policy.session", clues.recorded)
    if stated.firmware is not None:
        seen.add(stated.policy ^ PolicyBit.ES)  # that is es.off or es.on
    for value in _other_base(stated.policy):
        yield from change("numbers.base", value)
    for bit in range(32):
        yield from change("policy.bit", stated.policy ^ 1 << bit, likely=1 << bit <= max(PolicyBit))
    for one, two in combinations(range(32), 2):
        yield from change("policy.bits", stated.policy ^ 1 << one ^ 1 << two, likely=False)


def _policy(hypothesis: str, stated: Launch, value: int, *, likely: bool) -> Change:
    policy, other = GuestPolicy(value), GuestPolicy(stated.policy)
    meaning = [words[1 if bit in policy.bits else 2] for bit, words in BITS.items()
               if (bit in policy.bits) is not (bit in other.bits)]  # fmt: skip
    if policy.min_api != other.min_api:
        meaning.append(f"it starts on SEV API {policy.min_api[0]}.{policy.min_api[1]} and later")
    if policy.reserved != other.reserved:
        whose = "it has" if policy.reserved else "you stated"
        meaning.append(f"{whose} reserved bits, which no firmware takes")
    return Change(
        hypothesis=hypothesis,
        detail=f"its policy was {policy}, not {other}",
        parts={"policy": value, "es": policy.es} if stated.firmware else {"policy": value},
        options={"policy": value},
        meaning=f"then {'; '.join(meaning)}",
        likely=likely,
    )


def other_launches(stated: Launch, trial: Trial) -> Iterator[Combination | Tried]:
    """Try every API version and build together; yield the one that fits."""
    majors = dict.fromkeys((stated.api_major, 1, 0))
    for api in product(majors, _MINORS):
        build = trial.build(stated, api)
        if build is None:
            yield Tried(_BYTE + 1, (_OTHER,))
        else:
            yield (other_launch(stated, api, build),)


def other_launch(stated: Launch, api: tuple[int, int], build: int) -> Change:
    """Return another API version and build: of another launch, or of other firmware."""
    parts = {"api_major": api[0], "api_minor": api[1], "build_id": build}
    return Change(
        hypothesis=_OTHER,
        detail=f"it was made on API {api[0]}.{api[1]} build {build}",
        parts=parts,
        options=parts,
        meaning=_OLDER if (*api, build) < _firmware_of(stated) else _CLAIMED,
    )
