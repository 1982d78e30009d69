"""Make the test vectors in ``vectors/`` from fixed keys: byte for byte the same on every run.

    python tools/make_vectors.py            write them
    python tools/make_vectors.py --check    exit 1 if they are not what this would write

A case is one function: its id is the function's name, its description the docstring. The simulated
platform makes the launches; ``judge_vectors.py`` judges them without any of this project's code.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

import make_snp_vectors
from sev_attest import _crypto, sev
from sev_attest._keys import Algorithm, Curve
from sev_attest.guest import CpuModel
from sev_attest.sev import secret
from sev_attest.sev.session import session_blob
from sev_attest.sev.spec import Usage
from sev_attest.testing import Authority, Guest, Platform, launch_guest, ovmf_image
from vector_files import BLOBS, FOLDER, MADE_BY, Case, b64, blob

# chain

NAPLES, MILAN = Authority(2048), Authority(4096)
SHAPES = {"naples": NAPLES, "milan": MILAN}
Links = dict[str, Any]


def links(authority: Authority, seed: bytes = b"vectors") -> Links:
    """Return a platform's certificates by name."""
    chain = Platform(seed, authority=authority).export()
    found = {name: getattr(chain, name) for name in ("pdh", "pek", "oca", "cek")}
    return found | {"ask": authority.ask, "ark": authority.ark}


def chain_case(
    make: Callable[[Authority], Links], shape: str, failed: Iterable[str], *, trusted: bool = True
) -> Case:
    """Lay out one chain: the six certificates one after the other, and the root to trust."""
    authority = SHAPES[shape]
    data = b"".join(certificate.to_bytes() for certificate in make(authority).values())
    return {
        "id": f"{make.__name__}-{shape}".replace("_", "-"),
        "description": (make.__doc__ or "").strip(),
        "source": MADE_BY,
        "chain": blob(data),
        "trusted_ark": blob(authority.ark.to_bytes()) if trusted else None,
        "valid": not list(failed),
        "failed_checks": sorted(failed),
    }


def honest(authority: Authority) -> Links:
    """An honest chain, under a root that is trusted on purpose."""
    return links(authority)


def untrusted_root(authority: Authority) -> Links:
    """The same under no root but AMD's."""
    return links(authority)


def ark_without_signature(authority: Authority) -> Links:
    """A root that carries no signature, as AMD publishes the Naples one, known to the byte."""
    return links(authority) | {"ark": replace(authority.ark, signature=b"")}


def cek_without_signature(authority: Authority) -> Links:
    """A CEK as the firmware exports it, which AMD's key server would sign."""
    return links(authority) | {
        "cek": Platform(b"vectors", authority=authority).export(signed_cek=False).cek
    }


def changed_body(name: str) -> Callable[[Authority], Links]:
    """Change one bit of a certificate's signed bytes: its API minor version or key id."""

    def make(authority: Authority) -> Links:
        found = links(authority)
        data = bytearray(found[name].to_bytes())
        data[5] ^= 1
        return found | {name: type(found[name]).from_bytes(bytes(data))}

    make.__name__ = f"changed_{name}"
    make.__doc__ = f"One bit of the {name.upper()}'s signed bytes is changed."
    return make


def foreign(name: str) -> Callable[[Authority], Links]:
    """Put another platform's certificate into a chain."""

    def make(authority: Authority) -> Links:
        return links(authority) | {name: links(authority, b"another")[name]}

    make.__name__ = f"foreign_{name}"
    make.__doc__ = f"The {name.upper()} is another platform's."
    return make


def pek_without_oca(authority: Authority) -> Links:
    """The OCA has not signed the PEK."""
    found = links(authority)
    empty = found["pdh"].signatures[1]
    cek = found["pek"].signature_by(Usage.CEK)
    return found | {"pek": replace(found["pek"], signatures=(cek, empty))}


def pek_without_cek(authority: Authority) -> Links:
    """The CEK has not signed the PEK."""
    found = links(authority)
    empty = found["pdh"].signatures[1]
    oca = found["pek"].signature_by(Usage.OCA)
    return found | {"pek": replace(found["pek"], signatures=(oca, empty))}


