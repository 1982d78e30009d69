"""The search for what explains a mismatch: it names exactly what was different."""

import hmac
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations, islice, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sev_attest import MeasurementMismatch, sev
from sev_attest._wire import guid_bytes, le
from sev_attest.guest import CpuModel, Firmware, VmsaPages, VmsaProfile
from sev_attest.guest.cpu import QEMU_MODELS
from sev_attest.guest.diagnosis import changes
from sev_attest.guest.diagnosis import search as shared
from sev_attest.guest.diagnosis.changes import counts, cpus
from sev_attest.guest.diagnosis.search import Change, Combination, search, stages
from sev_attest.guest.kernel_hashes import KernelHashes
from sev_attest.guest.spec import EFI_NV_DATA_VOLUME, VMSA_PROFILES
from sev_attest.sev.diagnosis import guest_changes, number_changes
from sev_attest.sev.diagnosis import search as diagnose
from sev_attest.sev.diagnosis.guest_changes import encrypted_state, layouts
from sev_attest.sev.diagnosis.hypotheses import RANK, RULED_OUT, changed
from sev_attest.sev.diagnosis.hypotheses import Launch as Stated
from sev_attest.sev.diagnosis.number_changes import other_launch
from sev_attest.sev.diagnosis.search import Clues, Diagnosis, explain_mismatch
from sev_attest.sev.diagnosis.trial import Trial, macs
from sev_attest.testing import Platform, ovmf_image

OVMF = ovmf_image(1 << 14)
OTHER = ovmf_image(1 << 14, seed=b"other", reset_address=0x80_8004)
STORE = (bytes(16) + guid_bytes(EFI_NV_DATA_VOLUME) + le(1 << 12, 8)).ljust(1 << 12, b"\xff")
LINE = b"root=/dev/vda quiet splash"
MILAN = CpuModel.named("EPYC-Milan")
KEYS = sev.TransportKeys(tek=b"another tek here", tik=b"another tik here")
STATED = Stated(keys=KEYS, api_major=1, api_minor=55, build_id=24, policy=1)
NUMBERS = ("api_major", "api_minor", "build_id")


@dataclass
class Launch:
    """A guest as it was launched, and as it was stated; a spoiler changes one of the two."""

    platform: Platform
    session: sev.Session
    measured: dict[str, Any]
    stated: dict[str, Any]
    clues: dict[str, Any] = field(default_factory=dict)

    def measurement(self) -> bytes:
        """Launch it on the firmware model, command by command."""
        guest, platform = self.measured, self.platform
        handle = platform.launch_start(
            guest["policy"], self.session.godh.to_bytes(), self.session.blob
        )
        platform.launch_update_data(handle, guest["firmware"])
        if guest["kernel"] is not None:
            line = KernelHashes.of(guest["line"]).kernel  # its hash, with whatever is at its end
            hashes = KernelHashes.of(guest["kernel"], guest["initrd"])
            platform.launch_update_data(handle, replace(hashes, cmdline=line).to_bytes())
        for page in guest["pages"]:
            platform.launch_update_vmsa(handle, page)
        return platform.launch_measure(handle)

    def diagnose(self, budget: float = 600, explain: Any = explain_mismatch) -> Diagnosis:
        """Launch it, and ask why it does not match what is stated."""
        stated = self.stated
        info = sev.LaunchInfo(
            measurement=self.measurement(),
            api_major=stated["api"][0],
            api_minor=stated["api"][1],
            build_id=stated["build"],
        )
        policy = sev.GuestPolicy(stated["policy"])
        firmware = Firmware.read(stated["firmware"])
        kernel = None
        if stated["kernel"] is not None:
            kernel = KernelHashes.of(stated["kernel"], stated["initrd"], stated["line"])
        pages = stated["pages"] or stated["profile"].pages(0x80_B004)
        guest = sev.MeasuredGuest(
            firmware=firmware, kernel=kernel, vmsa=pages if policy.es else None
        )
        digest = guest.digests(stated["vcpus"])[-1]
        with pytest.raises(MeasurementMismatch):
            sev.verify_launch(info, keys=stated["keys"], policy=policy, digest=digest)
        found: Diagnosis = explain(
            info,
            keys=stated["keys"],
            policy=policy,
            guest=guest,
            vcpus=stated["vcpus"],
            profile=None if stated["pages"] else stated["profile"],
            clues=Clues(cmdline=stated["line"], image=stated["firmware"], **self.clues),
            budget=budget,
        )
        return found


