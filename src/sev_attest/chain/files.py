"""Every packaging that people hold certificates in -> a :class:`Chain`.

To teach it a new packaging, add a function ``(data) -> Contents | None`` to ``_PACKAGINGS``: None
means "not mine", MalformedInput means "mine, and broken".
"""

import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

from sev_attest import _crypto
from sev_attest._encoding import (
    from_base64,
    from_text,
    json_documents,
    labelled_lines,
    looks_like_json,
    looks_like_text,
)
from sev_attest._snp import refuse_snp
from sev_attest._wire import number_at
from sev_attest.chain import certificate as sev
from sev_attest.chain.ca import CaCertificate
from sev_attest.chain.certificate import Certificate, cek_address
from sev_attest.chain.roots import amd_roots
from sev_attest.errors import MalformedInput, NotVerified, SevAttestError, reading
from sev_attest.spec import Usage

MAX_FILE = 1 << 20
"""No packaging of a chain comes near this many bytes."""
_PLATFORM_ID = 64
_SHOWN = 3
_MEMBERS = 64
_TAKEN = (
    "what is read: SEV and ASK/ARK certificates, one or several, binary, base64 or hex; `virsh "
    "nodesevinfo` text; QMP or KubeVirt JSON; sevtool's zip; X.509 PEM of ASK and ARK"
)
_CERTIFICATES = ("SEV certificate", "ASK/ARK certificate")
_KINDS: dict[str, type[Certificate] | type[CaCertificate]] = {
    **dict.fromkeys(("pdh", "pek", "oca", "cek"), Certificate),
    **dict.fromkeys(("ask", "ark"), CaCertificate),
}
"""What a chain's certificates are."""
_HEADER = 0x40
_SEV_USAGES = (*sev.ROLES, Usage.INVALID)
_CA_USAGES = (Usage.ARK, Usage.ASK)
_CA_BITS = (2048, 4096)
_CA_MODULUS = 0x3C


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What one file held: certificates in the order found, and the platform's id if it is there."""

    certificates: tuple[Certificate | CaCertificate, ...]
    platform_id: bytes | None = None


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
    ask: CaCertificate | None = None
    ark: CaCertificate | None = None
    platform_id: bytes | None = None

    def __repr__(self) -> str:
        """Show which certificates are there, by role and the start of the fingerprint."""
        links = (self.pdh, self.pek, self.oca, self.cek, self.ask, self.ark)
        there = (f"{link.role} {link.fingerprint[:16]}" for link in links if link is not None)
        return f"Chain({', '.join(there)})"

    @classmethod
    def from_files(
        cls, paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
    ) -> "Chain":
        """Read one file or folder or several, in any order and packaging.

        Raises MalformedInput (naming the file) for bytes that are no certificates, for two
        different certificates of one role and for a missing one; OSError for an unreadable file.
        """
        collected = Collected()
        for path in [paths] if isinstance(paths, str | os.PathLike) else paths:
            collected.add_path(Path(path))
        return collected.chain()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Chain":
        """Read one packaging from memory; raises MalformedInput."""
        collected = Collected()
        collected.add(read_contents(data), "")
        return collected.chain()

    def to_bytes(self) -> bytes:
        """Write it as ``sevctl export`` does (with ASK and ARK, as ``--full`` does, if known)."""
        links = (self.pdh, self.pek, self.oca, self.cek, self.ask, self.ark)
        return b"".join(link.to_bytes() for link in links if link is not None)

    def as_parsed(self) -> "Chain":
        """Give the chain with no certificate of which a field says another thing than its bytes.

        Those that were put together by hand are parsed from their bytes; raises MalformedInput for
        one that could not have been.
        """
        by_hand: dict[str, Any] = {}
        for name, kind in _KINDS.items():
            link = getattr(self, name)
            if link is not None and not (type(link) is kind and link.parsed):
                by_hand[name] = kind.from_bytes(link.to_bytes())
        return replace(self, **by_hand) if by_hand else self

    def with_cek(self, cek: Certificate) -> "Chain":
        """Put another CEK in place (the one that AMD signed)."""
        return replace(self, cek=cek)


