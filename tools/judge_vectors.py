"""Judge the test vectors with a second implementation, which imports nothing of ``sev_attest``.

    python tools/judge_vectors.py       exit 1 if a verdict in the vectors is wrong

It is written for plainness: whole structures by fixed offsets, RSA-PSS by its definition.
"""

import base64
import hashlib
import hmac
import json
import struct
import sys
from collections.abc import Callable
from typing import Any
from uuid import UUID

import jsonschema
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

import judge_snp
import judge_snp_digest
from judge_parts import FOLDER, Case, cpu_signature, footer_entry, hash_table, little, vcpu_page

OCA, PEK, PDH, CEK, ASK, NOBODY = 0x1001, 0x1002, 0x1003, 0x1004, 0x13, 0x1000
ROLES = {"pdh": PDH, "pek": PEK, "oca": OCA, "cek": CEK}

# chains


def ec_key(certificate: bytes) -> ec.EllipticCurvePublicKey | None:
    """Load the key of an SEV certificate, if it is a point on P-384."""
    x, y = little(certificate[20:92]), little(certificate[92:164])
    try:
        return ec.EllipticCurvePublicNumbers(x, y, ec.SECP384R1()).public_key()
    except ValueError:
        return None


def slots(certificate: bytes) -> dict[int, tuple[int, bytes]]:
    """Read the signatures: algorithm and value by the usage of the signer."""
    found = {}
    for at in (0x414, 0x61C):
        usage, algorithm = struct.unpack_from("<II", certificate, at)
        value = certificate[at + 8 : at + 520]
        if usage != NOBODY and any(value):
            found[usage] = algorithm, value
    return found


