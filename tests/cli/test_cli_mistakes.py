"""The likeliest mistakes on a command line: a line says what is wrong, where, and what to do."""

import base64
from pathlib import Path

import click
import pytest

from conftest import Run
from sev_attest.testing import Platform
from test_help import COMMANDS

MEASUREMENT = base64.b64encode(bytes(48)).decode()
NUMBERS = ["--api-major", "1", "--api-minor", "55", "--build-id", "24", "--policy", "5"]


@pytest.fixture
def files(here: Path) -> Path:
    """Lay out a chain with its root, keys, and what people take for the value of an option."""
    here.chmod(0o700)
    platform = Platform(b"mistakes")
    Path("chain").write_bytes(platform.export().to_bytes())
    Path("root").write_bytes(platform.authority.ark.to_bytes() + platform.authority.ask.to_bytes())
    Path("folder").mkdir()
    Path("tk").write_bytes(bytes(32))
    Path("OVMF.fd").write_bytes(bytes(4096))
    Path("my measurement").write_text(MEASUREMENT)
    Path("digest.hex").write_text("00" * 48)
    Path("x.xml").write_text("<domain/>")
    return here


def paths() -> list[tuple[tuple[str, ...], str]]:
    """Return every option of every command that takes text which is not empty."""
    return [
        (path, one.opts[-1])
        for path, command in COMMANDS.items()
        for one in command.params
        if isinstance(one, click.Option) and one.type.name in ("file", "uri", "version", "date")
    ]


PATHS = paths()


@pytest.mark.parametrize(("path", "option"), PATHS, ids=[f"{' '.join(p)} {o}" for p, o in PATHS])
def test_an_empty_value_is_refused_by_the_name_of_its_option(
    run: Run, path: tuple[str, ...], option: str
) -> None:
    """It comes from a shell variable that is not set."""
    ran = run(*path, f"{option}=")
    assert (ran.code, ran.out) == (2, "")
    error = ran.err.splitlines()[0]
    assert option in error
    assert any(word in error for word in (" is empty", "is no date", "is not a version")), error


def test_the_options_that_name_files_are_among_them() -> None:
    assert len(PATHS) > 150
    assert {(("demo",), "--keep"), (("launch",), "--connect")} <= {*PATHS}


@pytest.mark.parametrize(
    ("line", "folder"),
    [
        ("session --name vm chain 5 --trust-root root --out none", "none"),
        ("session --name vm chain 5 --trust-root root --out chain", "chain"),
        ("certs split chain --out none/none", "none"),
        ("certs join chain -o none/x", "none"),
        ("demo --keep none/x", "none"),
        ("verify chain --trust-root root --evidence none/x.json", "none"),
    ],
)
def test_a_folder_that_is_missing_is_named(run: Run, files: Path, line: str, folder: str) -> None:
    ran = run(*line.split())
    assert ran.code == 6
    assert ran.err.splitlines()[0].endswith(f": there is no folder {folder}")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("certs split chain --out chain", "chain: this is not a folder"),
        ("vmsa show folder", "folder: this is a folder, not a file"),
        ("firmware folder", "folder: this is a folder, not a file"),
    ],
)
def test_a_folder_is_told_from_a_file(run: Run, files: Path, line: str, error: str) -> None:
    ran = run(*line.split())
    assert ran.code == 6
    assert ran.err.splitlines()[0] == f"error: {error}"


def test_a_folder_that_exists_is_used(run: Run, files: Path) -> None:
    assert run("certs", "split", "chain", "--out", "folder").code == 0
    assert Path("folder/pdh.cert").exists()


HINT = "this takes the value itself: "


@pytest.mark.parametrize("given", [["-m", "my measurement"], ["--measurement", "my measurement"],
                                   ["--measurement=my measurement"]], ids=str)  # fmt: skip
def test_a_file_in_place_of_base64_is_told_how_to_pass_it(
    run: Run, files: Path, given: list[str]
) -> None:
    ran = run("validate", *given, *NUMBERS, "--tk", "tk", "--firmware", "OVMF.fd",
              "--num-cpus", "1", "--cpu-model-name", "EPYC")  # fmt: skip
    assert ran.code == 6
    assert f"hint: {HINT}\"$(cat 'my measurement')\"\n" in ran.err