def resigned_pdh(authority: Authority, **changes: Any) -> Links:
    """Make another PDH, properly signed by the PEK."""
    platform = Platform(b"vectors", authority=authority)
    pdh = platform.export().pdh
    fields: Links = {"usage": pdh.usage, "algorithm": pdh.algorithm, "public_key": pdh.public_key}
    made = sev.Certificate.build(**(fields | changes))
    signature = platform.sign(Usage.PEK, made.body)
    return links(authority) | {"pdh": replace(made, signatures=(signature, pdh.signatures[1]))}


def pdh_off_curve(authority: Authority) -> Links:
    """The PDH's key is no point on P-384, though the PEK signed it."""
    key = links(authority)["pdh"].public_key
    return resigned_pdh(authority, public_key=replace(key, y=key.y ^ 1))


def pdh_on_p256(authority: Authority) -> Links:
    """The PDH's key claims another curve, though the PEK signed it."""
    key = links(authority)["pdh"].public_key
    return resigned_pdh(authority, public_key=replace(key, curve=Curve.P256))


def pdh_for_signing(authority: Authority) -> Links:
    """The PDH's key is for ECDSA, though the PEK signed it."""
    return resigned_pdh(authority, algorithm=Algorithm.ECDSA_SHA256)


def signature_of_zeros(authority: Authority) -> Links:
    """The PDH's signature has R = 0 and S = 1."""
    pdh = links(authority)["pdh"]
    zero = type(pdh.signatures[0]).ecdsa(Usage.PEK, 0, 1)
    return links(authority) | {"pdh": replace(pdh, signatures=(zero, pdh.signatures[1]))}


def forged(generation: sev.Generation) -> Callable[[Authority], Links]:
    """Forge a whole chain with AMD's key ids."""
    root = next(root for root in sev.amd_roots() if root.generation is generation)
    ask_id = root.ask.key_id if root.ask else b""

    def make(authority: Authority) -> Links:
        return links(Authority(authority.ark.public_key.bits, key_ids=(root.ark.key_id, ask_id)))

    make.__name__ = f"forged_{generation}"
    make.__doc__ = (
        f"A whole chain of the attacker's own, with the key ids of AMD's {generation} root."
    )
    return make


def chain_cases() -> list[Case]:
    """List the chains."""
    cases = []
    for shape in SHAPES:
        cases += [
            chain_case(honest, shape, []),
            chain_case(untrusted_root, shape, ["chain.ark.trusted"], trusted=False),
            chain_case(ark_without_signature, shape, []),
            chain_case(cek_without_signature, shape, ["chain.cek.unsigned"]),
            chain_case(changed_body("pdh"), shape, ["chain.pdh.signed-by-pek"]),
            chain_case(
                changed_body("pek"), shape, ["chain.pek.signed-by-cek", "chain.pek.signed-by-oca"]
            ),
            chain_case(changed_body("oca"), shape, ["chain.oca.self-signed"]),
            chain_case(changed_body("cek"), shape, ["chain.cek.signed-by-ask"]),
            chain_case(changed_body("ask"), shape, ["chain.ask.signed-by-ark"]),
            chain_case(changed_body("ark"), shape, ["chain.ark.self-signed"]),
            chain_case(foreign("pdh"), shape, ["chain.pdh.signed-by-pek"]),
            chain_case(foreign("oca"), shape, ["chain.pek.signed-by-oca"]),
            chain_case(foreign("cek"), shape, ["chain.pek.signed-by-cek"]),
            chain_case(pek_without_oca, shape, ["chain.pek.signed-by-oca"]),
            chain_case(pek_without_cek, shape, ["chain.pek.signed-by-cek"]),
        ]
    cases += [
        chain_case(pdh_off_curve, "milan", ["chain.pdh.point"]),
        chain_case(pdh_on_p256, "milan", ["chain.pdh.curve"]),
        chain_case(pdh_for_signing, "milan", ["chain.pdh.algorithm"]),
        chain_case(signature_of_zeros, "milan", ["chain.pdh.signed-by-pek"]),
    ]
    for generation in sev.Generation:
        shape = "naples" if generation is sev.Generation.NAPLES else "milan"
        cases.append(chain_case(forged(generation), shape, ["chain.ark.trusted"], trusted=False))
    return cases


