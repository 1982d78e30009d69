"""A platform's certificate chain, and how it is put together from files."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from sev_attest.errors import MalformedInput, NotVerified, reading
from sev_attest.sev.chain.ca import AmdCaCertificate
from sev_attest.sev.chain.certificate import Certificate, cek_address
from sev_attest.sev.chain.packaging import MAX_FILE, Contents, is_godh, read_contents
from sev_attest.sev.spec import Usage

_SHOWN = 3
_USUAL = 1 << 16
"""Bytes that few files exceed."""
_KINDS: dict[str, type[Certificate] | type[AmdCaCertificate]] = {
    **dict.fromkeys(("pdh", "pek", "oca", "cek"), Certificate),
    **dict.fromkeys(("ask", "ark"), AmdCaCertificate),
}
"""The type of each certificate in a chain."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Chain:
    """A platform's certificates. Does not verify: anything (see :func:`verify_chain`).

    ``ask`` and ``ark`` may be absent (AMD's own are built in). ``platform_id`` is the 64-byte
    id under which AMD serves the signed CEK, where the host reported it (``cpu0-id``).
    """

    pdh: Certificate
    pek: Certificate
    oca: Certificate
    cek: Certificate
    ask: AmdCaCertificate | None = None
    ark: AmdCaCertificate | None = None
    platform_id: bytes | None = None

    def __repr__(self) -> str:
        """Show which certificates are there, by role and the start of the fingerprint."""
        there = (f"{link.role} {link.fingerprint[:16]}" for link in self.certificates)
        return f"Chain({', '.join(there)})"

    @classmethod
    def from_files(
        cls, paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
    ) -> "Chain":
        """Read files and folders, in any order and packaging.

        Raises MalformedInput, naming the file, for bytes that are not certificates, for two
        different certificates of one role, and for a missing one; OSError for an unreadable file.
        """
        collected = Collected()
        for path in [paths] if isinstance(paths, str | os.PathLike) else paths:
            collected.add_path(os.fspath(path))
        return collected.chain()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Chain":
        """Read one packaging from memory; raises MalformedInput."""
        collected = Collected()
        collected.add(read_contents(data), "")
        return collected.chain()

    def to_bytes(self) -> bytes:
        """Return what ``sevctl export`` writes: PDH, PEK, OCA, CEK, then ASK and ARK if known."""
        return b"".join(link.to_bytes() for link in self.certificates)

    @property
    def certificates(self) -> tuple[Certificate | AmdCaCertificate, ...]:
        """PDH, PEK, OCA and CEK, then ASK and ARK if known."""
        links = (self.pdh, self.pek, self.oca, self.cek, self.ask, self.ark)
        return tuple(link for link in links if link is not None)

    def as_parsed(self) -> "Chain":
        """Return the chain with every certificate parsed from its bytes.

        A certificate made by hand could have fields that contradict its bytes. Raises
        MalformedInput if its bytes cannot be parsed.
        """
        by_hand: dict[str, Any] = {}
        for name, kind in _KINDS.items():
            link = getattr(self, name)
            if link is not None and not (type(link) is kind and link.parsed):
                by_hand[name] = kind.from_bytes(link.to_bytes())
        return replace(self, **by_hand) if by_hand else self

    def with_cek(self, cek: Certificate) -> "Chain":
        """Return the chain with another CEK (the one that AMD signed)."""
        return replace(self, cek=cek)


