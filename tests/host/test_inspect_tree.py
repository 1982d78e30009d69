"""host/inspect/tree.py: no file of a tree is read outside of it, blocks, or grows without end."""

import os
import socket
from pathlib import Path

import pytest

from sev_attest.host.inspect import Tree, tree
from sev_attest.host.inspect.tree import MAX_FILE, MAX_SETTINGS, Unreadable
from simulated_trees import lay_out


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a tree, with a secret beside it."""
    (tmp_path / "outside").write_text("outside")
    return lay_out(tmp_path / "root", {"/etc/a": "inside", "/deep/er/b": "b"})


def test_files_are_read_below_the_root(root: Path) -> None:
    assert Tree(str(root)).read("/etc/a") == b"inside"
    assert Tree(str(root)).text("etc/./../etc//a") == "inside"
    assert Tree(str(root)).read("/etc/none") is None
    assert Tree(str(root)).read("/none/at/all") is None
    assert Tree(str(root)).text("/none") is None
    assert Tree(str(root)).names("/none") is None
    assert Tree(str(root)).stat("/none") is None
    assert Tree(str(root)).label("/none") is None


@pytest.mark.parametrize(
    "target",
    [
        "/etc/a",
        "../etc/a",
        "../../../../etc/a",
        "/../../etc/a",
        "//etc//a",
        "hop",
        "/link/up/etc/a",
    ],
)
def test_a_link_stays_in_the_tree(root: Path, target: str) -> None:
    (root / "link").mkdir()
    (root / "link/hop").symlink_to("/link/next")
    (root / "link/next").symlink_to("../etc/a")
    (root / "link/up").symlink_to("/..")
    (root / "link/it").symlink_to(target)
    assert Tree(str(root)).read("/link/it") == b"inside"


@pytest.mark.parametrize("target", ["../outside", "../../outside", "/../outside", "{}/outside"])
def test_no_link_leads_out_of_the_tree(root: Path, target: str) -> None:
    (root / "etc/out").symlink_to(target.format(root.parent))
    (root / "up").symlink_to("..")
    assert Tree(str(root)).read("/etc/out") is None
    assert Tree(str(root)).read("/up/outside") is None
    assert Tree(str(root)).names("/up") == ["deep", "etc", "up"]


def test_a_folder_that_is_a_link_is_followed(root: Path) -> None:
    (root / "lib").symlink_to("deep/er")
    assert Tree(str(root)).read("/lib/b") == b"b"
    assert Tree(str(root)).names("/lib") == ["b"]
    assert Tree(str(root)).exists("/lib")


def test_links_in_a_loop_end(root: Path) -> None:
    (root / "one").symlink_to("two")
    (root / "two").symlink_to("/one")
    (root / "self").symlink_to("self/self")
    for path in ("/one", "/two", "/self", "/one/x"):
        with pytest.raises(Unreadable, match=f"^{path}: Too many levels of symbolic links$"):
            Tree(str(root)).read(path)


def test_a_path_of_many_folders_ends(root: Path) -> None:
    path = "/".join("a" for _ in range(70))
    (root / path).mkdir(parents=True)
    with pytest.raises(Unreadable, match="more than 64 folders deep"):
        Tree(str(root)).names(path)


def test_only_regular_files_are_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(root)
        listening.bind("socket")
        for path, words in {
            "/fifo": "no regular",
            "/socket": "no regular",
            "/etc": "a fold",
        }.items():
            with pytest.raises(Unreadable, match=f"^{path}: is {words}"):
                Tree(str(root)).read(path)
        for path in ("/fifo", "/socket", "/etc/a"):
            with pytest.raises(Unreadable, match="Not a directory"):
                Tree(str(root)).names(path)
    with pytest.raises(Unreadable, match="is no regular file"):
        Tree("/").read("/dev/null")


def test_a_file_that_becomes_a_pipe_meanwhile_is_not_read(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(root / "fifo")
    found = (root / "fifo").stat()
    monkeypatch.setattr(os, "fstat", lambda _file: found)
    with pytest.raises(Unreadable, match="is no regular file"):
        Tree(str(root)).read("/etc/a")


def test_a_file_in_place_of_a_folder_is_named(root: Path) -> None:
    with pytest.raises(Unreadable, match=r"^/etc/a/b: Not a directory$"):
        Tree(str(root)).read("/etc/a/b")


def test_a_huge_file_is_not_read(root: Path) -> None:
    with (root / "huge").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(Unreadable, match=f"more than {MAX_FILE} bytes"):
        Tree(str(root)).read("/huge")
    assert Tree(str(root)).read("/etc/a", 6) == b"inside"
    with pytest.raises(Unreadable, match="more than 5 bytes"):
        Tree(str(root)).read("/etc/a", 5)


def test_a_folder_of_many_names_is_not_listed(root: Path) -> None:
    lay_out(root, {f"/two/{name}": "" for name in "ab"} | {f"/three/{name}": "" for name in "abc"})
    assert Tree(str(root)).names("/two", 2) == ["a", "b"]
    with pytest.raises(Unreadable, match="more than 2 names"):
        Tree(str(root)).names("/three", 2)


SETTINGS = ("/etc/x.d", "/run/x.d", "/usr/x.d")


def test_of_settings_the_first_folder_s_count(root: Path) -> None:
    lay_out(root, {"/run/x.d/b.conf": "b", "/usr/x.d/b.conf": "2", "/usr/x.d/a.conf": "a",
                   "/usr/x.d/c.txt": "c", "/usr/x.d/d.conf": "d", "/usr/x.d/e.conf": "e",
                   "/dev/tty": ""})  # fmt: skip
    (root / "run/x.d/d.conf").symlink_to("/dev/null")
    assert [*Tree(str(root)).collected(SETTINGS, ".conf")] == [
        ("/usr/x.d/a.conf", b"a"),
        ("/run/x.d/b.conf", b"b"),
        ("/usr/x.d/e.conf", b"e"),
    ]


def test_a_setting_that_is_the_null_device_is_none(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(root, {"/etc/x.d/a.conf": "a", "/usr/x.d/a.conf": "2"})
    null = Path("/dev/null").stat()
    monkeypatch.setattr(Tree, "stat", lambda *_: null)
    assert [*Tree(str(root)).collected(SETTINGS, ".conf")] == []


def test_settings_are_bounded_as_a_whole(root: Path) -> None:
    lay_out(root, {f"/etc/x.d/{name}.conf": "12345" for name in "abc"})
    assert len([*Tree(str(root)).collected(SETTINGS, ".conf", whole=15)]) == 3
    with pytest.raises(Unreadable, match=r"^/etc/x.d/c.conf: with those before it, too many"):
        [*Tree(str(root)).collected(SETTINGS, ".conf", whole=14)]
    with pytest.raises(Unreadable, match=r"^/etc/x.d/a.conf: more than 4 bytes"):
        [*Tree(str(root)).collected(SETTINGS, ".conf", 4)]
    lay_out(root, {f"/usr/x.d/{number}": "" for number in range(MAX_SETTINGS + 1)})
    with pytest.raises(Unreadable, match=f"^/usr/x.d: more than {MAX_SETTINGS} names"):
        [*Tree(str(root)).collected(SETTINGS, ".conf")]


def test_a_tree_is_bounded_as_a_whole(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "_MAX_BYTES", 20)
    looked = Tree(str(root))
    for _ in range(3):
        looked.read("/etc/a")
    with pytest.raises(Unreadable, match=r"^/etc/a: after 20 bytes, nothing more is read$"):
        looked.read("/etc/a")
    assert looked.names("/etc") == ["a"]
    monkeypatch.setattr(tree, "_MAX_STEPS", 7)
    looked = Tree(str(root))
    for _ in range(2):
        looked.stat("/etc/a")
    with pytest.raises(Unreadable, match=r"^/etc/a: too many folders and links on the way"):
        looked.stat("/etc/a")
    assert Tree(str(root)).exists("/etc/a")


def test_the_way_to_a_file_is_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, count = os.open, 0

    def counted(path: str, flags: int, **options: int) -> int:
        nonlocal count
        count += 1
        return opened(path, flags, **options)

    monkeypatch.setattr(os, "open", counted)
    for number in range(30):
        (root / f"k{number}").symlink_to(f"{'etc/../' * 300}k{number + 1}")
    with pytest.raises(Unreadable, match=r"^/k0: too many folders and links on the way"):
        Tree(str(root)).read("/k0")
    assert count <= 513


def test_a_size_that_is_too_large_is_known_without_reading(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "read", lambda *_: pytest.fail("it was read"))
    with pytest.raises(Unreadable, match="more than 5 bytes"):
        Tree(str(root)).read("/etc/a", 5)


def test_what_has_no_size_is_read_to_the_bound() -> None:
    assert Tree().read("/proc/self/status")
    with pytest.raises(Unreadable, match="more than 5 bytes"):
        Tree().read("/proc/self/status", 5)


def test_what_must_not_be_read_says_how(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def refuse(path: str, flags: int, **options: int) -> int:
        if path == "a":
            raise PermissionError(13, "Permission denied")
        return opened(path, flags, **options)

    monkeypatch.setattr(os, "open", refuse)  # root may read all
    with pytest.raises(Unreadable, match=r"^/etc/a: Permission denied$") as caught:
        Tree(str(root)).read("/etc/a")
    assert caught.value.hint == "run this as root"


def test_binary_rubbish_is_text_with_replacements(root: Path) -> None:
    (root / "rubbish").write_bytes(b"\xff\xfe\0a")
    assert Tree(str(root)).text("/rubbish") == "\ufffd\ufffd\0a"


def test_a_name_too_long_and_a_root_that_is_gone_are_errors(root: Path) -> None:
    with pytest.raises(Unreadable, match="File name too long"):
        Tree(str(root)).read("/" + "a" * 300)
    with pytest.raises(Unreadable, match="No such file or directory"):
        Tree(str(root / "gone")).read("/a")


def test_the_root_itself_and_the_way_up_are_folders(root: Path) -> None:
    assert Tree(str(root)).names("/") == Tree(str(root)).names("/etc/../..") == ["deep", "etc"]
    assert Tree(str(root)).names("/deep/er/..") == ["er"]


def test_no_descriptor_is_left_open(root: Path) -> None:
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 - names suffice
    (root / "one").symlink_to("one")
    for path in ("/etc/a", "/none", "/etc/a/b", "/one", "/etc"):
        for look in (Tree(str(root)).read, Tree(str(root)).names, Tree(str(root)).label):
            try:
                look(path)
            except Unreadable:
                continue
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208


def test_a_label_is_that_of_the_file_in_the_tree(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def label(path: str, name: str) -> bytes:
        assert name == "security.selinux"
        assert os.path.realpath(path) == str(root / "etc/a")
        return b"system_u:object_r:sev_device_t:s0\0"

    monkeypatch.setattr(os, "getxattr", label)
    assert Tree(str(root)).label("/etc/a") == "system_u:object_r:sev_device_t:s0"
    monkeypatch.undo()

    def none(path: str, name: str) -> bytes:
        raise OSError(61, "No data available")

    monkeypatch.setattr(os, "getxattr", none)
    assert Tree(str(root)).label("/etc/a") is None


def test_only_the_running_root_is_live(root: Path) -> None:
    assert Tree().live
    assert Tree("//").live
    assert not Tree(str(root)).live
