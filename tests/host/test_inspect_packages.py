"""host/inspect/packages.py, rpm.py: versions from the package database, however damaged."""

import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import pytest

from sev_attest.host.inspect import Tree, packages, rpm
from sev_attest.host.inspect.packages import Packages
from sev_attest.host.inspect.rpm import version
from sev_attest.host.inspect.tree import MAX_FILE, Unreadable
from simulated_trees import dpkg, lay_out, rpm_database, rpm_header

NAMES = ("libvirt-daemon", "libvirt")


def first(root: Path) -> tuple[str, str, str] | None:
    found = Packages(Tree(str(root))).first(NAMES)
    return None if found is None else (found.name, found.version, found.database)


def test_dpkg_s_installed_packages_are_found(tmp_path: Path) -> None:
    status = dpkg({"other": "1", "libvirt": "9.0.0-4+deb12u2"})
    lay_out(tmp_path, {"/var/lib/dpkg/status": status})
    assert first(tmp_path) == ("libvirt", "9.0.0", "dpkg")


def test_the_first_of_several_names_counts(tmp_path: Path) -> None:
    status = dpkg({"libvirt": "1", "libvirt-daemon": "10.0.0-2ubuntu8.11"})
    lay_out(tmp_path, {"/var/lib/dpkg/status": status})
    assert first(tmp_path) == ("libvirt-daemon", "10.0.0", "dpkg")


@pytest.mark.parametrize("state", ["deinstall ok config-files", "install ok half-installed", ""])
def test_a_removed_package_of_dpkg_is_not_installed(tmp_path: Path, state: str) -> None:
    status = dpkg({"libvirt": "9"}).replace("install ok installed", state)
    lay_out(tmp_path, {"/var/lib/dpkg/status": status})
    assert first(tmp_path) is None


def test_a_package_that_waits_for_triggers_is_installed(tmp_path: Path) -> None:
    status = dpkg({"libvirt": "9"}).replace("ok installed", "ok triggers-pending")
    lay_out(tmp_path, {"/var/lib/dpkg/status": status})
    assert first(tmp_path) == ("libvirt", "9", "dpkg")


def test_apk_s_packages_are_found(tmp_path: Path) -> None:
    text = "C:Q1x=\nP:musl\nV:1.2.5-r0\n\nC:Q1y=\nP:libvirt\nV:10.7.0-r2\nA:x86_64\n\n"
    lay_out(tmp_path, {"/lib/apk/db/installed": text})
    assert first(tmp_path) == ("libvirt", "10.7.0", "apk")


def test_pacman_s_packages_are_found(tmp_path: Path) -> None:
    local = "/var/lib/pacman/local"
    lay_out(
        tmp_path,
        {
            f"{local}/ALPM_DB_VERSION": "9",
            f"{local}/libvirt-python-1:11.3.0-1/desc": "",
            f"{local}/libvirt-1:11.3.0-1/desc": "%NAME%\nlibvirt\n",
            f"{local}/libvirt-daemon-1:1.0-1/files": "",
        },
    )
    assert first(tmp_path) == ("libvirt", "11.3.0", "pacman")


@pytest.mark.parametrize("place", ["/usr/lib/sysimage/rpm", "/var/lib/rpm"])
@pytest.mark.parametrize("wal", [False, True])
def test_rpm_s_packages_are_found(tmp_path: Path, place: str, *, wal: bool) -> None:
    headers = {"glibc": rpm_header("2.39"), "libvirt": rpm_header()}
    rpm_database(tmp_path / place.lstrip("/") / "rpmdb.sqlite", headers, wal=wal)
    assert first(tmp_path) == ("libvirt", "10.0.0", "rpm")
    left = {path.name for path in (tmp_path / place.lstrip("/")).iterdir()}
    assert left == {"rpmdb.sqlite"}


def test_an_rpm_database_without_the_package_has_none(tmp_path: Path) -> None:
    rpm_database(tmp_path / "var/lib/rpm/rpmdb.sqlite", {"glibc": rpm_header()})
    assert first(tmp_path) is None


@pytest.mark.parametrize("name", ["Packages", "Packages.db"])
def test_an_rpm_database_in_another_format_is_named(tmp_path: Path, name: str) -> None:
    lay_out(tmp_path, {f"/var/lib/rpm/{name}": b"\0\5\x16\x61"})
    with pytest.raises(Unreadable, match="an RPM database in another format"):
        first(tmp_path)