@dataclass(slots=True)
class Collected:
    """Certificates on their way to a :class:`Chain`, by role, with the source of each."""

    by_role: dict[str, tuple[Certificate | CaCertificate, str]] = field(default_factory=dict)
    platform_id: bytes | None = None
    skipped: list[str] = field(default_factory=list)

    def add_path(self, path: Path) -> None:
        """Add a file, or every file of a folder."""
        if not path.is_dir():
            with reading(str(path)):
                self.add(read_contents(_read(path)), str(path))
            return
        # A folder may hold other things too: whatever is no certificate is named only if the
        # chain comes out incomplete. The guest owner's GODH, which sevtool leaves there, is no PDH.
        for member in sorted(p for p in path.iterdir() if p.is_file() and p.name[0] != "."):
            try:
                with reading(str(member)):
                    contents = read_contents(_read(member))
            except (MalformedInput, OSError) as error:
                self.skipped.append(str(error))
                continue
            certificates = tuple(c for c in contents.certificates if not is_godh(c))
            self.add(replace(contents, certificates=certificates), str(member))

    def add(self, contents: Contents, source: str) -> None:
        """Add what one file held; raises MalformedInput if two sources contradict each other."""
        self.platform_id = contents.platform_id or self.platform_id
        for found in contents.certificates:
            with reading(source):
                self._add(found, source)

    def _add(self, found: Certificate | CaCertificate, source: str) -> None:
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

    def replace(self, found: Certificate | CaCertificate) -> None:
        """Put a certificate in place of the chain's own; raises NotVerified for another chip's CEK.

        A chip has one CEK. AMD serves it signed, its firmware exports it unsigned.
        """
        known, _ = self.by_role.get(found.role, (found, ""))
        if found.usage is Usage.CEK and known.public_key != found.public_key:
            reason = "this is another chip's CEK: its key is not that of the CEK in the chain"
            hint = f"AMD serves this chip's at {cek_address(self.platform_id)}"
            raise NotVerified(reason, check="chain.cek.other-chip", hint=hint)
        self.by_role[found.role] = found, ""

    def pdh(self) -> Certificate:
        """Give the PDH alone, to go without a chain; raises MalformedInput."""
        return self._sev("PDH", ("PDH",))

    def chain(self) -> Chain:
        """Put the chain together; raises MalformedInput if a certificate is missing."""
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

    def _ca(self, role: str) -> CaCertificate | None:
        found = self.by_role.get(role)
        return found[0] if found is not None and isinstance(found[0], CaCertificate) else None


def certificate_of(role: Usage, data: bytes) -> Certificate | CaCertificate:
    """Read a file that is expected to hold one certificate of that role; raises MalformedInput."""
    found = read_contents(data).certificates
    right = [certificate for certificate in found if certificate.usage is role]
    if len(right) == 1:
        return right[0]
    names = ", ".join(certificate.role for certificate in found)
    raise MalformedInput("chain", role.name.lower(), f"this is {names}; one {role.name} expected")


def is_godh(found: Certificate | CaCertificate) -> bool:
    """Tell a guest owner's DH certificate from a platform's PDH: nobody signed it."""
    return isinstance(found, Certificate) and found.usage is Usage.PDH and found.unsigned


def _is_unsigned_cek(found: Certificate | CaCertificate) -> bool:
    return isinstance(found, Certificate) and found.usage is Usage.CEK and found.unsigned


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise MalformedInput("chain", "length", f"more than {MAX_FILE} bytes: no certificate")
    return data


def read_contents(data: bytes) -> Contents:
    """Read one file's bytes, whatever packaging they are in; raises MalformedInput."""
    if not data:
        raise MalformedInput("chain", "length", "the file is empty")
    try:
        found = (packaging(data) for packaging in _PACKAGINGS)
        contents = next((contents for contents in found if contents is not None), None)
    except MalformedInput as error:
        if error.structure not in _CERTIFICATES:  # these were recognised
            error.hint = error.hint or _TAKEN
        raise
    if contents is None:
        refuse_snp(data, "chain")
        reason = "this is no certificate and no packaging of any"
        raise MalformedInput("chain", "format", reason, hint=_TAKEN)
    return contents


def _binary(data: bytes) -> Contents | None:
    """Read certificates one after the other, in any order."""
    if looks_like_text(data) or (len(data) >= _HEADER and not _kind(data)):
        return None
    return Contents(certificates=tuple(_split(data)))


def _split(whole: bytes) -> Iterator[Certificate | CaCertificate]:
    data = memoryview(whole)  # many certificates: what is left is not copied for each
    base = 0
    while data:
        kind = _kind(data)
        size = sev.SIZE
        if kind is CaCertificate:
            size = _ca_size(data)
        elif kind is None:
            reason = f"{len(data)} bytes behind the last certificate are none"
            if len(data) < _HEADER:
                reason = f"{len(data)} bytes are too few for a certificate"
            raise MalformedInput("chain", "format", reason)
        try:
            yield (kind or Certificate).from_bytes(bytes(data[:size]))
        except MalformedInput as error:
            if error.offset is not None:
                error.offset += base  # where it is in the whole
            raise
        data = data[size:]
        base += size


def _kind(data: bytes | memoryview) -> type[Certificate] | type[CaCertificate] | None:
    """Tell the two kinds apart by the codes in the first 64 bytes."""
    if len(data) < _HEADER:
        return None
    if number_at(data, 0x08) in _SEV_USAGES:
        return Certificate
    if number_at(data, 0x24) in _CA_USAGES and number_at(data, _CA_MODULUS) in _CA_BITS:
        return CaCertificate
    return None


def _ca_size(data: memoryview) -> int:
    """Find where an ASK or ARK ends; one without signature ends before a certificate or nothing."""
    size = number_at(data, _CA_MODULUS) // 8
    unsigned = _HEADER + 2 * size
    rest = data[unsigned:]
    return unsigned if not rest or _kind(rest) else unsigned + size


