"""``sev-attest certs``, chain/oca.py, and the packagings of JSON, zip and X.509."""

import base64
import datetime as dt
import io
import json
import random
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from conftest import Run
from sev_attest import MalformedInput, NotVerified, SevAttestError, sev
from sev_attest.sev.chain.packaging import read_contents
from sev_attest.sev.launch_info import read_report
from sev_attest.sev.spec import Usage
from sev_attest.testing import Platform

NAMES = ("pdh", "pek", "oca", "cek", "ask", "ark")


@pytest.fixture
def chain(milan: Platform, here: Path) -> sev.Chain:
    """Lay out a platform's whole chain."""
    whole = replace(
        milan.export(), ask=milan.authority.ask, ark=milan.authority.ark, platform_id=None
    )
    Path("chain").write_bytes(whole.to_bytes())
    return whole


# show, split, join


def test_certificates_are_shown_split_and_joined_again(run: Run, chain: sev.Chain) -> None:
    shown = run("certs", "show", "chain").lines
    assert shown[0] == f"PDH EP384 D256 {chain.pdh.fingerprint}"
    assert [line.split()[0] for line in shown] == [name.upper() for name in NAMES]
    assert "    signed_by: OCA, CEK" in run("certs", "show", "chain", "-v").lines
    document = json.loads(run("certs", "show", "chain", "--json").out)
    assert [c["role"] for c in document["certificates"]] == [name.upper() for name in NAMES]
    assert run("certs", "split", "chain", "--out", "parts").code == 0
    for name in NAMES:
        assert Path(f"parts/{name}.cert").read_bytes() == getattr(chain, name).to_bytes()
    assert run("certs", "split", "chain", "--out", "parts").code == 6
    assert run("certs", "join", "parts", "-o", "again").out == "wrote again\n"
    assert Path("again").read_bytes() == Path("chain").read_bytes()
    assert f"wrote again, {4 * 2084 + 2 * 1600} bytes" in (
        run("certs", "join", "parts", "-o", "again", "--force", "-v").out
    )
    assert run("certs", "join", "parts/pdh.cert", "-o", "one").code == 0
    assert json.loads(run("certs", "join", "parts", "-o", "j", "--json").out)["files"] == ["j"]
    assert run("certs", "show", "chain", "-q").out == run("certs", "show", "chain").out != ""
    assert run("certs", "join", "chain", "-o", "q", "-q").out == ""
    assert run("certs", "show", "chain", "--trust-root", "chain").code == 2


def test_what_holds_no_certificate_is_said_so(run: Run, here: Path) -> None:
    Path("empty").mkdir()
    for command in (["show", "empty"], ["split", "empty"], ["join", "empty", "-o", "x"]):
        ran = run("certs", *command)
        assert (ran.code, ran.out) == (6, "")
        assert ran.err == "error: empty: chain: there is no certificate in it\n"
    assert run("certs", "show").code == 2
    report = (2).to_bytes(4, "little") + bytes(4) + (0x30000).to_bytes(8, "little") + bytes(1168)
    Path("empty/outblob").write_bytes(report)
    for command in (["show", "empty"], ["split", "empty"], ["join", "empty", "-o", "x"]):
        ran = run("certs", *command)
        assert (ran.code, ran.out) == (6, "")
        assert ran.err.startswith(
            "error: empty/outblob: chain: this is an SEV-SNP attestation report; "
        )


def test_show_lists_signers_as_words(run: Run, here: Path) -> None:
    Path("pek").write_bytes(Platform(b"words").export().pek.to_bytes())
    Path("cek").write_bytes(Platform(b"words").export(signed_cek=False).cek.to_bytes())
    assert "    signed_by: OCA, CEK\n" in run("certs", "show", "-v", "pek").out
    assert "    signed_by: none\n" in run("certs", "show", "-v", "cek").out


# an owner's OCA


def test_an_oca_of_one_s_own_is_taken_by_the_platform(run: Run, here: Path) -> None:
    platform = Platform(b"owned")
    assert run("certs", "generate-oca", "oca.cert", "oca.pem").code == 0
    assert Path("oca.pem").stat().st_mode & 0o777 == 0o600
    Path("csr").write_bytes(platform.pek_csr().to_bytes())
    assert run("certs", "sign-pek", "csr", "pek.cert", "--key", "oca.pem").code == 0
    platform.pek_cert_import(Path("pek.cert").read_bytes(), Path("oca.cert").read_bytes())
    exported = platform.export()
    assert exported.oca.to_bytes() == Path("oca.cert").read_bytes()
    assert sev.verify_chain(exported, roots=[platform.authority.root])


