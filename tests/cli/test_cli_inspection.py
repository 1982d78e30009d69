"""``sev-attest host check`` and ``guest check``."""

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import Run
from sev_attest.host.inspect import GUEST, HOST
from simulated_trees import guest_files, host_files, lay_out

PARAMETER = "/sys/module/kvm_amd/parameters/sev"
IDS = {name: [c.id for g in table.values() for c in g] for name, table in
       (("host", HOST), ("guest", GUEST))}  # fmt: skip


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    """Lay out a host that is ready."""
    return lay_out(tmp_path / "host", host_files())


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """Lay out a guest."""
    return lay_out(tmp_path / "guest", guest_files())


def test_a_host_that_is_ready_is_0(run: Run, ready: Path) -> None:
    ran = run("host", "check", "--root", ready)
    assert (ran.code, ran.errors) == (0, [])
    assert ran.lines[:3] == [
        "OK: this host is ready for SEV guests",
        "CPU:",
        f"  OK          {'host.cpu.vendor':<26}AMD EPYC 7313 16-Core Processor, family 25, model 1",
    ]
    assert [line.split()[1] for line in ran.lines if line.startswith("  OK ")][:3] == IDS["host"][
        :3
    ]
    assert ran.notes[-1].startswith("note: this is the host's own word and proves nothing")
    assert "`sev-attest verify`, `sev-attest launch`" in ran.notes[-1]


def test_what_is_missing_is_4_and_has_a_fix(run: Run, ready: Path) -> None:
    lay_out(ready, {PARAMETER: "0\n"})
    ran = run("host", "check", "--root", ready)
    assert ran.code == 4
    assert ran.errors[0] == "error: this host is not ready for SEV guests: host.kvm.sev"
    assert ran.errors[1].startswith("hint: ")
    at = ran.lines.index(f"  missing     host.kvm.sev              {PARAMETER} is off")
    assert ran.lines[at + 1].startswith(
        "      fix: `echo 'options kvm_amd sev=1' > /etc/modprobe.d/"
    )
    assert "OK: this host" not in ran.out


def test_what_cannot_be_told_is_4_if_sev_depends_on_it(run: Run, tmp_path: Path) -> None:
    ran = run("host", "check", "--root", tmp_path)
    assert ran.code == 4
    assert ran.errors[0] == (
        "error: cannot tell whether this host is ready for SEV guests: host.cpu.vendor, "
        "host.cpu.sev, host.kvm.sev, host.dev-sev"
    )


def test_many_that_are_missing_are_counted(run: Run, ready: Path) -> None:
    ran = run("host", "check", "--root", lay_out(ready, {
        PARAMETER: "0", "/proc/cpuinfo": "vendor_id : x\n", "/proc/sys/kernel/osrelease": "4.1",
        "/sys/fs/cgroup/misc.capacity": "sev_es 1\n", f"{PARAMETER}_es": "0",
    }))  # fmt: skip
    assert ran.code == 4
    assert "host.cpu.vendor, host.cpu.sev, host.kvm.sev, host.guests\n" in ran.err
    ran = run("host", "check", "--root", ready, "--for", "sev-snp")
    assert "for SEV-SNP guests: " in ran.err
    assert " more\n" in ran.err


@pytest.mark.parametrize(("kind", "code"), [("sev", 0), ("sev-es", 0), ("sev-snp", 4)])
def test_the_guests_that_are_meant_decide(run: Run, tmp_path: Path, kind: str, code: int) -> None:
    lay_out(tmp_path, host_files("rome"))
    assert run("host", "check", "--root", tmp_path, "--for", kind).code == code


def test_json_has_every_check(run: Run, ready: Path) -> None:
    ran = run("host", "check", "--root", ready, "--json")
    document: dict[str, Any] = json.loads(ran.out)
    assert (ran.code, ran.err) == (0, "")
    assert (document["schema"], document["ok"]) == ("sev-attest/host check/1", True)
    assert (document["root"], document["kind"]) == (str(ready), "sev")
    assert [one["id"] for one in document["findings"]] == IDS["host"]
    keys = ["id", "subject", "status", "found", "fix", "essential"]
    assert {tuple(one) for one in document["findings"]} == {tuple(keys)}
    assert "proves nothing" in document["notes"][0]