_NODE_LABELS = ("pdh", "cert-chain", "cpu0-id")


def _nodesevinfo(data: bytes) -> Contents | None:
    """Read what ``virsh nodesevinfo`` prints: "pdh : BASE64", "cert-chain : ...", "cpu0-id"."""
    if not looks_like_text(data):
        return None
    values: dict[str, object] = {}
    for label, value in labelled_lines(data.decode("utf-8")):
        if label in _NODE_LABELS and values.setdefault(label, value) != value:
            raise MalformedInput("chain", "conflict", f"there are two different {label} lines")
    return _platform(values) if values else None


def _json(data: bytes) -> Contents | None:
    """Read the JSON of QMP's query-sev-capabilities, or of KubeVirt's SEVPlatformInfo."""
    if not looks_like_json(data):
        return None
    values: dict[str, object] = {}
    for document in json_documents(data, "chain"):
        for label in (*_NODE_LABELS, "certChain"):
            if label in document:
                value, name = document[label], _KUBEVIRT.get(label, label)
                if values.setdefault(name, value) != value:
                    raise MalformedInput("chain", "conflict", f"there are two different {name}")
    if not values:
        raise MalformedInput("chain", "format", "the JSON has no pdh and no cert-chain")
    return _platform(values)


_KUBEVIRT = {"certChain": "cert-chain"}


def _platform(values: Mapping[str, object]) -> Contents:
    """Decode what a host reports of its platform: base64 by label."""

    def decoded(label: str) -> bytes:
        value = values.get(label, "")
        if not isinstance(value, str):
            raise MalformedInput("chain", label, "is no text")
        return from_base64(value.encode("utf-8", "surrogatepass"), label)

    certificates: list[Certificate | CaCertificate] = []
    for label in ("pdh", "cert-chain"):
        with reading(label):
            certificates += _split(decoded(label))
    platform_id = decoded("cpu0-id")[:_PLATFORM_ID]
    return Contents(
        certificates=tuple(certificates),
        # Some hosts report an empty or all-zero id: that is none.
        platform_id=platform_id if len(platform_id) == _PLATFORM_ID and any(platform_id) else None,
    )


def _zip(data: bytes) -> Contents | None:
    """Read the members of a zip, as sevtool's certs_export.zip: in memory, never extracted."""
    if not data.startswith(_ZIP_MAGIC):
        return None
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            found = list(_members(archive))
    except SevAttestError:
        raise
    except Exception:  # noqa: BLE001 - zipfile raises many kinds, OverflowError among them
        reason = "this zip is damaged, or of a kind not read"
        raise MalformedInput("zip", "format", reason) from None
    return Contents(
        certificates=tuple(c for contents in found for c in contents.certificates),
        platform_id=next((c.platform_id for c in found if c.platform_id), None),
    )


_ZIP_MAGIC = b"PK\x03\x04"


def _members(archive: zipfile.ZipFile) -> Iterator[Contents]:
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) > _MEMBERS or sum(m.file_size for m in members) > MAX_FILE:
        raise MalformedInput("zip", "length", "its members are too many or too large")
    for member in members:
        with reading(member.filename):
            content = _member(archive, member)
            if content.startswith(_ZIP_MAGIC):
                raise MalformedInput("zip", "format", "a zip within a zip")
            yield read_contents(content)


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    if member.filename.startswith("/") or ".." in PurePosixPath(member.filename).parts:
        raise MalformedInput("zip", "format", "the member's path leads out of the zip")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise MalformedInput("zip", "format", "its compression is neither none nor deflate")
    with archive.open(member) as file:
        content = file.read(member.file_size + 1)  # without a size it would inflate everything
    if len(content) != member.file_size:
        raise MalformedInput("zip", "length", "a member has another size than it states")
    return content


def _pem(data: bytes) -> Contents | None:
    """Read X.509 certificates of AMD's ASK and ARK: the same keys, in AMD's own format."""
    if b"-----BEGIN CERTIFICATE-----" not in data:
        return None
    keys = _crypto.rsa_keys_of_pem(data)
    if keys is None:
        refuse_snp(data, "X.509")
        raise MalformedInput("X.509", "format", "not every block is a certificate of an RSA key")
    amd = [ca for root in amd_roots() for ca in (root.ark, root.ask) if ca is not None]
    known = {ca.public_key: ca for ca in amd}
    if any(key not in known for key in keys):
        refuse_snp(data, "X.509")
        raise MalformedInput("X.509", "key", "is none of AMD's ASK and ARK keys")
    return Contents(certificates=tuple(known[key] for key in keys))


def _text(data: bytes) -> Contents | None:
    """Read base64 or hex of the binary forms."""
    if not looks_like_text(data):
        return None
    decoded = from_text(data, "chain")
    if not _kind(decoded):
        refuse_snp(decoded, "chain")
    return Contents(certificates=tuple(_split(decoded)))


# In this order: _text takes whatever text the others leave, so that a new one goes before it.
_PACKAGINGS = (_zip, _binary, _pem, _json, _nodesevinfo, _text)