def test_other_text_in_place_of_base64_is_not(run: Run, files: Path) -> None:
    ran = run("validate", "-mmy measurement", *NUMBERS, "--tk", "tk", "--firmware", "OVMF.fd",
              "--num-cpus", "1", "--cpu-model-name", "EPYC")  # fmt: skip
    assert (ran.code, HINT in ran.err) == (6, False)
    for given in ("no file", ""):
        ran = run("measure", "--firmware", "OVMF.fd", "--tik", "tk", *NUMBERS[:-1], "1",
                  "--nonce", given)  # fmt: skip
        assert (ran.code, HINT in ran.err) == (6, False)


def test_a_file_in_place_of_hex_is_told_how_to_pass_it(run: Run, files: Path) -> None:
    ran = run("snp", "verify", "report", "--launch-digest", "digest.hex")
    assert ran.code == 2
    assert f'digest.hex is not hex; {HINT}"$(cat digest.hex)"\n' in ran.err
    assert HINT not in run("snp", "verify", "report", "--launch-digest", "xyz").err


@pytest.mark.parametrize(
    ("given", "code", "error"),
    [
        ("00", 2, "--host-data 00: 2 hex digits, expected 64, and no file has this name"),
        ("nowhere", 6, "nowhere: No such file or directory"),
    ],
)
def test_host_data_of_another_size_is_no_missing_file(
    run: Run, files: Path, given: str, code: int, error: str
) -> None:
    ran = run("domain", "prepare", "x.xml", "--host-data", given)
    assert (ran.code, ran.err) == (code, f"error: {error}\n")


@pytest.mark.parametrize(
    "line",
    [
        "policy 0x30000",
        "measure --firmware OVMF.fd --policy 0x30000",
        "session --name vm chain 0x30000 --trust-root root --ledger none --force",
    ],
)
def test_a_policy_of_sev_snp_is_noticed(run: Run, files: Path, line: str) -> None:
    words = "note: policy 0x30000 looks like one of SEV-SNP: as one of SEV or SEV-ES it demands"
    ran = run(*line.split())
    assert (ran.code, words in ran.err) == (0, True)
    assert ("lets the host read" in ran.err) is line.startswith("session")
    assert words not in run(*line.split(), "--quiet").err


@pytest.mark.parametrize("policy", ["5", "0x33010005", "0x10000"])
def test_other_policies_are_not_taken_for_one(run: Run, policy: str) -> None:
    assert run("policy", policy).err == ""


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("measure --vmsa-profile svsm", "svsm is for SEV-SNP guests (`sev-attest snp measure`)"),
        ("measure --vmsa-profile qemu", "qemu is for SEV-SNP guests (`sev-attest snp measure`)"),
        ("snp measure --vmsa-profile qemu-init2",
         "qemu-init2 is for SEV-ES guests (`sev-attest measure`)"),
    ],
)  # fmt: skip
def test_a_layout_of_the_other_technology_is_told_where_it_belongs(
    run: Run, files: Path, line: str, hint: str
) -> None:
    guest = ("--firmware", "OVMF.fd", "--num-cpus", "1", "--cpu-model-name", "EPYC")
    ran = run(*line.split(), *guest, *(["--policy", "5"] if "snp" not in line else []))
    assert (ran.code, f"hint: {hint}\n" in ran.err) == (2, True)
    assert "hint" not in run("snp", "measure", "--vmsa-profile", "xyz", *guest).err


def test_a_file_in_place_of_a_number_is_called_one(run: Run, files: Path) -> None:
    ran = run("session", "--name", "vm", "chain")
    assert ran.code == 2
    assert ran.err.startswith("error: Invalid value for 'POLICY': 'chain' is a file, not a number")


def test_a_firmware_that_is_no_image_is_asked_about(run: Run, files: Path) -> None:
    guest = ("--num-cpus", "1", "--cpu-model-name", "EPYC")
    ran = run("snp", "measure", "--firmware", "root", *guest)
    assert (ran.code, "hint: is it an OVMF image?\n" in ran.err) == (6, True)


def test_a_store_that_is_not_there_is_begun_by_the_same_option(run: Run, files: Path) -> None:
    Path("kek").write_bytes(bytes(range(32)))
    Path("kek").chmod(0o600)
    ran = run("validate", "-m", MEASUREMENT, *NUMBERS, "--session", "vm", "--store", "none.db",
              "--kek", "kek", "--firmware", "OVMF.fd", "--num-cpus", "1", "--cpu-model-name",
              "EPYC")  # fmt: skip
    assert ran.code == 6
    assert "hint: `sev-attest session --store none.db` begins one\n" in ran.err