def test_an_oca_key_never_shows() -> None:
    owner = sev.OwnerKey.generate()
    assert repr(owner) == "OwnerKey()"
    assert sev.OwnerKey.from_pem(owner.to_pem()).to_pem() == owner.to_pem()


def pem(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: bytes | None = None
) -> bytes:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        encryption = serialization.BestAvailableEncryption(password)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def test_what_is_no_oca_key_or_no_pek_is_refused(run: Run, chain: sev.Chain, here: Path) -> None:
    owner = sev.OwnerKey.generate()
    Path("good.pem").write_bytes(owner.to_pem())
    Path("pek").write_bytes(chain.pek.to_bytes())
    for odd in (
        b"",
        b"-----BEGIN PRIVATE KEY-----",
        pem(ec.generate_private_key(ec.SECP256R1())),
        pem(rsa.generate_private_key(65537, 2048)),
        pem(ec.generate_private_key(ec.SECP384R1()), b"password"),
    ):
        Path("odd.pem").write_bytes(odd)
        ran = run("certs", "sign-pek", "pek", "out", "--key", "odd.pem")
        assert (ran.code, ran.out) == (6, "")
        assert "odd.pem: OCA key: not an unencrypted P-384 key in PEM" in ran.err
    Path("pdh").write_bytes(chain.pdh.to_bytes())
    ran = run("certs", "sign-pek", "pdh", "out", "--key", "good.pem")
    assert (ran.code, ran.err.partition(":")[0]) == (6, "error")
    key = chain.pek.public_key
    off = sev.Certificate.build(
        usage=Usage.PEK, algorithm=chain.pek.algorithm, public_key=replace(key, y=key.y ^ 1)
    )
    with pytest.raises(NotVerified, match="not a PEK with a point"):
        owner.sign_pek(off)
    assert not Path("out").exists()


# JSON


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: {"return": d}, lambda d: [{"return": d}]])
def test_a_platform_is_read_from_qmp_and_kubevirt_json(milan: Platform, wrap: object) -> None:
    exported = milan.export(signed_cek=False)
    pdh, rest = milan.pdh_cert_export()
    qmp = {
        "pdh": base64.b64encode(pdh).decode(),
        "cert-chain": base64.b64encode(rest).decode(),
        "cpu0-id": base64.b64encode(milan.get_id()).decode(),
        "cbitpos": 51,
    }
    data = json.dumps(wrap(qmp)).encode()  # type: ignore[operator]
    assert sev.Chain.from_bytes(data) == exported
    kubevirt = {"kind": "SEVPlatformInfo", "pdh": qmp["pdh"], "certChain": qmp["cert-chain"]}
    data = b"\xef\xbb\xbf" + json.dumps(wrap(kubevirt), indent=2).encode()  # type: ignore[operator]
    assert sev.Chain.from_bytes(data) == replace(exported, platform_id=None)


@pytest.mark.parametrize(
    "text",
    ["{", "{}", "[]", "[1]", '{"pdh": 5}', '{"pdh": "?"}', '{"return": 5}', "[" * 99999,
     '{"pdh": "AAAA"}{"pdh": "AAAB"}', '{"certChain": "AAAA", "cert-chain": "AAAB"}',
     '{"pdh": "\\ud800"}', '{"pdh": null}', '{"cert-chain": ["a"]}', "{} x"],
)  # fmt: skip
def test_json_that_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(MalformedInput):
        sev.Chain.from_bytes(text.encode())