def pages(
    count: int, name: str = "qemu-legacy", cpu: CpuModel = MILAN, reset: int = 0x80_B004
) -> list[bytes]:
    return list(VmsaProfile(name=name, cpu=cpu).pages(reset).for_vcpus(count))


@pytest.fixture
def launch(milan: Platform) -> Launch:
    return new_launch(milan)


def new_launch(platform: Platform, policy: int = 5) -> Launch:
    session = sev.Session.create_unverified(platform.export().pdh, policy=sev.GuestPolicy(policy))
    es = bool(policy & 4)
    same = {"policy": policy, "firmware": OVMF, "kernel": b"kernel", "initrd": b"initrd"}
    measured = {**same, "line": LINE + b"\0", "pages": pages(4) if es else []}
    stated = {
        **same,
        "line": LINE,
        "vcpus": 4,
        "profile": VmsaProfile(cpu=MILAN),
        "pages": None,
    }
    stated |= {"keys": session.keys, "api": platform.api, "build": platform.build}
    return Launch(platform, session, measured, stated)


Spoiler = Callable[[Launch], None]


def states(**parts: object) -> Spoiler:
    """Let the owner state something else than what was launched."""
    return lambda launch: launch.stated.update(parts)


def launches(**parts: object) -> Spoiler:
    """Let the host launch something else than what is stated."""
    return lambda launch: launch.measured.update(parts)


def at_hand(images: dict[str, bytes], spoiler: Spoiler) -> Spoiler:
    def spoil(launch: Launch) -> None:
        launch.clues["images"] = list(images.items())
        spoiler(launch)

    return spoil


def swap_keys(launch: Launch) -> None:
    keys = launch.stated["keys"]
    launch.stated["keys"] = sev.TransportKeys(tek=keys.tik, tik=keys.tek)


def other_keys(launch: Launch) -> None:
    unused = sev.TransportKeys(tek=bytes(16), tik=bytes(16))
    launch.clues["keys"] = {"unused": unused, "vm2": launch.stated["keys"]}
    launch.clues["verified"] = {"vm2"}
    launch.stated["keys"] = KEYS


def swap_pages(launch: Launch) -> None:
    boot, ap = pages(2)
    launch.stated["pages"] = VmsaPages(boot=ap, ap=boot)


def recorded(launch: Launch) -> None:
    launch.clues["recorded"] = 5
    launch.stated["policy"] = 0x3001_0006