def ec_signed(certificate: bytes, signer: bytes, usage: int) -> bool:
    """Return whether the signer's ECDSA signature over the certificate holds."""
    algorithm, value = slots(certificate).get(usage, (0, b""))
    key = ec_key(signer)
    if algorithm != 2 or key is None or any(value[144:]):
        return False
    signature = encode_dss_signature(little(value[:72]), little(value[72:144]))
    try:
        key.verify(signature, certificate[:0x414], ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def rsa_signed(signer: bytes, signature: bytes, message: bytes) -> bool:
    """Verify RSA-PSS (RFC 8017, 9.1.2) under the key of an ASK or ARK; little-endian signature."""
    size = struct.unpack_from("<I", signer, 0x3C)[0] // 8
    exponent, modulus = little(signer[64 : 64 + size]), little(signer[64 + size : 64 + 2 * size])
    name = "sha256" if size == 256 else "sha384"
    block = pow(little(signature), exponent, modulus).to_bytes(size, "big")
    length = hashlib.new(name).digest_size
    masked, mac, trailer = block[: -length - 1], block[-length - 1 : -1], block[-1]
    mask = b""
    for counter in range(len(masked) // length + 1):
        mask += hashlib.new(name, mac + struct.pack(">I", counter)).digest()
    clear = bytearray(a ^ b for a, b in zip(masked, mask, strict=False))
    clear[0] &= 0x7F
    padding, salt = bytes(clear[:-length]), bytes(clear[-length:])
    digest = hashlib.new(name, message).digest()
    expected = hashlib.new(name, bytes(8) + digest + salt).digest()
    return trailer == 0xBC and padding == bytes(len(padding) - 1) + b"\1" and mac == expected


def split(data: bytes) -> dict[str, bytes]:
    """Take a chain apart: four certificates of 2084 bytes, an ASK, an ARK."""
    parts = {name: data[at * 2084 : (at + 1) * 2084] for at, name in enumerate(ROLES)}
    ca = data[4 * 2084 :]
    size = struct.unpack_from("<I", ca, 0x3C)[0] // 8
    return parts | {"ask": ca[: 64 + 3 * size], "ark": ca[64 + 3 * size :]}


def chain_failures(case: Case) -> set[str]:
    """Check a chain; no chain of the vectors is AMD's, so that AMD's root admits none."""
    chain = split((FOLDER / case["chain"]).read_bytes())
    failed = set()
    for name, role in ROLES.items():
        _, usage, algorithm, curve = struct.unpack_from("<QIII", chain[name])
        on_p384 = curve == 2
        found = {
            "role": usage == role,
            "algorithm": algorithm == (3 if role == PDH else 2),
            "curve": on_p384,
            "point": not on_p384 or ec_key(chain[name]) is not None,
        }
        failed |= {f"chain.{name}.{check}" for check, good in found.items() if not good}
    for name, signer, usage in (
        ("pdh", "pek", PEK),
        ("pek", "oca", OCA),
        ("pek", "cek", CEK),
        ("oca", "oca", OCA),
    ):
        how = "self-signed" if name == signer else f"signed-by-{signer}"
        if not ec_signed(chain[name], chain[signer], usage):
            failed.add(f"chain.{name}.{how}")
    return failed | ca_failures(chain, case["trusted_ark"])


def ca_failures(chain: dict[str, bytes], trusted: str | None) -> set[str]:
    """Check the part of a chain that is an AMD-shaped authority's."""
    failed = set()
    cek, ask, ark = chain["cek"], chain["ask"], chain["ark"]
    size = struct.unpack_from("<I", ark, 0x3C)[0] // 8
    signed = 64 + 2 * size
    signatures = slots(cek)
    if not signatures:
        failed.add("chain.cek.unsigned")
    else:
        algorithm, value = signatures.get(ASK, (0, b""))
        right = algorithm == (0x1 if size == 256 else 0x101) and not any(value[size:])
        if not (right and rsa_signed(ask, value[:size], cek[:0x414])):
            failed.add("chain.cek.signed-by-ask")
    if not rsa_signed(ark, ask[signed:], ask[:signed]):
        failed.add("chain.ask.signed-by-ark")
    root = (FOLDER / trusted).read_bytes() if trusted else b""
    if root[0x38:signed] != ark[0x38:signed]:
        failed.add("chain.ark.trusted")
    unsigned = len(ark) == signed
    if not (ark == root[:signed] if unsigned else rsa_signed(ark, ark[signed:], ark[:signed])):
        failed.add("chain.ark.self-signed")
    return failed


# sessions


def mac(key: bytes, *parts: bytes) -> bytes:
    """HMAC-SHA256."""
    return hmac.new(key, b"".join(parts), "sha256").digest()


def derive(key: bytes, label: bytes, context: bytes = b"") -> bytes:
    """Derive a 128-bit key as AMD's firmware does."""
    return mac(key, struct.pack("<I", 1), label, b"\0", context, struct.pack("<I", 128))[:16]


def opens(case: Case) -> bool:
    """Open a session blob as the firmware does, and compare the keys."""
    raw = {key: base64.b64decode(case[key]) for key in ("session", "shared_secret", "tek", "tik")}
    nonce, wrapped, iv, wrap_mac, policy_mac = struct.unpack("<16s32s16s32s32s", raw["session"])
    master = derive(raw["shared_secret"], b"sev-master-secret", nonce)
    kek, kik = derive(master, b"sev-kek"), derive(master, b"sev-kik")
    decryptor = Cipher(algorithms.AES(kek), modes.CTR(iv)).decryptor()
    keys = decryptor.update(wrapped)
    policy = struct.pack("<I", case["policy"])
    return (
        keys == raw["tek"] + raw["tik"]
        and wrap_mac == mac(kik, wrapped)
        and policy_mac == mac(raw["tik"], policy)
    )


# measurements


def measurement_failure(case: Case) -> str | None:
    """Judge one launch; give the check that refuses it."""
    reported, meant = case["reported"], case["meant"]
    if reported["policy"] != meant["policy"]:
        return "launch.policy"
    data = (FOLDER / meant["firmware"]).read_bytes()
    reset = little(footer_entry(data, "00f771de-1a7e-4fcb-890e-68c77e2fb44e"))
    if "kernel" in meant:
        if not any(footer_entry(data, "7255371f-3a3b-4b04-927b-1da6efa8d454")):
            return "firmware.hash-table"
        parts = (base64.b64decode(meant.get(key, "")) for key in ("kernel", "initrd", "cmdline"))
        data += hash_table(*parts)
    if meant["policy"] & 4:
        signature = cpu_signature(meant["cpu"])
        data += vcpu_page(signature, 0xFFFFFFF0)
        data += vcpu_page(signature, reset) * (meant["vcpus"] - 1)
    measurement = base64.b64decode(reported["measurement"])
    numbers = (4, reported["api_major"], reported["api_minor"], reported["build_id"])
    message = struct.pack("<BBBBI", *numbers, meant["policy"]) + hashlib.sha256(data).digest()
    expected = mac(base64.b64decode(meant["tik"]), message, measurement[32:])
    return None if expected == measurement[:32] else "launch.measurement"


# whole launches


def launch_problem(case: Case) -> str | None:  # noqa: PLR0911 - one for each step
    """Follow a launch as the platform does; give what does not hold."""
    failed = chain_failures(case)
    if failed:
        return f"{sorted(failed)} fail"
    godh = (FOLDER / case["godh"]).read_bytes()
    owner = ec_key(godh)
    pdh = ec_key((FOLDER / case["chain"]).read_bytes()[:2084])
    private = ec.derive_private_key(int(case["pdh_private_key"], 16), ec.SECP384R1())
    if pdh is None or private.public_key().public_numbers() != pdh.public_numbers():
        return "the private key is not the PDH's"
    if len(godh) != 2084 or owner is None:
        return "the GODH holds no key"
    shared = base64.b64encode(private.exchange(ec.ECDH(), owner)).decode()
    meant, reported = case["meant"], case["reported"]
    session = {"shared_secret": shared, "tik": meant["tik"], "policy": meant["policy"]}
    if not opens(case | session):
        return "the session does not open"
    if measurement_failure(case) is not None:
        return "the measurement does not match"
    raw = {k: base64.b64decode(case[k]) for k in ("tek", "secret_header", "secret_payload")}
    flags, iv, given_mac = struct.unpack("<4s16s32s", raw["secret_header"])
    size = struct.pack("<I", len(raw["secret_payload"]))
    message = [b"\1", flags, iv, size, size, raw["secret_payload"]]
    if (reported["api_major"], reported["api_minor"]) >= (0, 17):
        message.append(base64.b64decode(reported["measurement"])[:32])
    if mac(base64.b64decode(meant["tik"]), *message) != given_mac:
        return "the secret's MAC does not hold"
    decryptor = Cipher(algorithms.AES(raw["tek"]), modes.CTR(iv)).decryptor()
    body = b"".join(
        UUID(guid).bytes_le + struct.pack("<I", 20 + len(data)) + data
        for guid, data in ((g, base64.b64decode(d)) for g, d in case["secrets"].items())
    )
    table = UUID("1e74f542-71dd-4d66-963e-ef4287ff173b").bytes_le
    table += struct.pack("<I", 20 + len(body)) + body
    if decryptor.update(raw["secret_payload"]) != table.ljust(-(-len(table) // 16) * 16, b"\0"):
        return "the secrets are others"
    return None


# verdicts


def chain_problems(case: Case) -> list[str]:
    """Compare the checks that fail."""
    failed = chain_failures(case)
    right = failed == {*case["failed_checks"]} and case["valid"] is not bool(failed)
    return [] if right else [f"{sorted(failed)} fail"]


def measurement_problems(case: Case) -> list[str]:
    """Compare the check that refuses a launch."""
    refused = measurement_failure(case)
    right = refused == case["failed_check"] and case["valid"] is not bool(refused)
    return [] if right else [f"{refused} fails"]


JUDGES: dict[str, Callable[[Case], list[str]]] = {
    "chain": chain_problems,
    "session": lambda case: [] if opens(case) else ["does not open"],
    "measurement": measurement_problems,
    "launch": lambda case: [found] if (found := launch_problem(case)) else [],
    **judge_snp.JUDGES,
    "snp-digest": judge_snp_digest.problems,
}
"""What lists the problems of a case, by the name of its file."""


def load(name: str) -> dict[str, Any]:
    """Read a document of the vectors, held to its schema."""
    document: dict[str, Any] = json.loads((FOLDER / name).read_bytes())
    jsonschema.validate(document, json.loads((FOLDER / document["schema"]).read_bytes()))
    return document


def problems() -> list[str]:
    """List what is wrong with the vectors."""
    listed = load("manifest.json")["sha256"]
    found = [
        f"{name}: not the file that the manifest names"
        for name, digest in listed.items()
        if hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() != digest
    ]
    unjudged = {name for name in listed if "/" not in name} - {f"{kind}.json" for kind in JUDGES}
    found += [f"{name}: nothing judges it" for name in sorted(unjudged)]
    for kind, judge in JUDGES.items():
        cases = load(f"{kind}.json")["cases"]
        found += [f"{kind} {case['id']}: {words}" for case in cases for words in judge(case)]
        ids = [case["id"] for case in cases]
        found += [f"{kind} {i}: there twice" for i in sorted(set(ids)) if ids.count(i) > 1]
    return found


def main() -> int:
    """Print the problems."""
    found = problems()
    for problem in found:
        print(problem, file=sys.stderr)
    if not found:
        print("every verdict of the vectors holds in the second implementation too")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
