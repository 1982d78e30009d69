"""A simulated SEV platform: the firmware's keys, commands and guests.

Source: AMD 55766. Every command checks what the firmware checks, and fails with its status code.
[MEM] marks codes and rules that could not be confirmed from a public source. Reply buffers that are
too short (INVALID_LEN with the size needed) are not modelled: replies are return values.
"""

import hashlib
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from sev_attest import _crypto
from sev_attest._keys import Algorithm, Curve, EccPublicKey
from sev_attest.errors import MalformedInput
from sev_attest.sev.chain.certificate import Certificate, Signature
from sev_attest.sev.chain.chain import Chain
from sev_attest.sev.spec import SESSION_BLOB_SIZE, Usage
from sev_attest.sev.states import GuestState, PlatformState, Status
from sev_attest.testing.authority import Authority

_CURVE = ec.SECP384R1()
_ORDER = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    16,
)
_NOKS, _ES = 2, 4
"""Bits of the guest policy."""
_BLOCK_SIZE = 16
_NONCE_SIZE = 16
_PAGE_SIZE = 4096
_SECRET_HEADER_SIZE = 52
"""FLAGS (4 bytes), IV (16), MAC (32)."""


class FirmwareError(Exception):
    """A command that failed. ``status`` is the firmware's code."""

    def __init__(self, status: Status, command: str) -> None:
        """Keep the code and the command."""
        super().__init__(f"{command}: {status.value} {status.name}")
        self.status: Status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformStatus:
    """The reply to PLATFORM_STATUS."""

    api_major: int
    api_minor: int
    state: PlatformState
    externally_owned: bool
    build: int
    guest_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestStatus:
    """The reply to GUEST_STATUS."""

    handle: int
    policy: int
    state: GuestState


@dataclass(slots=True)
class GuestContext:
    """What the firmware keeps of a guest.

    ``digest`` and ``measure`` (32 bytes each) are the launch digest and the HMAC over it; both are
    empty before LAUNCH_MEASURE.
    """

    policy: int
    tek: bytes = field(repr=False)
    tik: bytes = field(repr=False)
    state: GuestState = GuestState.LUPDATE
    digest: bytes = b""
    measure: bytes = b""
    measured: "hashlib._Hash" = field(default_factory=hashlib.sha256, repr=False, compare=False)