SINGLES: dict[str, tuple[str, Spoiler]] = {
    "tik-and-tek": ("keys.swapped", swap_keys),
    "another-pair": ("keys.other", other_keys),
    "no-hashes": ("kernel.hashes-off", launches(kernel=None)),
    "two-vcpus": ("vcpus", states(vcpus=2)),
    "512-vcpus": ("vcpus", launches(pages=pages(512))),
    "profile": ("vmsa.profile", launches(pages=pages(4, "qemu-init2"))),  # the others: see below
    **{
        f"model-{name}": ("cpu.model", launches(pages=pages(4, cpu=CpuModel.named(name))))
        for name in QEMU_MODELS
        if name != "EPYC-Milan"
    },
    **{
        f"line-{number}": ("cmdline", launches(line=measured))
        for number, measured in enumerate(
            (
                LINE + b"\n\0",
                LINE + b"\r\n\0",
                LINE + b"\0\0",
                LINE,
                LINE + b" \0",
                b" " + LINE + b"\0",
                b'"' + LINE + b'"\0',
                b"'" + LINE + b"'\0",
                b"root=/dev/vda  quiet splash\0",
                b"root=/dev/vda quiet  splash\0",
                b'root="/dev/vda" quiet splash\0',
                b"\0",
            )
        )
    },
    **{
        f"stated-line-{number}": ("cmdline", states(line=line))
        for number, line in enumerate(
            (
                LINE + b"\n",
                LINE + b"  ",
                b" " + LINE,
                b" " + LINE + b" ",
                LINE.replace(b" ", b"   "),
                b'root="/dev/vda" quiet splash',
                b"root='/dev/vda' quiet splash",
            )
        )
    },
    "no-initrd": ("kernel.no-initrd", launches(initrd=None)),
    "initrd-for-kernel": ("kernel.swapped", states(kernel=b"initrd", initrd=b"kernel")),
    "another-ovmf": (
        "firmware.other",
        at_hand({"a/OVMF.fd": b"", "b/OVMF.fd": OVMF}, states(firmware=OTHER)),
    ),
    "store-and-code": (
        "firmware.joined",
        at_hand({"VARS.fd": STORE}, launches(firmware=STORE + OVMF)),
    ),
    "code-of-the-whole": ("firmware.code-alone", states(firmware=STORE + OVMF)),
    "numbers-swapped": ("numbers.swapped", states(api=(24, 55), build=1)),
    "numbers-as-hex": ("numbers.base", states(build=0x24)),
    "hex-as-decimal": ("numbers.base", states(api=(1, 37))),  # 0x37 is 55, and was typed so
    "all-as-hex": ("numbers.base", states(api=(1, 0x55), build=0x24)),
    "recorded-policy": ("policy.session", recorded),
    **{
        f"bit-{bit}": ("policy.bit", states(policy=5 ^ 1 << bit)) for bit in (0, 1, 3, 5, 7, 16, 29)
    },
    **{
        f"bits-{one}-{two}": ("policy.bits", states(policy=5 ^ 1 << one ^ 1 << two))
        for one, two in ((0, 1), (1, 3), (5, 16), (28, 29))
    },
    "pages-swapped": ("vmsa.swapped", swap_pages),
    "reset-vector-for-all": ("vmsa.boot-for-all", launches(pages=pages(1) * 4)),
    "nothing-of-vcpus": ("vmsa.none", launches(pages=[])),
    "older-build": ("numbers.one", states(build=25)),
    "another-minor": ("numbers.one", states(api=(1, 200))),
    "another-major": ("numbers.one", states(api=(9, 55))),
    "stepping": (
        "cpu.stepping",
        launches(pages=pages(4, cpu=CpuModel(family=25, model=1, stepping=2))),
    ),
    "stepping-of-genoa": (
        "cpu.stepping",
        launches(pages=pages(4, cpu=CpuModel(family=25, model=17, stepping=1))),
    ),
    "another-launch": ("launch.other", states(api=(1, 17), build=99)),
}


@pytest.mark.parametrize(("hypothesis", "spoil"), SINGLES.values(), ids=SINGLES)
def test_a_single_difference_is_named(launch: Launch, hypothesis: str, spoil: Spoiler) -> None:
    spoil(launch)
    (finding,) = launch.diagnose().findings
    assert finding.hypothesis == hypothesis
    assert finding.changes
    assert (finding.hypothesis in MENDABLE) is (finding.meaning == "")


MENDABLE = {
    *("keys.swapped", "keys.other", "vcpus", "cpu.model", "cpu.stepping"),
    *("vmsa.profile", "vmsa.swapped"),
}
"""What is a slip of the owner's; all others have a meaning here, and see below for the rest."""


def test_keys_of_a_session_without_a_good_record_are_not_to_be_trusted(launch: Launch) -> None:
    other_keys(launch)
    launch.clues["verified"] = {"unused"}
    (finding,) = launch.diagnose().findings
    assert finding.hypothesis == "keys.other"
    assert "in another session (vm2), of which no record of a verified platform" in finding.meaning
    assert "do not trust it" in finding.meaning