# session


def session_cases() -> list[Case]:
    """List session blobs: what is wrapped, and the shared secret that opens them."""
    cases = []
    for name, policy, words in (
        ("sev", 0x1, "a session for an SEV guest"),
        ("sev-es", 0x5, "a session for an SEV-ES guest"),
        ("min-api", 0x33010005, "a session whose policy demands API 1.51"),
        ("all-zero", 0, "every key, nonce and secret is zero"),
    ):
        draw = (lambda _label: bytes(48)) if name == "all-zero" else _drawing(name)
        keys = sev.TransportKeys(tek=draw("tek")[:16], tik=draw("tik")[:16])
        shared, nonce, iv = draw("shared"), draw("nonce")[:16], draw("iv")[:16]
        made = session_blob(keys, sev.GuestPolicy(policy), shared=shared, nonce=nonce, iv=iv)
        cases.append(
            {
                "id": name,
                "description": words,
                "source": "sev_attest.sev.session.session_blob, from fixed keys",
                "shared_secret": b64(shared),
                "policy": policy,
                "tek": b64(keys.tek),
                "tik": b64(keys.tik),
                "session": b64(made),
            }
        )
    return cases


def _drawing(name: str) -> Callable[[str], bytes]:
    return lambda label: hashlib.sha384(f"{name} {label}".encode()).digest()


# measurement

FIRMWARE = ovmf_image(8192)
NO_HASHES = ovmf_image(8192, hash_table=(0, 0))
CPU = {"family": 25, "model": 1, "stepping": 1}


def launched(policy: int, *, vcpus: int = 0, **guest: Any) -> tuple[Guest, bytes]:
    """Launch a guest on the simulated platform; give it and its TIK."""
    platform = Platform(b"launches" + policy.to_bytes(4, "little") + bytes((vcpus,)))
    started = launch_guest(platform, policy=policy, vcpus=vcpus or 1, **guest)
    return started, platform._guests[started.handle].tik  # noqa: SLF001 - the model's own key


def measurement_case(
    name: str, words: str, guest: tuple[Guest, bytes], failed: str | None = None, **inputs: Any
) -> Case:
    """Lay out one launch: what the host reports, and what the owner means."""
    started, tik = guest
    reported = {
        "measurement": b64(started.measurement),
        "api_major": started.platform.api[0],
        "api_minor": started.platform.api[1],
        "build_id": started.platform.build,
        "policy": started.policy,
    }
    meant = {"policy": started.policy, "firmware": blob(FIRMWARE), "tik": b64(tik)}
    for key, value in inputs.items():
        (reported if key.startswith("reported_") else meant)[key.removeprefix("reported_")] = value
    return {
        "id": name,
        "description": words,
        "source": MADE_BY,
        "reported": reported,
        "meant": meant,
        "valid": failed is None,
        "failed_check": failed,
    }


