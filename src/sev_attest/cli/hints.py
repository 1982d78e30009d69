"""The options that help with an error of the library, by its check id.

The library's hints say what to do in any program; the command line adds the option for it.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

HINTS: Mapping[str, str] = {
    "certificates.incomplete": "{}; `sev-attest snp certs` shows where",
    "chain.ark.trusted": "{} (--trust-root)",
    "chain.cek.unsigned": "{}; pass it with --cek",
    "device.already-owned": "{} (`sev-attest host reset`)",
    "device.missing": "{} (`sev-attest host check` looks at the whole host)",
    "device.not-sev": "{} (--device)",
    "device.other-pek": "{} (`sev-attest host csr`)",
    "domain.config": "{}--ignore-config goes on",
    "firmware.hash-section": "{} (--kernel)",
    "firmware.hash-table": "{} (--kernel)",
    "firmware.sev-es-reset": "{} (--vmsa-cpu0, --vmsa-cpu1)",
    "host.timeout": "{}; --timeout waits for longer",
    "kds.cek": "{}; --cek reads the CEK from a file",
    "launch.name": "name it (--launch), or describe the guest (--firmware ...)",
    "ledger.connection": "{} (`sev-attest ledger show` shows a session)",
    "ledger.lost": "{}. `sev-attest ledger accept-head`, run once, closes what is open and goes "
    "on; on other machines, remove the floor file then",
    "ledger.missing": "`sev-attest {make}` begins one",
    "ledger.old": "{} (`sev-attest ledger init`)",
    "ledger.permission": "{} (--ledger names another place)",
    "ledger.place": "{} (--ledger names another place)",
    "ledger.platform": "{}, or --ledger none, which lets a session be used twice",
    "ledger.read-only": "{} (--ledger names another place)",
    "ledger.reused": "{} with `sev-attest {make}`",
    "ledger.unknown": "`sev-attest ledger list{ledger}` lists sessions (--ledger names another)",
    "ledger.unverified": "{}; for tests, --insecure goes on",
    "pending.damaged": "{} (`sev-attest session`)",
    "pending.gone": "{} (`sev-attest session`)",
    "pending.kek": "{}; --kek names the key",
    "pending.key": "{}: --kek can be repeated",
    "pending.name": "{} (`sev-attest ledger close{ledger}`)",
    "pending.none": "{} (--tik, --tek, --record)",
    "pending.several": "{} (`sev-attest ledger list --verbose{ledger}` shows ids)",
    "record.mac": "use the record and the keys that `sev-attest session` wrote together",
    "record.unverified": "{}; for tests, --insecure goes on",
    "requirements.advisories.acknowledged": "{} (`sev-attest advisories` lists them)",
    "requirements.advisories.refused": "{} (`sev-attest advisories` lists them)",
    "requirements.changed": "{} (--requirements-now)",
    "requirements.platform.ceks": "{} (`sev-attest verify` prints fingerprints)",
    "requirements.platform.denied_ceks": "{} (`sev-attest verify` prints fingerprints)",
    "requirements.platform.denied_pdhs": "{} (`sev-attest verify` prints fingerprints)",
    "requirements.platform.pdhs": "{} (`sev-attest verify` prints fingerprints)",
    "requirements.snp.advisories.acknowledged": "{} (`sev-attest advisories --snp` lists them)",
    "requirements.snp.advisories.refused": "{} (`sev-attest advisories --snp` lists them)",
    "requirements.snp.chip_ids": "{} (`sev-attest snp show` prints a report's chip_id)",
    "requirements.snp.denied_chip_ids": "{} (`sev-attest snp show` prints a report's chip_id)",
    "secret.unbound": "{}; for tests, --insecure goes on",
    "secrets.source": "{}; --secret-source names the source",
    "simulate.exists": "choose another name, or `sev-attest simulate destroy` ends it",
    "simulate.folder": "{}; `sev-attest simulate host` makes one",
    "simulate.is-snp": "`sev-attest simulate snp-report` asks for its report",
    "simulate.not-snp": "`sev-attest simulate start --snp` starts one",
    "simulate.paused": "`sev-attest simulate resume` lets it run",
    "simulate.running": "`sev-attest simulate destroy` ends it; a new launch needs a new session",
    "simulate.unknown": "`sev-attest simulate list` shows its guests",
    "snp.ark.trusted": "{} (--trust-root)",
    "snp.vek.validity": "{} (`sev-attest snp verify --at`)",
    "svsm.layout": "with an SVSM, --vmsa-profile is svsm or svsm-init2",
    "vmsa.ap": "{}--vmsa-cpu1 takes it",
}
"""What is shown; ``{}`` is the library's hint, ``{ledger}`` the ledger that was given, ``{make}``
the command that makes an attempt there.
"""


class Explained(Protocol):
    """An error, or one of several that it carries."""

    @property
    def check(self) -> str:
        """The check id."""

    @property
    def hint(self) -> str:
        """The library's hint."""


def hint_for(error: Explained, arguments: Sequence[str] = ()) -> str:
    """Return the hint that a command shows for an error; ``arguments`` are its command line."""
    hint = HINTS.get(error.check, "{}")
    make = "snp challenge" if "snp" in arguments[:1] else "session"
    option, ledger = _ledger(arguments)
    if ledger:
        make = f"{make} {option} {ledger}"
        ledger = f" --ledger {ledger}"
    return hint.format(error.hint, ledger=ledger, make=make).lstrip("; ")


def _ledger(arguments: Sequence[str]) -> tuple[str, str]:
    """Return the option that names the ledger, and its value for another command line, or ""."""
    found = "", ""
    for at, argument in enumerate(arguments):
        name, _, place = argument.partition("=")
        if name in ("--ledger", "--store"):
            from shlex import quote

            found = name, quote(place or "".join(arguments[at + 1 : at + 2]))
    return found
