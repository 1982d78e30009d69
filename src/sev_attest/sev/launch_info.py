"""Launch values reported by the host. Does not verify: anything; they are its claims."""

from dataclasses import dataclass
from typing import NamedTuple

from sev_attest._encoding import blob, json_documents, labelled_lines, looks_like_json
from sev_attest._snp import SNP_HINT, refuse_snp
from sev_attest.errors import MalformedInput, Unsupported
from sev_attest.sev.spec import MEASUREMENT_SIZE

_MEASURE_SIZE = 32
_NUMBERS = {"sev-api-major": 0xFF, "sev-api-minor": 0xFF, "sev-build-id": 0xFF}
_NUMBERS["sev-policy"] = 0xFFFF_FFFF
_DIGITS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchInfo:
    """The measurement of a launch and the numbers reported with it.

    ``measurement`` is 48 bytes: MEASURE (32) and MNONCE (16). API and build are one byte each;
    ``policy`` is 32 bits, or None if the host does not report it.
    """

    measurement: bytes
    api_major: int
    api_minor: int
    build_id: int
    policy: int | None = None

    def __post_init__(self) -> None:
        """Raise MalformedInput for a wrong size or a number out of range."""
        if len(self.measurement) != MEASUREMENT_SIZE:
            reason = f"{len(self.measurement)} bytes, expected {MEASUREMENT_SIZE}"
            raise MalformedInput("measurement", "length", reason)
        for name, value, most in (
            ("API major", self.api_major, 0xFF),
            ("API minor", self.api_minor, 0xFF),
            ("build id", self.build_id, 0xFF),
            ("policy", self.policy or 0, 0xFFFF_FFFF),
        ):
            if not 0 <= value <= most:
                raise MalformedInput(name, "range", f"{value} is not in 0..{most}")

    @property
    def measure(self) -> bytes:
        """MEASURE, the HMAC, 32 bytes."""
        return self.measurement[:_MEASURE_SIZE]

    @property
    def nonce(self) -> bytes:
        """MNONCE, the firmware's nonce, 16 bytes."""
        return self.measurement[_MEASURE_SIZE:]

    @classmethod
    def from_text(cls, text: str | bytes) -> "LaunchInfo":
        """Read a whole report (:func:`read_report`); raises MalformedInput for a missing part."""
        return from_claims(read_report(text))


REPORTED = {
    "measurement": "sev-measurement",
    "api_major": "sev-api-major",
    "api_minor": "sev-api-minor",
    "build_id": "sev-build-id",
}
"""Required parts of a report, and their names in it; the policy is optional."""


class Claims(NamedTuple):
    """The parts that a report has; the owner must supply the others."""

    measurement: bytes | None = None
    api_major: int | None = None
    api_minor: int | None = None
    build_id: int | None = None
    policy: int | None = None


def from_claims(claims: Claims) -> LaunchInfo:
    """Return a complete report as :class:`LaunchInfo`; raises MalformedInput for missing parts."""
    parts = {name: getattr(claims, name) for name in REPORTED}
    missing = [REPORTED[name] for name, value in parts.items() if value is None]
    if missing:
        raise MalformedInput(
            "launch info",
            "incomplete",
            f"{', '.join(missing)} missing",
            hint="libvirt before 8.0 prints only the measurement: get the other numbers separately",
        )
    return LaunchInfo(**parts, policy=claims.policy)


def read_report(text: str | bytes) -> Claims:
    """Read the output of ``virsh domlaunchsecinfo``; other lines around it are ignored.

    Also reads the JSON of QMP (query-sev, query-sev-launch-measure) and of KubeVirt
    (SEVMeasurementInfo).

    Raises MalformedInput for text without such values, a value out of range, or two values of one
    name; Unsupported for the report of an SEV-SNP guest.
    """
    data = text.encode("utf-8", "replace") if isinstance(text, str) else text
    refuse_snp(data, "launch info")
    if looks_like_json(data):
        return _read_json(data)
    text = data.decode("utf-8", errors="replace")
    values: dict[str, str] = {}
    for key, value in labelled_lines(text):
        if key.startswith("sev-") and values.setdefault(key, value) != value:
            raise MalformedInput("launch info", key, "appears twice, with different values")
    if "sev-snp-policy" in values:
        raise _of_snp()
    if not values:
        raise MalformedInput(
            "launch info",
            "format",
            "it has no `sev-...: value` line",
            hint="pass the output of `virsh domlaunchsecinfo DOMAIN`",
        )
    numbers = {key: _number(key, values[key]) for key in _NUMBERS if key in values}
    measurement = values.get("sev-measurement")
    return Claims(
        measurement=None if measurement is None else read_measurement(measurement.encode()),
        api_major=numbers.get("sev-api-major"),
        api_minor=numbers.get("sev-api-minor"),
        build_id=numbers.get("sev-build-id"),
        policy=numbers.get("sev-policy"),
    )


def _of_snp() -> Unsupported:
    reason = "these are values of an SEV-SNP guest, whose launch is attested by its report"
    return Unsupported(reason, check="launch-info.snp", hint=SNP_HINT)


def _read_json(data: bytes) -> Claims:
    """Read QMP's query-sev and query-sev-launch-measure, or KubeVirt's SEVMeasurementInfo."""
    values: dict[str, object] = {}
    documents = json_documents(data, "launch info")
    for document in (d for d in documents if "event" not in d):  # QMP's events are in between
        for name, value in document.items():
            if name in _JSON and values.setdefault(_JSON[name], value) != value:
                raise MalformedInput("launch info", name, "appears twice, with different values")
        if document.get("sev-type", "sev") != "sev":
            raise _of_snp()
        if "measurement" in document:  # KubeVirt leaves out what is zero
            values = {"api_major": 0, "api_minor": 0, "build_id": 0, "policy": 0} | values
    if not values:
        raise MalformedInput("launch info", "format", "the JSON has no launch values")
    measurement = values.pop("measurement", None)
    if not isinstance(measurement, str | None):
        raise MalformedInput("launch info", "measurement", "is no text")
    for name, value in values.items():
        most = 0xFFFF_FFFF if name == "policy" else 0xFF
        if type(value) is not int or not 0 <= value <= most:
            raise MalformedInput("launch info", name, f"is no number in 0..{most}")
    numbers = {name: value for name, value in values.items() if isinstance(value, int)}
    encoded = None if measurement is None else measurement.encode("utf-8", "surrogatepass")
    return Claims(measurement=encoded and read_measurement(encoded), **numbers)


_JSON = {
    "data": "measurement",
    "api-major": "api_major",
    "api-minor": "api_minor",
    "build-id": "build_id",
    "policy": "policy",
    "measurement": "measurement",
    "apiMajor": "api_major",
    "apiMinor": "api_minor",
    "buildID": "build_id",
}
"""Names in QMP's and KubeVirt's JSON."""


def read_measurement(data: bytes) -> bytes:
    """Return the 48 bytes of a measurement in base64 or hex; raises MalformedInput."""
    return blob(data, (MEASUREMENT_SIZE,), "measurement", only_text=True)


def _number(key: str, text: str) -> int:
    plain = text.isascii() and text.isdigit() and len(text) <= _DIGITS
    if not plain or int(text) > _NUMBERS[key]:
        raise MalformedInput("launch info", key, f"{text[:40]!r} is not in 0..{_NUMBERS[key]}")
    return int(text)
