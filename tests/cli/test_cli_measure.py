"""``sev-attest measure``, ``firmware``, ``policy`` and ``vmsa``."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from sevsnpmeasure import guest as peer
from sevsnpmeasure.vmm_types import VMMType

from conftest import Run
from sev_attest import MalformedInput, Unsupported, sev
from sev_attest.guest import CpuModel, Firmware, VmsaProfile, vmsa
from sev_attest.guest.cpu import QEMU_MODELS
from sev_attest.guest.footer import ENTRIES, SECTIONS
from sev_attest.guest.spec import OVMF_SEV_METADATA, VMSA_PROFILES
from sev_attest.sev.launch import expected_measure
from sev_attest.sev.policy import BITS, compose
from sev_attest.testing import ovmf_image
from sev_attest.testing.images import with_footer
from test_measure import UNFIT

OVMF = ovmf_image(8192)
MILAN = ("--cpu-model-name", "EPYC-Milan")


@pytest.fixture(autouse=True)
def files(here: Path) -> Path:
    """Lay out a guest's files."""
    for name, data in {
        "fw": OVMF,
        "kernel": b"kernel",
        "initrd": b"initrd",
        "tik": bytes(16),
    }.items():
        Path(name).write_bytes(data)
    return here


# measure


def test_it_prints_the_digest_in_hex_or_base64(run: Run) -> None:
    digest = hashlib.sha256(OVMF).digest()
    assert run("measure", "-f", "fw").out == f"{digest.hex()}\n"
    shown = run("measure", "-f", "fw", "--format", "base64").out
    assert shown == f"{base64.b64encode(digest).decode()}\n"
    assert run("measure", "--launch-digest", digest.hex()).out == f"{digest.hex()}\n"
    assert run("measure", "-f", "fw", "-q").out == f"{digest.hex()}\n"


def test_a_launch_digest_has_one_reading(run: Run) -> None:
    for digest in (b"\xab" * 32, bytes(range(32))):
        text = base64.b64encode(digest).decode()
        for form in (digest.hex(), digest.hex().upper(), digest.hex(" "), text, f" {text}\n"):
            assert run("measure", "--launch-digest", form).out == f"{digest.hex()}\n"
    for other in ("ab" * 48, "ab" * 24, "ab" * 16, "ab" * 31, "/" * 64):
        ran = run("measure", "--launch-digest", other)
        assert (ran.code, ran.out, "expected 32" in ran.err) == (6, "", True)


def test_the_es_bit_of_the_policy_decides(run: Run) -> None:
    assert run("measure", "-f", "fw").out == f"{hashlib.sha256(OVMF).hexdigest()}\n"
    digest = sev.launch_digest(OVMF, vcpus=2, vmsa=CpuModel.named("EPYC-Milan"))
    assert run("measure", "-f", "fw", "-n", "2", *MILAN, "--policy", "5").out == f"{digest.hex()}\n"


@pytest.mark.parametrize("profile", VMSA_PROFILES)
def test_a_range_of_vcpus_gives_the_digest_of_each(run: Run, profile: str) -> None:
    given = ("-f", "fw", "-k", "kernel", "--policy", "4", *MILAN, "--vmsa-profile", profile)
    table = run("measure", *given, "-n", "2-5").lines
    assert [int(line.split()[0]) for line in table] == [2, 3, 4, 5]
    for line in table:
        count, digest = line.split()
        assert run("measure", *given, "-n", count).out == f"{digest}\n"
    document = json.loads(run("measure", *given, "-n", "2-5", "--json").out)
    assert document["digests"] == dict(line.split() for line in table)
    assert run("measure", *given, "-n", "2-5", "-q").lines == table
    assert "--explain needs one" in run("measure", *given, "-n", "2-5", "--explain").err


