"""testing/folder.py and testing/state.py: what the command line does not show of them."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sev_attest import NotAttestable, Unsupported, WrongState, sev
from sev_attest.sev.states import GuestState
from sev_attest.testing import (
    Fault,
    GuestInputs,
    Host,
    HostFolder,
    HostState,
    SnpHost,
    SnpInputs,
    ovmf_image,
)
from sev_attest.testing.images import SNP_SECTIONS
from sev_attest.testing.state import GENERATIONS, Model

OVMF = ovmf_image(4096, sections=SNP_SECTIONS)
SEED = b"a folder"


def a_state() -> HostState:
    return HostState(seed=SEED, generation="milan", api=(1, 55), build=24, fault=None, launches=0)


@pytest.fixture
def host(here: Path) -> HostFolder:
    return HostFolder.create(Path("host"), a_state())


def test_a_host_is_never_made_over_something(host: HostFolder) -> None:
    before = {path: path.stat().st_mtime_ns for path in host.folder.iterdir()}
    with pytest.raises(FileExistsError, match="host"):
        HostFolder.create(host.folder, a_state())
    assert {path: path.stat().st_mtime_ns for path in host.folder.iterdir()} == before


def test_every_generation_with_a_root_of_amd_s_has_its_model() -> None:
    assert list(GENERATIONS) == [generation.value for generation in sev.Generation]
    for root in sev.amd_roots():
        assert root.generation is not None
        model: Model = GENERATIONS[root.generation.value]
        assert model.bits == root.ark.public_key.bits


def test_a_guest_is_the_same_after_it_was_kept(host: HostFolder) -> None:
    host.start("vm1", GuestInputs(policy=5, firmware=OVMF, vcpus=2))
    platform = a_state().platform()
    kept = host.guest("vm1").on(platform)
    context = platform.guest_context(kept.handle)
    direct = Host(HostFolder(Path("host")).state.platform()).launch(
        policy=5, firmware=OVMF, vcpus=2
    )
    assert kept.measurement == direct.measurement
    assert context == direct.platform.guest_context(direct.handle)
    assert context.state is GuestState.LSECRET
    nonce = bytes(16)
    assert platform.attestation(kept.handle, nonce) == (
        direct.platform.attestation(direct.handle, nonce)
    )


def test_an_snp_guest_is_the_same_after_it_was_kept(host: HostFolder) -> None:
    inputs = SnpInputs(firmware=OVMF, vcpus=2, host_data=b"h" * 32)
    first = host.start_snp("vm1", inputs)
    assert host.snp_guest("vm1") == first
    platform = a_state().snp_platform()
    direct = SnpHost(platform).launch(instance=b"launch 1", **inputs)
    assert first.on(platform) == direct
    assert host.snp_report("vm1", bytes(64)).report == direct.report()
    second = host.start_snp("vm2", inputs)
    assert (second.measurement, second.report_id != first.report_id) == (first.measurement, True)


def test_each_kind_of_guest_is_asked_for_what_it_has(host: HostFolder) -> None:
    host.start("sev", GuestInputs(policy=1, firmware=OVMF))
    host.start_snp("snp", SnpInputs(firmware=OVMF))
    assert {name: guest.running for name, guest in host.guests().items()} == {
        "sev": False,
        "snp": True,
    }
    with pytest.raises(WrongState, match="snp is an SEV-SNP guest: it runs already"):
        host.guest("snp")
    with pytest.raises(WrongState, match="sev is no SEV-SNP guest: it has no reports"):
        host.snp_report("sev", bytes(64))
    for name in ("sev", "snp"):
        with pytest.raises(WrongState, match="there is a guest"):
            host.start_snp(name, SnpInputs(firmware=OVMF))
        host.destroy(name)
    assert host.guests() == {}


@pytest.mark.parametrize("generation", GENERATIONS)
def test_sev_snp_exists_from_milan_on(here: Path, generation: str) -> None:
    state = replace(a_state(), generation=generation)
    host = HostFolder.create(Path("host"), state)
    there = generation not in ("naples", "rome")
    assert Path("host/snp-root.der").exists() == there
    if there:
        host.start_snp("vm1", SnpInputs(firmware=OVMF))
        product = host.state.snp_platform().authority.product
        assert product.value == generation.title()
        return
    with pytest.raises(NotAttestable, match=f"does not exist on {generation.title()}"):
        host.start_snp("vm1", SnpInputs(firmware=OVMF))
    assert host.state.launches == 0


@pytest.mark.parametrize(
    ("fault", "digest", "root"),
    [
        (Fault.FORGED_ROOT, True, False),
        (Fault.WRONG_FIRMWARE_BYTE, False, True),
        (Fault.REPLAYED_MEASUREMENT, True, True),
    ],
)
def test_a_host_that_always_lies_does_so_to_snp_guests_where_it_can(
    here: Path, fault: Fault, *, digest: bool, root: bool
) -> None:
    host = HostFolder.create(Path("host"), replace(a_state(), fault=fault))
    guest = host.start_snp("vm1", SnpInputs(firmware=OVMF))
    honest = SnpHost(a_state().snp_platform())
    assert (guest.measurement == honest.launch(firmware=OVMF).measurement) == digest
    chain = host.snp_report("vm1", bytes(64)).chain
    assert chain.endswith(honest.platform.authority.ark) == root


def test_the_firmware_forgets_the_keys_of_a_guest_that_runs(host: HostFolder) -> None:
    saved = host.start("vm1", GuestInputs(policy=1, firmware=OVMF))
    host.resume("vm1")
    text = Path("host/guests/vm1.json").read_text()
    assert saved.tik.hex() not in text
    assert saved.tek.hex() not in text


def test_neither_keys_nor_secrets_are_in_a_representation(host: HostFolder) -> None:
    saved = host.start("vm1", GuestInputs(policy=1, firmware=OVMF))
    assert saved.tik.hex() not in repr(saved)
    assert repr(saved.tik) not in repr(saved)


def test_a_guest_that_ends_while_all_are_listed_is_left_out(
    host: HostFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("vm1", "vm2"):
        host.start(name, GuestInputs(policy=1, firmware=OVMF))
    glob = Path.glob

    def late(self: Path, pattern: str) -> list[Path]:
        found = [*glob(self, pattern)]
        host.destroy("vm1")
        return found

    monkeypatch.setattr(Path, "glob", late)
    assert list(host.guests()) == ["vm2"]


def test_a_full_disk_leaves_the_host_as_it_was(
    host: HostFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    before = sorted(Path().rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            host.start("vm1", GuestInputs(policy=1, firmware=OVMF))
        with pytest.raises(OSError, match="No space left on device: 'another'"):
            HostFolder.create(Path("another"), a_state())
    assert sorted(Path().rglob("*")) == before
    with pytest.raises(WrongState):
        host.guest("vm1")
    host.start("vm1", GuestInputs(policy=1, firmware=OVMF))


def test_without_locks_nothing_is_changed(
    host: HostFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(Unsupported, match="needs a POSIX system"):
        host.start("vm1", GuestInputs(policy=1, firmware=OVMF))
    assert host.guests() == {}