def test_json_of_a_host_that_is_not_ready(run: Run, ready: Path) -> None:
    lay_out(ready, {PARAMETER: "0\n"})
    ran = run("host", "check", "--root", ready, "--json")
    document = json.loads(ran.out)
    assert (ran.code, ran.err) == (4, "")
    assert (document["ok"], document["exit"]) == (False, 4)
    assert document["errors"][0]["check"] == "host.kvm.sev"
    found = {one["id"]: one for one in document["findings"]}
    assert found["host.kvm.sev"]["status"] == "missing"


def test_quiet_prints_nothing_but_errors(run: Run, ready: Path) -> None:
    ran = run("host", "check", "--root", ready, "--quiet")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    lay_out(ready, {PARAMETER: "0\n"})
    ran = run("host", "check", "--root", ready, "--quiet")
    assert (ran.code, ran.out) == (4, "")
    assert ran.err.startswith("error: ")


def test_verbose_says_what_is_read_and_who_asks_for_it(run: Run, ready: Path) -> None:
    ran = run("host", "check", "--root", ready, "--verbose")
    assert "      looks for: KVM has SEV on" in ran.lines
    assert f"      reads: {PARAMETER}" in ran.lines
    assert sum(line.startswith("      source: ") for line in ran.lines) == len(IDS["host"])


def test_a_tree_does_not_steer_the_terminal(run: Run, ready: Path) -> None:
    lay_out(ready, {"/proc/cmdline": "mem_encrypt=\x1b[2J\u202eon\n"})
    ran = run("host", "check", "--root", ready)
    assert "mem_encrypt=\\x1b[2J\\x202eon" in ran.out
    assert "\x1b" not in ran.out


@pytest.mark.parametrize("command", ["host", "guest"])
def test_a_root_that_is_no_folder_is_a_usage_error(run: Run, tmp_path: Path, command: str) -> None:
    (tmp_path / "file").write_text("")
    for root in ("file", "none"):
        ran = run(command, "check", "--root", tmp_path / root)
        assert ran.code == 2
        assert "--root" in ran.err


@pytest.mark.parametrize("command", ["host", "guest"])
def test_this_machine_itself_is_looked_at(run: Run, command: str) -> None:
    """Whatever this machine is, the command ends, and says of every check how it stands."""
    ran = run(command, "check", "--json")
    document = json.loads(ran.out)
    assert ran.code in (0, 4)
    assert document["root"] == "/"
    assert [one["id"] for one in document["findings"]] == IDS[command]


def test_a_guest_with_sev_is_0(run: Run, inside: Path) -> None:
    ran = run("guest", "check", "--root", inside)
    assert (ran.code, ran.errors) == (0, [])
    assert ran.lines[0] == "OK: SEV is active in this guest"
    assert "736869e5-84f0-4973-92ec-06879ce3da0b (luks-key)" in ran.out
    assert "secret bytes" not in ran.out
    assert ran.notes[-1].startswith("note: this is the guest's own word and proves nothing")


def test_outside_of_a_guest_is_4(run: Run, ready: Path) -> None:
    ran = run("guest", "check", "--root", ready)
    assert ran.code == 4
    assert "this is no guest: no hypervisor below it" in ran.out
    assert ran.errors[0] == "error: SEV is not active in this guest: guest.sev"


def test_a_guest_that_tells_nothing_is_4(run: Run, tmp_path: Path) -> None:
    ran = run("guest", "check", "--root", tmp_path, "--json")
    document = json.loads(ran.out)
    assert (ran.code, document["schema"]) == (4, "sev-attest/guest check/1")
    assert document["errors"][0]["message"] == (
        "cannot tell whether SEV is active in this guest: guest.sev"
    )