@pytest.mark.parametrize("policy", [(), ("--policy", "1")])
@pytest.mark.parametrize(
    ("given", "named"),
    [
        (("-n", "2", "-0", "v0", "-1", "v1"), "--num-cpus"),
        (("-n", "2"), "--num-cpus"),
        (("-n", "1-8"), "--num-cpus"),
        (("-0", "v0"), "--vmsa-cpu0"),
        (("--cpu-model-name", "EPYC-Milan"), "--cpu-model-name"),
        (("--vmsa-profile", "gce"), "--vmsa-profile"),
        (("--manifest", "m", "-n", "2"), "--num-cpus"),
    ],
)
def test_what_is_measured_for_sev_es_alone_is_not_dropped(
    run: Run, given: tuple[str, ...], named: str, policy: tuple[str, ...]
) -> None:
    ran = run("measure", "-f", "fw", *given, *policy)
    assert (ran.code, ran.out) == (2, "")
    assert f"error: {named} is measured for SEV-ES guests alone" in ran.err
    assert "--policy 0x5" in ran.err


@pytest.mark.parametrize("profile", ["ec2", "gce"])
def test_a_cpu_model_that_a_profile_does_not_show_is_not_dropped(run: Run, profile: str) -> None:
    given = (*MILAN, "--vmsa-profile", profile)
    note = f"note: profile {profile} shows guests a CPU of its own"
    measured = run("measure", "-f", "fw", "-n", "1", "--policy", "5", *given)
    assert (measured.code, note in measured.err) == (0, True)
    built = run("vmsa", "build", "v", *given)
    assert (built.code, note in built.err) == (0, True)
    document = json.loads(run("vmsa", "build", "j", *given, "--json").out)
    assert note.endswith(document["notes"][0].partition(":")[0])
    assert "note" not in run("vmsa", "build", "k", *MILAN).err


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--manifest", "m", "--explain"), "--manifest excludes --explain"),
        (("--manifest", "m", "--format", "hex"), "--manifest excludes --format"),
        (("--tik", "tik", "--format", "hex"), "a measurement is base64"),
    ],
)
def test_options_that_play_no_part_are_refused(
    run: Run, given: tuple[str, ...], words: str
) -> None:
    ran = run("measure", "-f", "fw", *given)
    assert (ran.code, ran.out, words in ran.err) == (2, "", True)


def test_with_a_tik_it_prints_the_measurement_to_expect(run: Run) -> None:
    nonce = bytes(range(16))
    expected = expected_measure(
        bytes(16),
        api=(1, 55),
        build_id=24,
        policy=sev.GuestPolicy(1),
        digest=hashlib.sha256(OVMF).digest(),
        nonce=nonce,
    )
    whole = base64.b64encode(expected + nonce).decode()
    numbers = ("--api-major", "1", "--api-minor", "55", "--build-id", "24", "--policy", "1")
    given = ("measure", "-f", "fw", "--tik", "tik", *numbers)
    assert run(*given, "--nonce", base64.b64encode(nonce).decode()).out == f"{whole}\n"
    reported = base64.b64encode(bytes(32) + nonce).decode()
    assert run(*given, "-m", reported).out == f"{whole}\n"
    document = json.loads(run(*given, "-m", reported, "--json").out)
    assert document["measurement"] == whole
    assert (document["api_minor"], document["nonce"]) == (55, nonce.hex())
    shown = run(*given, "-m", reported, "--explain").out
    for part in ("firmware: sha256 ", "launch digest: ", "API: 1.55", "build: 24", "nonce: 0001"):
        assert part in shown


