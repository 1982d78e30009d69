"""The launch values that a host reports, and the record that they are compared with."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from sev_attest.cli.bundle import Options, option, option_name
from sev_attest.cli.inputs import BYTE, FILE, POLICY, read_small
from sev_attest.cli.options.common import NUMBERS
from sev_attest.cli.usage import usage
from sev_attest.errors import Insecure, Unsupported, reading
from sev_attest.owner.unverified import unverified
from sev_attest.sev.keys import TransportKeys
from sev_attest.sev.launch import require_policy
from sev_attest.sev.launch_info import (
    REPORTED,
    Claims,
    LaunchInfo,
    from_claims,
    read_measurement,
    read_report,
)
from sev_attest.sev.policy import GuestPolicy

if TYPE_CHECKING:
    from sev_attest.cli.options.guest import Measured
    from sev_attest.owner.record import LaunchRecord


class ReportedOptions(Options, title="The host's report"):
    """What the host reports, and the record of the launch."""

    measurement: str | None = option(
        "-m", "--measurement", metavar="B64", help="Measurement that the host reports."
    )
    api_major: int | None = option("--api-major", type=BYTE, help="SEV API major version.")
    api_minor: int | None = option("--api-minor", type=BYTE, help="SEV API minor version.")
    build_id: int | None = option("--build-id", type=BYTE, help="SEV firmware build.")
    policy: int | None = option("--policy", type=POLICY, help="Guest policy.")
    launch_info: str | None = option(
        "--launch-info",
        type=FILE,
        metavar="FILE",
        help="Take these from what `virsh domlaunchsecinfo` printed; options beside it win.",
    )
    record: str | None = option(
        "--record",
        type=FILE,
        metavar="FILE",
        help="Check the launch against NAME.launch.json: its policy, and that a kernel is measured "
        "if it says so.",
    )

    def errors(self, *, hosted: bool, recorded: bool) -> Iterator[Unsupported]:
        """Yield an error for values that are missing and that no file or host (``hosted``) has.

        ``recorded``: whether the session has a record, which has its policy.
        """
        if hosted or self.launch_info is not None:
            return
        missing = [option_name(name) for name in REPORTED if getattr(self, name) is None]
        if self.policy is None and not recorded:
            missing.append("--policy")
        if missing:
            verb = "is" if len(missing) == 1 else "are"
            yield usage(f"{', '.join(missing)} (or --launch-info) {verb} needed")

    def read_record(self) -> "LaunchRecord | None":
        """Read --record; None without it."""
        if self.record is None:
            return None
        from sev_attest.owner.record import LaunchRecord

        with reading(self.record):
            return LaunchRecord.from_bytes(read_small(self.record, "launch record"))

    def claims(self, host: Claims | None, *, recorded: bool) -> Claims:
        """Return what is reported: by the host that is connected to, or in --launch-info.

        An option wins over both; the policy's does not show here. Raises Unsupported if a value
        is missing, OSError and MalformedInput for what cannot be read.
        """
        claims = host or Claims()
        if self.launch_info is not None:
            with reading(self.launch_info):
                claims = read_report(read_small(self.launch_info, "launch info"))
        if self.measurement is not None:
            with reading("--measurement"):
                measurement = read_measurement(os.fsencode(self.measurement))
                claims = claims._replace(measurement=measurement)
        numbers = {name: getattr(self, name) for name in NUMBERS}
        claims = claims._replace(**{n: v for n, v in numbers.items() if v is not None})
        missing = [option_name(name) for name in REPORTED if getattr(claims, name) is None]
        if claims.policy is None and self.policy is None and not recorded:
            missing.append("--policy")
        if missing:
            source = "the host" if host else self.launch_info
            raise usage(
                f"{source} lacks values: also give {', '.join(missing)}",
                hint="libvirt before 8.0 reports the measurement alone",
            )
        return claims


class Reported(NamedTuple):
    """What the host reports, the policy that the launch must have, and its record if given."""

    info: LaunchInfo
    policy: GuestPolicy
    record: "LaunchRecord | None"
    notes: list[str]

    def require_kernel(self, measured: "Measured", *, insecure: bool) -> None:
        """Check that a session with kernel hashes is held to a kernel of the owner's choice.

        Firmware alone would fit a guest that the host started without kernel hashes: such a guest
        boots what the host likes. A launch digest is the owner's own word. Raises Insecure;
        ``insecure`` turns that into a note.
        """
        hashed = self.record is not None and self.record.kernel_hashes
        if not hashed or measured.guest is None or measured.guest.kernel is not None:
            return
        message = (
            "this session was made with --kernel-hashes, but no kernel was given: "
            "the host would choose it"
        )
        if not insecure:
            raise Insecure(
                message,
                check="record.kernel-hashes",
                hint="add --kernel (and --initrd, --cmdline), or make a session without "
                "--kernel-hashes; for tests, --insecure goes on",
            )
        self.notes.append(f"INSECURE: {message}")


def read_reported(
    options: ReportedOptions,
    keys: TransportKeys,
    host: Claims | None,
    *,
    record: "LaunchRecord | None",
    kernel: bool,
    insecure: bool,
) -> Reported:
    """Read what the host reports, and the policy that the launch must have.

    ``host`` is what a host that is connected to reports, ``record`` that of the session; ``kernel``
    whether the owner's options name a kernel. Raises LaunchRefused if the host reports another
    policy than the record, and what :meth:`ReportedOptions.claims` and :func:`_check_record` raise.
    """
    claims = options.claims(host, recorded=record is not None)
    if record is None:
        policy, notes = _policy(options, claims)
        if options.policy not in (None, claims.policy):
            claims = claims._replace(policy=None)  # the option wins
        return Reported(info=from_claims(claims), policy=policy, record=None, notes=notes)
    policy = GuestPolicy(record.policy)
    _check_record(options, record, keys, insecure=insecure)
    notes = []
    if record.root is None:
        notes.append(f"INSECURE: {unverified('record')}")
    elif record.generation is None:
        notes.append(f"this session's platform has a root that is {record.root}")
    if kernel and not record.kernel_hashes:
        notes.append("the record has no kernelHashes='yes': without it no kernel is measured")
    info = from_claims(claims)
    # Before the digest: a host that claims another policy may call for other options.
    require_policy(info, policy)
    return Reported(info=info, policy=policy, record=record, notes=notes)


def _policy(options: ReportedOptions, claims: Claims) -> tuple[GuestPolicy, list[str]]:
    """Return the policy of a launch without a record, and notes: the option's, else the host's."""
    claimed = GuestPolicy(claims.policy or 0)
    if options.policy is None:
        return claimed, [
            f"policy {claimed} is what the host reports; --record or --policy holds it to yours"
        ]
    notes = []
    if claims.policy not in (None, options.policy):
        notes.append(f"the host reports policy {claimed}, not yours")
    return GuestPolicy(options.policy), notes


def _check_record(
    options: ReportedOptions, record: "LaunchRecord", keys: TransportKeys, *, insecure: bool
) -> None:
    """Check that the record matches the policy option and the keys.

    Raises Unsupported for another policy, LaunchRefused for other keys, Insecure if nobody
    verified its platform and ``insecure`` is False.
    """
    if options.policy not in (None, record.policy):
        source = "--session" if options.record is None else "--record"
        raise usage(f"--policy contradicts {source}, which says {GuestPolicy(record.policy)}")
    record.require(keys)
    if record.root is None and not insecure:
        raise unverified("record")