QMP = {"api-major": 1, "api-minor": 55, "build-id": 24, "policy": 5, "state": "launch-secret"}
MEASUREMENT = base64.b64encode(bytes(48)).decode()
KUBEVIRT = {"measurement": MEASUREMENT, "apiMinor": 24, "buildID": 15, "loaderSHA": "00"}


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        (
            json.dumps({"return": QMP}) + json.dumps({"return": {"data": MEASUREMENT}}),
            (1, 55, 24, 5),
        ),
        (json.dumps(QMP) + "\n" + json.dumps({"data": MEASUREMENT}), (1, 55, 24, 5)),
        (json.dumps([QMP | {"sev-type": "sev"}, {"data": MEASUREMENT}]), (1, 55, 24, 5)),
        (json.dumps(QMP | {"data": MEASUREMENT}), (1, 55, 24, 5)),
        (
            json.dumps({"event": "STOP", "data": {"a": 1}})
            + json.dumps(QMP | {"data": MEASUREMENT}),
            (1, 55, 24, 5),
        ),
        (json.dumps(KUBEVIRT), (0, 24, 15, 0)),
        (json.dumps(KUBEVIRT | {"apiMajor": 1, "policy": 5}), (1, 24, 15, 5)),
    ],
)
def test_a_report_is_read_from_qmp_and_kubevirt_json(
    text: str, numbers: tuple[int, int, int, int]
) -> None:
    for form in (text, text.encode(), b"\xef\xbb\xbf" + text.encode()):
        info = sev.LaunchInfo.from_text(form)
        assert (info.api_major, info.api_minor, info.build_id, info.policy) == numbers
        assert info.measurement == bytes(48)


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"api-major": 256}, "launch-info.api_major"),
        ({"api-major": True}, "launch-info.api_major"),
        ({"api-minor": "55"}, "launch-info.api_minor"),
        ({"policy": -1}, "launch-info.policy"),
        ({"data": 5}, "launch-info.measurement"),
        ({"data": "AAAA"}, "measurement.length"),
        ({"data": "\ud800"}, "measurement.length"),
        ({"sev-type": "sev-snp"}, "launch-info.snp"),
        ({"policy": 5, "apiMajor": 0}, "launch-info.apiMajor"),
    ],
)
def test_a_json_report_that_does_not_fit_is_refused(change: dict[str, object], check: str) -> None:
    text = json.dumps(QMP | {"data": MEASUREMENT} | change)
    with pytest.raises(SevAttestError) as caught:
        sev.LaunchInfo.from_text(text)
    assert caught.value.check == check


@pytest.mark.parametrize("top", [0, 1, 255])
def test_numbers_of_a_json_report_go_up_to_their_limits(top: int) -> None:
    wide = {"api-major": top, "api-minor": top, "build-id": top, "policy": top * 0x01010101}
    info = sev.LaunchInfo.from_text(json.dumps(QMP | {"data": MEASUREMENT} | wide))
    assert (info.api_major, info.api_minor, info.build_id) == (top, top, top)
    assert info.policy == top * 0x01010101
    for name, most in (
        ("api-major", 255),
        ("api-minor", 255),
        ("build-id", 255),
        ("policy", 1 << 32),
    ):
        with pytest.raises(MalformedInput, match=r"is no number in 0\.\."):
            sev.LaunchInfo.from_text(
                json.dumps(QMP | {"data": MEASUREMENT, name: most + (most < 256)})
            )


@pytest.mark.parametrize("measurement", [{}, {"data": None}])
def test_query_sev_without_its_measurement_says_what_is_missing(
    measurement: dict[str, object],
) -> None:
    text = json.dumps({"return": QMP | measurement})
    claims = read_report(text)
    assert (claims.measurement, claims.api_major, claims.policy) == (None, 1, 5)
    with pytest.raises(MalformedInput) as caught:
        sev.LaunchInfo.from_text(text)
    assert str(caught.value) == "launch info: sev-measurement missing"


@pytest.mark.parametrize("text", ["{", "{}", "[5]", "[" * 99999, '{"return": {}}'])
def test_json_that_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(MalformedInput, match="launch info"):
        sev.LaunchInfo.from_text(text)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: (
    st.lists(inner) | st.dictionaries(st.sampled_from(["pdh", "data", "policy", "return"]), inner)
)))  # fmt: skip
def test_random_json_gives_only_our_errors(value: object) -> None:
    text = json.dumps([{"data": value}, value])
    for read in (sev.LaunchInfo.from_text, lambda t: sev.Chain.from_bytes(t.encode())):
        with pytest.raises(SevAttestError):
            read(text)


# zip


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Make a zip in memory."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def test_a_chain_is_read_from_sevtool_s_zip(chain: sev.Chain) -> None:
    members = {f"{name}.cert": getattr(chain, name).to_bytes() for name in NAMES}
    assert sev.Chain.from_bytes(zipped({"folder/": b""} | members)) == chain
    assert sev.Chain.from_bytes(zipped(members, zipfile.ZIP_STORED)) == chain


