"""The lines of the benchmark for whole processes, beside those of other tools."""

import base64
import hashlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click

import sev_attest
from bench_core import TOOL, Line, Scale, both, chain_of, firmware, installed
from sev_attest import sev
from sev_attest.sev.launch import expected_measure
from sev_attest.testing.snp import SnpPlatform

FLOOR = "import click, hashlib"
ASYMMETRIC = (
    "from cryptography.exceptions import InvalidSignature\n"
    "from cryptography.hazmat.primitives import hashes\n"
    "from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils"
)
CIPHERS = "from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes"
DER = "from pyasn1.codec.der import decoder, encoder"
DOMAIN = (
    "<domain type='kvm'><name>vm</name><memory unit='MiB'>512</memory><vcpu>2</vcpu>"
    "<os><type arch='x86_64' machine='q35'>hvm</type></os><launchSecurity type='sev'>"
    "<cbitpos>51</cbitpos><reducedPhysBits>1</reducedPhysBits><policy>0x5</policy>"
    "</launchSecurity></domain>"
)


def process_lines(scale: Scale) -> Iterator[Line]:
    """Every command that checks something, as a process."""
    yield from _validate_lines(scale)
    yield from _measure_lines(scale)
    yield from _verify_lines(scale)
    yield from _domain_lines(scale)


def _line(scale: Scale, name: str, what: str, against: str, reach: str) -> Line:
    """Describe two processes; :func:`both` adds them."""
    return Line(
        name=name,
        what=what,
        against=against,
        reach=reach,
        ratio="share",
        ours=float,
        reference=float,
        rounds=scale.of(41, 3),
    )


def _validate_lines(scale: Scale) -> Iterator[Line]:
    options = validate_options(scale)
    peer, python = virt_qemu_sev_validate(options)
    ours = on_interpreter(scale, python)
    floor = [*ours[:1], str(scale.folder / "beside" / "floor")]
    ledger = str(scale.folder / "ledger.sqlite3")
    for slug, how, place, reaches in (
        ("", "no ledger", "none", ("<= 0.55", "<= 1.20")),
        ("-ledger", "with its ledger", ledger, ("<= 0.60", "<= 1.30")),
    ):
        command = [*ours, "validate", *options, "--ledger", place]
        what = f"`validate`, {how}"
        if peer:
            against = "virt-qemu-sev-validate, same inputs and interpreter"
            line = _line(scale, f"validate{slug}-peer", what, against, reaches[0])
            yield from both(line, command, peer, "<= 0.60")
        against = f"python -c '{FLOOR}', same interpreter"
        line = _line(scale, f"validate{slug}-floor", what, against, reaches[1])
        yield from both(line, command, floor, "(by the way)")


def validate_options(scale: Scale) -> list[str]:
    """Write what a launch of plain SEV needs, and return the options that validate takes of it."""
    image = firmware(scale)
    keys = {"tik": bytes(range(16)), "tek": bytes(16)}
    for name, key in keys.items():
        (scale.folder / name).write_bytes(key)
    nonce = bytes(16)
    measure = expected_measure(
        keys["tik"],
        api=(1, 55),
        build_id=24,
        policy=sev.GuestPolicy(1),
        digest=hashlib.sha256(image.read_bytes()).digest(),
        nonce=nonce,
    )
    measurement = base64.b64encode(measure + nonce).decode()
    return [
        "--measurement", measurement, "--api-major", "1", "--api-minor", "55",
        "--build-id", "24", "--policy", "1", "--firmware", str(image),
        "--tik", str(scale.folder / "tik"), "--tek", str(scale.folder / "tek"),
    ]  # fmt: skip


def virt_qemu_sev_validate(options: list[str]) -> tuple[list[str], str]:
    """Find libvirt's tool and an interpreter that it runs under: this one, or else the system's.

    The command is empty if there is none.
    """
    path = shutil.which("virt-qemu-sev-validate") or ""
    pythons = (sys.executable, "/usr/bin/python3") if path else ()
    arguments = [path, *options, "--insecure"]
    found = installed([[python, *arguments] for python in pythons], "virt-qemu-sev-validate")
    return found, found[0] if found else sys.executable