def test_explain_lists_every_range_and_adds_up(run: Run) -> None:
    given = ("measure", "-f", "fw", "-k", "kernel", "-e", "a", "--policy", "5", "-n", "3", *MILAN)
    document = json.loads(run(*given, "--json").out)
    end = 0
    for part in document["measured"]:
        assert part["offset"] == end
        end += part["size"]
    assert end == len(OVMF) + 176 + 3 * 4096
    assert document["kernel_hashes"]["cmdline"] == hashlib.sha256(b"a\0").hexdigest()
    explained = run(*given, "--explain")
    assert explained.out.count("sha256") == 5 + 3
    assert explained.lines[-1] == document["digest"]
    assert "launch digest: " in run(*given, "-v").err


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ("", 2, "--firmware (or --launch-digest) is needed"),
        ("-f fw --nonce AAAA", 2, "--nonce is for the measurement: --tik is needed"),
        ("-f fw --tik tik", 2, "--tik needs --api-major, --api-minor, --build-id, --policy too"),
        ("-f fw --tik tik {numbers}", 2, "--tik needs one of --nonce and --measurement"),
        ("-f fw --tik tik {numbers} --nonce AAAA --measurement A", 2, "one of --nonce and"),
        ("-f fw --tik tik {numbers} --nonce AAAA", 6, "--nonce: nonce: 3 bytes"),
        ("-f fw --tik fw {numbers} --nonce AAAA", 6, "fw: TIK: 8192 bytes, expected 16"),
        (
            "-f fw --tik tik {numbers} --policy 5 --nonce AAAA -n 1-2 --cpu-model-name EPYC",
            2,
            "--tik needs one number of vCPUs",
        ),
        ("-f fw --policy 5", 2, "needs the number of vCPUs"),
        ("-f fw --policy 5 -n 2", 2, "needs the vCPUs' state"),
        ("-f fw -n 0", 2, "0 is not in 1..4096"),
        ("-f fw -n 5000", 2, "5000 is not in 1..4096"),
        ("-f fw --launch-digest 00", 2, "excludes --firmware"),
        (f"--launch-digest {'0' * 32}", 6, "24 bytes (decoded from text), expected 32"),
        ("-f fw --policy 4 -n 1-2 --cpu-model-name EPYC --explain", 2, "--explain needs one"),
        ("-f fw -n 3-2", 2, "the second number is the smaller"),
        ("-f fw --format octal", 2, "octal"),
        ("-f - --tik - {numbers} --nonce AAAA", 2, "only one input can be standard input"),
    ],
)
def test_bad_input_to_measure_gets_one_clear_line(
    run: Run, options: str, code: int, words: str
) -> None:
    numbers = "--api-major 1 --api-minor 55 --build-id 24 --policy 1"
    ran = run("measure", *options.format(numbers=numbers).split())
    assert (ran.code, ran.out) == (code, "")
    assert words in ran.err


@pytest.mark.parametrize("count", [1, 2, 8])
@pytest.mark.parametrize(
    "boot", [(), ("-k", "kernel"), ("-k", "kernel", "-r", "initrd", "-e", "a")]
)
@pytest.mark.parametrize(
    ("profile", "vmm"),
    [("qemu-init2", VMMType.QEMU), ("ec2", VMMType.ec2), ("gce", VMMType.gce)],
)
def test_sev_es_digests_equal_those_of_sev_snp_measure(
    run: Run, count: int, boot: tuple[str, ...], profile: str, vmm: VMMType
) -> None:
    parts: Any = dict(zip(boot[::2], boot[1::2], strict=True))
    for name, (family, model, stepping) in QEMU_MODELS.items():
        signature = CpuModel(family=family, model=model, stepping=stepping).signature
        theirs = peer.seves_calc_launch_digest(
            count, signature, "fw", parts.get("-k"), parts.get("-r"), parts.get("-e"), vmm_type=vmm
        )
        given = ("-f", "fw", *boot, "--policy", "4", "-n", count, "--cpu-model-name", name)
        assert run("measure", *given, "--vmsa-profile", profile).out == f"{theirs.hex()}\n"


# vmsa


def test_a_page_is_built_shown_and_compared(run: Run) -> None:
    assert run("vmsa", "build", "v0", *MILAN).out == "wrote v0: vCPU 0, profile qemu-legacy\n"
    assert run("vmsa", "build", "v1", "--cpu", "1", *MILAN, "-f", "fw").code == 0
    pages = VmsaProfile(cpu=CpuModel.named("EPYC-Milan")).pages(0x80B004)
    assert Path("v0").read_bytes() == pages.boot
    assert Path("v1").read_bytes() == pages.ap
    shown = run("vmsa", "show", "v0").out
    assert "rdx              0xa00f11\n" in shown
    assert "rax" not in shown
    assert "\nrax              0x0\n" in run("vmsa", "show", "v0", "-v").out
    document = json.loads(run("vmsa", "show", "v0", "--json").out)
    assert document["schema"] == "sev-attest/vmsa show/1"
    assert document["fields"]["cs"] == {
        "selector": 0xF000, "attrib": 0x9B, "limit": 0xFFFF, "base": 0xFFFF0000,
    }  # fmt: skip
    differ = run("vmsa", "diff", "v0", "v1")
    assert differ.code == 1
    assert differ.lines == [
        "cs.base          0xffff0000 0x800000",
        "rip              0xfff0 0xb004",
    ]
    document = json.loads(run("vmsa", "diff", "v0", "v1", "--json").out)
    assert document["fields"]["rip"] == [0xFFF0, 0xB004]
    assert document["ok"] is False
    same = run("vmsa", "diff", "v0", "v0")
    assert (same.code, same.out) == (0, "the pages are the same\n")
    assert run("vmsa", "diff", "v0", "v1", "-q").out == differ.out
    assert run("vmsa", "diff", "v0", "v0", "-q").out == ""
    assert run("vmsa", "show", "v0", "-q").out == run("vmsa", "show", "v0").out != ""


