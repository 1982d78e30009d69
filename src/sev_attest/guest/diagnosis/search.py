"""The search for a small difference that explains a mismatch.

Most mismatches are honest mistakes, and trying one takes microseconds. A finding is words for
people: it never turns a refusal into a success.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations, combinations_with_replacement, product
from typing import NamedTuple

BUDGET = 5.0
"""Time limit of a search by default, in seconds."""
_TELL_EVERY = 4096
_MOST_KEPT = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One way in which the launch may differ.

    ``detail`` ends the sentence "it fits if ...". ``parts`` replaces fields of the launch,
    ``options`` says the same by option name. ``meaning`` says what the difference means for
    security, where the owner decided otherwise. A ``likely`` change is also tried in pairs.
    """

    hypothesis: str
    detail: str
    parts: Mapping[str, object] = field(repr=False)
    options: Mapping[str, object]
    meaning: str = ""
    likely: bool = True


Combination = tuple[Change, ...]


class Tried(NamedTuple):
    """Combinations that a stage compared itself, in bulk: ``number`` of them, and none fits.

    ``hypotheses`` are those of their changes.
    """

    number: int
    hypotheses: Collection[str]


Stage = Iterable[Combination | Tried]
"""What is tried together; a hypothesis is ruled out once every stage that it is in has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A difference from what was stated that makes the measurement match.

    ``hypothesis`` joins the ids of its changes with ``+`` ("vcpus+cmdline"), ``detail`` ends the
    sentence "it fits if ...", ``changes`` says the same by option. ``meaning`` is what it means for
    security; empty for a slip of the owner's.
    """

    hypothesis: str
    detail: str
    changes: Mapping[str, object]
    meaning: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The result of a search: ``findings``, likeliest first, or else what was ruled out.

    ``tried`` counts combinations; ``complete`` is False if time ran out before all were tried, or
    the clues left something out.
    """

    findings: tuple[Explanation, ...]
    tried: int
    ruled_out: tuple[str, ...]
    complete: bool


def search(
    stages: Iterable[Stage],
    fits: Callable[[Combination], bool],
    *,
    words: Mapping[str, str],
    left_out: Collection[str],
    end: float,
    progress: Callable[[int], object] | None = None,
) -> Diagnosis:
    """Return the first combination that ``fits``, or what was ruled out.

    ``words`` says for each hypothesis what is ruled out if no change of it fits. ``left_out`` names
    the hypotheses that were not looked at completely; it may grow meanwhile. ``end`` is when time
    is up, by ``time.monotonic``. ``progress`` is called at times with the number of combinations
    tried.
    """
    tried = 0
    done: set[str] = set()

    def ruled_out(*, complete: bool) -> Diagnosis:
        out = tuple(w for name, w in words.items() if name in done and name not in left_out)
        return Diagnosis(
            findings=(), tried=tried, ruled_out=out, complete=complete and not left_out
        )

    for stage in stages:
        seen: set[str] = set()
        for combination in stage:
            if time.monotonic() >= end:
                return ruled_out(complete=False)
            before = tried
            tried += combination.number if isinstance(combination, Tried) else 1
            if progress is not None and tried // _TELL_EVERY > before // _TELL_EVERY:
                progress(tried)
            if isinstance(combination, Tried):
                seen.update(combination.hypotheses)
                continue
            if fits(combination):
                found = _finding(combination)
                return Diagnosis(findings=(found,), tried=tried, ruled_out=(), complete=True)
            seen.update(change.hypothesis for change in combination)
        done |= seen
    return ruled_out(complete=True)


def stages(changes: Iterable[Change], rank: Mapping[str, int], *wide: Stage) -> Iterator[Stage]:
    """Yield what is tried, stage by stage: single changes, likely pairs, the wide searches."""
    likely: list[Change] = []

    def singles() -> Iterator[Combination]:
        for change in changes:
            if change.likely:
                likely.append(change)
            yield (change,)

    yield singles()
    yield pairs(likely, rank)
    yield from wide


def pairs(likely: Iterable[Change], rank: Mapping[str, int]) -> Iterator[Combination]:
    """Yield pairs of changes, likeliest first, in constant memory."""
    groups: dict[int, list[Change]] = defaultdict(list)
    for change in likely:
        groups[rank[change.hypothesis]].append(change)
    for one, two in sorted(combinations_with_replacement(sorted(groups), 2), key=sum):
        found = combinations(groups[one], 2) if one == two else product(groups[one], groups[two])
        for pair in found:
            if pair[0].parts.keys().isdisjoint(pair[1].parts):
                yield pair


def parts_of(combination: Combination) -> dict[str, object]:
    """Return the fields of a launch that a combination replaces."""
    return {name: part for change in combination for name, part in change.parts.items()}


def _finding(combination: Combination) -> Explanation:
    return Explanation(
        hypothesis="+".join(change.hypothesis for change in combination),
        detail=", and ".join(change.detail for change in combination),
        changes={name: value for change in combination for name, value in change.options.items()},
        meaning="; ".join(dict.fromkeys(c.meaning for c in combination if c.meaning)),
    )


class Digests:
    """Launch digests by number of vCPUs, computed on demand; nothing is hashed twice."""

    def __init__(self) -> None:
        """Begin with none."""
        self._kept: dict[object, tuple[object, Iterator[bytes], list[bytes]]] = {}

    def up_to(
        self,
        count: int,
        firmware: object,
        state: object,
        compute: Callable[[], Iterator[bytes]],
    ) -> list[bytes]:
        """Return at least ``count`` digests of a guest, fewer if there are no more.

        ``firmware`` and ``state`` identify the guest, ``compute`` yields its digests.
        """
        key = id(firmware), state
        if key not in self._kept:
            if len(self._kept) == _MOST_KEPT:
                self._kept.clear()
            self._kept[key] = firmware, compute(), []  # the firmware is kept: its id stays its own
        _, rest, found = self._kept[key]
        while len(found) < count:
            digest = next(rest, None)
            if digest is None:
                break
            found.append(digest)
        return found
