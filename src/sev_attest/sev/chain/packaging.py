"""File formats that hold certificates.

To add one, add a function ``(data) -> Contents | None`` to ``_PACKAGINGS``. It returns None for
other formats, and raises MalformedInput for a damaged file of its own.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

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
from sev_attest.errors import MalformedInput, SevAttestError
from sev_attest.sev.chain import certificate as sev
from sev_attest.sev.chain.ca import AmdCaCertificate
from sev_attest.sev.chain.certificate import Certificate
from sev_attest.sev.chain.roots import amd_roots
from sev_attest.sev.spec import CERTIFICATE_SIZE, Usage

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

MAX_FILE = 1 << 20
"""Most bytes of a file; a whole chain takes about 11 KiB."""
_PLATFORM_ID = 64
_MEMBERS = 64
_FORMATS = (
    "formats: SEV and ASK/ARK certificates, one or several, binary, base64 or hex; `virsh "
    "nodesevinfo` text; QMP or KubeVirt JSON; sevtool's zip; X.509 PEM of ASK and ARK"
)
_CERTIFICATES = ("SEV certificate", "ASK/ARK certificate")
_HEADER = 0x40
_SEV_USAGES = (*sev.ROLES, Usage.INVALID)
_CA_USAGES = (Usage.ARK, Usage.ASK)
_CA_BITS = (2048, 4096)
_CA_MODULUS = 0x3C


class Contents(NamedTuple):
    """Contents of one file: certificates in order, and the platform's id if it has one."""

    certificates: tuple[Certificate | AmdCaCertificate, ...]
    platform_id: bytes | None = None


def certificate_of(role: Usage, data: bytes) -> Certificate | AmdCaCertificate:
    """Return the certificate of that role from a file that must hold one; raises MalformedInput."""
    found = read_contents(data).certificates
    right = [certificate for certificate in found if certificate.usage is role]
    if len(right) == 1:
        return right[0]
    names = ", ".join(certificate.role for certificate in found)
    raise MalformedInput("chain", role.name.lower(), f"this is {names}; one {role.name} expected")


def is_godh(found: Certificate | AmdCaCertificate) -> bool:
    """Return whether this is a guest owner's DH certificate: a PDH that nobody signed."""
    return isinstance(found, Certificate) and found.usage is Usage.PDH and found.unsigned


def read_contents(data: bytes) -> Contents:
    """Read one file in any known format; raises MalformedInput."""
    if not data:
        raise MalformedInput("chain", "length", "the file is empty")
    try:
        found = (packaging(data) for packaging in _PACKAGINGS)
        contents = next((contents for contents in found if contents is not None), None)
    except MalformedInput as error:
        if error.structure not in _CERTIFICATES:  # the format was recognised
            error.hint = error.hint or _FORMATS
        raise
    if contents is None:
        refuse_snp(data, "chain")
        reason = "this is neither a certificate nor a file format that holds one"
        raise MalformedInput("chain", "format", reason, hint=_FORMATS)
    return contents


def _binary(data: bytes) -> Contents | None:
    """Read certificates in a row, in any order."""
    if looks_like_text(data) or (len(data) >= _HEADER and not _kind(data)):
        return None
    return Contents(certificates=tuple(_split(data)))


def _split(whole: bytes) -> Iterator[Certificate | AmdCaCertificate]:
    data = memoryview(whole)  # so that the rest is not copied for each of many certificates
    base = 0
    while data:
        kind = _kind(data)
        size = CERTIFICATE_SIZE
        if kind is AmdCaCertificate:
            size = _ca_size(data)
        elif kind is None:
            reason = f"{len(data)} bytes after the last certificate are not a certificate"
            if len(data) < _HEADER:
                reason = f"{len(data)} bytes are too few for a certificate"
            raise MalformedInput("chain", "format", reason)
        try:
            yield (kind or Certificate).from_bytes(bytes(data[:size]))
        except MalformedInput as error:
            if error.offset is not None:
                error.offset += base  # in the whole file
            raise
        data = data[size:]
        base += size