def measurement_cases() -> list[Case]:
    """List launches, as meant and otherwise."""
    mismatch = "launch.measurement"
    plain = launched(1, firmware=FIRMWARE)
    whole: Case = {"kernel": b"a kernel", "initrd": b"an initrd", "cmdline": b"a  b "}
    kernel = launched(1, firmware=FIRMWARE, **whole)
    bare_kernel = launched(3, firmware=FIRMWARE, kernel=b"a kernel")
    es = launched(5, vcpus=3, firmware=FIRMWARE)
    es_kernel = launched(7, vcpus=2, firmware=FIRMWARE, **whole)
    given: Case = {key: b64(value) for key, value in whole.items()}
    three: Case = {"vcpus": 3, "cpu": CPU}
    measurement = bytearray(plain[0].measurement)
    measurement[0] ^= 1
    nonce = bytearray(plain[0].measurement)
    nonce[47] ^= 1
    case = measurement_case
    return [
        case("sev", "firmware alone", plain),
        case("sev-kernel", "kernel, initrd and command line, with odd blanks", kernel, **given),
        case("sev-kernel-alone", "a kernel with no initrd and no command line", bare_kernel,
             kernel=b64(b"a kernel")),
        case("sev-es", "SEV-ES with three vCPUs, from the CPU model", es, **three),
        case("sev-es-kernel", "SEV-ES with two vCPUs and a kernel", es_kernel, **given, vcpus=2,
             cpu=CPU),
        case("changed-measure", "one bit of MEASURE is changed", plain, mismatch,
             reported_measurement=b64(bytes(measurement))),
        case("changed-nonce", "one bit of the nonce is changed", plain, mismatch,
             reported_measurement=b64(bytes(nonce))),
        case("other-tik", "the keys are another session's", plain, mismatch, tik=b64(bytes(16))),
        case("other-build", "the host claims another build", plain, mismatch, reported_build_id=23),
        case("other-api", "the host claims another API", plain, mismatch, reported_api_minor=54),
        case("other-policy", "the host claims another policy than the session's", plain,
             "launch.policy", reported_policy=3),
        case("policy-not-meant", "it was launched with another policy, and the host says so", plain,
             "launch.policy", policy=0),
        case("other-firmware", "other firmware was launched", plain, mismatch,
             firmware=blob(NO_HASHES)),
        case("kernel-not-launched", "a kernel was meant, none was measured", plain, mismatch,
             kernel=b64(b"a kernel")),
        case("kernel-not-meant", "a kernel was measured, none was meant", bare_kernel, mismatch),
        case("cmdline-trimmed", "a blank at the command line's end is gone", kernel, mismatch,
             **(given | {"cmdline": b64(b"a  b")})),
        case("initrd-missing", "the initrd was not meant", kernel, mismatch,
             **{key: given[key] for key in ("kernel", "cmdline")}),
        case("vcpus-more", "one vCPU more was meant", es, mismatch, vcpus=4, cpu=CPU),
        case("vcpus-fewer", "one vCPU less was meant", es, mismatch, vcpus=2, cpu=CPU),
        case("other-cpu", "another stepping was meant", es, mismatch, vcpus=3,
             cpu=CPU | {"stepping": 0}),
        case("no-hash-table", "a kernel with firmware that has no place for its hash", plain,
             "firmware.hash-table", firmware=blob(NO_HASHES), kernel=b64(b"a kernel")),
    ]  # fmt: skip


# whole launches


def launch_case(
    name: str, words: str, platform: Platform, policy: int, secrets: dict[str, bytes], **guest: Any
) -> Case:
    """Lay out one launch from the chain to the secret, with the platform's private DH key."""
    draw = _drawing(name)
    chain = replace(platform.export(), ask=platform.authority.ask, ark=platform.authority.ark)
    sev.verify_chain(chain, roots=[platform.authority.root])
    pdh = _crypto.p384_point(chain.pdh.public_key)
    assert pdh is not None  # noqa: S101 - the chain verified
    own = ec.derive_private_key(int.from_bytes(draw("owner"), "big") >> 8, ec.SECP384R1())
    godh = sev.Certificate.build(
        usage=Usage.PDH,
        algorithm=Algorithm.ECDH_SHA256,
        public_key=_crypto.p384_numbers(own.public_key()),
    )
    keys = sev.TransportKeys(tek=draw("tek")[:16], tik=draw("tik")[:16])
    shared, nonce, iv = _crypto.ecdh(own, pdh), draw("nonce")[:16], draw("iv")[:16]
    session = session_blob(keys, sev.GuestPolicy(policy), shared=shared, nonce=nonce, iv=iv)
    inputs: Case = {"firmware": FIRMWARE} | guest
    started = launch_guest(platform, policy=policy, godh=godh.to_bytes(), session=session, **inputs)
    reported = sev.LaunchInfo.from_text(started.domlaunchsecinfo())
    parts: Case = {key: inputs[key] for key in ("kernel", "initrd", "cmdline") if key in inputs}
    if "vcpus" in inputs:
        parts |= {"vcpus": inputs["vcpus"], "vmsa": CpuModel(**CPU)}
    launch = sev.verify_launch(
        reported,
        keys=keys,
        policy=sev.GuestPolicy(policy),
        digest=sev.launch_digest(FIRMWARE, **parts),
    )
    packet = secret.secret_packet(
        keys,
        reported.measure if secret.binds(launch) else b"",
        secret.table(secrets),
        iv=draw("secret iv")[:16],
    )
    assert started.inject(packet.header, packet.payload) == secrets  # noqa: S101 - what we promise
    private = platform._keys[Usage.PDH].private_numbers().private_value  # noqa: SLF001
    return {
        "id": name,
        "description": words,
        "source": MADE_BY,
        "chain": blob(chain.to_bytes()),
        "trusted_ark": blob(platform.authority.ark.to_bytes()),
        "pdh_private_key": f"{private:096x}",
        "godh": blob(godh.to_bytes()),
        "session": b64(session),
        "tek": b64(keys.tek),
        "reported": {
            "measurement": b64(reported.measurement),
            "api_major": reported.api_major,
            "api_minor": reported.api_minor,
            "build_id": reported.build_id,
            "policy": policy,
        },
        "meant": {"policy": policy, "firmware": blob(FIRMWARE), "tik": b64(keys.tik)}
        | {key: b64(parts[key]) for key in ("kernel", "initrd", "cmdline") if key in parts}
        | ({"vcpus": inputs["vcpus"], "cpu": CPU} if "vcpus" in inputs else {}),
        "launch_digest": launch.digest.hex(),
        "secret_header": b64(packet.header),
        "secret_payload": b64(packet.payload),
        "secrets": {guid: b64(data) for guid, data in secrets.items()},
    }


