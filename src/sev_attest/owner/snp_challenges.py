"""The challenges of an owner, each an attempt in the ledger that is used once.

The ``created`` event of a challenge has all of it: name, nonce, times, KEMs, and the fingerprint of
the requirements that it was made under. That is the owner's own copy, and the only one that counts.
Nothing of it is secret, so nothing has to be sealed, and a service needs neither a file nor a
key-encryption key.

The id of the attempt is SHA-256("sev-attest/snp/challenge-id/1", a zero byte, the nonce): a
challenge whose other fields were changed still names it, and is refused.
"""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from sev_attest._keys import Kem
from sev_attest.errors import LaunchRefused, WrongState
from sev_attest.owner.attempts import find_attempt
from sev_attest.owner.ledger.book import Ledger
from sev_attest.owner.ledger.kept import KeptChallenge
from sev_attest.owner.ledger.step import other_technology
from sev_attest.owner.ledger.story import LedgerEntry
from sev_attest.snp.challenge import Challenge

if TYPE_CHECKING:
    from sev_attest.owner.requirements import Requirements

VALID_FOR = timedelta(hours=24)
"""How long a challenge can be answered, unless its owner says otherwise."""
_FIELDS = ("name", "created", "expires", "kems")


class OwnChallenge(NamedTuple):
    """A challenge as the ledger has it.

    ``requirements`` is the fingerprint of those that it was made under; None if it is bound to
    none.
    """

    challenge: Challenge
    entry: LedgerEntry
    requirements: str | None


def create_challenge(
    ledger: Ledger,
    name: str,
    *,
    valid_for: timedelta | None = VALID_FOR,
    kems: tuple[Kem, ...] = tuple(Kem),
    requirements: "Requirements | None" = None,
) -> Challenge:
    """Create a challenge in the ledger, with a new nonce, and return it.

    ``name`` has 1 to 128 letters, digits and ``_ . + -``. It expires after ``valid_for``, by the
    ledger's clock; None means never. ``kems`` are the kinds of transport keys that are accepted,
    the preferred one first. ``requirements`` binds it to these: a release must be under the same.

    Raises MalformedInput for a name that is none, WrongState if an attempt of this name waits,
    LedgerError.
    """
    now = datetime.fromisoformat(ledger.now)
    expires = None if valid_for is None else now + valid_for
    made = Challenge.create(name, created=now, expires=expires, kems=kems)
    kept = KeptChallenge(
        nonce=made.nonce,
        created=made.created.isoformat(),
        kems=kems,
        requirements=None if requirements is None else requirements.fingerprint,
    )
    ledger.create(kept.attempt, name=name, expires=made.expires, challenge=kept)
    return made


def attempt_of(challenge: Challenge) -> str:
    """Return the id of a challenge's attempt, 64 hex digits."""
    created = challenge.created.isoformat()
    return KeptChallenge(nonce=challenge.nonce, created=created, kems=challenge.kems).attempt


def find_challenge(ledger: Ledger, challenge: Challenge | str) -> OwnChallenge:
    """Return the ledger's copy of a challenge, which may be named by its name or its id.

    Raises WrongState if it is unknown, or a session of SEV; LaunchRefused if ``challenge`` differs
    from that copy; Unsupported if the name is that of several attempts.
    """
    if isinstance(challenge, Challenge):
        attempt = attempt_of(challenge)
    else:
        attempt = find_attempt(ledger, challenge).session_id
    entry, kept = ledger.snapshot(lambda reader: (reader.entry(attempt), reader.challenge(attempt)))
    if entry is None:
        raise WrongState(
            f"challenge {attempt[:12]} is not in the ledger {ledger.place}",
            check="ledger.unknown",
            hint="open the ledger in which it was created",
        )
    if kept is None:
        raise other_technology(entry)
    own = Challenge(
        name=entry.name,
        nonce=kept.nonce,
        created=datetime.fromisoformat(kept.created),
        expires=None if entry.expires is None else datetime.fromisoformat(entry.expires),
        kems=kept.kems,
    )
    if isinstance(challenge, Challenge) and challenge.digest != own.digest:
        changed = [name for name in _FIELDS if getattr(challenge, name) != getattr(own, name)]
        raise LaunchRefused(
            f"the challenge {own.name} is not as the ledger has it: {', '.join(changed)}",
            check="challenge.changed",
            hint="use the challenge as it was made; find out who changed it",
        )
    return OwnChallenge(own, entry, kept.requirements)