class Collected:
    """Certificates collected for a :class:`Chain`, by role, with the source of each."""

    __slots__ = ("by_role", "of_snp", "platform_id", "skipped")

    def __init__(self) -> None:
        """Begin with none."""
        self.by_role: dict[str, tuple[Certificate | AmdCaCertificate, str]] = {}
        self.platform_id: bytes | None = None
        self.skipped: list[str] = []
        self.of_snp: MalformedInput | None = None

    def add_path(self, path: str) -> None:
        """Add a file, or every file of a folder."""
        # Not pathlib, here and below: it is slow to import.
        if not os.path.isdir(path):  # noqa: PTH112
            with reading(path):
                self.add(read_contents(_read(path)), path)
            return
        # A folder may hold other files: they are named only if the chain is incomplete. sevtool
        # leaves the guest owner's GODH there, which is not the PDH.
        with os.scandir(path) as entries:
            members = sorted(m.path for m in entries if m.is_file() and m.name[0] != ".")
        for member in members:
            try:
                with reading(member):
                    contents = read_contents(_read(member))
            except (MalformedInput, OSError) as error:
                self.skipped.append(str(error))
                if isinstance(error, MalformedInput) and error.field == "snp":
                    self.of_snp = self.of_snp or error
                continue
            certificates = tuple(c for c in contents.certificates if not is_godh(c))
            self.add(contents._replace(certificates=certificates), member)

    def add(self, contents: Contents, source: str) -> None:
        """Add the contents of one file; raises MalformedInput for a contradiction with another."""
        self.platform_id = contents.platform_id or self.platform_id
        for found in contents.certificates:
            with reading(source):
                self._add(found, source)

    def _add(self, found: Certificate | AmdCaCertificate, source: str) -> None:
        if is_godh(found):
            raise MalformedInput(
                "chain",
                "godh",
                "this is a guest owner's certificate (GODH: a DH key that nobody signed), "
                "a platform's PDH was expected",
            )
        known, known_source = self.by_role.get(found.role, (found, source))
        if known is not found and known.to_bytes() != found.to_bytes():
            unsigned = found if _is_unsigned_cek(found) else known
            if known.body != found.body or not _is_unsigned_cek(unsigned):
                elsewhere = known_source not in ("", source)
                where = f" (the other is in {known_source})" if elsewhere else ""
                reason = f"there are two different {found.role} certificates{where}"
                raise MalformedInput("chain", "conflict", reason)
            if unsigned is found:
                return  # of one CEK with and without AMD's signature, keep the signed one
        self.by_role[found.role] = found, source

    def replace(self, found: Certificate | AmdCaCertificate) -> None:
        """Put ``found`` in place of its role's certificate; raises NotVerified for another CEK.

        A chip has one CEK: AMD serves it signed, the firmware exports it unsigned.
        """
        known, _ = self.by_role.get(found.role, (found, ""))
        if found.usage is Usage.CEK and known.public_key != found.public_key:
            reason = "this is another chip's CEK: its key is not that of the CEK in the chain"
            hint = f"AMD serves this chip's at {cek_address(self.platform_id)}"
            raise NotVerified(reason, check="chain.cek.other-chip", hint=hint)
        self.by_role[found.role] = found, ""

    def pdh(self) -> Certificate:
        """Return the PDH alone, without a chain; raises MalformedInput if it is missing."""
        return self._sev("PDH", ("PDH",))

    def chain(self) -> Chain:
        """Return the chain; raises MalformedInput if a certificate is missing."""
        needed = ("PDH", "PEK", "OCA", "CEK")
        return Chain(
            pdh=self._sev("PDH", needed),
            pek=self._sev("PEK", needed),
            oca=self._sev("OCA", needed),
            cek=self._sev("CEK", needed),
            ask=self._ca("ASK"),
            ark=self._ca("ARK"),
            platform_id=self.platform_id,
        )

    def _sev(self, role: str, needed: tuple[str, ...]) -> Certificate:
        found = self.by_role.get(role)
        if found is not None and isinstance(found[0], Certificate):
            return found[0]
        if self.of_snp is not None and not self.by_role:
            raise self.of_snp
        missing = [role for role in needed if role not in self.by_role]
        reason = f"no {', '.join(missing)} certificate"
        if self.by_role:
            reason += f" (found only {', '.join(self.by_role)}; a whole chain was expected)"
        if self.skipped:
            reason += f"; not read: {'; '.join(self.skipped[:_SHOWN])}"
            if len(self.skipped) > _SHOWN:
                reason += f"; and {len(self.skipped) - _SHOWN} more"
        hint = "`sevctl export FILE` on the host writes PDH, PEK, OCA and CEK into one file"
        raise MalformedInput("chain", "incomplete", reason, hint=hint)

    def _ca(self, role: str) -> AmdCaCertificate | None:
        found = self.by_role.get(role)
        return found[0] if found is not None and isinstance(found[0], AmdCaCertificate) else None


def _read(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123
        # A buffer of the largest size, made for each file, takes longer than the file.
        data = file.read(_USUAL)
        if len(data) == _USUAL:
            data += file.read(MAX_FILE + 1 - _USUAL)
    if len(data) > MAX_FILE:
        raise MalformedInput("chain", "length", f"more than {MAX_FILE} bytes: no certificate")
    return data


def _is_unsigned_cek(found: Certificate | AmdCaCertificate) -> bool:
    return isinstance(found, Certificate) and found.usage is Usage.CEK and found.unsigned