@pytest.mark.parametrize(
    ("hypothesis", "spoil", "numbers"),
    [
        ("numbers.swapped", states(api=(1, 24), build=55), {"api_minor": 55, "build_id": 24}),
        ("numbers.base", states(build=18), {"build_id": 24}),
        ("numbers.one", states(build=23), {"build_id": 24}),
    ],
)
def test_a_number_is_a_slip_only_where_the_owner_typed_it(
    launch: Launch, hypothesis: str, spoil: Spoiler, numbers: dict[str, int]
) -> None:
    spoil(launch)
    for typed in (NUMBERS, tuple(numbers), tuple(numbers)[1:]):
        launch.clues["typed"] = typed
        (finding,) = launch.diagnose().findings
        assert (finding.hypothesis, finding.changes) == (hypothesis, numbers)
        claimed = "reports numbers of firmware that it did not run" in finding.meaning
        assert claimed is (finding.meaning != "") is not (set(numbers) <= set(typed))


def test_no_number_is_said_to_be_another_where_it_is_not() -> None:
    for change in diagnose._changes(STATED._replace(api_minor=1), Clues()):
        for part in change.detail.split(" and "):
            was, _, stated = part.rpartition(", not ")
            assert was.split(" was ")[-1] != stated


@pytest.mark.parametrize(
    ("hypothesis", "spoil"),
    [
        ("numbers.swapped", states(api=(55, 1))),
        ("numbers.base", states(build=0x24)),
        ("numbers.one", states(build=25)),
    ],
)
def test_older_firmware_than_stated_is_never_taken_for_a_slip(
    launch: Launch, hypothesis: str, spoil: Spoiler
) -> None:
    spoil(launch)
    launch.clues["typed"] = NUMBERS
    (finding,) = launch.diagnose().findings
    assert finding.hypothesis == hypothesis
    assert "older firmware" in finding.meaning
    assert "attack" in finding.meaning


def test_other_firmware_may_be_another_launch() -> None:
    stated = STATED._replace(api_major=0, api_minor=17)
    changes = (other_launch(stated, *other) for other in product(((0, 17), (0, 18)), range(256)))
    meanings = {tuple(change.parts.values()): change.meaning for change in changes}
    assert "older firmware" in meanings[0, 17, 23]
    assert "another launch" in meanings[0, 17, 25]
    assert "another launch" in meanings[0, 18, 0]
    assert "older" not in meanings[0, 18, 0]


@pytest.mark.parametrize("launched", VMSA_PROFILES[2:5])
def test_another_vmms_vcpu_state_is_no_slip(launch: Launch, launched: str) -> None:
    launch.measured["pages"] = pages(4, launched)
    (finding,) = launch.diagnose().findings
    assert finding.changes == {"vmsa_profile": launched}
    assert "another VMM's or another kernel's" in finding.meaning
    assert ("start outside the measured firmware" in finding.meaning) is (launched == "krun")


def test_only_qemus_two_ways_to_set_up_vcpus_are_mistaken_for_each_other() -> None:
    mendable = {
        (stated, change.options["vmsa_profile"])
        for stated in VMSA_PROFILES
        for change in layouts(STATED._replace(layout=stated))
        if not change.meaning
    }
    old, new, swap = "qemu-legacy", "qemu-init2", "+debug-swap"
    assert mendable == {
        *((old, new), (old, old + swap), (old, new + swap), (old + swap, new + swap)),
        *((new, old), (new, new + swap), (new, old + swap), (new + swap, old + swap)),
    }


@pytest.mark.parametrize("launched", [pages(4), pages(4, "qemu-init2"), pages(2)])
def test_pages_that_the_owner_gave_are_the_owners_decision(
    launch: Launch, launched: list[bytes]
) -> None:
    launch.measured["pages"] = launched
    launch.stated["pages"] = VmsaPages(boot=bytes(4096), ap=bytes(4096))
    (finding,) = launch.diagnose().findings
    assert finding.meaning.startswith("then its vCPUs did not start as your pages say")
    assert finding.meaning.count("your pages") == 1