def _kind(data: bytes | memoryview) -> type[Certificate] | type[AmdCaCertificate] | None:
    """Return the kind of the first certificate, by the codes in its first 64 bytes."""
    if len(data) < _HEADER:
        return None
    if number_at(data, 0x08) in _SEV_USAGES:
        return Certificate
    if number_at(data, 0x24) in _CA_USAGES and number_at(data, _CA_MODULUS) in _CA_BITS:
        return AmdCaCertificate
    return None


def _ca_size(data: memoryview) -> int:
    """Return the size of an ASK or ARK in bytes; without signature, another or nothing follows."""
    size = number_at(data, _CA_MODULUS) // 8
    unsigned = _HEADER + 2 * size
    rest = data[unsigned:]
    return unsigned if not rest or _kind(rest) else unsigned + size


@contextmanager
def _within(part: str) -> Iterator[None]:
    """Say in which part of a file an error is."""
    try:
        yield
    except MalformedInput as error:
        if part not in (error.structure, error.field):
            error.part = error.part or part
        raise


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
    """Decode what a host reports about its platform: base64 by label."""

    def decoded(label: str) -> bytes:
        value = values.get(label, "")
        if not isinstance(value, str):
            raise MalformedInput("chain", label, "is no text")
        return from_base64(value.encode("utf-8", "surrogatepass"), label)

    certificates: list[Certificate | AmdCaCertificate] = []
    for label in ("pdh", "cert-chain"):
        with _within(label):
            certificates += _split(decoded(label))
    platform_id = decoded("cpu0-id")[:_PLATFORM_ID]
    return Contents(
        certificates=tuple(certificates),
        # Some hosts report an empty or all-zero id.
        platform_id=platform_id if len(platform_id) == _PLATFORM_ID and any(platform_id) else None,
    )


def _zip(data: bytes) -> Contents | None:
    """Read the members of a zip, such as sevtool's certs_export.zip, in memory."""
    if not data.startswith(_ZIP_MAGIC):
        return None
    from zipfile import ZipFile

    try:
        with ZipFile(BytesIO(data)) as archive:
            found = list(_members(archive))
    except SevAttestError:
        raise
    except Exception:  # noqa: BLE001 - zipfile raises many kinds, even OverflowError
        reason = "this zip is damaged, or of an unsupported kind"
        raise MalformedInput("zip", "format", reason) from None
    return Contents(
        certificates=tuple(c for contents in found for c in contents.certificates),
        platform_id=next((c.platform_id for c in found if c.platform_id), None),
    )


_ZIP_MAGIC = b"PK\x03\x04"


def _members(archive: "ZipFile") -> Iterator[Contents]:
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) > _MEMBERS or sum(m.file_size for m in members) > MAX_FILE:
        raise MalformedInput("zip", "length", "its members are too many or too large")
    for member in members:
        with _within(member.filename):
            content = _member(archive, member)
            if content.startswith(_ZIP_MAGIC):
                raise MalformedInput("zip", "format", "a zip within a zip")
            yield read_contents(content)


def _member(archive: "ZipFile", member: "ZipInfo") -> bytes:
    from zipfile import ZIP_DEFLATED, ZIP_STORED

    if member.filename.startswith("/") or ".." in member.filename.split("/"):
        raise MalformedInput("zip", "format", "the member's path leads out of the zip")
    if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise MalformedInput("zip", "format", "its compression is neither none nor deflate")
    with archive.open(member) as file:
        content = file.read(member.file_size + 1)  # bounded: a member may inflate without end
    if len(content) != member.file_size:
        raise MalformedInput("zip", "length", "a member has another size than it states")
    return content


def _pem(data: bytes) -> Contents | None:
    """Read AMD's ASK and ARK as X.509; returns AMD's own format of the same keys."""
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


# _text takes any text that the others leave, so it comes last.
_PACKAGINGS = (_zip, _binary, _pem, _json, _nodesevinfo, _text)