def test_bytes_without_a_name_are_shown(run: Run) -> None:
    Path("odd").write_bytes(bytes(0xFFF) + b"\x07")
    Path("zero").write_bytes(bytes(4096))
    assert "byte 0xfff belongs to no named field, and is 0x07" in run("vmsa", "show", "odd").out
    assert "byte 0xfff" in run("vmsa", "diff", "odd", "zero").out


def test_build_tells_what_it_did(run: Run) -> None:
    document = json.loads(run("vmsa", "build", "v", *MILAN, "--json").out)
    assert (document["file"], document["cpu"]) == ("v", 0)
    assert "rip" in run("vmsa", "build", "v", *MILAN, "-v", "--force").out
    assert run("vmsa", "build", "v", *MILAN, "-q", "--force").out == ""
    assert run("vmsa", "build", "k", "--vmsa-profile", "krun", "--cpu", "1").code == 0


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ("build v", 2, "the CPU is needed"),
        ("build v --cpu 1 --cpu-model-name EPYC", 2, "--firmware is needed"),
        ("build v --cpu 4096 --cpu-model-name EPYC", 2, "4096 is not in 0..4095"),
        ("build fw --cpu-model-name EPYC", 6, "fw: exists already"),
        ("build - --cpu-model-name EPYC", 2, "written to a file"),
        ("build v --cpu-model-name EPYC -f nowhere", 6, "nowhere: No such file"),
        ("build v --cpu-model-name EPYC -f tik", 6, "tik: firmware footer: there is none"),
        ("show tik", 6, "tik: VMSA page: 16 bytes, expected 4096"),
        ("diff tik fw", 6, "tik: VMSA page: 16 bytes, expected 4096"),
        ("diff - -", 2, "only one input can be standard input"),
        ("", 2, "Usage: sev-attest vmsa"),
    ],
)
def test_bad_input_to_vmsa_gets_one_clear_line(
    run: Run, options: str, code: int, words: str
) -> None:
    ran = run("vmsa", *options.split())
    assert (ran.code, ran.out) == (code, "")
    assert words in ran.err


@pytest.mark.parametrize(
    ("profile", "boot", "ap"),
    [
        ("qemu-init2", {"mxcsr": 0x1F80, "x87_fcw": 0x37F}, {}),
        ("qemu-legacy+debug-swap", {"sev_features": 0x20}, {}),
        ("gce", {"g_pat": 0x70106, "rdx": 0x600}, {}),
        (
            "ec2",
            {"cs.attrib": 0x9A, "ss.attrib": 0x92, "tr.attrib": 0x83, "rdx": 0x600},
            {"cs.attrib": 0x9B},
        ),
        (
            "krun",
            {
                "cs.attrib": 0x9A, "ss.attrib": 0x92, "tr.attrib": 0x83,
                "rsp": 0x8FF0, "rbp": 0x8FF0, "rsi": 0x7000,
            },
            {
                "cs.selector": 0x9100, "cs.base": 0x91000, "rip": 0, "rsp": 0, "rbp": 0, "rsi": 0,
            },
        ),
    ],
)  # fmt: skip
def test_each_profile_differs_from_qemu_s_legacy_one_where_it_should(
    profile: str, boot: dict[str, int], ap: dict[str, int]
) -> None:
    cpu = CpuModel.named("EPYC")
    legacy = vmsa.values_of(VmsaProfile(cpu=cpu).pages(0).boot)
    pages = VmsaProfile(name=profile, cpu=cpu).pages(0x80B004)
    assert vmsa.values_of(pages.boot) == legacy | boot
    start = {"cs.base": 0x800000, "rip": 0xB004}
    assert pages.ap is not None
    assert vmsa.values_of(pages.ap) == legacy | boot | start | ap