def test_a_zip_that_is_not_sound_is_refused(chain: sev.Chain) -> None:
    whole = zipped({"pdh.cert": chain.pdh.to_bytes()})
    flipped = bytearray(whole)
    flipped[60] ^= 0xFF
    encrypted = bytearray(whole)
    for at in (6, whole.index(b"PK\1\2") + 8):
        encrypted[at] |= 1
    method = bytearray(whole)
    for at in (8, whole.index(b"PK\1\2") + 10):
        method[at] = 77
    size = whole.index(b"PK\1\2") + 24
    lying = bytearray(zipped({"bomb": bytes(2 << 20)}))
    at = lying.index(b"PK\1\2") + 24
    lying[at : at + 4] = (9).to_bytes(4, "little")
    assert size
    for data in (
        *(whole[:cut] for cut in range(4, len(whole), 7)),
        bytes(flipped),
        bytes(encrypted),
        bytes(method),
        bytes(lying),
        zipped({"../pdh.cert": chain.pdh.to_bytes()}),
        zipped({"/etc/pdh.cert": chain.pdh.to_bytes()}),
        zipped({"bomb": bytes(2 << 20)}),
        zipped({str(n): b"" for n in range(65)}),
        zipped({"inner.zip": whole}),
        zipped({"readme": b"no certificate"}),
        zipped({"pdh.cert": chain.pdh.to_bytes()}, zipfile.ZIP_BZIP2),
        zipped({"pdh.cert": chain.pdh.to_bytes()}, zipfile.ZIP_LZMA),
    ):
        with pytest.raises(MalformedInput):
            read_contents(data)


@pytest.mark.parametrize(
    ("members", "check"),
    [
        ({str(n): b"" for n in range(65)}, "zip.length"),
        ({"bomb": bytes((1 << 20) + 1)}, "zip.length"),
    ],
)
def test_a_zip_that_is_too_much_says_so(members: dict[str, bytes], check: str) -> None:
    with pytest.raises(MalformedInput, match="its members are too many or too large") as caught:
        read_contents(zipped(members))
    assert caught.value.check == check


def test_random_damage_to_a_zip_gives_only_our_errors(chain: sev.Chain) -> None:
    whole = zipped({"pdh.cert": chain.pdh.to_bytes(), "pek.cert": chain.pek.to_bytes()})
    draw = random.Random(1)
    places = [*range(60), *range(len(whole) - 220, len(whole))]
    for _ in range(4000):
        damaged = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.choice(places)] = draw.randrange(256)
        with suppress(MalformedInput):
            read_contents(bytes(damaged))


def test_a_zip_s_platform_id_is_kept(milan: Platform) -> None:
    pdh, rest = milan.pdh_cert_export()
    values = {"pdh": pdh, "cert-chain": rest, "cpu0-id": milan.get_id()}
    data = json.dumps({name: base64.b64encode(value).decode() for name, value in values.items()})
    assert sev.Chain.from_bytes(zipped({"qmp": data.encode()})) == milan.export(signed_cek=False)


# X.509


def certificate_of(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> bytes:
    """Make an X.509 certificate with that key, signed by whoever."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ARK-Milan")])
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key)
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=9))
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


def odd_version(pem_certificate: bytes) -> bytes:
    """Give an X.509 certificate a version that there is not."""
    der = bytearray(
        x509.load_pem_x509_certificate(pem_certificate).public_bytes(serialization.Encoding.DER)
    )
    at = der.index(b"\xa0\x03\x02\x01\x02")
    der[at + 4] = 5
    body = base64.encodebytes(bytes(der))
    return b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("generation", list(sev.Generation))
def test_x509_of_amd_s_keys_stands_for_amd_s_own_certificates(generation: sev.Generation) -> None:
    root = next(root for root in sev.amd_roots() if root.generation is generation)
    assert root.ask is not None
    keys = [
        rsa.RSAPublicNumbers(ca.public_key.exponent, ca.public_key.modulus).public_key()
        for ca in (root.ask, root.ark)
    ]
    data = b"".join(certificate_of(key) for key in keys)
    assert read_contents(data).certificates == (root.ask, root.ark)


def test_x509_of_any_other_key_is_refused() -> None:
    other = certificate_of(rsa.generate_private_key(65537, 2048).public_key())
    for data, words in (
        (other, "none of AMD's ASK and ARK keys"),
        (certificate_of(ec.generate_private_key(ec.SECP384R1()).public_key()), "an RSA key"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "an RSA key"),
        (odd_version(other), "an RSA key"),
    ):
        with pytest.raises(MalformedInput, match=words):
            read_contents(data)