class Platform:
    """One simulated platform, initialised. The same ``seed`` makes the same keys and nonces.

    ``api`` and ``build`` are what it reports and what goes into measurements. With another
    ``boot``, nonces are others and keys stay.
    """

    def __init__(
        self,
        seed: bytes,
        *,
        authority: Authority | None = None,
        api: tuple[int, int] = (1, 55),
        build: int = 24,
        boot: bytes = b"",
    ) -> None:
        """Make a platform whose CEK ``authority`` signs; by default one of 4096 bits."""
        self._seed = seed
        self._drawn = 0
        self.authority: Authority = authority or Authority()
        self.api: tuple[int, int] = api
        self.build: int = build
        self.state: PlatformState = PlatformState.UNINIT
        self._guests: dict[int, GuestContext] = {}
        self._handles = 0
        self._keys = {Usage.CEK: self._new_key()}
        self._external: tuple[Certificate, Certificate] | None = None
        """PEK and OCA that an owner imported."""
        self._id = self._random(64)
        self._become_self_owned()
        self._seed += boot
        self.init()

    # the platform

    def init(self) -> None:
        """INIT: from UNINIT to INIT."""
        with self._command("INIT", PlatformState.UNINIT):
            self.state = PlatformState.INIT

    def shutdown(self) -> None:
        """SHUTDOWN: to UNINIT; every guest is gone."""
        self._guests.clear()
        self.state = PlatformState.UNINIT

    def platform_reset(self) -> None:
        """PLATFORM_RESET: new OCA, PEK and PDH; the platform owns itself again."""
        # [MEM] The state must be UNINIT: Linux shuts the platform down before it resets it.
        with self._command("PLATFORM_RESET", PlatformState.UNINIT):
            self._become_self_owned()

    def platform_status(self) -> PlatformStatus:
        """PLATFORM_STATUS: allowed in any state."""
        return PlatformStatus(
            api_major=self.api[0],
            api_minor=self.api[1],
            state=self.state,
            externally_owned=self._external is not None,
            build=self.build,
            guest_count=len(self._guests),
        )

    def get_id(self) -> bytes:
        """GET_ID: the 64 bytes under which the signed CEK is served."""
        return self._id

    # keys and certificates

    def _become_self_owned(self) -> None:
        self._external = None
        for usage in (Usage.OCA, Usage.PEK, Usage.PDH):
            self._keys[usage] = self._new_key()

    def pek_gen(self) -> None:
        """PEK_GEN: new OCA, PEK and PDH; the platform owns itself again."""
        with self._command("PEK_GEN", PlatformState.INIT):
            self._become_self_owned()

    def pek_csr(self) -> Certificate:
        """PEK_CSR: the PEK without signatures, for an owner's OCA to sign."""
        with self._command("PEK_CSR", PlatformState.INIT, PlatformState.WORKING):
            return self._certificate(Usage.PEK)

    def pek_cert_import(self, pek: bytes, oca: bytes) -> None:
        """PEK_CERT_IMPORT: take an owner's OCA and the PEK that it signed; make a new PDH."""
        with self._command("PEK_CERT_IMPORT", PlatformState.INIT) as fail:
            if self._external is not None:
                raise fail(Status.ALREADY_OWNED)
            signed = self._parse(pek, Usage.PEK, fail)
            owner = self._parse(oca, Usage.OCA, fail)
            if signed.body != self._certificate(Usage.PEK).body:
                raise fail(Status.INVALID_CERTIFICATE)
            by_owner = _signature_of(owner, signed)
            if by_owner is None or _signature_of(owner, owner) is None:
                raise fail(Status.BAD_SIGNATURE)
            self._external = replace(signed, signatures=(by_owner, Signature())), owner
            self._keys[Usage.PDH] = self._new_key()

    def pdh_gen(self) -> None:
        """PDH_GEN: a new PDH."""
        with self._command("PDH_GEN", PlatformState.INIT, PlatformState.WORKING):
            self._keys[Usage.PDH] = self._new_key()

    def pdh_cert_export(self) -> tuple[bytes, bytes]:
        """PDH_CERT_EXPORT: the PDH (2084 bytes), and PEK, OCA, CEK (6252); the CEK unsigned."""
        with self._command("PDH_CERT_EXPORT", PlatformState.INIT, PlatformState.WORKING):
            chain = self._chain(self._certificate(Usage.CEK))
            links = (chain.pek, chain.oca, chain.cek)
            return chain.pdh.to_bytes(), b"".join(link.to_bytes() for link in links)

    def export(self, *, signed_cek: bool = True) -> Chain:
        """Return the chain as ``sevctl export`` does, with the CEK that AMD's key server serves.

        Without ``signed_cek``, the CEK has no signature, as the firmware exports it.
        """
        cek = self._certificate(Usage.CEK)
        return self._chain(self.authority.sign_cek(cek) if signed_cek else cek)

    def _chain(self, cek: Certificate) -> Chain:
        pek, oca = self._external or (
            self._certificate(Usage.PEK, Usage.OCA),
            self._certificate(Usage.OCA, Usage.OCA),
        )
        by_oca, by_cek = pek.signatures[0], self.sign(Usage.CEK, pek.body)
        return Chain(
            pdh=self._certificate(Usage.PDH, Usage.PEK),
            pek=replace(pek, signatures=(by_oca, by_cek)),
            oca=oca,
            cek=cek,
            platform_id=self._id,
        )

    def _certificate(self, usage: Usage, signer: Usage | None = None) -> Certificate:
        numbers = self._keys[usage].public_key().public_numbers()
        unsigned = Certificate.build(
            usage=usage,
            algorithm=Algorithm.ECDH_SHA256 if usage is Usage.PDH else Algorithm.ECDSA_SHA256,
            public_key=EccPublicKey(curve=Curve.P384, x=numbers.x, y=numbers.y),
            api=self.api,
        )
        if signer is None:
            return unsigned
        return replace(unsigned, signatures=(self.sign(signer, unsigned.body), Signature()))

    def sign(self, signer: Usage, message: bytes) -> Signature:
        """Return a signature by one of the platform's keys. For tests: no command does this."""
        scheme = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
        r, s = decode_dss_signature(self._keys[signer].sign(message, scheme))
        return Signature.ecdsa(signer, r, s)

    def _parse(self, data: bytes, usage: Usage, fail: "_Fail") -> Certificate:
        """Return a certificate from outside; role, algorithm, curve and point must be right."""
        # [MEM] Anything wrong with it is INVALID_CERTIFICATE.
        dh = usage is Usage.PDH
        try:
            certificate = Certificate.from_bytes(data)
        except MalformedInput:
            raise fail(Status.INVALID_CERTIFICATE) from None
        algorithm = Algorithm.ECDH_SHA256 if dh else Algorithm.ECDSA_SHA256
        if (certificate.usage, certificate.algorithm) != (usage, algorithm):
            raise fail(Status.INVALID_CERTIFICATE)
        if _crypto.p384_point(certificate.public_key) is None:
            raise fail(Status.INVALID_CERTIFICATE)
        if certificate.unsigned and certificate.reserved:  # [MEM] a GODH has no signature
            raise fail(Status.INVALID_CERTIFICATE)
        return certificate

    # a guest's launch

    def launch_start(
        self,
        policy: int,
        godh: bytes | None = None,
        session: bytes | None = None,
        *,
        share_with: int = 0,
    ) -> int:
        """LAUNCH_START: open the session and begin a guest. Returns its handle.

        ``godh`` (2084 bytes) and ``session`` (128 bytes) are None for a guest that will not be
        attested. ``share_with`` is the handle of a guest whose memory key is shared.
        """
        with self._command("LAUNCH_START", PlatformState.INIT, PlatformState.WORKING) as fail:
            if policy >> 32:
                raise ValueError("a policy has 32 bits")
            # [MEM] Reserved bits are ignored.
            if (policy >> 16 & 0xFF, policy >> 24) > self.api:
                raise fail(Status.POLICY_FAILURE)
            if share_with:
                other = self._guests.get(share_with)
                if other is None:
                    raise fail(Status.INVALID_GUEST)
                if other.policy != policy or policy & _NOKS:
                    raise fail(Status.POLICY_FAILURE)
            tek, tik = self._random(16), self._random(16)
            if godh is not None:
                tek, tik = self._open_session(policy, godh, session or b"", fail)
            return self.add_guest(GuestContext(policy=policy, tek=tek, tik=tik))

    def _open_session(
        self, policy: int, godh: bytes, session: bytes, fail: "_Fail"
    ) -> tuple[bytes, bytes]:
        if len(session) != SESSION_BLOB_SIZE:
            raise fail(Status.INVALID_LEN)
        nonce, wrap_tk, wrap_iv = session[:16], session[16:48], session[48:64]
        wrap_mac, policy_mac = session[64:96], session[96:]
        key = self._parse(godh, Usage.PDH, fail).public_key
        owner = ec.EllipticCurvePublicNumbers(key.x, key.y, _CURVE).public_key()
        shared = self._keys[Usage.PDH].exchange(ec.ECDH(), owner)
        master = _derive(shared, b"sev-master-secret\0" + nonce)
        if _hmac(_derive(master, b"sev-kik\0"), wrap_tk) != wrap_mac:
            raise fail(Status.BAD_MEASUREMENT)
        tk = _aes_ctr(_derive(master, b"sev-kek\0"), wrap_iv, wrap_tk)
        tek, tik = tk[:16], tk[16:]
        if _hmac(tik, policy.to_bytes(4, "little")) != policy_mac:
            raise fail(Status.BAD_MEASUREMENT)
        return tek, tik

    def launch_update_data(self, handle: int, data: bytes) -> None:
        """LAUNCH_UPDATE_DATA: encrypt and measure ``data``, a multiple of 16 bytes."""
        with self._guest_command("LAUNCH_UPDATE_DATA", handle, GuestState.LUPDATE) as (guest, fail):
            if not data or len(data) % _BLOCK_SIZE:
                raise fail(Status.INVALID_LEN)  # [MEM]
            guest.measured.update(data)

    def launch_update_vmsa(self, handle: int, page: bytes) -> None:
        """LAUNCH_UPDATE_VMSA: encrypt and measure one vCPU's page, 4096 bytes; for SEV-ES only."""
        with self._guest_command("LAUNCH_UPDATE_VMSA", handle, GuestState.LUPDATE) as (guest, fail):
            if not guest.policy & _ES:
                raise fail(Status.POLICY_FAILURE)  # [MEM]
            if len(page) != _PAGE_SIZE:
                raise fail(Status.INVALID_LEN)
            guest.measured.update(page)

    def launch_measure(self, handle: int) -> bytes:
        """LAUNCH_MEASURE: return MEASURE (32 bytes) and MNONCE (16 bytes)."""
        with self._guest_command("LAUNCH_MEASURE", handle, GuestState.LUPDATE) as (guest, _):
            nonce = self._random(_NONCE_SIZE)
            numbers = bytes((4, *self.api, self.build)) + guest.policy.to_bytes(4, "little")
            guest.digest = guest.measured.digest()
            guest.measure = _hmac(guest.tik, numbers + guest.digest + nonce)
            guest.state = GuestState.LSECRET
            return guest.measure + nonce

    def launch_secret(self, handle: int, header: bytes, payload: bytes) -> bytes:
        """LAUNCH_SECRET: check a packet and decrypt it into the guest. Returns the plaintext."""
        with self._guest_command("LAUNCH_SECRET", handle, GuestState.LSECRET) as (guest, fail):
            if len(header) != _SECRET_HEADER_SIZE or not payload or len(payload) % _BLOCK_SIZE:
                raise fail(Status.INVALID_LEN)  # [MEM]
            flags, iv, mac = header[:4], header[4:20], header[20:]
            length = len(payload).to_bytes(4, "little")
            message = b"\1" + flags + iv + length + length + payload
            if self.api >= (0, 17):
                message += guest.measure
            if _hmac(guest.tik, message) != mac:
                raise fail(Status.BAD_MEASUREMENT)
            if any(flags):
                raise fail(Status.UNSUPPORTED)  # [MEM] compression is not modelled
            return _aes_ctr(guest.tek, iv, payload)

    def launch_finish(self, handle: int) -> None:
        """LAUNCH_FINISH: let the guest run, and forget its transport keys."""
        with self._guest_command("LAUNCH_FINISH", handle, GuestState.LSECRET) as (guest, _):
            guest.state = GuestState.RUNNING
            # [MEM] The digest stays, for ATTESTATION.
            guest.tek = guest.tik = b""

    def attestation(self, handle: int, mnonce: bytes) -> bytes:
        """ATTESTATION: return a report (208 bytes) with the launch digest, signed by the PEK."""
        # [MEM] The states in which it is allowed.
        states = (GuestState.LSECRET, GuestState.RUNNING)
        with self._guest_command("ATTESTATION", handle, *states) as (guest, fail):
            if len(mnonce) != _NONCE_SIZE:
                raise fail(Status.INVALID_PARAM)  # [MEM]
            body = mnonce + guest.digest + guest.policy.to_bytes(4, "little")
            signature = self.sign(Usage.PEK, body)
            codes = (signature.usage.value, signature.algorithm.value, 0)
            tail = b"".join(code.to_bytes(4, "little") for code in codes)
            return body + tail + signature.value[:144]

    def guest_status(self, handle: int) -> GuestStatus:
        """GUEST_STATUS: allowed in any state."""
        with self._guest_command("GUEST_STATUS", handle, *GuestState) as (guest, _):
            return GuestStatus(handle=handle, policy=guest.policy, state=guest.state)

    def decommission(self, handle: int) -> None:
        """DECOMMISSION: forget a guest. After the last one, the platform is in state INIT again."""
        with self._guest_command("DECOMMISSION", handle, *GuestState):
            del self._guests[handle]
            if not self._guests:
                self.state = PlatformState.INIT

    # what no command does

    def guest_context(self, handle: int) -> GuestContext:
        """Return what is kept of a guest, with its keys. For simulations: no command does this."""
        return self._guests[handle]

    def add_guest(self, context: GuestContext) -> int:
        """Take in a guest, possibly of an earlier process. Returns its handle."""
        self._handles += 1
        self._guests[self._handles] = context
        self.state = PlatformState.WORKING
        return self._handles

    # what every command does

    @contextmanager
    def _command(self, name: str, *states: PlatformState) -> Iterator["_Fail"]:
        """Begin a command that these states allow; yields what makes its errors."""
        fail = _Fail(name)
        if self.state not in states:
            raise fail(Status.INVALID_PLATFORM_STATE)
        yield fail

    @contextmanager
    def _guest_command(
        self, name: str, handle: int, *states: GuestState
    ) -> Iterator[tuple[GuestContext, "_Fail"]]:
        with self._command(name, PlatformState.INIT, PlatformState.WORKING) as fail:
            guest = self._guests.get(handle)
            if guest is None:
                raise fail(Status.INVALID_GUEST)
            if guest.state not in states:
                raise fail(Status.INVALID_GUEST_STATE)
            yield guest, fail

    def _random(self, size: int) -> bytes:
        """Return ``size`` bytes that depend only on the seed and the number of draws before."""
        self._drawn += 1
        return hashlib.shake_256(self._seed + self._drawn.to_bytes(8, "little")).digest(size)

    def _new_key(self) -> ec.EllipticCurvePrivateKey:
        number = int.from_bytes(self._random(64), "big") % (_ORDER - 1) + 1
        return ec.derive_private_key(number, _CURVE)


class _Fail:
    """Makes the errors of one command."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __call__(self, status: Status) -> FirmwareError:
        return FirmwareError(status, self._command)


def _signature_of(signer: Certificate, certificate: Certificate) -> Signature | None:
    """Return the valid signature by an OCA on a certificate, None if there is none."""
    public = _crypto.p384_point(signer.public_key)
    for slot in certificate.signatures:
        numbers = slot.ecdsa_numbers()
        right = slot.usage is Usage.OCA and slot.algorithm is Algorithm.ECDSA_SHA256
        if not right or public is None:
            continue
        if _crypto.ecdsa_sha256_holds(public, numbers, certificate.body):
            return slot
    return None


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def _derive(key: bytes, info: bytes) -> bytes:
    return _hmac(key, b"\1\0\0\0" + info + b"\x80\0\0\0")[:16]


def _aes_ctr(key: bytes, iv: bytes, data: bytes) -> bytes:
    cipher = Cipher(algorithms.AES128(key), modes.CTR(iv)).decryptor()
    return cipher.update(data) + cipher.finalize()