def test_a_profile_needs_a_name_and_qemu_s_a_cpu() -> None:
    with pytest.raises(Unsupported, match="no VMSA profile 'xen'"):
        VmsaProfile(name="xen")
    with pytest.raises(Unsupported, match="qemu-init2 needs a CPU model"):
        VmsaProfile(name="qemu-init2")
    page = VmsaProfile(name="krun").pages(0).boot
    assert vmsa.values_of(page)["rdx"] == 0
    assert vmsa.unnamed(page) == []


def test_a_real_page_shows_as_sevctl_shows_it(run: Run, real: Path) -> None:
    for number in (0, 1):
        shown = json.loads((real / "measurement" / f"vmsa{number}-show.txt").read_bytes())
        path = real / "measurement" / f"vmsa{number}.bin"
        ours = json.loads(run("vmsa", "show", path, "--json").out)["fields"]
        for name, value in shown.items():
            if name in ours:
                assert ours[name] == value
            else:  # reserved, or a name from an older layout
                assert not any(value if isinstance(value, list) else [value])
        firmware = real / "firmware" / "OVMF.amdsev.fd"
        sku = ("--cpu-family", "25", "--cpu-model", "1", "--cpu-stepping", "1")
        assert run("vmsa", "build", f"v{number}", "--cpu", number, *sku, "-f", firmware).code == 0
        assert Path(f"v{number}").read_bytes() == path.read_bytes()


# firmware


def test_it_shows_what_an_image_declares(run: Run) -> None:
    document = json.loads(run("firmware", "fw", "--json").out)
    assert document["sha256"] == hashlib.sha256(OVMF).hexdigest()
    assert {entry["name"]: entry["value"] for entry in document["entries"]} == {
        "SEV-ES reset": "0x80b004",
        "SEV secret area": "0x810000, 0xc00",
        "SEV kernel-hash area": "0x810c00, 0x400",
    }
    assert document["attests"] == {
        "SEV": True,
        "SEV-ES": True,
        "kernel hashes": True,
        "secrets": "up to 3072 bytes",
    }
    ran = run("firmware", "fw")
    shown = ran.out
    assert shown.startswith(f"CODE, 8192 bytes, sha256 {document['sha256']}\n")
    assert "\nsecrets                 up to 3072 bytes\n" in shown
    assert "note: a CODE image: start it stateless" in ran.err
    assert "4c2eb361-7d9b-4cc3-8081-127c90d3d294" in run("firmware", "fw", "-v").out
    assert run("firmware", "fw", "-q").out == shown


def test_it_says_what_an_image_cannot(run: Run) -> None:
    Path("bare").write_bytes(ovmf_image(hash_table=None, secret_area=None, reset_address=None))
    attests = json.loads(run("firmware", "bare", "--json").out)["attests"]
    assert attests == {"SEV": False, "SEV-ES": False, "kernel hashes": False, "secrets": False}
    assert "nothing says what it can do" in run("firmware", "kernel").err


def test_a_reset_address_of_0_is_told(run: Run) -> None:
    Path("zero").write_bytes(ovmf_image(8192, reset_address=0))
    document = json.loads(run("firmware", "zero", "--json").out)
    assert document["attests"]["SEV"] is True
    assert document["attests"]["SEV-ES"] is False
    assert document["notes"][0].startswith("the SEV-ES reset address is 0: QEMU starts no SEV-ES")
    assert "note: the SEV-ES reset address is 0" in run("firmware", "zero").err
    for count in ("1", "2"):
        ran = run("measure", "-f", "zero", "--policy", "4", "-n", count, *MILAN)
        assert (ran.code, ran.out) == (4, "")
        assert "error: zero: the firmware's SEV-ES reset address is 0" in ran.err
    ran = run("vmsa", "build", "page", *MILAN, "-f", "zero")
    assert (ran.code, Path("page").exists()) == (4, False)
    assert run("measure", "-f", "zero", "--policy", "1").code == 0