def test_another_database_than_the_damaged_one_counts(tmp_path: Path) -> None:
    lay_out(tmp_path, {"/var/lib/rpm/Packages": "", "/var/lib/dpkg/status": dpkg({"libvirt": "9"})})
    assert first(tmp_path) == ("libvirt", "9", "dpkg")


def test_no_database_is_no_answer(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"no package database \(dpkg, rpm, apk, pacman\)"):
        first(tmp_path)


def damaged() -> dict[str, bytes]:
    """Return headers that are malformed, each in its own way."""
    good = rpm_header()
    return {
        "empty": b"",
        "cut short": good[:30],
        "too many entries": struct.pack(">II", 0xFFFFFFFF, 8) + bytes(64),
        "no entries": struct.pack(">II", 0, 0),
        "offset behind the data": good[:32] + b"\xff\xff\xff\xff" + good[36:],
        "an endless string": good.replace(b"\0\x36.el10", b"").rstrip(b"\0") + b"x" * 300,
        "a number": good.replace(struct.pack(">II", 1001, 6), struct.pack(">II", 1001, 4)),
    }


@pytest.mark.parametrize("name", damaged())
def test_a_damaged_header_is_an_error(name: str) -> None:
    with pytest.raises((ValueError, struct.error)):
        version(damaged()[name][:8] + damaged()[name][8:])


@pytest.mark.parametrize("header", [b"", "text", 5, *damaged().values()], ids=str)
def test_a_damaged_database_is_unreadable(tmp_path: Path, header: object) -> None:
    rpm_database(tmp_path / "var/lib/rpm/rpmdb.sqlite", {"libvirt": header})
    with pytest.raises(Unreadable, match=r"^/var/lib/rpm/rpmdb.sqlite: no RPM database \("):
        first(tmp_path)


@pytest.mark.parametrize("end", range(0, 300, 7))
def test_every_truncation_of_a_header_is_an_error_or_the_version(end: int) -> None:
    header = rpm_header()
    try:
        found = version(header[:end])
    except (ValueError, struct.error):
        return
    assert end >= len(header) - 4
    assert found == "10.0.0-6.el10"