def test_swapped_pages_are_a_slip_only_where_the_pages_themselves_say_so(launch: Launch) -> None:
    boot, ap = pages(2)
    launch.stated["pages"] = VmsaPages(boot=boot, ap=ap)
    launch.measured["pages"] = [ap, boot, boot, boot]
    (finding,) = launch.diagnose().findings
    assert finding.hypothesis == "vmsa.swapped"
    assert "the boot vCPU started as you meant the others to" in finding.meaning


@pytest.mark.parametrize(
    ("launched", "stated", "words"),
    [
        (5, 0x45, "then you stated reserved bits, which no firmware takes"),
        (5, 0x44, "debug commands on the guest; you stated reserved bits, which no firmware takes"),
    ],
)
def test_reserved_bits_are_said(launch: Launch, launched: int, stated: int, words: str) -> None:
    launch.stated["policy"] = stated
    (finding,) = launch.diagnose().findings
    assert finding.changes == {"policy": launched}
    assert finding.meaning.endswith(words)


def test_kernel_and_initrd_may_have_been_named_in_the_wrong_order(launch: Launch) -> None:
    launch.stated |= {"kernel": b"initrd", "initrd": b"kernel"}
    (finding,) = launch.diagnose().findings
    assert "in the wrong order, swap them" in finding.meaning


def test_a_cpu_model_of_qemus_is_named(launch: Launch) -> None:
    other_model(launch)
    (finding,) = launch.diagnose().findings
    assert finding.changes == {"cpu_model_name": "EPYC-Milan"}


def test_of_a_line_with_many_words_few_changes_are_kept() -> None:
    line = b" ".join(b"word%d" % number for number in range(1000))
    lines = [
        c
        for c in diagnose._changes(STATED._replace(hashes=True), Clues(cmdline=line))
        if c.hypothesis == "cmdline"
    ]
    assert len(lines) > 2000
    assert sum(change.likely for change in lines) < 150


def test_pairs_come_likeliest_first_and_are_not_kept() -> None:
    def likely(hypothesis: str, part: str) -> Change:
        return Change(hypothesis=hypothesis, detail="", parts={part: 0}, options={})

    found = [likely("cmdline", "cmdline"), likely("vcpus", "vcpus"), likely("vcpus", "vcpus")]
    found += [likely("numbers.base", "api_minor"), likely("numbers.base", "build_id")]
    pairs = list(shared.pairs(found, RANK))
    sums = [RANK[one.hypothesis] + RANK[two.hypothesis] for one, two in pairs]
    assert sums == sorted(sums)
    assert len(pairs) == 9  # of 10, two vCPU counts at once cannot be
    many = [likely("policy.bit", str(number)) for number in range(100_000)]
    assert len(list(islice(shared.pairs(many, RANK), 10))) == 10  # of 5 000 000 000


def test_what_was_hashed_is_kept_to_a_bound(
    launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "_MOST_KEPT", 1)
    launch.stated["vcpus"] = 2
    launch.measured["line"] = LINE + b"\n\0"
    (finding,) = launch.diagnose().findings
    assert finding.hypothesis == "vcpus+cmdline"


def test_every_hypothesis_is_shown_here() -> None:
    elsewhere = {"es.on", "es.off"}
    assert {hypothesis for hypothesis, _ in SINGLES.values()} | elsewhere == RULED_OUT.keys()


@pytest.mark.parametrize(
    ("policy", "stated", "hypothesis"),
    [
        (1, 5, "es.off"),
        (0x21, 0x15, "numbers.base"),  # 21 was meant as hex; so its ES bit is another
        (5, 1, "es.on"),
    ],
)
def test_sev_and_sev_es_are_told_apart(
    milan: Platform, policy: int, stated: int, hypothesis: str
) -> None:
    launch = new_launch(milan, policy)
    launch.stated["policy"] = stated
    (finding,) = launch.diagnose().findings
    assert finding.hypothesis == hypothesis
    assert finding.changes["policy"] == policy