@pytest.mark.parametrize(("data", "words"), UNFIT.values(), ids=UNFIT)
def test_what_is_no_firmware_of_sev_guests_is_named(run: Run, data: bytes, words: str) -> None:
    Path("other").write_bytes(data)
    document = json.loads(run("firmware", "other", "--json").out)
    assert not any(document["attests"].values())
    assert re.search(words, document["notes"][0])
    assert re.search(f"(?m)note: this is .*{words}", run("firmware", "other").err)
    for guest in ((), ("--policy", "4", "-n", "1", *MILAN)):
        ran = run("measure", "-f", "other", *guest)
        assert (ran.code, ran.out) == (4 if document["kind"] == "SVSM" else 6, "")
        assert re.search(f"(?m){words}", ran.err)
    Path("a.xml").write_text("<domain/>")
    found = json.loads(run("domain", "check", "a.xml", "--firmware", "other", "--json").out)
    named = [one for one in found["findings"] if one["id"].startswith("domain.firmware")]
    assert [one["id"] for one in named] == ["domain.firmware.kind"]
    assert re.search(words, named[0]["message"])


def test_krun_needs_nothing_of_the_firmware(run: Run) -> None:
    ran = run("measure", "-f", "kernel", "--policy", "4", "-n", "2", "--vmsa-profile", "krun")
    assert ran.code == 0


def test_a_store_for_variables_is_noted_as_no_firmware(run: Run) -> None:
    guid = bytes.fromhex("8d2bf1ff96768b4ca9852747075b4f50")
    Path("vars").write_bytes(bytes(16) + guid + bytes(4096))
    assert "never measured" in run("firmware", "vars").err
    assert (
        "note: the firmware file is a store for UEFI variables" in run("measure", "-f", "vars").err
    )


def test_firmware_from_before_the_footer_has_its_reset_block_alone(run: Run) -> None:
    block = (0x80B004).to_bytes(4, "little") + b"\x16\0"
    block += bytes.fromhex("de71f7007e1acb4f890e68c77e2fb44e")
    old = bytes(4096 - len(block) - 32) + block + bytes(32)
    assert Firmware.read(old).reset_address() == 0x80B004
    Path("old").write_bytes(old)
    assert json.loads(run("firmware", "old", "--json").out)["attests"]["SEV-ES"] is True
    short = old[: -32 - 18] + b"\xff\xff" + old[-32 - 16 :]
    with pytest.raises(MalformedInput, match="SEV-ES reset block"):
        Firmware.read(short).tables()


def metadata(body: bytes, offset: int) -> bytes:
    """Make an image whose SEV metadata is ``body``, said to begin at ``offset`` from the end."""
    image = with_footer({OVMF_SEV_METADATA: offset.to_bytes(4, "little")}, size=4096)
    return image[: 4096 - 1024] + body + image[4096 - 1024 + len(body) :]


def test_sev_metadata_is_read_and_held_to_its_form(run: Run) -> None:
    section = (0x810000).to_bytes(4, "little") + (0x1000).to_bytes(4, "little") + b"\x10\0\0\0"
    good = b"ASEV" + b"\x1c\0\0\0" + b"\1\0\0\0" + b"\1\0\0\0" + section
    assert Firmware.read(metadata(good, 1024)).sections() == [(0x810000, 0x1000, 0x10)]
    Path("meta").write_bytes(metadata(good, 1024))
    assert "KERNEL_HASHES       0x810000, 0x1000 bytes" in run("firmware", "meta", "-v").out
    for body, offset, words in (
        (b"VESA" + good[4:], 1024, "signature"),
        (good[:8] + b"\2" + good[9:], 1024, "version: 2, expected 1"),
        (good[:12] + b"\xff\xff" + good[14:], 1024, "28 bytes do not hold 65535 sections"),
        (good, 5000, "its offset from the end is 5000"),
        (good, 2, "2 bytes left, 4 needed"),
    ):
        Path("meta").write_bytes(metadata(body, offset))
        ran = run("firmware", "meta")
        assert (ran.code, ran.out) == (6, "")
        assert words in ran.err
        assert ran.err.startswith("error: meta: firmware SEV metadata")


def test_sev_metadata_may_begin_with_the_image() -> None:
    good = b"ASEV" + b"\x10\0\0\0" + b"\1\0\0\0" + bytes(4)
    image = good + with_footer({OVMF_SEV_METADATA: (4096).to_bytes(4, "little")}, size=4096)[16:]
    assert Firmware.read(image).sections() == []
    image = good + with_footer({OVMF_SEV_METADATA: (4097).to_bytes(4, "little")}, size=4096)[16:]
    with pytest.raises(MalformedInput, match="offset from the end is 4097"):
        Firmware.read(image).sections()