def on_interpreter(scale: Scale, python: str) -> list[str]:
    """Return the command that runs sev-attest under another interpreter of the same version.

    It needs no network and installs nothing: a folder has a console script and links to the
    packages, all in plain Python, that `validate` and its floor import.
    """
    folder = scale.folder / "beside"
    folder.mkdir()
    for package in (sev_attest, click):
        place = Path(str(package.__file__)).parent
        (folder / place.name).symlink_to(place)
    script = "import sys\nfrom sev_attest.__main__ import main\nsys.exit(main())\n"
    (folder / "sev-attest").write_text(script)
    (folder / "floor").write_text(FLOOR)
    return [python, str(folder / "sev-attest")]


def _measure_lines(scale: Scale) -> Iterator[Line]:
    image = str(firmware(scale))
    path = Path(sys.executable).parent / "sev-snp-measure"
    arguments = ["--mode", "seves", "--vcpus", "4", "--vcpu-type", "EPYC-Milan", "--ovmf", image]
    peer = installed([[sys.executable, str(path), *arguments]], "sev-snp-measure")
    if peer:
        ours = [*TOOL, "measure", "--firmware", image, "--policy", "5", "--num-cpus", "4",
                "--cpu-model-name", "EPYC-Milan"]  # fmt: skip
        what, against = "`measure`, SEV-ES, 4 vCPUs", "sev-snp-measure --mode seves, same inputs"
        line = _line(scale, "measure-peer", what, against, "<= 1.05")
        yield from both(line, ours, peer, "(by the way)")


def _verify_lines(scale: Scale) -> Iterator[Line]:
    """Commands that check signatures, beside the import of what they cannot do without."""
    folder = scale.folder
    made, whole = chain_of(4096)
    platform = SnpPlatform.of(b"bench")
    ca = made.authority.ask.to_bytes() + made.authority.ark.to_bytes()
    files = {
        "sev.chain": whole, "sev.root": made.authority.ark.to_bytes(), "sev.ca": ca,
        "sev.platform": made.export().to_bytes(), "snp.report": platform.report(),
        "snp.chain": platform.certificates(), "snp.root": platform.authority.ark,
    }  # fmt: skip
    for name, data in files.items():
        (folder / name).write_bytes(data)
    chain, root, cas, exported, report, snp_chain, snp_root = (str(folder / n) for n in files)
    (folder / "session").mkdir()
    verify = [*TOOL, "verify", chain, "--trust-root", root]
    session = [
        *TOOL, "session", "--name", "bench", chain, "5", "--trust-root", root,
        "--out", str(folder / "session"), "--ledger", "none", "--force",
    ]  # fmt: skip
    snp = [*TOOL, "snp", "verify", report, snp_chain, "--trust-root", snp_root,
           "--at", "2026-01-01T00:00:00+00:00"]  # fmt: skip
    for name, ours, parts in (
        ("verify", verify, (ASYMMETRIC,)),
        ("session", session, (ASYMMETRIC, CIPHERS, "import json")),
        ("snp verify", snp, (ASYMMETRIC, DER)),
    ):
        needed = "`cryptography`'s keys, hashes" + (", ciphers" if CIPHERS in parts else "")
        against = f"import click and {needed}" + (", pyasn1" if DER in parts else "")
        line = _line(scale, f"{name.replace(' ', '-')}-floor", f"`{name}`", against, "<= 1.35")
        floor = [sys.executable, "-c", "\n".join((FLOOR, *parts))]
        yield from both(line, ours, floor, "(by the way)")
    line = _line(scale, "snp-verify-verify", "`snp verify`", "`verify`", "<= 1.30")
    yield from both(line, snp, verify, "(by the way)")
    sevctl = [shutil.which("sevctl") or "", "verify", "--sev", exported, "--ca", cas]
    if peer := installed([sevctl] if sevctl[0] else [], "sevctl"):
        line = _line(scale, "verify-peer", "`verify`", "sevctl verify, same chain", "(by the way)")
        yield from both(line, verify, peer, "(by the way)")


def _domain_lines(scale: Scale) -> Iterator[Line]:
    path = scale.folder / "vm.xml"
    path.write_text(DOMAIN)
    ours = [*TOOL, "domain", "check", str(path)]
    validate = shutil.which("virt-xml-validate")
    if peer := installed(
        [[validate, str(path), "domain"]] if validate else [], "virt-xml-validate"
    ):
        against = "virt-xml-validate, same file"
        line = _line(scale, "domain-check-peer", "`domain check`", against, "<= 4")
        # It has no session yet, so it cannot be attested: 4.
        yield from both(line, ours, peer, "(by the way)", code=4)