def test_code_with_variables_behind_it_is_found(milan: Platform) -> None:
    """Plain SEV alone, and no kernel: such an image has no footer at its end."""
    launch = new_launch(milan, 1)
    launch.measured["kernel"] = launch.stated["kernel"] = None
    launch.clues["images"] = [("VARS.fd", STORE)]
    launch.measured["firmware"] = OVMF + STORE
    (finding,) = launch.diagnose().findings
    assert finding.hypothesis == "firmware.joined"


def other_profile(launch: Launch) -> None:
    launch.stated["profile"] = replace(launch.stated["profile"], name="qemu-init2")


def other_model(launch: Launch) -> None:
    launch.stated["profile"] = replace(launch.stated["profile"], cpu=CpuModel.named("EPYC-Rome"))


IN_PAIRS: dict[str, Spoiler] = {
    "keys.swapped": swap_keys,
    "keys.other": other_keys,
    "kernel.no-initrd": launches(initrd=None),
    "cmdline": launches(line=LINE + b"\n\0"),
    "vcpus": states(vcpus=2),
    "vmsa.profile": other_profile,
    "cpu.model": other_model,
    "firmware.other": at_hand({"OVMF.fd": OVMF}, states(firmware=OTHER)),
    "policy.bit": states(policy=4),
    "kernel.hashes-off": launches(kernel=None),
}
PAIRS = [
    pair
    for pair in combinations(IN_PAIRS, 2)
    # Two ways to have one thing, or one that hides the other:
    if pair != ("keys.swapped", "keys.other")
    and not ("kernel.hashes-off" in pair and {"kernel.no-initrd", "cmdline"} & set(pair))
]


def test_there_are_enough_pairs() -> None:
    assert len(PAIRS) >= 40


@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_two_differences_are_named(launch: Launch, pair: tuple[str, str]) -> None:
    for hypothesis in pair:
        IN_PAIRS[hypothesis](launch)
    (finding,) = launch.diagnose().findings
    assert set(finding.hypothesis.split("+")) == set(pair)


@pytest.mark.parametrize("seed", range(3))
def test_any_known_vcpu_state_is_found(launch: Launch, seed: int) -> None:
    """Number, model and profile may all be others, also where pages were given or none at all."""
    draw = random.Random(seed)
    count, name = draw.randrange(1, 513), draw.choice(VMSA_PROFILES)
    cpu = CpuModel.named(draw.choice([model for model in QEMU_MODELS if model != "EPYC-Milan"]))
    launch.measured["pages"] = pages(count, name, cpu)
    if seed % 3 == 1:
        launch.stated["pages"] = VmsaPages(boot=bytes(4096), ap=bytes(4096))
    if seed % 3 == 2:
        launch.stated["policy"] = 1
    (finding,) = launch.diagnose().findings
    assert finding.changes.get("num_cpus", 4) == count
    assert finding.changes.get("vmsa_profile", "qemu-legacy") == name


@given(key=st.binary(min_size=16, max_size=16), message=st.binary(max_size=200))
def test_a_mac_from_kept_states_is_the_hmac(key: bytes, message: bytes) -> None:
    assert macs(key)(message) == macs(key)(message) == hmac.digest(key, message, "sha256")


def explain_plainly(
    info: sev.LaunchInfo,
    *,
    keys: sev.TransportKeys,
    policy: sev.GuestPolicy,
    guest: sev.MeasuredGuest,
    vcpus: int,
    profile: VmsaProfile | None,
    clues: Clues,
    budget: float,
) -> Diagnosis:
    """Try every combination one by one, each by its whole measurement."""
    assert budget == 600
    numbers = {name: getattr(info, name) for name in NUMBERS}
    stated = Stated(keys=keys, policy=policy.value, **numbers)
    stated = diagnose._with_guest(stated, guest, vcpus, profile)
    trial = Trial(info, None)
    wide = plain_machines(stated), plain_launches(stated)
    return search(
        stages(diagnose._changes(stated, clues), RANK, *wide),
        lambda combination: trial.fits(changed(stated, combination)),
        words=RULED_OUT,
        left_out=(),
        end=float("inf"),
    )