def launch_cases() -> list[Case]:
    """List the whole launches."""
    luks, other = secret.ALIASES["luks-key"], "e6f5a162-d67f-4750-a67c-5d065f2a9910"
    naples = Platform(b"naples", authority=NAPLES, api=(0, 24), build=15)
    milan = Platform(b"milan", authority=MILAN, api=(1, 55), build=24)
    old = Platform(b"old", authority=NAPLES, api=(0, 16), build=5)
    whole = {"kernel": b"a kernel", "initrd": b"an initrd", "cmdline": b"console=ttyS0"}
    return [
        launch_case("naples-sev", "a plain SEV guest on a Naples-shaped platform", naples, 1,
                    {luks: b"a disk key"}),
        launch_case("milan-sev-es", "an SEV-ES guest with a kernel, and two secrets", milan, 5,
                    {luks: b"a disk key", other: bytes(24)}, **whole, vcpus=3),
        launch_case("old-api", "API 0.16, where the secret's MAC leaves MEASURE out", old, 3,
                    {luks: b"a disk key"}),
    ]  # fmt: skip


# files


def files() -> dict[str, bytes]:
    """Make every file of the vectors, by its path in their folder."""
    BLOBS.clear()
    made = {}
    for kind, cases in (
        ("chain", chain_cases()),
        ("session", session_cases()),
        ("measurement", measurement_cases()),
        ("launch", launch_cases()),
        *((kind, cases()) for kind, cases in make_snp_vectors.CASES.items()),
    ):
        document = {"schema": f"schema/{kind}.schema.json", "cases": cases}
        made[f"{kind}.json"] = json.dumps(document, indent=1).encode() + b"\n"
    made |= BLOBS
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(made.items())}
    manifest = {"schema": "schema/manifest.schema.json", "sha256": hashes}
    return made | {"manifest.json": json.dumps(manifest, indent=1).encode() + b"\n"}


def main() -> int:
    """Write or check the files."""
    made = files()
    found = {
        str(path.relative_to(FOLDER)): path.read_bytes()
        for path in FOLDER.rglob("*")
        if path.is_file() and path.name != "README.md" and path.parent.name != "schema"
    }
    odd = sorted(name for name in made.keys() | found.keys() if made.get(name) != found.get(name))
    if "--check" in sys.argv:
        for name in odd:
            print(f"vectors/{name} is not what tools/make_vectors.py writes", file=sys.stderr)
        return 1 if odd else 0
    for name in odd:
        path = FOLDER / name
        if name in made:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(made[name])
        else:
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