ENDLESS = (
    "CREATE VIEW Name AS WITH RECURSIVE n(x) AS (VALUES(1) UNION ALL SELECT x + 1 FROM n) "
    "SELECT 'y' || x AS key, x AS hnum FROM n"
)
HOSTILE = {
    "no headers": ["CREATE TABLE Name AS SELECT 'libvirt' AS key, 1 AS hnum"],
    "other tables": ["CREATE TABLE x (y)"],
    "dangling": [
        "CREATE TABLE Packages (hnum, blob)",
        "CREATE TABLE Name (key, hnum)",
        "INSERT INTO Name VALUES ('libvirt', 7)",
    ],
    "endless view": [ENDLESS],
    "many tables": [f"CREATE TABLE t{number} (x)" for number in range(300)],
    "a wide table": [f"CREATE TABLE x ({', '.join(f'c{number}' for number in range(40))})"],
    "a long statement": [f"CREATE TABLE x (y CHECK (y != '{'y' * 5000}'))"],
    "huge blob": [
        "CREATE VIEW Name AS SELECT 'libvirt' AS key, 1 AS hnum",
        "CREATE VIEW Packages AS SELECT 1 AS hnum, zeroblob(900000000) AS blob",
    ],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_database_ends(tmp_path: Path, name: str) -> None:
    path = tmp_path / "var/lib/rpm/rpmdb.sqlite"
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as database:
        for statement in HOSTILE[name]:
            database.execute(statement)
        database.commit()
    with pytest.raises(Unreadable, match="no RPM database"):
        first(tmp_path)


GENERATED = "CREATE TABLE Name (key TEXT, hnum INTEGER, idx INTEGER, x AS (hex(zeroblob(9))) {})"
VIRTUAL = "CREATE VIRTUAL TABLE x USING y(z)"
COMPUTED = {
    "view": ["CREATE VIEW Name AS SELECT 'libvirt' AS key, 1 AS hnum"],
    "another view": ["CREATE TABLE Name AS SELECT 'libvirt' AS key, 1 AS hnum",
                     "CREATE VIEW x AS SELECT 'a' LIKE '%a%a%b'"],
    "trigger": ["CREATE TABLE Name AS SELECT 'libvirt' AS key, 1 AS hnum",
                "CREATE TRIGGER x AFTER INSERT ON Name BEGIN SELECT 1; END"],
    "virtual table": ["CREATE TABLE Name AS SELECT 'libvirt' AS key, 1 AS hnum",
                      "PRAGMA writable_schema = ON",
                      f"INSERT INTO sqlite_master VALUES ('table', 'x', 'x', 0, '{VIRTUAL}')"],
    **{
        kind: [GENERATED.format(kind), "INSERT INTO Name VALUES ('libvirt', 1, 0)"]
        for kind in ("VIRTUAL", "STORED")
    },
}  # fmt: skip


@pytest.mark.parametrize("name", COMPUTED)
def test_a_database_that_computes_is_not_asked(tmp_path: Path, name: str) -> None:
    path = tmp_path / "var/lib/rpm/rpmdb.sqlite"
    rpm_database(path, {"libvirt": rpm_header()})
    with closing(sqlite3.connect(path)) as database:
        for statement in ("DROP TABLE Name", *COMPUTED[name]):
            database.execute(statement)
        database.commit()
    with pytest.raises(Unreadable, match=r"no RPM database \(ValueError\)"):
        first(tmp_path)


def test_the_indexes_of_a_database_are_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "var/lib/rpm/rpmdb.sqlite"
    rpm_database(path, {"libvirt": rpm_header()})
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE INDEX Name_key_idx ON Name (key)")
        database.execute("CREATE UNIQUE INDEX one ON Name (hnum)")
        database.execute("CREATE TABLE x (y TEXT PRIMARY KEY, z INTEGER UNIQUE)")
        database.commit()
    assert first(tmp_path) == ("libvirt", "10.0.0", "rpm")


def test_a_query_ends_with_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "var/lib/rpm/rpmdb.sqlite"
    rpm_database(path, {f"p{number}": b"" for number in range(2000)})
    assert first(tmp_path) is None
    clock = iter(range(100))  # a second between two looks
    monkeypatch.setattr(rpm, "thread_time", lambda: next(clock))
    with pytest.raises(Unreadable, match=r"no RPM database \(OperationalError\)"):
        first(tmp_path)
    assert next(clock) == rpm._SECONDS + 2


def test_a_header_of_any_size_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "var/lib/rpm/rpmdb.sqlite"
    rpm_database(path, {"libvirt": bytes(rpm._MAX_HEADER + 1)})
    with pytest.raises(Unreadable, match=r"no RPM database \(DataError\)"):
        first(tmp_path)


@pytest.mark.parametrize("unreadable", [False, True])
def test_a_database_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, unreadable: bool
) -> None:
    lay_out(tmp_path, {"/var/lib/dpkg/status": dpkg({"libvirt": "9"})})
    if unreadable:
        monkeypatch.setattr(packages, "_MAX_DATABASE", 5)
    reads = []
    read = Tree.read

    def counted(self: Tree, path: str, most: int = MAX_FILE) -> bytes | None:
        reads.append(path)
        return read(self, path, most)

    monkeypatch.setattr(Tree, "read", counted)
    found = Packages(Tree(str(tmp_path)))
    for names in (NAMES, packages.QEMU, packages.SELINUX):
        if unreadable:
            with pytest.raises(Unreadable, match="more than 5 bytes"):
                found.first(names)
        else:
            found.first(names)
    assert reads.count("/var/lib/dpkg/status") == 1


def test_packages_are_read_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_MAX_PACKAGES", 1)
    status = dpkg({"libvirt": "9", "libvirt-daemon": "9"})
    lay_out(tmp_path, {"/var/lib/dpkg/status": status})
    assert first(tmp_path) == ("libvirt", "9", "dpkg")


def test_a_package_is_read_to_a_bound(tmp_path: Path) -> None:
    text = (
        f"Package: libvirt\nVersion: {'1' * (1 << 20)}\nStatus: install ok installed\n\n"
        f"Package: libvirt-daemon\nVersion: {'2' * 9999}\nStatus: install ok installed"
    )
    lay_out(tmp_path, {"/var/lib/dpkg/status": text})
    assert first(tmp_path) == ("libvirt-daemon", "2" * 256, "dpkg")


def test_rubbish_in_place_of_a_database_is_unreadable(tmp_path: Path) -> None:
    lay_out(tmp_path, {"/var/lib/rpm/rpmdb.sqlite": b"\xff" * 9000})
    with pytest.raises(Unreadable, match="no RPM database"):
        first(tmp_path)