def plain_machines(stated: Stated) -> Iterator[Combination]:
    none: tuple[Change | None, ...] = (None,)
    head = () if stated.es else (encrypted_state(stated),)
    pages = guest_changes._PAGES if stated.given else ""
    for layout in (*none, *layouts(stated)):
        name = layout.options["vmsa_profile"] if layout else stated.layout
        shown = name is None or VmsaProfile.shows_cpu(str(name))
        for cpu in (*none, *(cpus(stated.cpu, pages) if shown else ())):
            for number in (*none, *counts(stated.vcpus)):
                yield tuple(change for change in (*head, number, cpu, layout) if change)


def plain_launches(stated: Stated) -> Iterator[Combination]:
    majors = dict.fromkeys((stated.api_major, 1, 0))
    for major, minor, build in product(majors, number_changes._MINORS, range(256)):
        yield (other_launch(stated, (major, minor), build),)


def _another_machine(draw: random.Random, launch: Launch) -> None:
    cpu = CpuModel.named(draw.choice(list(QEMU_MODELS)))
    launched = pages(draw.randrange(1, 513), draw.choice(VMSA_PROFILES), cpu)
    launch.measured["pages"] = launched if launch.measured["policy"] & 4 else []


def _another_launch(draw: random.Random, launch: Launch) -> None:
    launch.stated |= {
        "api": (draw.choice((0, 1)), draw.choice(number_changes._MINORS)),
        "build": draw.randrange(256),
    }


def _nothing_known(_draw: random.Random, launch: Launch) -> None:
    launch.measured["firmware"] = OTHER


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spoil", [_another_machine, _another_launch, _nothing_known])
def test_trying_in_bulk_finds_what_trying_one_by_one_finds(
    monkeypatch: pytest.MonkeyPatch,
    milan: Platform,
    spoil: Callable[[random.Random, Launch], None],
    seed: int,
) -> None:
    draw = random.Random(seed)
    if spoil is not _another_machine and (spoil, seed) != (_nothing_known, 0):
        # Every vCPU count and every minor are tried by those two; here fewer are.
        monkeypatch.setattr(number_changes, "_MINORS", range(48))
        for module in (changes, guest_changes):
            monkeypatch.setattr(module, "MOST_VCPUS", 48)
    launch = new_launch(milan, draw.choice((5, 5, 1)))
    spoil(draw, launch)
    launch.stated["vcpus"] = draw.choice((4, 1, 600))
    launch.stated["policy"] = draw.choice((launch.measured["policy"], 5))
    if draw.random() < 0.3:  # pages of the owner's
        launch.stated["pages"] = VmsaPages(boot=bytes(4096), ap=bytes(4096))
    found, plain = launch.diagnose(), launch.diagnose(explain=explain_plainly)
    assert found.findings == plain.findings
    assert (found.ruled_out, found.complete) == (plain.ruled_out, plain.complete)
    if not found.findings:
        assert found.tried == plain.tried


def test_a_launch_without_a_digest_fits_on_no_api() -> None:
    info = sev.LaunchInfo(measurement=bytes(48), api_major=1, api_minor=55, build_id=24)
    assert Trial(info, None).build(STATED, (1, 55)) is None


def test_a_boot_page_alone_is_enough_for_one_vcpu(launch: Launch) -> None:
    launch.measured["pages"] = pages(1)
    launch.stated |= {"pages": VmsaPages(boot=pages(1, cpu=MILAN)[0]), "vcpus": 1}
    launch.stated["build"] = 25
    (finding,) = launch.diagnose().findings
    assert finding.hypothesis == "numbers.one"