def test_the_types_of_sections_are_ovmf_s() -> None:
    # OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm
    assert SECTIONS == {
        1: "SEC_MEM", 2: "SECRETS", 3: "CPUID", 4: "SVSM_CAA", 0x10: "KERNEL_HASHES",
    }  # fmt: skip


DEBIAN = Path("/usr/share/OVMF")


@pytest.mark.skipif(not DEBIAN.exists(), reason="Debian's ovmf package is not installed")
def test_debian_s_images_are_what_they_are(run: Run) -> None:
    for path in sorted({*DEBIAN.glob("*.fd"), Path("/usr/share/ovmf/OVMF.fd")}):
        document = json.loads(run("firmware", path, "--json").out)
        entries = {entry["name"]: entry["value"] for entry in document["entries"]}
        if "VARS" in path.name:
            assert (document["kind"], entries) == ("VARS", {})
            continue
        assert document["kind"] == ("CODE" if "CODE" in path.name else "whole")
        assert int(entries["SEV-ES reset"], 16) in (0x808004, 0x80B004)
        assert document["attests"]["SEV-ES"] is True
        # Generic builds have these two areas in Debian since 2026.08.
        secrets, hashes = (entries[f"SEV {name} area"] for name in ("secret", "kernel-hash"))
        size = int(secrets.split(", ")[1], 16)
        assert document["attests"]["secrets"] == (f"up to {size} bytes" if size else False)
        assert document["attests"]["kernel hashes"] is (hashes != "0x0, 0x0")
        assert ("SEV metadata" in entries) is bool(document["sections"])


def test_a_real_image_is_what_it_is(run: Run, real: Path) -> None:
    path = real / "firmware" / "OVMF.amdsev.fd"
    document = json.loads(run("firmware", path, "--json").out)
    assert document["kind"] == "whole"
    assert document["notes"] == []
    assert {entry["name"] for entry in document["entries"]} <= set(ENTRIES.values())
    assert len(document["sections"]) == 7
    assert document["attests"]["secrets"] == "up to 3072 bytes"


# policy


def test_a_policy_is_explained_bit_by_bit(run: Run) -> None:
    shown = run("policy", "0x5", "3").out
    assert shown.startswith("0x0005 no-debug,es\n")
    assert "\n0x0003 no-debug,no-key-sharing\n" in shown
    for _, meaning, risk in BITS.values():
        assert meaning in shown or risk in shown
    assert "API   any" in shown
    assert "API   at least 1.51" in run("policy", "0x33010005").out


@pytest.mark.parametrize("value", [0, 1, 5, 0x3F, 0x33010005, 0xFFFF003F, 0x01000000])
def test_names_and_numbers_go_both_ways(run: Run, value: int) -> None:
    policy = sev.GuestPolicy(value)
    assert compose(policy.names()) == policy
    if policy.names():
        assert run("policy", ",".join(policy.names())).lines[0].split()[0] == str(policy)
        assert run("policy", *policy.names()).lines[0].split()[0] == str(policy)


def test_json_names_bits_and_risks(run: Run) -> None:
    (found,) = json.loads(run("policy", "no-debug,es", "--json").out)["policies"]
    assert (found["policy"], found["hex"], found["min_api"]) == (5, "0x0005", [0, 0])
    assert found["bits"]["NODBG"] is True
    assert len(found["risks"]) == 5
    assert len(sev.GuestPolicy(0x3301003F).risks()) == 0
    assert run("policy", "5", "-q").out == "0x0005 no-debug,es\n"
    assert run("policy", "no-debug,es", "-q").out == "0x0005 no-debug,es\n"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ("0x41", "policy 0x0041: bits 0x40 are reserved"),
        ("5x", "'5x' is no number"),
        ("4294967296", "is not in 0..4294967295"),
        ("debug", "no policy bit 'debug': no-debug, "),
        ("api>=1.256", "no policy bit 'api>=1.256'"),
        ("api>=1.51,api>=1.52", "a policy has one api>="),
        ("5 es", "not both"),
        ("", "Missing argument"),
    ],
)
def test_a_policy_that_is_none_is_refused(run: Run, values: str, words: str) -> None:
    ran = run("policy", *values.split())
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
