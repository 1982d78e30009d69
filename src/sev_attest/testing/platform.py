"""The SEV firmware of one platform: its keys, its commands, its guests.

Source: AMD 55766. Every command checks what the firmware checks and fails with its status code.
Codes marked [MEM] in the code could not be confirmed from a public source.
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

from sev_attest.chain.certificate import Certificate, EccPublicKey, Signature
from sev_attest.chain.files import Chain
from sev_attest.errors import MalformedInput
from sev_attest.spec import Algorithm, Curve, GuestState, PlatformState, Status, Usage
from sev_attest.testing.authority import Authority

_CURVE = ec.SECP384R1()
_ORDER = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    16,
)
_NODBG, _NOKS, _ES = 1, 2, 4


class FirmwareError(Exception):
    """A command failed; ``status`` is the firmware's code."""

    def __init__(self, status: Status, command: str) -> None:
        """Keep the code and the command."""
        super().__init__(f"{command}: {status.value} {status.name}")
        self.status = status


@dataclass(slots=True)
class _GuestContext:
    policy: int
    tek: bytes
    tik: bytes
    state: GuestState = GuestState.LUPDATE
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    measure: bytes = b""
    secrets: list[bytes] = field(default_factory=list)


class Platform:
    """One simulated platform: the same ``seed`` gives the same keys, nonces and signatures."""

    def __init__(
        self,
        seed: bytes,
        *,
        authority: Authority | None = None,
        api: tuple[int, int] = (1, 55),
        build: int = 24,
    ) -> None:
        """Make a platform whose CEK ``authority`` signs (default: a 4096-bit one)."""
        self._seed = seed
        self._drawn = 0
        self.authority = authority or Authority()
        self.api = api
        self.build = build
        self.state = PlatformState.INIT
        self._guests: dict[int, _GuestContext] = {}
        self._keys = {usage: self._new_key() for usage in (Usage.CEK, Usage.OCA)}
        self.platform_id = self._random(64)
        self.pek_gen()

    # keys and certificates

    def pek_gen(self) -> None:
        """PEK_GEN: a new PEK signed by a self-owned OCA and the CEK, and a new PDH."""
        with self._command("PEK_GEN", platform=(PlatformState.INIT,)):
            self._keys[Usage.PEK] = self._new_key()
        self.pdh_gen()

    def pdh_gen(self) -> None:
        """PDH_GEN: a new PDH, signed by the PEK."""
        self._keys[Usage.PDH] = self._new_key()

    @property
    def cek(self) -> Certificate:
        """The CEK as the firmware exports it: without AMD's signature."""
        return self._certificate(Usage.CEK)

    def export(self, *, signed_cek: bool = True) -> Chain:
        """PDH_CERT_EXPORT; with the CEK that the authority signed, as ``sevctl export`` adds it."""
        return Chain(
            pdh=self._certificate(Usage.PDH, Usage.PEK),
            pek=self._certificate(Usage.PEK, Usage.OCA, Usage.CEK),
            oca=self._certificate(Usage.OCA, Usage.OCA),
            cek=self.authority.sign_cek(self.cek) if signed_cek else self.cek,
            platform_id=self.platform_id,
        )

    def _certificate(self, usage: Usage, *signers: Usage) -> Certificate:
        numbers = self._keys[usage].public_key().public_numbers()
        unsigned = Certificate.build(
            usage=usage,
            algorithm=Algorithm.ECDH_SHA256 if usage is Usage.PDH else Algorithm.ECDSA_SHA256,
            public_key=EccPublicKey(curve=Curve.P384, x=numbers.x, y=numbers.y),
            api=self.api,
        )
        slots = [self._sign(signer, unsigned.body) for signer in signers]
        first, second, *_ = (*slots, Signature(), Signature())
        return replace(unsigned, signatures=(first, second))

    def _sign(self, signer: Usage, message: bytes) -> Signature:
        scheme = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
        r, s = decode_dss_signature(self._keys[signer].sign(message, scheme))
        return Signature.ecdsa(signer, Algorithm.ECDSA_SHA256, r, s)

    # a guest's launch

    def launch_start(
        self, policy: int, godh: bytes | None = None, session: bytes | None = None
    ) -> int:
        """LAUNCH_START: open the session and begin a guest; returns its handle.

        ``godh`` (2084 bytes) and ``session`` (128 bytes) as the host passes them; None for a guest
        that nobody will attest.
        """
        with self._command("LAUNCH_START") as fail:
            if (policy >> 16 & 0xFF, policy >> 24) > self.api:
                raise fail(Status.POLICY_FAILURE)
            tek, tik = self._random(16), self._random(16)
            if godh is not None:
                tek, tik = self._open_session(policy, godh, session or b"", fail)
            handle = len(self._guests) + 1
            self._guests[handle] = _GuestContext(policy=policy, tek=tek, tik=tik)
            self.state = PlatformState.WORKING
            return handle

    def _open_session(
        self, policy: int, godh: bytes, session: bytes, fail: "_Fail"
    ) -> tuple[bytes, bytes]:
        if len(session) != 128:  # noqa: PLR2004 - the session buffer
            raise fail(Status.INVALID_LEN)
        nonce, wrap_tk, wrap_iv = session[:16], session[16:48], session[48:64]
        wrap_mac, policy_mac = session[64:96], session[96:]
        shared = self._keys[Usage.PDH].exchange(ec.ECDH(), self._owner_key(godh, fail))
        master = _derive(shared, b"sev-master-secret\0" + nonce)
        if _hmac(_derive(master, b"sev-kik\0"), wrap_tk) != wrap_mac:
            raise fail(Status.BAD_MEASUREMENT)
        tk = _aes_ctr(_derive(master, b"sev-kek\0"), wrap_iv, wrap_tk)
        tek, tik = tk[:16], tk[16:]
        if _hmac(tik, policy.to_bytes(4, "little")) != policy_mac:
            raise fail(Status.BAD_MEASUREMENT)
        return tek, tik

    def _owner_key(self, godh: bytes, fail: "_Fail") -> ec.EllipticCurvePublicKey:
        # [MEM] that every malformed certificate is INVALID_CERTIFICATE
        try:
            certificate = Certificate.from_bytes(godh)
            key = certificate.public_key
            public = ec.EllipticCurvePublicNumbers(key.x, key.y, _CURVE).public_key()
        except (MalformedInput, ValueError):
            raise fail(Status.INVALID_CERTIFICATE) from None
        if certificate.usage is not Usage.PDH or key.curve is not Curve.P384:
            raise fail(Status.INVALID_CERTIFICATE)
        return public

    def launch_update_data(self, handle: int, data: bytes) -> None:
        """LAUNCH_UPDATE_DATA: encrypt and measure; a multiple of 16 bytes."""
        with self._command("LAUNCH_UPDATE_DATA", handle, GuestState.LUPDATE) as fail:
            if len(data) % 16:
                raise fail(Status.INVALID_LEN)  # [MEM]
            self._guests[handle].digest.update(data)

    def launch_update_vmsa(self, handle: int, page: bytes) -> None:
        """LAUNCH_UPDATE_VMSA: encrypt and measure one vCPU's page of an SEV-ES guest."""
        with self._command("LAUNCH_UPDATE_VMSA", handle, GuestState.LUPDATE) as fail:
            guest = self._guests[handle]
            if not guest.policy & _ES:
                raise fail(Status.POLICY_FAILURE)  # [MEM]
            if len(page) != 4096:  # noqa: PLR2004 - a page
                raise fail(Status.INVALID_LEN)
            guest.digest.update(page)

    def launch_measure(self, handle: int) -> bytes:
        """LAUNCH_MEASURE: 48 bytes, MEASURE and MNONCE."""
        with self._command("LAUNCH_MEASURE", handle, GuestState.LUPDATE):
            guest = self._guests[handle]
            nonce = self._random(16)
            numbers = bytes((4, *self.api, self.build)) + guest.policy.to_bytes(4, "little")
            measure = _hmac(guest.tik, numbers + guest.digest.digest() + nonce)
            guest.measure = measure
            guest.state = GuestState.LSECRET
            return measure + nonce

    def launch_secret(self, handle: int, header: bytes, payload: bytes) -> bytes:
        """LAUNCH_SECRET: check the packet, and decrypt it into the guest; returns the plaintext."""
        with self._command("LAUNCH_SECRET", handle, GuestState.LSECRET) as fail:
            guest = self._guests[handle]
            if len(header) != 52 or not payload or len(payload) % 16:  # noqa: PLR2004
                raise fail(Status.INVALID_LEN)  # [MEM]
            flags, iv, mac = header[:4], header[4:20], header[20:]
            length = len(payload).to_bytes(4, "little")
            message = b"\1" + flags + iv + length + length + payload
            if self.api >= (0, 17):
                message += guest.measure
            if _hmac(guest.tik, message) != mac:
                raise fail(Status.BAD_MEASUREMENT)
            plaintext = _aes_ctr(guest.tek, iv, payload)
            guest.secrets.append(plaintext)
            return plaintext

    def launch_finish(self, handle: int) -> None:
        """LAUNCH_FINISH: let the guest run, forget its transport keys."""
        with self._command("LAUNCH_FINISH", handle, GuestState.LSECRET):
            self._guests[handle].state = GuestState.RUNNING
            self._guests[handle].tek = self._guests[handle].tik = b""

    @contextmanager
    def _command(
        self,
        name: str,
        handle: int | None = None,
        *states: GuestState,
        platform: tuple[PlatformState, ...] = (PlatformState.INIT, PlatformState.WORKING),
    ) -> Iterator["_Fail"]:
        fail = _Fail(name)
        if self.state not in platform:
            raise fail(Status.INVALID_PLATFORM_STATE)
        if handle is not None:
            guest = self._guests.get(handle)
            if guest is None:
                raise fail(Status.INVALID_GUEST)
            if guest.state not in states:
                raise fail(Status.INVALID_GUEST_STATE)
        yield fail

    def _random(self, size: int) -> bytes:
        """Draw bytes that only the seed and the number of draws decide."""
        self._drawn += 1
        return hashlib.shake_256(self._seed + self._drawn.to_bytes(8, "little")).digest(size)

    def _new_key(self) -> ec.EllipticCurvePrivateKey:
        number = int.from_bytes(self._random(64), "big") % (_ORDER - 1) + 1
        return ec.derive_private_key(number, _CURVE)


class _Fail:
    """Makes the error of one command."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __call__(self, status: Status) -> FirmwareError:
        return FirmwareError(status, self._command)


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def _derive(key: bytes, info: bytes) -> bytes:
    return _hmac(key, b"\1\0\0\0" + info + b"\x80\0\0\0")[:16]


def _aes_ctr(key: bytes, iv: bytes, data: bytes) -> bytes:
    cipher = Cipher(algorithms.AES128(key), modes.CTR(iv)).decryptor()
    return cipher.update(data) + cipher.finalize()