def test_a_search_without_result_says_what_it_rules_out(launch: Launch) -> None:
    launch.measured["firmware"] = OTHER
    told: list[int] = []
    launch.clues = {"images": [("a", b""), ("b", OVMF), ("broken", broken()), ("c", STORE)]}
    launch.clues |= {"keys": {"unused": KEYS}, "left_out": {"keys.other"}}
    diagnosis = launch.diagnose()
    assert (diagnosis.findings, diagnosis.complete, told) == ((), False, [])
    absent = {"es.on", "keys.other", "policy.session", "vmsa.swapped", "firmware.code-alone"}
    expected = [words for name, words in RULED_OUT.items() if name not in absent]
    assert list(diagnosis.ruled_out) == expected
    assert diagnosis.tried > 100_000


def broken() -> bytes:
    """Make firmware whose footer lies, so that no vCPU can be started by it."""
    image = bytearray(OVMF)
    image[-50:-48] = b"\xff\xff"
    return bytes(image)


def test_a_given_digest_leaves_keys_and_numbers_to_try(launch: Launch) -> None:
    info = sev.LaunchInfo(
        measurement=launch.measurement(), api_major=1, api_minor=55, build_id=0x24
    )
    digest = sev.MeasuredGuest(
        firmware=Firmware.read(OVMF),
        kernel=KernelHashes.of(b"kernel", b"initrd", LINE),
        vmsa=VmsaProfile(cpu=MILAN).pages(0x80_B004),
    ).digests(4)[-1]
    told: list[int] = []

    def diagnose(digest: bytes) -> Diagnosis:
        return explain_mismatch(
            info,
            keys=launch.session.keys,
            policy=sev.GuestPolicy(5),
            guest=digest,
            progress=told.append,
            budget=600,
        )

    (finding,) = diagnose(digest).findings
    assert (finding.hypothesis, finding.changes) == ("numbers.base", {"build_id": 24})
    assert not told
    assert diagnose(bytes(32)).complete
    assert told == sorted(told)
    assert len(told) > 10


def test_whatever_time_there_is_the_search_ends_without_a_finding(milan: Platform) -> None:
    """100 launches of what nobody could guess; how far each search gets depends on its time."""
    draw = random.Random(1)
    kinds = [new_launch(milan, 5), new_launch(milan, 1)]
    for number in range(100):
        launch = kinds[number % 2]
        launch.measured["firmware"] = draw.randbytes(4096)
        diagnosis = launch.diagnose(budget=0.01 * (number % 4))
        assert not diagnosis.findings
        assert not diagnosis.complete
        assert set(diagnosis.ruled_out) <= set(RULED_OUT.values())


def test_an_image_whose_first_volume_is_larger_than_itself_is_tried_as_it_is(
    launch: Launch,
) -> None:
    launch.stated |= {"firmware": STORE.replace(le(1 << 12, 8), le(1 << 40, 8)) + OVMF}
    launch.stated |= {"initrd": None, "vcpus": 2}
    launch.measured |= {"initrd": None, "firmware": launch.stated["firmware"]}
    swap_keys(launch)
    (finding,) = launch.diagnose().findings
    assert finding.hypothesis == "keys.swapped+vcpus"


def test_no_time_is_no_search(launch: Launch) -> None:
    launch.stated["vcpus"] = 2
    diagnosis = launch.diagnose(budget=0)
    assert (diagnosis.findings, diagnosis.tried, diagnosis.ruled_out) == ((), 0, ())


def test_a_diagnosis_shows_no_key_and_no_expected_measurement(launch: Launch) -> None:
    launch.stated["vcpus"] = 2
    other_keys(launch)
    shown = repr(launch.diagnose()) + repr(launch.clues)
    for key in (launch.session.keys, KEYS):
        for secret in (key.tik, key.tek):
            assert secret.hex() not in shown
            assert repr(secret)[2:-1] not in shown
